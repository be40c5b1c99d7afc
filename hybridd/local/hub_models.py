"""What a repository offers: its GGUF files as models, one picked by name, or one chosen by the plan. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches

import msgspec

from hybridd.errors import InvalidRequest
from hybridd.local import names
from hybridd.local.hub_errors import HubError
from hybridd.local.types import Plan

# Larger than Q8_0 nothing is gained that can be measured; such files are taken only when there is nothing else.
_UNQUANTISED = frozenset({"F16", "BF16", "F32"})


class RepoFile(msgspec.Struct, frozen=True):
    """One file of a repository. ``bytes`` 0 and ``sha256`` empty: the Hub did not say (a file outside LFS)."""

    path: str
    bytes: int
    sha256: str = ""


class RepoModel(msgspec.Struct, frozen=True):
    """One model of a repository: a GGUF file, or all parts of a split one. ``name``: the stem without the part."""

    name: str
    quantization: str
    files: tuple[RepoFile, ...]
    kind: str = "model"
    """``model`` or ``projector`` (mmproj)."""

    @property
    def bytes(self) -> int:
        return sum(file.bytes for file in self.files)


class Repository(msgspec.Struct, frozen=True):
    """A repository at one commit."""

    repo: str
    commit: str
    models: tuple[RepoModel, ...]
    gated: bool = False
    incomplete: tuple[str, ...] = ()
    """Split models whose parts are not all there."""


class Choice(msgspec.Struct, frozen=True):
    """The model taken, why, and what was passed over (name → reason)."""

    model: RepoModel
    reasons: tuple[str, ...]
    passed_over: dict[str, str] = {}


def group(files: Iterable[RepoFile]) -> tuple[list[RepoModel], list[str]]:
    """The models that the files make up, largest first, and the names of split ones that lack parts.

    Files whose names would not be safe as paths are not offered at all.
    """
    known = {file.path: file for file in files if _is_safe(file.path)}
    models, incomplete = [], []
    for path, file in known.items():
        folder, _, name = path.rpartition("/")
        stem = name[: -len(".gguf")]
        part = names.split_part(stem)
        if part is not None and part[1] != 1:
            continue
        parts = [f"{folder}/{one}" if folder else one for one in names.part_names(name)]
        label = names.quantization(name) or names.quantization(f"{folder}.gguf")
        if not all(one in known for one in parts):
            incomplete.append(part[0] if part else stem)
            continue
        lowered = stem.lower()
        if "imatrix" in lowered:
            continue  # statistics for quantising, no model
        kind = "projector" if "mmproj" in lowered else "model"
        size = tuple(known[one] for one in parts) if part else (file,)
        models.append(RepoModel(part[0] if part else stem, label, size, kind))
    return sorted(models, key=lambda model: (-model.bytes, model.name)), incomplete


def pick(repository: Repository, wanted: str) -> RepoModel:
    """The model that ``wanted`` names: a file's path or name, a stem, or a quantisation.

    Raises:
        HubError: ``file_not_found`` with the nearest names.
    """
    folded = wanted.lower()
    models = repository.models
    tests: tuple[Callable[[RepoModel], bool], ...] = (
        lambda model: any(file.path == wanted for file in model.files),
        lambda model: any(file.path.rpartition("/")[2].lower() == folded for file in model.files),
        lambda model: model.name.lower() == folded,
        lambda model: model.kind == "model" and model.quantization.lower() == folded,
    )
    for test in tests:
        hits = [model for model in models if test(model)]
        if len(hits) == 1:
            return hits[0]
        if hits:
            several = ", ".join(model.files[0].path for model in hits)
            raise HubError("file_not_found", f"{wanted!r} means several files of {repository.repo}: {several}")
    known = [name for model in models for name in (model.quantization, model.files[0].path) if name]
    near = get_close_matches(wanted, known, n=3, cutoff=0.4) or known[:5]
    raise HubError(
        "file_not_found",
        f"{repository.repo} has no GGUF file {wanted!r}; the nearest: {', '.join(near)}",
        details={"near": near},
    )


def choose(models: Sequence[RepoModel], plan: Callable[[RepoModel], Plan], *, has_gpu: bool = False) -> Choice:
    """The largest model that fits well: all layers on the GPU, or on a machine without one in memory; when there is
    none, the one with the most layers on the GPU.

    Args:
        models: of one repository; projectors are passed over.
        plan: how one would be loaded here; asked from the largest down, and no further than needed.
        has_gpu: the machine has a GPU that llama.cpp can use: a model that goes past it does not fit well.

    Raises:
        HubError: ``does_not_fit``, with the reason for each.
    """
    candidates = sorted((model for model in models if model.kind == "model"), key=lambda model: -model.bytes)
    small = [model for model in candidates if model.quantization not in _UNQUANTISED]
    passed: dict[str, str] = {}
    if small:
        for model in candidates:
            if model not in small:
                passed[_label(model)] = "not quantised: twice the size of Q8_0 for no better answers"
    partly: list[tuple[float, RepoModel, Plan]] = []
    for model in small or candidates:
        made = plan(model)
        if made.options is None:
            passed[_label(model)] = "; ".join(made.reasons) or "does not fit"
            continue
        whole = not has_gpu if made.target == "cpu" else made.options.gpu_layers > made.layers
        if whole:
            return Choice(model, (_why(model, made), *made.reasons), passed)
        passed[_label(model)] = f"only {made.options.gpu_layers} of {made.layers + 1} layers fit on the GPU"
        partly.append((made.options.gpu_layers / (made.layers + 1), model, made))
    if partly:
        share, model, made = max(partly, key=lambda one: one[0])
        passed.pop(_label(model))
        why = f"nothing fits on the GPU as a whole; of {_label(model)} most does ({share:.0%} of the layers)"
        return Choice(model, (why, *made.reasons), passed)
    listed = " ".join(f"{name}: {reason}." for name, reason in passed.items())
    raise HubError("does_not_fit", f"no file fits this machine. {listed}", details={"rejected": passed})


def _why(model: RepoModel, made: Plan) -> str:
    where = "memory" if made.target == "cpu" else f"the GPU with all {made.layers + 1} layers"
    tokens = made.sequence_context
    return f"{_label(model)} is the largest that fits into {where}" + (f", {tokens:,} tokens of context" * bool(tokens))


def _label(model: RepoModel) -> str:
    return model.quantization or model.name


def _is_safe(path: str) -> bool:
    try:
        names.repository_file(path)
    except InvalidRequest:
        return False
    return True
