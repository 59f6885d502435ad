"""Control's own tests once more, on a PostgreSQL server that this test starts and throws away."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.db import connection

from control.config import VARIABLE
from tests.settings import make_control

BINARIES = next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)), None)
HERE = Path(__file__).parent
SUITE = (
    "test_clients.py",
    "test_client_expiry.py",
    "test_invitations.py",
    "test_model_verbs.py",
    "test_operator_sessions.py",
    "test_second_factor.py",
    "test_reconciler.py",
    "test_console.py",
    "test_commands.py",
    "test_api.py",
    "test_api_manners.py",
    "test_receipts_admitted.py",
    "test_heartbeats.py",
    "test_receipts_search.py",
    "test_receipts_export.py",
    "test_receipts_console.py",
)
# The matrix of credentials and bodies says nothing about the database.
DESELECT = "not nobody_gets_in and not malformed_body"


def _user() -> str:
    """PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return pwd.getpwuid(os.geteuid()).pw_name
    try:
        return pwd.getpwnam("postgres").pw_name
    except KeyError:
        pytest.skip("no user postgres to run the server as")


def _run(folder: Path, user: str, *argv: str) -> None:
    drop = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"]
    whole = [*(drop if os.geteuid() == 0 else []), *argv]
    subprocess.run(whole, cwd=folder, check=True, stdout=subprocess.DEVNULL)


@pytest.fixture
def server() -> Iterator[tuple[Path, str]]:
    """A server on a Unix socket in a folder of its own."""
    if BINARIES is None:
        pytest.skip("PostgreSQL is not installed (apt install postgresql)")
    user = _user()
    folder = Path(tempfile.mkdtemp(prefix="appliance-pg-"))
    entry = pwd.getpwnam(user)
    os.chown(folder, entry.pw_uid, entry.pw_gid)
    data = folder / "data"
    initdb = [str(BINARIES / "initdb"), "-D", str(data), "-A", "trust", "-U", "control", "--no-sync"]
    pg_ctl = [str(BINARIES / "pg_ctl"), "-D", str(data), "-w"]
    options = f"-c listen_addresses='' -k {folder}"
    try:
        _run(folder, user, *initdb)
        _run(folder, user, *pg_ctl, "-o", options, "-l", str(folder / "log"), "start")
        yield folder, "control"
        _run(folder, user, *pg_ctl, "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder)


@pytest.mark.skipif(connection.vendor == "postgresql", reason="this is the run on PostgreSQL")
def test_control_works_on_postgresql(server: tuple[Path, str], tmp_path: Path) -> None:
    host, user = server
    file = make_control(tmp_path / "state")
    config = json.loads(file.read_text())
    config["database"] = {"engine": "postgresql", "host": str(host), "name": "postgres", "user": user}
    file.write_text(json.dumps(config))
    argv = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-k", DESELECT]
    done = subprocess.run(
        [*argv, *(str(HERE / name) for name in SUITE)],
        env={**os.environ, VARIABLE: str(file)},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
