"""Typed access to a model's keys; a value that cannot be true is refused with the name of its key."""

from __future__ import annotations

from collections.abc import Sequence

from hybridd.local.gguf import BadGguf, Gguf

MAX_LENGTH = 2**31 - 1


class Keys:
    """The metadata of one model; a key without a prefix is one of its architecture's (``llama.block_count``)."""

    def __init__(self, gguf: Gguf) -> None:
        self.architecture = gguf.architecture
        self._values = gguf.metadata
        self._gguf = gguf

    def has(self, key: str) -> bool:
        return self._full(key) in self._values

    def text(self, key: str) -> str:
        value = self._values.get(key)
        return value if isinstance(value, str) else ""

    def flag(self, key: str, *, default: bool) -> bool:
        value = self._values.get(self._full(key))
        return bool(value) if isinstance(value, bool | int) else default

    def number(self, key: str, default: int | None = None) -> int:
        """A count or length. Without ``default`` the key must be there; of an array, its largest item."""
        value = self._values.get(self._full(key))
        if value is None and default is not None:
            return default
        if isinstance(value, list):
            value = max((item for item in value if isinstance(item, int)), default=None)
        if isinstance(value, bool) or not isinstance(value, int) or not -1 <= value <= MAX_LENGTH:
            raise self.bad(key, "it is missing" if value is None else f"{value!r} is no length")
        return value

    def by_layer(self, key: str, layers: int, default: int = 0) -> list[int]:
        """One number for each layer: an array's items, or the one number for all (``get_key_or_arr``)."""
        value = self._values.get(self._full(key))
        if isinstance(value, list):
            if len(value) < layers:
                raise self.bad(key, f"it has {len(value)} items for {layers} layers")
            return [self._length(key, item) for item in value[:layers]]
        return [self.number(key, default)] * layers

    def items(self, key: str) -> Sequence[int] | None:
        """An array's items, None when the key holds no array (or one too long to be of layers)."""
        value = self._values.get(self._full(key))
        return [int(item) for item in value] if isinstance(value, list) else None

    def bad(self, key: str, problem: str) -> BadGguf:
        return self._gguf.bad(self._full(key), problem)

    def _length(self, key: str, item: object) -> int:
        if not isinstance(item, int | bool) or not 0 <= item <= MAX_LENGTH:
            raise self.bad(key, f"{item!r} is no length")
        return int(item)

    def _full(self, key: str) -> str:
        return key if key.startswith(("general.", "tokenizer.", "split.")) else f"{self.architecture}.{key}"
