"""What a screen can ask to be told about: the parts of :class:`tui.house.House`."""

from __future__ import annotations

STATUS = "status"
PROVIDERS = "providers"
LIMITS = "limits"
REQUESTS = "requests"
ALERTS = "alerts"
PLUGINS = "plugins"
HOST = "host"
LOCAL = "local"
JOBS = "jobs"
LOGS = "logs"
RATES = "rates"
USAGE = "usage"
CONNECTION = "connection"
CLOCK = "clock"
"""The second has changed; told only to screens that name it, and less often while the terminal is not focused."""

ALL = frozenset(
    {STATUS, PROVIDERS, LIMITS, REQUESTS, ALERTS, PLUGINS, HOST, LOCAL, JOBS, LOGS, RATES, USAGE, CONNECTION, CLOCK}
)
