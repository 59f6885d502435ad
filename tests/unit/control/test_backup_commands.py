"""`appliance control backup …` as operators run it: from the keys for the safe to a control that stands elsewhere."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_postgresql import server as postgresql_server  # noqa: F401 - a fixture

from tests.settings import make_control

ROOT = Path(__file__).parents[3]


@pytest.fixture
def place() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="bc-"))
    yield folder
    shutil.rmtree(folder)


def control(*arguments: str, config: Path | None = None, ok: bool = True) -> dict[str, Any]:
    """Run a command in a process of its own, as a control that knows nothing of these tests."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("APPLIANCE", "DJANGO"))
    }
    where = ["--config", str(config)] if config else []
    done = subprocess.run(
        [sys.executable, "-m", "appliance", "control", *arguments, *where, "--json"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (done.returncode == 0) is ok, done.stderr[-2000:]
    answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return answer


def test_from_the_safe_to_a_control_that_stands_elsewhere(place: Path) -> None:
    config = make_control(place / "one")
    control("migrate", config=config)
    refused = control("backup", "create", str(place / "file"), config=config, ok=False)
    assert "backup keygen" in refused["error"]["hint"]
    made = control("backup", "keygen", "--out", str(place / "safe"), config=config)
    safe = place / "safe"
    assert {path.name for path in safe.iterdir()} == {"restore.key", "backup.identity"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in safe.iterdir()} == {0o600}
    assert made["restore_key"] == (place / "one/public/restore.pub").read_text().strip()
    again = control("backup", "keygen", "--out", str(place / "other"), config=config, ok=False)
    assert "already" in again["error"]["message"]

    control("operator", "add", "ada", "--role", "auditor", "--no-password", config=config)
    control("backup", "create", str(place / "file"), config=config)
    opening = ("--identity", str(safe / "backup.identity"))
    bundle_key = (place / "one/public/bundle.pub").read_text().strip()
    verified = control("backup", "verify", str(place / "file"), *opening, "--bundle-key", bundle_key)
    assert verified["keys"]
    living = control(
        "backup", "restore", str(place / "file"), *opening, "--state", str(place / "one"), ok=False
    )
    assert "not empty" in living["error"]["message"]
    shutil.rmtree(place / "one")
    restored = control("backup", "restore", str(place / "file"), *opening, "--state", str(place / "two"))
    assert any("epoch raise" in step for step in restored["next"])
    config = place / "two/control.json"
    names = [one["name"] for one in control("operator", "list", config=config)["operators"]]
    assert names == ["ada"]
    assert control("epoch", "show", config=config)["must_be_raised"]
    raised = control("epoch", "raise", "--restore-key", str(safe / "restore.key"), config=config)
    assert raised["epoch"] == 2
    assert control("log", "compare", config=config)["caught_up"] == 0
    assert control("reconcile", "--once", config=config) == {"ok": True, "nodes": {}}
    # A backup of the restored control is one of the epoch that it is in now.
    assert control("backup", "create", str(place / "next"), config=config)["epoch"] == 2


def test_a_passphrase_that_is_guessed_in_a_week_is_not_taken(place: Path) -> None:
    config = make_control(place / "one")
    control("migrate", config=config)
    (place / "pass").write_text("short\n")
    option = ("--passphrase-file", str(place / "pass"))
    refused = control("backup", "create", str(place / "file"), *option, config=config, ok=False)
    assert "shorter" in refused["error"]["message"]
    (place / "pass").write_text("correct horse battery staple\n")
    control("backup", "create", str(place / "file"), *option, config=config)
    assert control("backup", "verify", str(place / "file"), *option)["devices"] == 0


def test_postgresql_is_dumped_and_loaded(postgresql_server: tuple[Path, str], place: Path) -> None:  # noqa: F811
    host, user = postgresql_server
    config = make_control(place / "one")
    settings = json.loads(config.read_text())
    settings["database"] = {"engine": "postgresql", "host": str(host), "name": "postgres", "user": user}
    config.write_text(json.dumps(settings))
    control("migrate", config=config)
    control("operator", "add", "ada", "--role", "auditor", "--no-password", config=config)
    control("backup", "keygen", "--out", str(place / "safe"), config=config)
    control("backup", "create", str(place / "file"), config=config)
    opening = ("--identity", str(place / "safe/backup.identity"))
    assert control("backup", "verify", str(place / "file"), *opening)["epoch"] == 1
    restore = ("backup", "restore", str(place / "file"), *opening, "--state", str(place / "two"))
    refused = control(*restore, ok=False)
    assert "not empty" in refused["error"]["message"], "a living database is never overwritten"
    assert not (place / "two").exists()
    for statement in ("DROP SCHEMA public CASCADE", "CREATE SCHEMA public"):
        subprocess.run(
            ["psql", "-q", "-h", str(host), "-U", user, "-d", "postgres", "-c", statement],
            check=True,
            capture_output=True,
        )
    control(*restore)
    assert not list((place / "two/db").glob("*.pgdump"))
    config = place / "two/control.json"
    assert [one["name"] for one in control("operator", "list", config=config)["operators"]] == ["ada"]
    assert control("epoch", "show", config=config)["must_be_raised"]
