"""One consistent picture of the database while others write to it.

SQLite: its online backup (https://www.sqlite.org/backup.html) on a connection that holds a read transaction, so that the picture stays
that of one moment however long the copy takes; in the write-ahead log readers and writers wait for nobody.
PostgreSQL: `pg_dump` in the snapshot of a repeatable-read transaction that stays open (pg_export_snapshot), in its own compressed form.
"""

from __future__ import annotations

import os
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psycopg

from appliance.core.errors import HostError
from control.backup.container import Progress
from control.config import Postgresql

_PAGES: Final = 2048  # 8 MiB between two looks at the progress bar
_FACTS: Final = {
    "epoch": "SELECT COALESCE(MAX(epoch), 1) FROM fleet_epoch",
    "receipts": "SELECT COUNT(*) FROM audit_receiptrecord",
    "devices": "SELECT COUNT(*) FROM clients_device",
}
_MIGRATIONS: Final = "SELECT app, name FROM django_migrations ORDER BY app, name"
_HEAD: Final = "SELECT size, note FROM transparency_checkpointrecord ORDER BY size DESC LIMIT 1"


@dataclass(frozen=True)
class Facts:
    """What the picture shows.

    Attributes:
        epoch: Control's.
        receipts, devices: Rows.
        migrations: Applied, `app.name`.
        log_size: Of the last head; 0 without one.
        head: The last head, a signed note; empty without one.
    """

    epoch: int
    receipts: int
    devices: int
    migrations: tuple[str, ...]
    log_size: int
    head: str


@dataclass(frozen=True)
class Snapshot:
    """A copy of the database in one file.

    Attributes:
        path: The file.
        member: Its path in a backup.
        facts: What it shows.
    """

    path: Path
    member: str
    facts: Facts


@contextmanager
def take_snapshot(database: Path | Postgresql, folder: Path, progress: Progress) -> Iterator[Snapshot]:
    """Yield a copy of the database in a folder that the caller throws away.

    Args:
        database: SQLite's file, or where PostgreSQL is.
        folder: Takes the copy.
        progress: Told of SQLite's pages.

    Raises:
        HostError: If the database cannot be read, or the copy does not hold together.
    """
    if isinstance(database, Postgresql):
        path = folder / "control.pgdump"
        yield Snapshot(path, f"db/{path.name}", _dump_postgresql(database, path))
        return
    path = folder / "control.sqlite3"
    try:
        _copy_sqlite(database, path, progress)
        facts = check_sqlite(path)
    except sqlite3.Error as error:
        raise HostError("the database cannot be copied", hint="appliance control check") from error
    yield Snapshot(path, f"db/{path.name}", facts)


def _copy_sqlite(source: Path, target: Path, progress: Progress) -> None:
    with closing(sqlite3.connect(f"{source.as_uri()}?mode=rw", uri=True)) as live:
        live.execute("PRAGMA query_only = ON")
        live.execute("BEGIN")
        (page_bytes,) = live.execute("PRAGMA page_size").fetchone()
        live.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()  # from here on it sees one moment
        descriptor = os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        os.close(descriptor)
        left = None

        def report(_status: int, remaining: int, total: int) -> None:
            nonlocal left
            progress(((total if left is None else left) - remaining) * page_bytes)
            left = remaining

        with closing(sqlite3.connect(target)) as copy:
            live.backup(copy, pages=_PAGES, progress=report)
            copy.execute("PRAGMA journal_mode = DELETE")  # one file; control itself makes it WAL again


def check_sqlite(path: Path) -> Facts:
    """Check that a copy holds together, every page and every reference; return what it shows.

    Raises:
        HostError: If it does not.
        sqlite3.Error: If it is no database.
    """
    with closing(sqlite3.connect(path)) as copy:
        if copy.execute("PRAGMA integrity_check").fetchall() != [("ok",)]:
            raise HostError("the copy of the database is damaged", hint="look at the disk, then try again")
        if copy.execute("PRAGMA foreign_key_check").fetchone() is not None:
            raise HostError("a row of the database refers to none", hint="appliance control check")
        return observe_facts(copy)


def observe_facts(connection: Any) -> Facts:
    """Return what a database shows; the connection is SQLite's or PostgreSQL's."""

    def rows(statement: str) -> Any:
        return connection.execute(statement).fetchall()

    counts = {name: int(rows(statement)[0][0]) for name, statement in _FACTS.items()}
    head = rows(_HEAD)
    return Facts(
        **counts,
        migrations=tuple(f"{app}.{name}" for app, name in rows(_MIGRATIONS)),
        log_size=int(head[0][0]) if head else 0,
        head=str(head[0][1]) if head else "",
    )


def connect_postgresql(database: Postgresql) -> psycopg.Connection[Any]:
    """Connect as the product does: no password is kept anywhere.

    Raises:
        HostError: If the server does not let us in.
    """
    try:
        return psycopg.connect(
            host=database.host, port=database.port, dbname=database.name, user=database.user
        )
    except psycopg.Error as error:
        raise HostError(
            "the PostgreSQL server does not answer", hint="see `database` in control.json"
        ) from error


def _dump_postgresql(database: Postgresql, target: Path) -> Facts:
    with connect_postgresql(database) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.read_only = True
        try:
            facts = observe_facts(connection)
            row = connection.execute("SELECT pg_export_snapshot()").fetchone()
        except psycopg.Error as error:
            raise HostError("the database cannot be read", hint="appliance control migrate") from error
        snapshot = str(row[0]) if row else ""
        options = ("--format=custom", "--no-owner", "--no-privileges", f"--snapshot={snapshot}")
        run_postgresql("pg_dump", database, *options, f"--file={target}")
        target.chmod(0o600)
    return facts


def run_postgresql(tool: str, database: Postgresql, *options: str) -> None:
    """Run one of PostgreSQL's own tools on control's database.

    Raises:
        HostError: If it is not installed or fails. What it says is shown, for it holds names of tables at most.
    """
    where = {
        "PGHOST": database.host,
        "PGPORT": str(database.port),
        "PGDATABASE": database.name,
        "PGUSER": database.user,
    }
    try:
        done = subprocess.run(
            [tool, "--no-password", *options],
            env={**os.environ, **where},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError as error:
        raise HostError(f"{tool} is not installed", hint="apt install postgresql-client") from error
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        raise HostError(
            f"{tool} failed: {lines[0] if lines else done.returncode}", hint="mend it, then try again"
        )


def verify_empty_postgresql(database: Postgresql) -> None:
    """Check that a database holds no table; return None or raise.

    Raises:
        HostError: If it holds one: a living control's is never overwritten.
    """
    with connect_postgresql(database) as connection:
        row = connection.execute(
            "SELECT COUNT(*) FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
        ).fetchone()
    if row is None or row[0]:
        raise HostError(
            "the PostgreSQL database is not empty",
            hint=f"make another one: createdb {database.name}_restored",
        )
