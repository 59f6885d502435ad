"""`appliance control` as people and scripts run it."""

from __future__ import annotations

import json
import os
import stat
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from control_cast import manifest_for, new_public_key, node_request
from cryptography import x509
from django.contrib.auth.models import User
from gguf_forge import gguf

from appliance.cli import main
from appliance.core.client_configuration import ClientConfiguration
from appliance.core.errors import HostError, UsageError
from control.clients.models import Client
from control.commands import init
from control.config import ControlPaths
from control.fleet.models import Node
from control.reconciler.keys import read_keys

Run = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], db: None) -> Iterator[Run]:
    """Run a command with --json; return its exit code and what it printed last."""
    mask = os.umask(0o077)

    def command(*arguments: str) -> tuple[int, dict[str, Any]]:
        code = main(["control", *arguments, "--json"])
        return code, json.loads(capsys.readouterr().out.strip().splitlines()[-1])

    yield command
    os.umask(mask)


def add_node(run: Run) -> None:
    request = node_request()
    name = request.pop("name")
    options = [part for key, value in request.items() for part in (f"--{key.replace('_', '-')}", str(value))]
    assert run("node", "add", name, *options)[0] == 0
    Node.objects.update(wireguard_public_key=new_public_key(), receipt_public_key=new_public_key())


def test_from_an_empty_control_to_a_device_and_back(run: Run, tmp_path: Path) -> None:
    add_node(run)
    weights, manifest = tmp_path / "tiny.gguf", tmp_path / "manifest.json"
    weights.write_bytes(gguf())
    manifest.write_bytes(manifest_for(gguf()).canonical_bytes())
    code, pinned = run("model", "import", str(weights), "--manifest", str(manifest))
    assert (code, pinned["state"], len(pinned["pin_id"])) == (0, "imported", 64)
    assert run("model", "verify", "tiny", "1.0")[1]["state"] == "verified"
    assert run("model", "activate", "tiny", "1.0")[1]["state"] == "active"
    assert run("client", "add", "acme")[1]["models"] == ["tiny"]
    code, printed = run("device", "add", "acme", "laptop", "--public-key", new_public_key())
    assert code == 0
    assert ClientConfiguration.parse(printed).pin_ids == (pinned["pin_id"],)

    out = tmp_path / "phone.json"
    key = new_public_key()
    assert run("device", "add", "acme", "phone", "--public-key", key, "--out", str(out))[0] == 0
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert ClientConfiguration.parse(json.loads(out.read_text())).public_key == key
    # Not written over, and no device made for nothing.
    again = ("device", "add", "acme", "third", "--public-key", new_public_key(), "--out", str(out))
    assert run(*again)[0] == 2
    assert len(run("device", "list", "--client", "acme")[1]["devices"]) == 2

    assert run("device", "revoke", "acme", "phone")[1]["state"] == "revoked"
    for verb, state in (("suspend", "suspended"), ("resume", "active"), ("revoke", "revoked")):
        assert run("client", verb, "acme")[1]["state"] == state
    assert run("client", "list")[1]["clients"][0]["state"] == "revoked"
    assert run("node", "show", "node-a")[1]["endpoint"] == "203.0.113.77:51820"
    assert run("receipts", "list", "--client", "acme") == (0, {"ok": True, "receipts": []})
    assert run("receipts", "alarms")[0] == 0


def test_a_refusal_names_the_field_and_says_what_to_do(run: Run, acme: Client) -> None:
    code, printed = run("device", "add", "acme", "a", "--public-key", "A" * 43 + "=")
    assert code == 1
    assert printed["error"]["code"] == "refused"
    assert printed["error"]["message"].startswith("public_key: ")
    code, printed = run("client", "revoke", "nobody")
    assert code == 1
    assert "client list" in printed["error"]["hint"]


def test_an_operator_without_a_password_has_tokens_only(run: Run) -> None:
    assert run("operator", "add", "olivia", "--no-password")[0] == 0
    assert run("token", "create", "olivia", "ci")[1]["token"].startswith("sac_")
    assert not User.objects.get().has_usable_password()
    assert run("token", "create", "olivia", "ci")[0] == 1
    assert run("token", "create", "nobody", "ci")[0] == 1


def test_a_weak_password_is_refused(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    import io

    monkeypatch.setattr("sys.stdin", io.StringIO("short\n"))
    code, printed = run("operator", "add", "olivia", "--password-stdin")
    assert code == 1
    assert printed["error"]["message"].startswith("password: ")
    assert not User.objects.exists()


def test_check_says_that_all_is_well(run: Run) -> None:
    assert run("check") == (0, {"ok": True})


def test_a_list_for_people_is_a_table_under_its_names(
    acme: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    mask = os.umask(0o077)
    assert main(["control", "client", "list"]) == 0
    os.umask(mask)
    head, row = capsys.readouterr().out.splitlines()
    assert head.split() == ["name", "state", "home", "name", "allowed", "models", "expires", "at", "warning"]
    assert row.split() == ["acme", "active", "node-a", "tiny", "-", "-"]


def arguments(state: Path, **changes: Any) -> Namespace:
    values: dict[str, Any] = {
        "state": state,
        "listen": "127.0.0.1:8443",
        "plain_http": False,
        "reconciler_user": None,
        "web_user": None,
        "config": None,
    }
    return Namespace(**(values | changes))


def test_init_makes_everything_once_and_never_overwrites(tmp_path: Path) -> None:
    state = tmp_path / "state"
    assert len(init.run(arguments(state))["made"]) == 9
    paths = ControlPaths(state)
    before = {path: path.read_bytes() for path in state.rglob("*") if path.is_file()}
    assert init.run(arguments(state))["made"] == []
    assert {path: path.read_bytes() for path in state.rglob("*") if path.is_file()} == before
    # A public half that was lost is made again from the key, the same.
    lost = paths.public / "bundle.pub"
    lost.unlink()
    init.run(arguments(state))
    assert lost.read_bytes() == before[lost]


def test_private_keys_are_for_their_owner_alone(tmp_path: Path) -> None:
    state = tmp_path / "state"
    mask = os.umask(0)
    init.run(arguments(state))
    os.umask(mask)
    paths = ControlPaths(state)
    assert stat.S_IMODE(paths.keys.stat().st_mode) == 0o700
    for path in paths.keys.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for path in (paths.secret_key, paths.console_key):
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert stat.S_IMODE(paths.factor_key.stat().st_mode) == 0o600, "the web process's, not the reconciler's"
    for path in paths.public.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o644
        assert b"PRIVATE" not in path.read_bytes()
    assert stat.S_IMODE(paths.database_folder.stat().st_mode) == 0o2770


def test_the_console_s_certificate_comes_from_the_ca(tmp_path: Path) -> None:
    init.run(arguments(tmp_path / "state", listen="[fd00::1]:8443"))
    paths = ControlPaths(tmp_path / "state")
    ca = x509.load_pem_x509_certificate(paths.ca_certificate.read_bytes())
    leaf = x509.load_pem_x509_certificate(paths.console_certificate.read_bytes())
    leaf.verify_directly_issued_by(ca)
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(ip) for ip in names.get_values_for_type(x509.IPAddress)] == ["fd00::1"]
    constraints = ca.extensions.get_extension_for_class(x509.NameConstraints).value
    assert constraints.permitted_subtrees == [x509.DNSName("appliance.internal")]
    read_keys(paths)


def test_a_lost_private_key_is_never_replaced_quietly(tmp_path: Path) -> None:
    state = tmp_path / "state"
    init.run(arguments(state))
    (ControlPaths(state).keys / "log.key").write_bytes(b"damaged")
    with pytest.raises(HostError, match=r"log\.key"):
        init.run(arguments(state))


@pytest.mark.parametrize(
    "changes",
    [
        {"listen": "0.0.0.0:8443"},
        {"listen": "somewhere"},
        {"listen": "127.0.0.1:99999"},
        {"reconciler_user": "root"},
    ],
)
def test_init_refuses_what_makes_no_sense(tmp_path: Path, changes: dict[str, str]) -> None:
    with pytest.raises(UsageError):
        init.run(arguments(tmp_path / "state", **changes))


def test_init_needs_users_that_exist(tmp_path: Path) -> None:
    with pytest.raises(HostError):
        init.run(arguments(tmp_path / "s", reconciler_user="no-such-user-x", web_user="no-such-user-y"))
