"""Log-probabilities in OpenAI's two shapes."""

from __future__ import annotations

from plugins.llama_cpp import logprobs
from plugins.llama_cpp.logprobs import Found, Scored

HALF = Found(200, b"\xc3", -0.5)
WORD = Found(7, b" the", -0.25)
NEVER = Found(9, b"x", float("-inf"))


def test_chat() -> None:
    """One object per token, with its bytes: halves of characters have no text of their own."""
    assert logprobs.chat([Scored(WORD), Scored(HALF, (WORD, HALF))]) == {
        "content": [
            {"id": 7, "token": " the", "logprob": -0.25, "bytes": [32, 116, 104, 101], "top_logprobs": []},
            {
                "id": 200, "token": "\ufffd", "logprob": -0.5, "bytes": [195],
                "top_logprobs": [
                    {"id": 7, "token": " the", "logprob": -0.25, "bytes": [32, 116, 104, 101]},
                    {"id": 200, "token": "\ufffd", "logprob": -0.5, "bytes": [195]},
                ],
            },
        ],
        "refusal": None,
    }  # fmt: skip


def test_completion() -> None:
    """Lists side by side; of two tokens with the same text the likelier one is told."""
    other = Found(201, b"\xc4", -3.0)
    assert logprobs.completion([Scored(WORD, (WORD,)), Scored(HALF, (HALF, other))], [0, 4]) == {
        "tokens": [" the", "\ufffd"],
        "token_logprobs": [-0.25, -0.5],
        "top_logprobs": [{" the": -0.25}, {"\ufffd": -0.5}],
        "text_offset": [0, 4],
    }


def test_never_is_a_number() -> None:
    """JSON has no infinity: what can never come has the lowest figure, as with OpenAI."""
    assert logprobs.chat([Scored(NEVER)])["content"][0]["logprob"] == -9999.0
    assert logprobs.completion([Scored(Found(1, b"", float("nan")))], [0])["token_logprobs"] == [-9999.0]
