"""Django's settings for tests and the type checker: a throw-away control, then the real settings module.

Production has no default: there, a missing `APPLIANCE_CONTROL_CONFIG` is refused. Set it to run the tests against
another database.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
import time
from argparse import Namespace
from pathlib import Path

from control.commands import init
from control.config import VARIABLE


def make_control(state: Path) -> Path:
    """Make keys and settings under `state` and return the settings file."""
    arguments = Namespace(
        state=state,
        listen="127.0.0.1:8443",
        plain_http=False,
        reconciler_user=None,
        web_user=None,
        config=None,
    )
    return Path(init.run(arguments)["config"])


def sweep(older_than_s: float = 3600.0) -> None:
    """Remove what runs left behind that ended without their exit handlers (mypy always does)."""
    for folder in Path(tempfile.gettempdir()).glob("appliance-control-*"):
        if folder.stat().st_uid == os.geteuid() and time.time() - folder.stat().st_mtime > older_than_s:
            shutil.rmtree(folder, ignore_errors=True)


if VARIABLE not in os.environ:
    sweep()
    _folder = Path(tempfile.mkdtemp(prefix="appliance-control-"))
    atexit.register(shutil.rmtree, _folder, ignore_errors=True)
    os.environ[VARIABLE] = str(make_control(_folder / "state"))

from control.settings import *  # noqa: F403

ALLOWED_HOSTS = ["testserver"]
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]  # a real one takes most of a test's time
