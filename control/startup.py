"""Starts Django in a process of control, and checks what must hold before it serves."""

from __future__ import annotations

import io
import os
from pathlib import Path

import django
from django.apps import apps
from django.core.management import call_command
from django.core.management.base import SystemCheckError
from django.db import DatabaseError, connection
from django.db.migrations.executor import MigrationExecutor

from appliance.core.errors import HostError
from control.config import VARIABLE, read_config

UMASK = 0o007  # the database's files are shared by the web's and the reconciler's user, and by nobody else


def start_django(config: Path | None) -> None:
    """Load settings and apps.

    Args:
        config: The settings file; None for the one that `APPLIANCE_CONTROL_CONFIG` names.

    Raises:
        HostError: If there is no usable settings file.
    """
    if config is not None:
        os.environ[VARIABLE] = str(config.absolute())
    read_config()  # a clear refusal before Django wraps it
    os.umask(UMASK)
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "control.settings")
    if not apps.ready:  # a second time would only bind the log to another stream
        django.setup()


def verify_deployment() -> None:
    """Check Django's deployment settings, the web process's own key and the database; return None or raise.

    Raises:
        HostError: If a check warns, the key cannot be read, the database cannot be used, or it does not keep what it commits.
    """
    from control.operators.sealing import verify_factor_key

    try:
        call_command("check", deploy=True, fail_level="WARNING", stdout=io.StringIO())
    except SystemCheckError as error:
        raise HostError(
            f"deployment checks failed: {error}", hint="control/manage.py check --deploy"
        ) from error
    verify_factor_key()
    verify_database()


def verify_database() -> None:
    """Check that commits are durable, references enforced and migrations applied; return None or raise.

    Raises:
        HostError: If not, or if the database cannot be opened.
    """
    try:
        verify_sqlite() if connection.vendor == "sqlite" else verify_postgresql()
        executor = MigrationExecutor(connection)
        if executor.migration_plan(executor.loader.graph.leaf_nodes()):
            raise HostError("the database is of an older version", hint="appliance control migrate")
    except DatabaseError as error:
        raise HostError("the database cannot be used", hint="appliance control migrate") from error


def verify_sqlite() -> None:
    """Check SQLite's durability (https://www.sqlite.org/pragma.html); return None or raise HostError."""
    with connection.cursor() as cursor:
        for pragma, value in (("journal_mode", "wal"), ("synchronous", 2), ("foreign_keys", 1)):
            cursor.execute(f"PRAGMA {pragma}")
            if cursor.fetchone() != (value,):
                raise HostError(
                    f"SQLite runs with another {pragma} than {value}", hint="restart; see settings.py"
                )


def verify_postgresql() -> None:
    """Check PostgreSQL's durability; return None or raise HostError."""
    with connection.cursor() as cursor:
        for setting in ("fsync", "full_page_writes", "synchronous_commit"):
            cursor.execute(f"SHOW {setting}")
            if cursor.fetchone() != ("on",):
                raise HostError(f"PostgreSQL runs with {setting} off", hint=f"set {setting} = on")
