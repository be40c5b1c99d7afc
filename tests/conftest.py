"""For every test: how Hypothesis judges time. Its deadline of 200 ms and its health checks measure the machine as much
as the code, and a run of the whole suite fills all cores."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile("shared machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared machine")
