"""Taking over the models of Ollama and LM Studio by links, from folders laid out as theirs are."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hybridd.config import gguf_files
from hybridd.errors import NotFound
from hybridd.local import imports, library
from hybridd.local.library import Folders

BODY = b"GGUF" + bytes(500)
MODEL = "application/vnd.ollama.image.model"


class Theirs:
    """An Ollama folder beside our models folder."""

    def __init__(self, home: Path) -> None:
        self.root = home / "ollama"
        self.models = home / "models"
        self.home = home

    def manifest(self, name: str, *layers: object) -> Path:
        path = self.root / "manifests" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"schemaVersion": 2, "layers": layers}))
        return path

    def layer(self, body: bytes = BODY, kind: str = MODEL) -> dict[str, object]:
        digest = hashlib.sha256(body).hexdigest()
        blob = self.root / "blobs" / f"sha256-{digest}"
        blob.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(body)
        return {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(body)}

    def take(self, **options: bool) -> list[tuple[str, str, str]]:
        done = imports.ollama(self.root, self.models, **options)
        return [(one.name, one.state, Path(one.link).name or one.reason) for one in done]

    def links(self) -> list[str]:
        return sorted(str(path.relative_to(self.models)) for path in self.models.rglob("*") if not path.is_dir())


@pytest.fixture
def theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Theirs:
    monkeypatch.setenv("HYBRIDD_STATE_DIR", str(tmp_path / "state"))
    return Theirs(tmp_path)


def test_ollamas_models_become_links_with_names_of_their_own(theirs: Theirs) -> None:
    """Model and tag make the name; other namespaces and hosts stay in it; a projector is linked beside its model."""
    theirs.manifest("registry.ollama.ai/library/qwen3/4b", theirs.layer(), theirs.layer(b"GGUFp", imports._PROJECTOR))
    theirs.manifest("registry.ollama.ai/library/llama3/latest", theirs.layer(BODY + b"1"))
    theirs.manifest("hf.co/acme/tiny-GGUF/Q4_K_M", theirs.layer(BODY + b"2"))
    assert theirs.take() == [
        ("hf.co/acme/tiny-GGUF:Q4_K_M", "linked", "hf.co-acme-tiny-GGUF-Q4_K_M.gguf"),
        ("llama3:latest", "linked", "llama3.gguf"),
        ("qwen3:4b", "linked", "qwen3-4b.gguf"),
        ("qwen3:4b", "linked", "mmproj-qwen3-4b.gguf"),
    ]
    found = {one.id: one for one in library.models(Folders(theirs.models, theirs.home / "cache"))}
    assert sorted(found) == ["hf.co-acme-tiny-GGUF-Q4_K_M", "llama3", "qwen3-4b"]
    assert (found["qwen3-4b"].source, found["qwen3-4b"].bytes) == ("ollama", len(BODY))
    assert found["qwen3-4b"].sha256 == hashlib.sha256(BODY).hexdigest()
    assert (theirs.models / "ollama/qwen3-4b.gguf").is_symlink()


def test_importing_again_changes_nothing_and_follows_a_tag_that_moved(theirs: Theirs) -> None:
    """The second time everything is there; after an update of theirs the link leads to the new content."""
    theirs.manifest("registry.ollama.ai/library/qwen3/4b", theirs.layer())
    assert [state for _, state, _ in theirs.take()] == ["linked"]
    assert [state for _, state, _ in theirs.take()] == ["there"]
    theirs.manifest("registry.ollama.ai/library/qwen3/4b", theirs.layer(BODY + b"new"))
    assert [state for _, state, _ in theirs.take()] == ["updated"]
    assert (theirs.models / "ollama/qwen3-4b.gguf").read_bytes() == BODY + b"new"


def test_a_dry_run_makes_nothing_and_says_the_same(theirs: Theirs) -> None:
    """What would be linked is named; no folder appears."""
    theirs.manifest("registry.ollama.ai/library/qwen3/4b", theirs.layer())
    planned = theirs.take(dry_run=True)
    assert not theirs.models.exists()
    assert planned == theirs.take()


def test_hard_links_survive_the_removal_of_theirs(theirs: Theirs) -> None:
    """With --hard the content stays when the other program deletes its own name of it."""
    theirs.manifest("registry.ollama.ai/library/qwen3/4b", theirs.layer())
    theirs.take(hard=True)
    shutil.rmtree(theirs.root)
    assert (theirs.models / "ollama/qwen3-4b.gguf").read_bytes() == BODY


def test_somebody_elses_file_of_the_name_is_left_alone(theirs: Theirs) -> None:
    """A file that is there already under the link's name is neither replaced nor called ours."""
    theirs.manifest("registry.ollama.ai/library/qwen3/4b", theirs.layer())
    mine = theirs.models / "ollama/qwen3-4b.gguf"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"mine")
    ((_, state, reason),) = theirs.take()
    assert (state, "something else" in reason, mine.read_bytes()) == ("skipped", True, b"mine")


@pytest.mark.parametrize(
    "digest",
    ["sha256:../../../../etc/passwd", "sha256:" + "A" * 64, "sha256:" + "a" * 63, "sha256-" + "a" * 64, "", None, 7,
     "sha256:" + "a" * 64 + "/../../x", "sha256:" + "a" * 64 + "\n"],
)  # fmt: skip
def test_a_digest_that_is_none_never_becomes_a_path(theirs: Theirs, digest: object) -> None:
    """Only `sha256:` and 64 digits name a blob; the model is skipped with the reason, the others are linked."""
    theirs.manifest("registry.ollama.ai/library/evil/1", {"mediaType": MODEL, "digest": digest, "size": 1})
    theirs.manifest("registry.ollama.ai/library/fine/1", theirs.layer())
    states = {name: state for name, state, _ in theirs.take()}
    assert states == {"evil:1": "skipped", "fine:1": "linked"}
    assert theirs.links() == ["ollama/fine-1.gguf"]


def test_what_is_no_model_is_skipped_with_its_reason(theirs: Theirs) -> None:
    """Lost blobs, wrong sizes, content that is no GGUF, several or no model layers, and manifests that are none."""
    lost = theirs.layer(BODY + b"lost")
    (theirs.root / "blobs" / str(lost["digest"]).replace(":", "-")).unlink()
    theirs.manifest("h/n/lost/1", lost)
    theirs.manifest("h/n/short/1", {**theirs.layer(BODY + b"s"), "size": 3})
    theirs.manifest("h/n/zip/1", theirs.layer(b"PK\x03\x04"))
    theirs.manifest("h/n/two/1", theirs.layer(BODY + b"a"), theirs.layer(BODY + b"b"))
    theirs.manifest("h/n/none/1")
    theirs.manifest("h/n/torn/1").write_text("{")
    theirs.manifest("h/n/huge/1").write_text(" " * (1 << 20) + "{}")
    reasons = {name.partition(":")[0].rpartition("/")[2]: reason for name, _, reason in theirs.take()}
    words = {
        "lost": "is not there", "short": "its manifest says 3", "zip": "no GGUF", "two": "2 model layers",
        "none": "0 model layers", "torn": "cannot be read", "huge": "too large",
    }  # fmt: skip
    assert {name: words[name] in reason for name, reason in reasons.items()} == dict.fromkeys(words, True)
    assert not theirs.models.exists()


def test_pipes_and_folders_are_never_opened(theirs: Theirs, tmp_path: Path) -> None:
    """A blob or a file that is no regular one is skipped; nothing waits for a writer."""
    layer = theirs.layer()
    blob = theirs.root / "blobs" / str(layer["digest"]).replace(":", "-")
    blob.unlink()
    os.mkfifo(blob)
    theirs.manifest("h/n/pipe/1", layer)
    assert [state for _, state, _ in theirs.take()] == ["skipped"]
    (tmp_path / "lm/p/r").mkdir(parents=True)
    os.mkfifo(tmp_path / "lm/p/r/pipe.gguf")
    (done,) = imports.lm_studio(tmp_path / "lm", theirs.models)
    assert (done.state, done.reason) == ("skipped", "it is no regular file")


def test_lm_studios_files_keep_their_names_and_parts(theirs: Theirs, tmp_path: Path) -> None:
    """Publisher and repository are folders, a split model keeps its parts, and a name used twice gets its
    publisher."""
    root = tmp_path / "lm"
    for name in (
        "a/one/m-Q4_K_M.gguf",
        "b/two/m-Q4_K_M.gguf",
        "a/big/x-00001-of-00002.gguf",
        "a/big/x-00002-of-00002.gguf",
        "a/one/mmproj-m.gguf",
        "a/one/readme.md",
        ".hidden/c/h.gguf",
    ):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(BODY + name.encode())
    assert {one.state for one in imports.lm_studio(root, theirs.models)} == {"linked"}
    assert sorted(gguf_files.find([theirs.models])) == ["b-m-Q4_K_M", "m-Q4_K_M", "x"]
    split = next(one for one in library.models(Folders(theirs.models, tmp_path / "c")) if one.id.startswith("x"))
    assert (len(split.files), split.missing, split.source) == (2, [], "lm_studio")
    assert {one.state for one in imports.lm_studio(root, theirs.models)} == {"there"}


def test_a_folder_that_is_not_theirs_is_an_error(tmp_path: Path) -> None:
    """Without manifests it is no Ollama folder; without a folder there is nothing to link."""
    with pytest.raises(NotFound, match="no folder 'manifests'"):
        imports.ollama(tmp_path, tmp_path / "m")
    with pytest.raises(NotFound, match="there is no folder"):
        imports.lm_studio(tmp_path / "none", tmp_path / "m")


_PART = st.text(alphabet="abAB.-_ ~$%é\\\n:*?<>|\"'", min_size=1, max_size=12).filter(
    lambda text: text not in {".", ".."} and len(text.encode()) < 100
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.tuples(_PART, _PART, _PART, _PART), data=st.data())
def test_whatever_they_call_it_the_link_lies_in_our_folder(
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    steps: tuple[str, ...],
    data: st.DataObject,
) -> None:
    """Names of theirs in any characters end as one plain name below our folder, and theirs stays untouched."""
    home = tmp_path_factory.mktemp("import")
    monkeypatch.setenv("HYBRIDD_STATE_DIR", str(home / "state"))
    theirs = Theirs(home)
    theirs.manifest("/".join(steps), theirs.layer())
    before = sorted(theirs.root.rglob("*"))
    theirs.take()
    assert sorted(theirs.root.rglob("*")) == before
    written = [path for path in home.rglob("*") if not path.is_dir() and not path.is_relative_to(theirs.root)]
    ours = [path for path in written if not path.is_relative_to(home / "state")]
    assert all(path.parent == theirs.models / "ollama" for path in ours)
    assert all(
        set(path.name) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") for path in ours
    )
