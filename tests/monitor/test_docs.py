"""docs/monitoring.md says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

from hybridd.config.settings import AlertThresholds
from hybridd.local.gpus import GpuReport, GpuSample
from hybridd.monitor import series
from hybridd.monitor.conditions import MANAGED
from tests.monitor.helpers import HOST, limit

TEXT = (Path(__file__).parents[2] / "docs" / "monitoring.md").read_text(encoding="utf-8")


def test_every_alert_is_in_the_table() -> None:
    """The table names the alerts the checks manage, no more and no fewer."""
    assert set(re.findall(r"^\| `([A-Z]\w+)` \|", TEXT, re.MULTILINE)) == MANAGED


def test_every_threshold_is_named() -> None:
    """Each setting of alert_thresholds appears."""
    assert [name for name in AlertThresholds.model_fields if f"`{name}`" not in TEXT] == []


def test_every_series_is_named() -> None:
    """Each series a check writes appears."""
    gpu = GpuReport((GpuSample(0, "g", 1, 1, 1, 1.0, 1.0),))
    names = {name.replace("gpu.0", "gpu.<n>") for name in series.values(HOST, gpu, [limit(key="<key>")])}
    assert [name for name in sorted(names) if f"`{name}`" not in TEXT] == []
