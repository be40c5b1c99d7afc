"""docs/storage.md describes the schema that is."""

from __future__ import annotations

import re
from pathlib import Path

from hybridd.store import schema
from hybridd.store.database import Database

PAGE = Path(__file__).resolve().parents[2] / "docs" / "storage.md"


def test_every_table_and_column_is_documented(database: Database) -> None:
    """Each table has a section, and its columns are exactly those of the section's table, in words of their own."""
    documented: dict[str, set[str]] = {}
    for section in PAGE.read_text().split("\n### ")[1:]:
        heading, _, body = section.partition("\n")
        body = body.split("\n## ")[0]
        columns = set(re.findall(r"^\| `(\w+)` \| \S", body, re.MULTILINE))
        for table in re.findall(r"`(\w+)`", heading):
            documented[table] = columns
    real = database.reader.run_now(
        lambda c: {
            table: {row[1] for row in c.execute(f"PRAGMA table_info({table})")}
            for (table,) in c.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        }
    )
    assert documented == real


def test_the_documented_constants_are_the_real_ones() -> None:
    """Figures the page gives about behaviour are those in the code."""
    from hybridd.monitor import retention
    from hybridd.store import database, thread, writer

    text = " ".join(PAGE.read_text().split())
    assert f"within {thread.LINGER_SECONDS * 1000:.0f} ms" in text
    assert f"up to {writer.KEEP:,} each" in text
    assert f"up to {database.CHECK_AT_ONCE_BYTES // 2**20} MiB" in text
    assert f"at least {retention.LEAST_CALL_DAYS} days" in text
    assert f"{retention.PIECE:,} at a time" in text
    assert schema.SCHEMA_FILE.exists()
