"""The web process reads no private key: everything it does works with the keys out of its reach."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from control_cast import OverTls, new_public_key, node_request, store_pin
from django.conf import settings
from django.urls import reverse

from control.audit.models import ReceiptRecord
from control.fleet.models import Node
from control.pins.models import PinState
from control.reconciler.keys import read_keys

_watching: list[list[str]] = []


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and _watching and isinstance(arguments[0], (str, bytes, Path)):
        path = arguments[0].decode() if isinstance(arguments[0], bytes) else str(arguments[0])
        if str(settings.PATHS.keys) in path:
            _watching[-1].append(path)


sys.addaudithook(_hook)  # sees every open(2) that Python makes; cannot be removed, so it can be idle


@contextmanager
def opened_keys() -> Iterator[list[str]]:
    """Collect every path under the key folder that is opened."""
    _watching.append([])
    try:
        yield _watching[-1]
    finally:
        _watching.pop()


@pytest.fixture
def keys_out_of_reach() -> Iterator[None]:
    """Move the private keys away, so that code which needs one fails whoever runs the test."""
    hidden = settings.PATHS.keys.with_name("hidden")
    settings.PATHS.keys.rename(hidden)
    try:
        yield
    finally:
        hidden.rename(settings.PATHS.keys)


def use_everything(api: OverTls, node: Node) -> None:
    base = "/api/v1"
    pin = store_pin(b"weights", PinState.VERIFIED)
    assert api.post(f"{base}/pins/{pin.pin_id}/activate").status_code == 200
    posts: list[tuple[str, dict[str, Any]]] = [
        ("nodes", node_request("node-b", 78)),
        ("clients", {"name": "acme", "node": node.name}),
        ("devices", {"client": "acme", "name": "laptop", "public_key": new_public_key()}),
    ]
    for where, body in posts:
        assert api.post(f"{base}/{where}", body, format="json").status_code == 201
    for where in ("clients", "devices", "nodes", "pins", "receipts", "alarms", "health", "clients/acme"):
        assert api.get(f"{base}/{where}").status_code == 200
    for verb in ("suspend", "resume", "revoke"):
        assert api.post(f"{base}/clients/acme/{verb}").status_code == 200


def test_the_api_and_the_console_work_without_the_keys(
    api: OverTls, node: Node, operator: Any, keys_out_of_reach: None
) -> None:
    with opened_keys() as opened:
        use_everything(api, node)
        browser = OverTls()
        browser.force_login(operator)
        assert browser.get(reverse("admin:index")).status_code == 200
    assert opened == []
    assert not ReceiptRecord.objects.exists()


def test_positive_control_the_reconciler_s_reading_is_seen() -> None:
    with opened_keys() as opened:
        read_keys(settings.PATHS)
    assert {Path(path).name for path in opened} >= {"bundle.key", "log.key", "ca.key", "seal.key"}


def test_nothing_that_the_web_process_imports_knows_the_reconciler(db: None) -> None:
    import subprocess

    program = (
        "import django; django.setup(); from django.urls import get_resolver; get_resolver().url_patterns;"
        "import sys; print([m for m in sys.modules if m.startswith(('control.reconciler', 'provisioning',"
        " 'paramiko', 'control.keyfiles'))])"
    )
    import os

    env = {"PATH": os.environ["PATH"], "DJANGO_SETTINGS_MODULE": "control.settings"}
    env["APPLIANCE_CONTROL_CONFIG"] = os.environ["APPLIANCE_CONTROL_CONFIG"]
    done = subprocess.run(
        [sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
