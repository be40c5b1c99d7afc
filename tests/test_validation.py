"""The rules of native calls."""

from __future__ import annotations

from typing import Any

import pytest

from hybridd.contracts import validation
from hybridd.errors import InvalidRequest


def test_a_good_call_passes() -> None:
    """Three characters, a known tier, one token and a user that fits a header are enough."""
    validation.check_call("abc", tier="premium", max_tokens=1, user="u 1")
    validation.check_call("a b", tier=None, max_tokens=None, user=None)


@pytest.mark.parametrize(
    ("call", "param"),
    [
        ({"prompt": "ab"}, "prompt"), ({"prompt": "  ab \n"}, "prompt"), ({"prompt": None}, "prompt"),
        ({"prompt": b"abc"}, "prompt"), ({"prompt": "ab\ud800"}, "prompt"),
        ({"prompt": "abc", "tier": "FREE"}, "tier"), ({"prompt": "abc", "tier": ["free"]}, "tier"),
        ({"prompt": "abc", "max_tokens": 0}, "max_tokens"), ({"prompt": "abc", "max_tokens": 1.0}, "max_tokens"),
        ({"prompt": "abc", "max_tokens": True}, "max_tokens"), ({"prompt": "abc", "max_tokens": "5"}, "max_tokens"),
        ({"prompt": "abc", "user": ""}, "user"), ({"prompt": "abc", "user": "x" * 257}, "user"),
        ({"prompt": "abc", "user": "é"}, "user"), ({"prompt": "abc", "user": "a\r\nb"}, "user"),
    ],
)  # fmt: skip
def test_a_wrong_call_names_the_field(call: dict[str, Any], param: str) -> None:
    """Each broken rule is InvalidRequest (400, exit code 2) with the field's name."""
    with pytest.raises(InvalidRequest) as caught:
        validation.check_call(**call)
    assert (caught.value.param, caught.value.status, caught.value.exit_code) == (param, 400, 2)
