"""How llama.cpp stores numbers: for each tensor type its elements in a block and the bytes of one.

Numbers, names and sizes are those of ``ggml_type_name``, ``ggml_blck_size`` and ``ggml_type_size`` in the installed
llama.cpp; a test compares them.
"""

from __future__ import annotations

from typing import NamedTuple


class GgmlType(NamedTuple):
    """``block``: elements stored together; ``size``: bytes of one block."""

    name: str
    block: int
    size: int


TYPES: dict[int, GgmlType] = {
    0: GgmlType("f32", 1, 4),
    1: GgmlType("f16", 1, 2),
    2: GgmlType("q4_0", 32, 18),
    3: GgmlType("q4_1", 32, 20),
    6: GgmlType("q5_0", 32, 22),
    7: GgmlType("q5_1", 32, 24),
    8: GgmlType("q8_0", 32, 34),
    9: GgmlType("q8_1", 32, 36),
    10: GgmlType("q2_K", 256, 84),
    11: GgmlType("q3_K", 256, 110),
    12: GgmlType("q4_K", 256, 144),
    13: GgmlType("q5_K", 256, 176),
    14: GgmlType("q6_K", 256, 210),
    15: GgmlType("q8_K", 256, 292),
    16: GgmlType("iq2_xxs", 256, 66),
    17: GgmlType("iq2_xs", 256, 74),
    18: GgmlType("iq3_xxs", 256, 98),
    19: GgmlType("iq1_s", 256, 50),
    20: GgmlType("iq4_nl", 32, 18),
    21: GgmlType("iq3_s", 256, 110),
    22: GgmlType("iq2_s", 256, 82),
    23: GgmlType("iq4_xs", 256, 136),
    24: GgmlType("i8", 1, 1),
    25: GgmlType("i16", 1, 2),
    26: GgmlType("i32", 1, 4),
    27: GgmlType("i64", 1, 8),
    28: GgmlType("f64", 1, 8),
    29: GgmlType("iq1_m", 256, 56),
    30: GgmlType("bf16", 1, 2),
    34: GgmlType("tq1_0", 256, 54),
    35: GgmlType("tq2_0", 256, 66),
    39: GgmlType("mxfp4", 32, 17),
    40: GgmlType("nvfp4", 64, 36),
    41: GgmlType("q1_0", 128, 18),
    42: GgmlType("q2_0", 64, 18),
}
REMOVED: dict[int, str] = {
    4: "q4_2",
    5: "q4_3",
    31: "q4_0_4_4",
    32: "q4_0_4_8",
    33: "q4_0_8_8",
    36: "iq4_nl_4_4",
    37: "iq4_nl_4_8",
    38: "iq4_nl_8_8",
}
"""Types that llama.cpp once wrote and no longer reads."""
BY_NAME: dict[str, GgmlType] = {one.name: one for one in TYPES.values()}


def row_bytes(name: str, elements: int) -> int:
    """Bytes of one row (``ggml_row_size``).

    Raises:
        ValueError: an unknown type, or elements that do not fill whole blocks.
    """
    kind = BY_NAME.get(name)
    if kind is None:
        raise ValueError(f"{name!r} is no tensor type")
    if elements < 0 or elements % kind.block:
        raise ValueError(f"{elements} elements do not fill blocks of {kind.block} ({name})")
    return elements // kind.block * kind.size
