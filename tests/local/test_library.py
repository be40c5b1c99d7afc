"""The list of model files, removal, collection and verification, on real folders."""

from __future__ import annotations

import fcntl
import hashlib
import multiprocessing
import os
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridd.config.loader import read as read_settings
from hybridd.errors import InvalidRequest, NotFound, StateError
from hybridd.local import index, library, names, removal, verify
from hybridd.local.library import Folders, Model

COMMIT = "0123456789abcdef0123456789abcdef01234567"
OTHER = "76543210fedcba9876543210fedcba9876543210"
BODY = b"GGUF" + bytes(1000)


@pytest.fixture
def where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folders:
    monkeypatch.setenv("HYBRIDD_STATE_DIR", str(tmp_path / "state"))
    folders = Folders(tmp_path / "models", tmp_path / "cache")
    folders.models.mkdir()
    folders.hub.mkdir()
    return folders


def put(folder: Path, name: str, body: bytes = BODY) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(body)
    return path


def cached(where: Folders, name: str, body: bytes = BODY, *, commit: str = COMMIT, repo: str = "acme--tiny") -> Path:
    """A file in the Hub's cache layout; its pointer."""
    home = where.hub / f"models--{repo}"
    blob = put(home / "blobs", hashlib.sha256(body).hexdigest(), body)
    pointer = home / "snapshots" / commit / name
    pointer.parent.mkdir(parents=True, exist_ok=True)
    pointer.symlink_to(os.path.relpath(blob, pointer.parent))
    put(home / "refs", "main", commit.encode())
    return pointer


def ids(where: Folders) -> list[str]:
    return [model.id for model in library.models(where)]


def only(where: Folders) -> Model:
    (model,) = library.models(where)
    return model


def test_models_come_from_both_folders_and_the_configured_file(where: Folders, tmp_path: Path) -> None:
    """A model is named by its file's stem, wherever it lies; projectors and other files are no models."""
    put(where.models, "sub/one-Q4_K_M.gguf")
    put(where.models, "mmproj-one.gguf")
    put(where.models, "notes.txt")
    cached(where, "two-Q8_0.gguf", BODY + b"2")
    far = put(tmp_path, "far/three.gguf", BODY + b"3")
    found = library.models(msgspec.structs.replace(where, default=far))
    assert [(one.id, one.quantization, one.source) for one in found] == [
        ("one-Q4_K_M", "Q4_K_M", "file"),
        ("three", "", "file"),
        ("two-Q8_0", "Q8_0", "hub"),
    ]
    assert (found[2].repo, found[2].revision) == ("acme/tiny", COMMIT)


def test_a_file_with_several_names_is_one_model_with_aliases(where: Folders) -> None:
    """Hard and symbolic links to the same content are listed once; every name finds it."""
    first = put(where.models, "a.gguf")
    os.link(first, where.models / "b.gguf")
    (where.models / "c.gguf").symlink_to(first)
    model = only(where)
    assert (model.id, model.aliases) == ("a", ["b", "c"])
    assert library.find([model], "c").id == library.find([model], "local:b").id == "a"


def test_a_split_model_is_one_and_says_which_parts_are_missing(where: Folders) -> None:
    """The parts count together; a lost one is named."""
    for number in (1, 2, 3):
        put(where.models, f"big-0000{number}-of-00003.gguf")
    model = only(where)
    assert (len(model.files), model.bytes, model.missing) == (3, 3 * len(BODY), [])
    (where.models / "big-00002-of-00003.gguf").unlink()
    assert only(where).missing == ["big-00002-of-00003.gguf"]


def test_names_that_are_not_here_are_answered_with_the_nearest(where: Folders) -> None:
    """An id, an alias, a file name in any case, a path and a repository find a model; anything else is named near."""
    put(where.models, "one-Q4_K_M.gguf")
    cached(where, "two-Q8_0.gguf", BODY + b"2")
    known = library.models(where)
    for name in ("one-Q4_K_M", "ONE-q4_k_m.GGUF", str(where.models / "one-Q4_K_M.gguf")):
        assert library.find(known, name).id == "one-Q4_K_M"
    assert library.find(known, "acme/tiny").id == "two-Q8_0"
    with pytest.raises(NotFound, match="the nearest: one-Q4_K_M"):
        library.find(known, "one-Q4_K_S")


def test_the_folders_are_the_providers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The list looks where the provider `local` looks, relative paths included."""
    monkeypatch.setenv("HYBRIDD_BASE", str(tmp_path))
    file = put(tmp_path, "c.json", b'{"local": {"models_dir": "m", "default_model": "x/y.gguf"}}')
    found = library.folders(read_settings(file))
    assert (found.models, found.hub) == (tmp_path / "m", tmp_path / "logs/ml_cache")
    assert found.default == tmp_path / "x/y.gguf"


# ---- removal -------------------------------------------------------------------------------------------------------


def remove(model: Model, where: Folders) -> int:
    return sum(one.bytes for one in removal.remove(removal.plan_removal(model, where), where))


def test_removing_a_hub_model_takes_its_link_and_the_content_nobody_else_needs(where: Folders) -> None:
    """The blob goes with the last link to it; empty folders and the reference to them go too, others stay."""
    cached(where, "one.gguf")
    cached(where, "two.gguf", BODY + b"2")
    known = {model.id: model for model in library.models(where)}
    assert remove(known["one"], where) == len(BODY)
    assert ids(where) == ["two"]
    assert remove(known["two"], where) == len(BODY) + 1
    assert [path for path in where.hub.rglob("*") if not path.is_dir()] == []
    assert not (where.hub / "models--acme--tiny/snapshots" / COMMIT).exists()


def test_content_that_another_snapshot_needs_stays(where: Folders) -> None:
    """Two commits share a blob: removing the model of one leaves the other whole."""
    cached(where, "one.gguf")
    cached(where, "renamed.gguf", commit=OTHER)
    model = only(where)
    assert [one.why for one in removal.plan_removal(model, where)] == ["link of the Hub's cache"]
    assert remove(model, where) == 0
    assert [Path(one.path).read_bytes() for one in library.models(where)] == [BODY]


def test_a_link_is_removed_and_never_followed(where: Folders, tmp_path: Path) -> None:
    """Of an imported model only the link goes."""
    target = put(tmp_path, "ollama/blobs/x")
    (where.models / "one.gguf").symlink_to(target)
    assert remove(only(where), where) == 0
    assert (ids(where), target.read_bytes()) == ([], BODY)


def test_a_hard_link_frees_nothing_until_the_last(where: Folders, tmp_path: Path) -> None:
    """Bytes are counted as freed only when no other name holds them."""
    os.link(put(tmp_path, "theirs.gguf"), where.models / "one.gguf")
    assert remove(only(where), where) == 0


def test_files_outside_the_folders_are_refused(where: Folders, tmp_path: Path) -> None:
    """The configured model elsewhere, and a folder that is a link to elsewhere, are not hybridd's to remove."""
    far = put(tmp_path, "far/three.gguf")
    (model,) = library.models(msgspec.structs.replace(where, default=far))
    with pytest.raises(InvalidRequest, match="lies outside"):
        removal.plan_removal(model, where)
    (where.models / "sub").symlink_to(far.parent)
    sly = removal.Removal(str(where.models / "sub" / "three.gguf"), 0, "")
    with pytest.raises(InvalidRequest, match="lies outside"):
        removal.remove([sly], where)
    assert far.exists()


def test_collection_takes_what_nothing_refers_to_and_nothing_else(where: Folders) -> None:
    """Partial files, blobs without a link and links to nothing go; the rest of the bytes stays as it was."""
    kept = cached(where, "one.gguf")
    blobs = where.hub / "models--acme--tiny" / "blobs"
    put(blobs, "a" * 64 + ".incomplete", bytes(100))
    put(blobs, "b" * 64 + ".1234abcd.incomplete", bytes(10))
    put(blobs, "c" * 64, bytes(1))
    (kept.parent / "gone.gguf").symlink_to("../../blobs/" + "d" * 64)
    (where.models / "lost.gguf").symlink_to(where.models / "nowhere")
    put(where.models, "mine.gguf", BODY + b"m")
    found = removal.plan_collection(where)
    assert sum(one.bytes for one in found) == 111
    assert len(found) == 5
    assert removal.remove(found, where) == found
    assert removal.plan_collection(where) == []
    assert ids(where) == ["mine", "one"]
    assert kept.read_bytes() == BODY


def test_collection_leaves_a_running_download_alone(where: Folders) -> None:
    """While a blob's lock is held, its partial file is nobody's to take; also when it began after the look."""
    cached(where, "one.gguf")
    partial = put(where.hub / "models--acme--tiny/blobs", "a" * 64 + ".incomplete")
    planned = removal.plan_collection(where)
    lock = put(where.hub / ".locks/models--acme--tiny", "a" * 64 + ".lock", b"")
    with lock.open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert removal.plan_collection(where) == []
        assert removal.remove(planned, where) == []
    assert partial.exists()
    assert [one.path for one in removal.remove(planned, where)] == [str(partial)]


def test_content_that_got_a_link_after_the_look_stays(where: Folders) -> None:
    """A download that ended between looking and removing keeps its blob."""
    blob = put(where.hub / "models--acme--tiny/blobs", hashlib.sha256(BODY).hexdigest())
    planned = removal.plan_collection(where)
    assert [one.path for one in planned] == [str(blob)]
    cached(where, "one.gguf")
    assert removal.remove(planned, where) == []
    assert blob.exists()


# ---- verification and the index ------------------------------------------------------------------------------------


def test_a_changed_file_is_found_whoever_recorded_its_digest(where: Folders) -> None:
    """The blob's own name, else the index, says what the content was; the first time it is only kept."""
    pointer = cached(where, "one.gguf")
    plain = put(where.models, "two.gguf", BODY + b"2")
    state = check(where)
    assert state == {"one.gguf": "intact", "two.gguf": "recorded"}
    assert check(where) == {"one.gguf": "intact", "two.gguf": "intact"}
    for path in (Path(os.path.realpath(pointer)), plain):
        path.write_bytes(path.read_bytes()[:-1] + b"!")
    assert check(where) == {"one.gguf": "changed", "two.gguf": "changed"}


def check(where: Folders) -> dict[str, str]:
    entries = index.read()
    checked = [one for model in library.models(where, entries) for one in verify.verify(model, entries, "")]
    verify.remember(checked, entries)
    return {Path(one.file).name: one.state for one in checked}


def test_a_broken_header_and_a_missing_part_are_told_with_the_digest_right(where: Folders) -> None:
    """The header's problem is shown although the content is what it was; a missing part is a finding of its own."""
    put(where.models, "big-00001-of-00002.gguf")
    (model,) = library.models(where)
    states = [(one.state, one.problem) for one in verify.verify(model, {}, "magic at 0: not GGUF")]
    assert states == [("missing", "a part is missing"), ("broken", "magic at 0: not GGUF")]


def test_the_index_believes_an_entry_only_for_the_same_file(where: Folders) -> None:
    """After the file changed, its recorded digest is not shown as its digest."""
    path = put(where.models, "one.gguf")
    index.record({path: index.made(path, source="file", sha256="a" * 64)})
    assert only(where).sha256 == "a" * 64
    path.write_bytes(BODY + b"more")
    assert only(where).sha256 is None


def test_a_broken_index_is_an_error_and_never_an_empty_one(where: Folders) -> None:
    """Garbage in the index is named with its file; it is not overwritten by the next record."""
    file = put(index.path_of_index().parent, "library.json", b"{")
    with pytest.raises(StateError, match=r"library\.json"):
        index.read()
    with pytest.raises(StateError):
        index.record({file: None})
    assert file.read_bytes() == b"{"


def _record(folder: str, number: int) -> None:
    path = put(Path(folder), f"{number}.gguf")
    index.record({path: index.made(path, source="file")}, Path(folder) / "library.json")


def test_many_processes_record_at_once_and_nothing_is_lost(tmp_path: Path) -> None:
    """Six processes write an entry each at the same time; all six are there."""
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_record, args=(str(tmp_path), number)) for number in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(index.read(tmp_path / "library.json")) == 6


# ---- names ---------------------------------------------------------------------------------------------------------

_NASTY = st.one_of(
    st.text(max_size=60),
    st.text(alphabet="./\\~-_:%\0\nabAB01", max_size=40),
    st.lists(st.sampled_from(["..", ".", "", "a", "~", "C:", "-", "..."]), max_size=6).map("/".join),
)


@given(_NASTY)
def test_no_name_ever_leads_out_of_its_folder(text: str) -> None:
    """What a check lets through, and what is made safe, stays below the folder it is joined to, whatever it says."""
    home = Path("/srv/hub")
    assert below(home, home / names.safe_name(text))
    for accept in (names.repository_file, names.revision):
        try:
            given_name = accept(text)
        except InvalidRequest:
            continue
        assert below(home, home.joinpath(*given_name.split("/")))
        assert below(home, Path(f"{home}/{given_name}"))
    try:
        repo = names.repository(text)
    except InvalidRequest:
        return
    assert repo.count("/") <= 1
    assert below(home, home / ("models--" + repo.replace("/", "--")))


def below(home: Path, path: Path) -> bool:
    plain = os.path.normpath(path)
    return "\0" not in str(path) and os.path.commonpath([home, plain]) == str(home) and plain != str(home)


@given(_NASTY | st.from_regex(r"sha256[:-][0-9a-f]{63,65}\n?"))
def test_a_digest_is_64_hexadecimal_digits_or_refused(text: str) -> None:
    """Only `sha256:` and exactly 64 digits pass; what passes holds nothing but the digits."""
    try:
        digits = names.digest(text)
    except InvalidRequest:
        return
    assert (len(digits), set(digits) <= set("0123456789abcdef"), text) == (64, True, f"sha256:{digits}")


@given(_NASTY)
def test_safe_names_are_plain_and_stay_themselves(text: str) -> None:
    """A safe name is visible, short, without separators, and safe already."""
    name = names.safe_name(text)
    assert 0 < len(name) <= 120
    assert name[0] not in ".-"
    assert names.safe_name(name) == name


@pytest.mark.parametrize(
    ("file", "label"),
    [
        ("Qwen3-4B-Q4_K_M.gguf", "Q4_K_M"),
        ("model-IQ3_XXS-00001-of-00004.gguf", "IQ3_XXS"),
        ("gemma.UD-Q4_K_XL.gguf", "UD-Q4_K_XL"),
        ("m-bf16.gguf", "BF16"),
        ("m-fp16.gguf", "F16"),
        ("gpt-oss-20b-MXFP4.gguf", "MXFP4"),
        ("Q4_0/phi-q4_0_4_4.gguf", "Q4_0_4_4"),
        ("bitnet-TQ1_0.gguf", "TQ1_0"),
        ("Qwen3-4B.gguf", ""),
        ("QwQ-32B-Instruct.gguf", ""),
    ],
)
def test_the_quantisation_is_read_from_a_files_name(file: str, label: str) -> None:
    """The usual spellings are known; a name without one says none."""
    assert names.quantization(file) == label
