"""Keys are found where the reference says, in the plugin's process, and never repeated in an error."""

from __future__ import annotations

import pytest

from hybridd.plugin import KeyUnavailable, resolve_key


def test_each_kind_of_reference(tmp_path, monkeypatch):
    """Environment, file, systemd credential and command all give the key without surrounding space."""
    (tmp_path / "key").write_text("from-file\n")
    (tmp_path / "cred").write_text("from-credential")
    monkeypatch.setenv("THE_KEY", " from-env ")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert resolve_key({"env": "THE_KEY"}) == "from-env"
    assert resolve_key({"file": str(tmp_path / "key")}) == "from-file"
    assert resolve_key({"credential": "cred"}) == "from-credential"
    assert resolve_key({"command": ["echo", "from-command"]}) == "from-command"
    assert resolve_key(None) is None
    assert resolve_key({}) is None


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ({"env": "NOT_THERE"}, "environment variable NOT_THERE is not set"),
        ({"env": "EMPTY"}, "env EMPTY is empty"),
        ({"env": "TWO_LINES"}, "control characters"),
        ({"file": "/nowhere/key"}, "file /nowhere/key: No such file"),
        ({"credential": "x"}, "CREDENTIALS_DIRECTORY is not set"),
        ({"command": ["/nowhere/tool"]}, "command /nowhere/tool"),
        ({"command": ["sh", "-c", "echo sk-secret; exit 3"]}, "exited with 3"),
        ({"other": "x"}, "one of env, file"),
    ],
)
def test_a_missing_key_says_where_it_was_looked_for(monkeypatch, reference, message):
    """The error names the place and never holds what was found there."""
    monkeypatch.setenv("EMPTY", "  ")
    monkeypatch.setenv("TWO_LINES", "sk-secret\nx")
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    with pytest.raises(KeyUnavailable, match=message.replace("[", r"\[")) as caught:
        resolve_key(reference)
    assert "sk-secret" not in str(caught.value).replace(" ".join(reference.get("command", [])), "")


def test_credential_names_are_plain(monkeypatch, tmp_path):
    """A credential's name cannot climb out of its directory."""
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    with pytest.raises(KeyUnavailable, match="plain name"):
        resolve_key({"credential": "../key"})
