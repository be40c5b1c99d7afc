"""Types shared by modules that would otherwise import each other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Run = Callable[[], Any]
