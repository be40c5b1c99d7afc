"""The monitor: checks, alerts, samples. See :class:`Monitor`."""

from hybridd.logs.notify import Notifier
from hybridd.monitor.conditions import Condition
from hybridd.monitor.rules import warning_line
from hybridd.monitor.service import Monitor

__all__ = ["Condition", "Monitor", "Notifier", "warning_line"]
