"""Tables, schema.sql and migrations are one schema; old databases are carried over; damaged ones are left alone."""

from __future__ import annotations

import hashlib
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from alembic.script import ScriptDirectory

from hybridd import locations
from hybridd.clocks import ManualClock
from hybridd.errors import SchemaTooNew, StateError
from hybridd.store import migrate, schema
from hybridd.store.database import Database
from tests.store.rows import opened

ANCESTORS = Path(__file__).with_name("ancestors")


def _objects(path: Path) -> dict[str, str]:
    connection = sqlite3.connect(path)
    try:
        rows = connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
    finally:
        connection.close()
    return {name: " ".join(sql.split()) for name, sql in rows}


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_schema_file_is_the_rendered_metadata() -> None:
    """``schema.sql`` is what the SQLModel tables render to (else: python -m hybridd.store.migrate render)."""
    assert schema.SCHEMA_FILE.read_text() == migrate.render()


def test_migrations_make_the_same_schema_as_a_fresh_start(tmp_path: Path) -> None:
    """Every table, column, default and index is the same whichever way a database came to be."""
    opened(tmp_path / "fresh").close()
    migrated = tmp_path / "migrated.db"
    migrate.upgrade(migrated, "head", locations.migrations_dir())
    assert _objects(migrated) == _objects(tmp_path / "fresh" / "hybridd.db")


def test_known_revisions_are_the_migrations() -> None:
    """The daemon's own list of revisions (it cannot ask Alembic) is the chain in ``migrations/versions``."""
    script = ScriptDirectory.from_config(migrate.configuration(locations.migrations_dir()))
    chain = [revision.revision for revision in script.walk_revisions()][::-1]
    assert tuple(chain) == schema.REVISIONS
    assert {file.stem for file in ANCESTORS.glob("*.sql")} == set(chain), "each revision needs rows in tests"


@pytest.mark.parametrize("revision", schema.REVISIONS)
def test_every_ancestor_with_rows_opens(tmp_path: Path, revision: str) -> None:
    """A database of any earlier revision, with rows in every table, opens and keeps its rows."""
    path = tmp_path / "hybridd.db"
    migrate.upgrade(path, revision, locations.migrations_dir())
    connection = sqlite3.connect(path)
    connection.executescript(ANCESTORS.joinpath(f"{revision}.sql").read_text())
    tables = [n for (n,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    before = {table: connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in tables}
    connection.close()
    assert all(before.values()), f"no rows for {[t for t, n in before.items() if not n]}"
    database = opened(tmp_path)
    try:
        after = database.reader.run_now(
            lambda c: {t: c.execute(f"SELECT count(*) FROM {t}").fetchone()[0] for t in before}
        )
        assert database.migrated_from == (None if revision == schema.HEAD else revision)
    finally:
        database.close()
    added = {"boots": 1, "runs": 1}
    assert after == {table: count + added.get(table, 0) for table, count in before.items()}


@pytest.fixture
def next_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A migrations folder with one revision more than this program's, which adds a column."""
    folder = tmp_path / "migrations"
    shutil.copytree(locations.migrations_dir(), folder, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "versions" / "9999_more.py").write_text(
        "import os\nimport sqlalchemy as sa\nfrom alembic import op\n"
        f"revision, down_revision = '9999', {schema.HEAD!r}\nbranch_labels = depends_on = None\n"
        "def upgrade():\n"
        "    op.add_column('boots', sa.Column('note', sa.Text(), nullable=False, server_default='old'))\n"
        "    if os.environ.get('BREAK_MIGRATION'):\n        raise RuntimeError('no more')\n"
    )
    monkeypatch.setattr(schema, "REVISIONS", (*schema.REVISIONS, "9999"))
    monkeypatch.setattr(schema, "HEAD", "9999")
    monkeypatch.setattr(locations, "migrations_dir", lambda: folder)
    return folder


def test_an_older_database_is_backed_up_and_migrated_in_a_child(
    tmp_path: Path, next_revision: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rows are carried over, a private copy from before is kept, and this process never imported Alembic for it."""
    state = tmp_path / "state"
    with monkeypatch.context() as past:
        past.setattr(schema, "HEAD", schema.REVISIONS[0])
        past.setattr(schema, "REVISIONS", schema.REVISIONS[:1])
        opened(state).close()
    database = opened(state)
    try:
        assert database.migrated_from == "0001"
        notes = database.reader.run_now(lambda c: c.execute("SELECT note FROM boots").fetchall())
        assert notes == [("old",)]
    finally:
        database.close()
    (saved,) = (state / "backups").iterdir()
    assert saved.stat().st_mode & 0o777 == 0o600
    assert "note" not in _objects(saved)["boots"]
    connection = sqlite3.connect(saved)
    assert connection.execute("SELECT count(*) FROM runs").fetchone() == (1,)
    connection.close()


def test_a_reader_asks_for_a_migration_first(tmp_path: Path, next_revision: Path) -> None:
    """Opened for reading only, an older database is refused with what to do, and not migrated."""
    migrate.upgrade(tmp_path / "hybridd.db", "0001", next_revision)
    with pytest.raises(StateError, match="start the daemon once"):
        Database.open(tmp_path, clock=ManualClock(), readonly=True)


def test_a_draft_holds_the_difference(tmp_path: Path) -> None:
    """``migrate revision`` writes the next number, with nothing in it when tables and migrations agree."""
    folder = tmp_path / "migrations"
    shutil.copytree(locations.migrations_dir(), folder, ignore=shutil.ignore_patterns("__pycache__"))
    assert migrate.main(["revision", "--message", "nothing new", "--migrations", str(folder)]) == 0
    known = {path.name for path in (locations.migrations_dir() / "versions").glob("*.py")}
    (made,) = {path.name for path in (folder / "versions").glob("*.py")} - known
    assert made == f"{int(schema.HEAD) + 1:04d}_nothing_new.py"
    assert "op." not in (folder / "versions" / made).read_text().split("def upgrade")[1]


def test_a_failing_migration_changes_nothing_and_names_the_backup(
    tmp_path: Path, next_revision: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error holds reason and backup; the database keeps its old schema and opens with the old program."""
    state = tmp_path / "state"
    with monkeypatch.context() as past:
        past.setattr(schema, "HEAD", schema.REVISIONS[0])
        past.setattr(schema, "REVISIONS", schema.REVISIONS[:1])
        opened(state).close()
        before = _objects(state / "hybridd.db")
        past.setenv("BREAK_MIGRATION", "1")
        past.setattr(schema, "HEAD", "9999")
        past.setattr(schema, "REVISIONS", ("0001", "9999"))
        with pytest.raises(StateError, match="no more") as caught:
            opened(state)
        assert Path(caught.value.details["backup"]).exists()
        assert _objects(state / "hybridd.db") == before
    opened(state).close()


def test_a_newer_schema_is_refused_untouched(tmp_path: Path) -> None:
    """A database from a newer hybridd is refused, naming both versions, and not a byte of it changes."""
    opened(tmp_path).close()
    path = tmp_path / "hybridd.db"
    connection = sqlite3.connect(path)
    connection.execute("UPDATE alembic_version SET version_num = '7777'")
    connection.commit()
    connection.close()
    before = _digest(path)
    for readonly in (False, True):
        with pytest.raises(SchemaTooNew, match="7777"):
            Database.open(tmp_path, clock=ManualClock(), readonly=readonly)
    assert _digest(path) == before


@pytest.mark.parametrize("kind", ["text", "torn_header", "torn_page", "foreign"])
def test_a_damaged_or_foreign_file_is_named_and_left_alone(tmp_path: Path, kind: str) -> None:
    """Whatever stands in the database's place, the error names the file and the remedy, and the file stays."""
    path = tmp_path / "hybridd.db"
    if kind == "text":
        path.write_text("this is not a database" * 1000)
    elif kind == "foreign":
        connection = sqlite3.connect(path)
        connection.execute("CREATE TABLE songs (name)")
        connection.close()
    else:
        database = opened(tmp_path)
        database.close()
        backups = tmp_path / "backups"
        backups.mkdir()
        (backups / "hybridd-0000-20260101T000000Z-1.db").touch()
        with path.open("r+b") as file:
            file.seek(0 if kind == "torn_header" else 4096)
            file.write(b"\xff" * 3000)
    if kind == "torn_page":
        connection = sqlite3.connect(path)
        connection.execute("UPDATE runs SET stopped_wall_ns = NULL")
        connection.commit()
        connection.close()
    before = _digest(path)
    with pytest.raises(StateError, match=r"hybridd\.db") as caught:
        opened(tmp_path)
    assert _digest(path) == before
    assert "aside" in caught.value.message
    if kind.startswith("torn"):
        assert "hybridd-0000-20260101T000000Z-1.db" in caught.value.message


def test_an_unclean_stop_runs_the_check_and_finds_the_damage(tmp_path: Path) -> None:
    """Damage that only a check can see is found after an unclean stop, and not looked for after a clean one."""
    database = opened(tmp_path)
    database.close()
    path = tmp_path / "hybridd.db"
    connection = sqlite3.connect(path)
    (page,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'feedback_request'").fetchone()
    connection.close()
    with path.open("r+b") as file:
        file.seek((page - 1) * 4096)
        file.write(b"\x63" * 64)
    opened(tmp_path).close()
    connection = sqlite3.connect(path)
    connection.execute("UPDATE runs SET stopped_wall_ns = NULL")
    connection.commit()
    connection.close()
    with pytest.raises(StateError, match="damaged"):
        opened(tmp_path)


def test_a_large_database_is_checked_beside_the_daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A check that would hold up the start runs beside it, and stops all writing when it finds damage."""
    import threading

    import hybridd.store.database as module

    opened(tmp_path).close()
    path = tmp_path / "hybridd.db"
    connection = sqlite3.connect(path)
    (page,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'feedback_request'").fetchone()
    connection.execute("UPDATE runs SET stopped_wall_ns = NULL")
    connection.commit()
    connection.close()
    with path.open("r+b") as file:
        file.seek((page - 1) * 4096)
        file.write(b"\x63" * 64)
    monkeypatch.setattr(module, "CHECK_AT_ONCE_BYTES", 0)
    told = threading.Event()
    release = threading.Event()
    check = module.check_integrity

    def delayed(connection: sqlite3.Connection, path: Path) -> None:
        release.wait(5)
        check(connection, path)

    monkeypatch.setattr(module, "check_integrity", delayed)
    database = opened(tmp_path)
    try:
        database.writer.on_state = lambda reason: told.set()
        release.set()
        assert told.wait(5)
        assert database.writer.failed is not None
        assert "damaged" in database.writer.failed
    finally:
        database.close()


def test_opening_imports_nothing_heavy(tmp_path: Path) -> None:
    """The store, opened fresh and again, has imported neither SQLModel, SQLAlchemy, Alembic nor numpy."""
    code = (
        "import sys\nfrom pathlib import Path\nfrom hybridd.clocks import SystemClock\n"
        "from hybridd.store.database import Database\n"
        "for _ in range(2):\n    Database.open(Path(sys.argv[1]), clock=SystemClock()).close()\n"
        "import hybridd.store.queries.report, hybridd.store.queries.requests\n"
        "print([m for m in ('sqlmodel', 'sqlalchemy', 'alembic', 'numpy', 'pydantic') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        capture_output=True, text=True, check=True, cwd=locations.migrations_dir().parent,
    )  # fmt: skip
    assert done.stdout.strip() == "[]"


def test_an_empty_file_is_a_fresh_database(tmp_path: Path) -> None:
    """A start that was killed before the schema was written leaves a file the next start simply fills."""
    (tmp_path / "hybridd.db").touch()
    opened(tmp_path).close()


def test_boots_and_runs(tmp_path: Path) -> None:
    """Runs within one boot of the machine share its number; another boot gets another."""
    clock = ManualClock()
    numbers = []
    for _ in range(2):
        database = opened(tmp_path, clock)
        numbers.append((database.boot, database.run))
        database.close()
    clock.reboot("boot-2")
    database = opened(tmp_path, clock)
    numbers.append((database.boot, database.run))
    database.close()
    assert numbers == [(1, 1), (1, 2), (2, 3)]
