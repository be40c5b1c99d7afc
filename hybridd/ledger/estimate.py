"""How many tokens a prompt will be, before anybody counted them: bytes times a ratio learned for each model.

The reservation must bound the usage for token and money quotas to be exact, so the ratio leans high: the mean of what
the provider counted, plus two standard deviations.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil, sqrt
from typing import Any

import msgspec

DEFAULT_TOKENS_PER_BYTE = 0.4
"""Before anything is learned. English prose is about 0.25, Portuguese 0.3, code and JSON 0.35."""
LEAST_TOKENS_PER_BYTE = 0.1
"""What text takes at the least: the words of the largest vocabularies are rarely longer than ten bytes."""
TOKENS_PER_MESSAGE = 8
"""Role and separators of chat templates (OpenAI's cookbook counts 3 to 4; others need more)."""
TOKENS_PER_IMAGE = 1_600
"""Above OpenAI's 1,105 for a 1024 x 1024 image in high detail and Anthropic's 1,568 for its largest."""
MOST_TOKENS_PER_BYTE = 1.5
"""No tokenizer needs more than a token for a byte: a host that claims more must not shut its model out."""
MEMORY = 64
"""Older samples fade: the ratio follows the last few dozen calls."""
BYTES_PER_TOKEN_ID = 4
"""A prompt given as token ids: 4 bytes weigh more than one token at any ratio in use."""
LEARN_FROM_BYTES = 16
"""A shorter prompt says more about the chat template than about the text."""


class PromptSize(msgspec.Struct, frozen=True):
    """What a request body weighs: UTF-8 bytes of text, messages, images."""

    text_bytes: int
    messages: int = 1
    images: int = 0


class Ratio(msgspec.Struct, frozen=True):
    """Tokens per byte of one model: mean and variance of the samples seen, the older ones fading."""

    mean: float = DEFAULT_TOKENS_PER_BYTE
    variance: float = 0.0
    samples: int = 0

    @property
    def upper(self) -> float:
        """What estimates use. The first few samples cannot yet pull it below the default."""
        learned = self.mean + 2 * sqrt(self.variance)
        return learned if self.samples >= 5 else max(learned, DEFAULT_TOKENS_PER_BYTE)

    def learn(self, size: PromptSize, tokens: int) -> Ratio:
        """With one more call, whose provider counted ``tokens``. Images and tiny prompts teach nothing."""
        if size.images or size.text_bytes < LEARN_FROM_BYTES or tokens <= 0:
            return self
        seen = min(MOST_TOKENS_PER_BYTE, max(0, tokens - size.messages * TOKENS_PER_MESSAGE) / size.text_bytes)
        samples = self.samples + 1
        weight = 1 / min(samples, MEMORY)
        if self.samples == 0:
            return Ratio(seen, 0.0, 1)
        step = seen - self.mean
        mean = self.mean + weight * step
        return Ratio(mean, (1 - weight) * (self.variance + weight * step * step), samples)


def prompt_size(body: dict[str, Any]) -> PromptSize:
    """Weighs an OpenAI request body (chat, completion or embeddings). Tools and schemas are text too."""
    text = messages = images = 0
    for message in body.get("messages") or ():
        messages += 1
        for part in _parts(message):
            if isinstance(part, str):
                text += len(part.encode("utf-8", "surrogatepass"))
            else:
                images += 1
    for key in ("prompt", "input", "suffix"):
        size, pieces = _weigh(body.get(key))
        text += size
        messages += pieces
    for key in ("tools", "functions", "response_format"):
        if body.get(key):
            text += len(msgspec.json.encode(body[key]))
    return PromptSize(text, max(1, messages), images)


def input_tokens(size: PromptSize, ratio: Ratio | None = None) -> int:
    """The estimate: never less than one token."""
    per_byte = DEFAULT_TOKENS_PER_BYTE if ratio is None else ratio.upper
    return max(
        1, ceil(size.text_bytes * per_byte) + size.messages * TOKENS_PER_MESSAGE + size.images * TOKENS_PER_IMAGE
    )


def least_input_tokens(size: PromptSize) -> int:
    """What the text alone takes at the least: a prompt that is too long by this is too long."""
    return max(1, int(size.text_bytes * LEAST_TOKENS_PER_BYTE))


def longest_prompt(body: dict[str, Any]) -> PromptSize:
    """Weighs the heaviest of a body's prompts: each of a list is read for itself."""
    for key in ("prompt", "input"):
        prompts = body.get(key)
        if isinstance(prompts, list) and any(isinstance(one, str | list) for one in prompts):
            return max((prompt_size({**body, key: one}) for one in prompts), key=lambda size: size.text_bytes)
    return prompt_size(body)


def _parts(message: Any) -> Iterator[str | None]:
    """The texts of a message; None stands for an image or another thing that is not text."""
    if not isinstance(message, dict):
        return
    for key in ("content", "name", "tool_calls", "function_call"):
        value = message.get(key)
        if isinstance(value, str):
            yield value
        elif key != "content" and value:
            yield msgspec.json.encode(value).decode()
        elif isinstance(value, list):
            for part in value:
                if isinstance(part, dict) and isinstance(part.get("text"), str):
                    yield part["text"]
                elif isinstance(part, str):
                    yield part
                else:
                    yield None


def _weigh(value: Any) -> tuple[int, int]:
    """(bytes, number of prompts) of a ``prompt`` or ``input``: text, texts, token ids, or lists of token ids."""
    if isinstance(value, str):
        return len(value.encode("utf-8", "surrogatepass")), 1
    if not isinstance(value, list):
        return 0, 0
    text = prompts = tokens = 0
    for item in value:
        if isinstance(item, str | list):
            size, inner = _weigh(item)
            text += size
            prompts += inner
        else:
            tokens += 1
    return text + tokens * BYTES_PER_TOKEN_ID, prompts + (tokens > 0)


class Ratios:
    """The learned ratio of every model, and which of them are not written yet."""

    def __init__(self) -> None:
        self._ratios: dict[tuple[str, str], Ratio] = {}
        self._unwritten: set[tuple[str, str]] = set()

    def of(self, provider: str, model: str) -> Ratio:
        return self._ratios.get((provider, model)) or Ratio()

    def learn(self, provider: str, model: str, size: PromptSize, tokens: int) -> None:
        before = self.of(provider, model)
        after = before.learn(size, tokens)
        if after is not before:
            self._ratios[provider, model] = after
            self._unwritten.add((provider, model))

    def load(self, provider: str, model: str, ratio: Ratio) -> None:
        self._ratios[provider, model] = ratio

    def take_unwritten(self) -> Iterator[tuple[str, str, Ratio]]:
        """Hands over what changed since the last time."""
        keys, self._unwritten = self._unwritten, set()
        for provider, model in sorted(keys):
            yield provider, model, self._ratios[provider, model]
