"""What a name of a model means: a file, a model of this machine, the Hub, or a web server."""

from __future__ import annotations

from pathlib import Path

import pytest

from hybridd.errors import InvalidRequest, NotFound
from hybridd.local.library import Folders
from hybridd.local.named import OnDisk, OnHub, OnWeb, elsewhere, meaning, on_hub


@pytest.mark.parametrize(
    ("text", "means"),
    [
        ("o/n", OnHub("o/n")),
        ("o/n:Q4_K_M", OnHub("o/n", "Q4_K_M")),
        ("o/n/folder/f.gguf", OnHub("o/n", "folder/f.gguf")),
        ("hf.co/o/n:Q8_0", OnHub("o/n", "Q8_0")),
        ("https://huggingface.co/o/n", OnHub("o/n")),
        ("https://huggingface.co/o/n/", OnHub("o/n")),
        ("https://huggingface.co/o/n/tree/main", OnHub("o/n", None, "main")),
        ("https://huggingface.co/o/n/blob/v1.0/a%20b.gguf?x=1", OnHub("o/n", "a b.gguf", "v1.0")),
        ("https://hub.example:8443/o/n/resolve/main/f.gguf", OnHub("o/n", "f.gguf", "main")),
        ("https://files.example/x/y.gguf?sig=1", OnWeb("https://files.example/x/y.gguf?sig=1")),
    ],
)
def test_what_is_elsewhere(text: str, means: OnHub | OnWeb, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names and pages of the Hub (also of HF_ENDPOINT) are the Hub's; any other address is a file on the web."""
    monkeypatch.setenv("HF_ENDPOINT", "https://hub.example:8443/")
    assert elsewhere(text) == means


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "../../etc", "a b/c", "o/na..me", "o/n/../x.gguf", "o/n:../x",
        "https://huggingface.co/o/n/discussions", "https://huggingface.co/../../etc/blob/main/x",
        "https://huggingface.co/o/n/blob/../x.gguf", "https://huggingface.co/o/n/resolve/main/%2e%2e/x.gguf",
        "ftp://huggingface.co/o/n", "https:///x.gguf", "https://files.example/page.html", "http://[::1/x.gguf",
    ],
)  # fmt: skip
def test_what_is_no_name(text: str) -> None:
    """Refused, whatever would become of it later."""
    with pytest.raises(InvalidRequest):
        elsewhere(text)


def test_a_secret_in_an_address_is_not_repeated() -> None:
    """Neither the query nor the user stands in the sentence."""
    with pytest.raises(InvalidRequest) as caught:
        on_hub("https://me:secret@files.example/x.gguf?signature=secret")
    assert "secret" not in caught.value.message


def test_what_is_here_goes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is there is meant before anything else; a path that is not is never taken for a repository."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))

    def nowhere() -> Folders:
        return Folders(tmp_path / "models", tmp_path / "cache", None)

    (tmp_path / "o").mkdir()
    (tmp_path / "o" / "n").write_bytes(b"GGUF")
    assert meaning("o/n", nowhere) == OnDisk("n", Path("o/n"))
    with pytest.raises(NotFound):
        meaning("./o/m", nowhere)
    with pytest.raises(InvalidRequest, match="is a folder"):
        meaning("./o", nowhere)
    with pytest.raises(InvalidRequest, match="No model is named"):
        meaning("", nowhere)
