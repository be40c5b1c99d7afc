"""The screens, in the order of their keys; each module is imported when its screen is first shown.

Key 6 stays free: what it is meant for has no data yet.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tui.screens.base import HouseScreen


@dataclass(frozen=True, slots=True)
class ScreenSpec:
    """``key`` shows the screen; ``title`` stands in the footer, the help and the palette; ``about`` is one sentence."""

    key: str
    title: str
    module: str
    screen: str
    about: str

    def load(self) -> type[HouseScreen]:
        found: type[HouseScreen] = getattr(import_module(f"tui.screens.{self.module}"), self.screen)
        return found

    def make(self) -> HouseScreen:
        return self.load()()


SCREENS: dict[str, ScreenSpec] = {
    "overview": ScreenSpec(
        "1", "Overview", "overview", "Overview", "May I go on working, until when, and what is about to break?"
    ),
    "limits": ScreenSpec("2", "Limits", "limits", "Limits", "What is left of every quota, and who used it?"),
    "requests": ScreenSpec("3", "Requests", "requests", "Requests", "What was asked, who answered, and why?"),
    "models": ScreenSpec("4", "Models", "models", "Models", "Which local models are there, and what fits?"),
    "alerts": ScreenSpec("5", "Alerts", "alerts", "Alerts", "What needs a decision?"),
    "playground": ScreenSpec("7", "Playground", "playground", "Playground", "How does a model answer this?"),
    "logs": ScreenSpec("8", "Logs", "logs", "Logs", "What has the daemon logged since it started?"),
}
