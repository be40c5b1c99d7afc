"""Alembic's side of the schema: run as a child process, never imported by the daemon.

``python -m hybridd.store.migrate upgrade --database PATH --to REVISION [--migrations DIR]``
    brings a database to a revision, in one transaction.
``python -m hybridd.store.migrate render``
    writes ``schema.sql`` anew from the SQLModel tables (after a change in ``tables.py``).
``python -m hybridd.store.migrate revision --message TEXT``
    writes the draft of a migration from the newest revision to ``tables.py``.
"""

from __future__ import annotations

import argparse
import sqlite3
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy
from alembic import command
from alembic.config import Config
from sqlalchemy.dialects import sqlite as sqlite_dialect
from sqlalchemy.schema import CreateIndex, CreateTable
from sqlmodel import SQLModel

import hybridd.store.tables  # noqa: F401  # declares the tables in SQLModel's metadata
from hybridd import locations
from hybridd.store.schema import HEAD, SCHEMA_FILE


def render(metadata: sqlalchemy.MetaData = SQLModel.metadata, revision: str = HEAD) -> str:
    """The DDL of a fresh database, stamped with its revision."""
    dialect = sqlite_dialect.dialect()
    parts = ["-- Made from hybridd/store/tables.py by `python -m hybridd.store.migrate render`. Do not edit."]
    for table in metadata.sorted_tables:
        parts.append(_tidy(str(CreateTable(table).compile(dialect=dialect))))
        indexes = sorted(table.indexes, key=lambda index: str(index.name))
        parts.extend(_tidy(str(CreateIndex(index).compile(dialect=dialect))) for index in indexes)
    parts.append(
        "CREATE TABLE alembic_version (\n\tversion_num VARCHAR(32) NOT NULL,\n"
        "\tCONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)\n);"
    )
    parts.append(f"INSERT INTO alembic_version (version_num) VALUES ('{revision}');")
    return "\n\n".join(parts) + "\n"


def _tidy(statement: str) -> str:
    return "\n".join(line.rstrip() for line in statement.strip().splitlines()) + ";"


def configuration(migrations: Path) -> Config:
    config = Config()
    config.set_main_option("script_location", str(migrations).replace("%", "%%"))
    return config


@contextmanager
def connection(database: Path) -> Iterator[sqlalchemy.Connection]:
    """A connection whose DDL is transactional: Python's sqlite3 would otherwise commit before every CREATE."""
    engine = sqlalchemy.create_engine(
        "sqlite://",
        creator=lambda: _opened(database),
        poolclass=sqlalchemy.pool.NullPool,
    )

    @sqlalchemy.event.listens_for(engine, "begin")
    def _begin(opened: sqlalchemy.Connection) -> None:
        opened.exec_driver_sql("BEGIN IMMEDIATE")

    with engine.connect() as opened:
        yield opened
    engine.dispose()


def _opened(database: Path) -> sqlite3.Connection:
    opened = sqlite3.connect(database, isolation_level=None, timeout=30.0)
    opened.execute("PRAGMA synchronous = FULL")
    return opened


def upgrade(database: Path, target: str, migrations: Path) -> None:
    """Every step up to ``target`` in one transaction."""
    config = configuration(migrations)
    with connection(database) as opened, opened.begin():
        config.attributes["connection"] = opened
        command.upgrade(config, target)
        broken = opened.exec_driver_sql("PRAGMA foreign_key_check").fetchall()
        if broken:
            raise RuntimeError(f"the migration left {len(broken)} dangling references, the first in {broken[0][0]}")


def draft(message: str, migrations: Path) -> None:
    """A new revision from the difference between the migrations and ``tables.py``."""
    with tempfile.TemporaryDirectory() as folder:
        database = Path(folder) / "draft.db"
        upgrade(database, "head", migrations)
        config = configuration(migrations)
        with connection(database) as opened:
            config.attributes["connection"] = opened
            number = f"{int(HEAD) + 1:04d}"
            command.revision(config, message=message, autogenerate=True, rev_id=number)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m hybridd.store.migrate", description="Schema of hybridd's database")
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("upgrade", help="bring a database to a revision")
    up.add_argument("--database", type=Path, required=True)
    up.add_argument("--to", default=HEAD)
    new = commands.add_parser("revision", help="draft a migration from the change in tables.py")
    new.add_argument("--message", required=True)
    for each in (up, new):
        each.add_argument("--migrations", type=Path, default=locations.migrations_dir())
    commands.add_parser("render", help="write schema.sql anew from tables.py")
    options = parser.parse_args(arguments)
    if options.command == "upgrade":
        upgrade(options.database, options.to, options.migrations)
    elif options.command == "revision":
        draft(options.message, options.migrations)
    else:
        SCHEMA_FILE.write_text(render(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
