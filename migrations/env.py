"""Alembic's environment. The connection comes from ``hybridd.store.migrate``, transaction included."""

from __future__ import annotations

from alembic import context
from sqlmodel import SQLModel

import hybridd.store.tables  # noqa: F401  # declares the tables in SQLModel's metadata


def run() -> None:
    connection = context.config.attributes.get("connection")
    if connection is None:
        raise SystemExit("run migrations through `python -m hybridd.store.migrate upgrade --database PATH`")
    # `render_as_batch`: SQLite can change little of a table in place; Alembic then copies it.
    context.configure(
        connection=connection,
        target_metadata=SQLModel.metadata,
        render_as_batch=True,
        transactional_ddl=True,
        compare_server_default=True,
    )
    context.run_migrations()


run()
