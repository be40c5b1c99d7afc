"""Names of quantizations such as ``Q4_K_M``: from a file's own statement, from its tensors, from its name."""

from __future__ import annotations

from collections.abc import Iterable

from hybridd.local import names

UNKNOWN = "unknown"

# llama.cpp, include/llama.h, `enum llama_ftype`: the values of general.file_type.
FILE_TYPES: dict[int, str] = {
    0: "F32",
    1: "F16",
    2: "Q4_0",
    3: "Q4_1",
    7: "Q8_0",
    8: "Q5_0",
    9: "Q5_1",
    10: "Q2_K",
    11: "Q3_K_S",
    12: "Q3_K_M",
    13: "Q3_K_L",
    14: "Q4_K_S",
    15: "Q4_K_M",
    16: "Q5_K_S",
    17: "Q5_K_M",
    18: "Q6_K",
    19: "IQ2_XXS",
    20: "IQ2_XS",
    21: "Q2_K_S",
    22: "IQ3_XS",
    23: "IQ3_XXS",
    24: "IQ1_S",
    25: "IQ4_NL",
    26: "IQ3_S",
    27: "IQ3_M",
    28: "IQ2_S",
    29: "IQ2_M",
    30: "IQ4_XS",
    31: "IQ1_M",
    32: "BF16",
    36: "TQ1_0",
    37: "TQ2_0",
    38: "MXFP4",
    39: "NVFP4",
    40: "Q1_0",
    41: "Q2_0",
}
GUESSED = 1024
"""llama.cpp sets this bit in a file type that it worked out itself."""


def of_file_type(value: object) -> str | None:
    """The name of a ``general.file_type``; None for what is no known one."""
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return FILE_TYPES.get(value & ~GUESSED if value >= GUESSED else value)


def of_tensors(tensors: Iterable[tuple[str, int]]) -> str:
    """The name for the type that most bytes are stored in.

    Args:
        tensors: type name and bytes of each.
    """
    held: dict[str, int] = {}
    for kind, nbytes in tensors:
        held[kind] = held.get(kind, 0) + nbytes
    return max(held, key=lambda kind: held[kind]).upper() if held else UNKNOWN


def of_name(name: str) -> str | None:
    """The last quantization that a file name speaks of, in capitals; None when it names none."""
    return names.quantization(name) or None


def of_model(file_type: object, tensors: Iterable[tuple[str, int]], name: str = "") -> str:
    """What to call a model's quantization.

    The file type wins where the tensors agree with it; many converters leave a wrong one (0 or 1: the source's), so
    that a file whose tensors are stored otherwise is called by its name, or else by its tensors.
    """
    stated, dominant = of_file_type(file_type), of_tensors(tensors)
    if stated and (dominant == UNKNOWN or stated not in {"F32", "F16", "BF16"} or stated == dominant):
        return stated
    return of_name(name) or (dominant if dominant != UNKNOWN else stated or UNKNOWN)
