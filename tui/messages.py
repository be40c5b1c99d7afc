"""What workers tell the application. Workers post, handlers mutate: nothing but a handler touches the house."""

from __future__ import annotations

from collections.abc import Sequence

from textual.message import Message

from tui.events import Event


class Batch(Message):
    """Events to take in, oldest first."""

    def __init__(self, events: Sequence[Event]) -> None:
        super().__init__()
        self.events = events


class Changed(Message, bubble=False):
    """These topics of the house changed; sent to the screen that is shown."""

    def __init__(self, topics: frozenset[str]) -> None:
        super().__init__()
        self.topics = topics


class Failed(Message):
    """A query or an action did not work; ``reason`` is a sentence for the user."""

    def __init__(self, reason: str) -> None:
        super().__init__()
        self.reason = reason
