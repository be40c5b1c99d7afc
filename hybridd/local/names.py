"""Names from elsewhere, checked before they become paths.

Repositories, files, revisions and digests come from people, from the Hub and from other programs' folders. Nothing of
them is joined to a folder unless a function of this module has let it through; what only shall look like the original
goes through :func:`safe_name`.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from hybridd.errors import InvalidRequest

_WORD = r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?"
_REPO = re.compile(rf"(?:{_WORD}/)?{_WORD}")
_REVISION = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._/-]{0,254}[A-Za-z0-9_-])?")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_PART = re.compile(r"(?P<base>.+)-(?P<number>[0-9]{5})-of-(?P<count>[0-9]{5})")
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_QUANTIZATION = re.compile(
    r"(?:^|[-._])((?:UD-)?(?:I?Q[1-8](?:_[0-9KSMLXN]{1,3})*|TQ[12]_0|MXFP4(?:_MOE)?|BF16|F16|FP16|F32|FP32))(?=$|[-._])",
    re.IGNORECASE,
)

MAX_PARTS = 999


def endpoint() -> str:
    """The Hub's address: ``HF_ENDPOINT``, or the public one."""
    return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")


def repository(name: str) -> str:
    """``owner/name`` (or the Hub's few bare names), unchanged.

    Raises:
        InvalidRequest: anything else.
    """
    if not _REPO.fullmatch(name) or "--" in name or ".." in name or name.endswith(".git"):
        raise InvalidRequest(f"{name!r} is no repository; one looks like owner/name.", param="repo")
    return name


def repository_file(path: str) -> str:
    """A file's path inside its repository, unchanged.

    Raises:
        InvalidRequest: absolute, with ``..``, with a backslash or a control character, or too long.
    """
    parts = path.split("/")
    plain = path.isprintable() and "\\" not in path and len(path.encode("utf-8", "replace")) <= 1024
    if not plain or any(part in {"", ".", ".."} or len(part.encode("utf-8", "replace")) > 240 for part in parts):
        raise InvalidRequest(
            f"{path!r} is no file inside a repository; one looks like folder/name.gguf, a quantisation like Q4_K_M.",
            param="file",
        )
    return path


def revision(name: str) -> str:
    """A branch, a tag or a commit, unchanged.

    Raises:
        InvalidRequest: it could lead out of the folder that references are kept in.
    """
    parts = name.split("/")
    if not _REVISION.fullmatch(name) or any(part in {"", ".", ".."} or part.startswith(".") for part in parts):
        raise InvalidRequest(f"{name!r} is no branch, tag or commit; one looks like main or v1.0.", param="revision")
    return name


def is_commit(text: str) -> bool:
    """40 hexadecimal digits, as git and the Hub write a commit (and the digest of a file outside LFS)."""
    return _COMMIT.fullmatch(text) is not None


def is_sha256(text: str) -> bool:
    """64 hexadecimal digits."""
    return _SHA256.fullmatch(text) is not None


def digest(text: object) -> str:
    """The digits of ``sha256:<64 hexadecimal digits>``, the only form that Ollama writes.

    Raises:
        InvalidRequest: anything else (a digest with a path in it was CVE-2024-37032).
    """
    if isinstance(text, str) and text.startswith("sha256:") and is_sha256(text[7:]):
        return text[7:]
    raise InvalidRequest(f"{text!r} is no digest; it looks like sha256:<64 hexadecimal digits>", param="digest")


def safe_name(text: str, *, limit: int = 120) -> str:
    """``text`` as one plain file name: letters, digits, ``.``, ``_`` and ``-``, never empty, hidden or too long."""
    plain = _UNSAFE.sub("-", text).strip("-.")[:limit].rstrip("-.")
    return plain or "model"


def split_part(stem: str) -> tuple[str, int, int] | None:
    """``(base, number, count)`` of a part of a split model (``base-00001-of-00003``), None for a whole one."""
    match = _PART.fullmatch(stem)
    if match is None:
        return None
    number, count = int(match["number"]), int(match["count"])
    return (match["base"], number, count) if 1 <= number <= count <= MAX_PARTS else None


def part_names(file_name: str) -> list[str]:
    """The names of all files of the model that ``file_name`` belongs to, in order; itself when it is whole."""
    stem, suffix = os.path.splitext(file_name)
    part = split_part(stem)
    if part is None:
        return [file_name]
    base, _, count = part
    return [f"{base}-{number:05}-of-{count:05}{suffix}" for number in range(1, count + 1)]


def quantization(file_name: str) -> str:
    """The quantisation that a file's name states (``Q4_K_M``), empty when it states none; the header decides later."""
    stem = os.path.splitext(os.path.basename(file_name))[0]
    part = split_part(stem)
    found = _QUANTIZATION.findall(part[0] if part else stem)
    return str(found[-1]).upper().replace("FP16", "F16").replace("FP32", "F32") if found else ""


def shown_url(url: str) -> str:
    """A URL for messages: without its query, which may be a signature, and without a user."""
    bare = url.partition("#")[0].partition("?")[0]
    scheme, slashes, rest = bare.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}{slashes}{host.rpartition('@')[2]}{slash}{path}" if slashes else bare


def is_inside(folder: Path, path: Path) -> bool:
    """Is the entry ``path`` (itself, not what it links to) somewhere below ``folder``, with every link on the way
    resolved?"""
    if path.name in {"", ".", ".."}:
        return False
    home = os.path.realpath(folder)
    return os.path.commonpath([home, os.path.realpath(path.parent)]) == home
