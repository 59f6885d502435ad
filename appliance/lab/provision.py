"""What Ansible does on real machines, done for lab machines: users, files, keys, services in order.

Nothing here knows the product's insides: it uses the same commands as an operator.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

from appliance.core.errors import HostError
from appliance.core.node import NodePaths, NodeSettings
from appliance.lab.machine import Machine
from appliance.lab.topology import (
    CONSOLE_PORT,
    MANAGEMENT,
    MGMT_ADDRESS,
    NODE,
    NODE_MGMT_ADDRESS,
    OUTER,
    TUNNEL,
    TUNNEL_ADDRESS4,
    TUNNEL_ADDRESS6,
    TUNNEL_NETWORK4,
    TUNNEL_NETWORK6,
    WIREGUARD_PORT,
)

CONTROL_STATE = "/var/lib/appliance-control"
CONTROL_CONFIG = f"{CONTROL_STATE}/control.json"
LIMITS = "/srv/limits.json"
RELAY_USER, NOTARY_USER, MAILBOX_USER = "appliance-relay", "appliance-notary", "appliance-mailbox"
WEB_USER, RECONCILER_USER = "appliance-web", "appliance-reconcile"
READY_TIMEOUT_S = 30.0
CELL_IDLE_S = 5
CONTROL_ENVIRONMENT = {"APPLIANCE_CONTROL_CONFIG": CONTROL_CONFIG}


def appliance(*arguments: str) -> tuple[str, ...]:
    """Return the command line of an `appliance` verb."""
    return (sys.executable, "-I", "-m", "appliance", *arguments)


def wait_until(
    ready: Callable[[], bool], what: str, machine: Machine, timeout_s: float = READY_TIMEOUT_S
) -> None:
    """Wait for something to become true.

    Raises:
        HostError: After `timeout_s`, with the place of the logs.
    """
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if ready():
            return
        time.sleep(0.03)
    raise HostError(
        f"{machine.name}: {what} was not ready after {timeout_s:.0f} s", hint=f"look in {machine.folder}"
    )


def add_user(machine: Machine, name: str, login: str = "/usr/sbin/nologin") -> None:
    """Add a system user with a group of its own name."""
    machine.run(
        "useradd", "--system", "--user-group", "--no-create-home", "--home-dir", "/", "--shell", login, name
    )


def start_management(mgmt: Machine) -> dict[str, str]:
    """Set up control and start its web process and reconciler.

    Returns:
        Public material by file name: bundle.pub, ssh.pub.
    """
    for user in (WEB_USER, RECONCILER_USER):
        add_user(mgmt, user)
    mgmt.run("usermod", "--append", "--groups", WEB_USER, RECONCILER_USER)
    initialise = ("control", "init", "--state", CONTROL_STATE)
    listen = ("--listen", f"{MGMT_ADDRESS}:{CONSOLE_PORT}")
    mgmt.run(*appliance(*initialise, *listen, "--web-user", WEB_USER, "--reconciler-user", RECONCILER_USER))
    mgmt.run(*appliance("control", "migrate"), user=WEB_USER, env=CONTROL_ENVIRONMENT)
    mgmt.service("control-web", *appliance("control", "serve"), user=WEB_USER, env=CONTROL_ENVIRONMENT)
    mgmt.service(
        "reconciler", *appliance("control", "reconcile"), user=RECONCILER_USER, env=CONTROL_ENVIRONMENT
    )
    public = mgmt.root / CONTROL_STATE.lstrip("/") / "public"
    return {name: (public / name).read_text("utf-8").strip() for name in ("bundle.pub", "ssh.pub")}


def control(mgmt: Machine, *arguments: str, stdin: str | None = None) -> dict[str, object]:
    """Run `appliance control … --json` as the web process's user and return what it printed."""
    command = appliance("control", *arguments, "--json")
    printed = mgmt.run(*command, user=WEB_USER, stdin=stdin, env=CONTROL_ENVIRONMENT).stdout
    value = json.loads(printed.strip().splitlines()[-1])
    if not isinstance(value, dict):
        raise HostError(f"`appliance control {arguments[0]}` printed no object")
    return value


def start_node(node: Machine, *, bundle_key: str, ssh_key: str) -> str:
    """Provision a node and start its services.

    Args:
        bundle_key: Control's bundle key (content of bundle.pub).
        ssh_key: Control's SSH public key (content of ssh.pub).

    Returns:
        The node's SSH host key, for pinning.
    """
    add_user(node, RELAY_USER, login="/bin/sh")
    # A password that nothing matches: sshd refuses accounts that are locked ("!") altogether.
    node.run("usermod", "--password", "*", RELAY_USER)
    for user in (NOTARY_USER, MAILBOX_USER):
        add_user(node, user)
    settings = NodeSettings(
        node=NODE.name,
        outer_interface=OUTER,
        management_interface=MANAGEMENT,
        tunnel_interface=TUNNEL,
        control_addresses=(MGMT_ADDRESS,),
        bundle_key=bundle_key,
        services="launcher",
    )
    paths = NodePaths(node.root)
    node.write("/etc/appliance/node.json", json.dumps(settings.model_dump(mode="json"), indent=2) + "\n")
    for folder in (paths.notary, paths.notary_clients):
        folder.mkdir(parents=True, mode=0o700)
        node.run("chown", NOTARY_USER, "/" + str(folder.relative_to(node.root)))
    for folder, group in ((paths.mailbox, MAILBOX_USER), (paths.mailbox_socket.parent, settings.nginx_group)):
        folder.mkdir(parents=True, mode=0o750)
        node.run("chown", f"{MAILBOX_USER}:{group}", "/" + str(folder.relative_to(node.root)))
    node.service("notary", *appliance("notary"), user=NOTARY_USER)
    node.service("mailbox", *appliance("mailbox"), user=MAILBOX_USER)
    reload_nginx = ("nginx", "-c", "/run/appliance/nginx/nginx.conf", "-s", "reload")
    node.service("launcher", *appliance("launcher", "--after-exit", *reload_nginx))
    wait_until(lambda: paths.launcher_socket.exists() and paths.notary_control.exists(), "the notary", node)
    node.service("agent", *appliance("agent"))
    wait_until(paths.agent_socket.exists, "the agent", node)
    return start_sshd(node, ssh_key)


def start_sshd(node: Machine, ssh_key: str) -> str:
    """Start sshd on the management address, for control's key and the relay alone; return the host key."""
    folder = "/etc/appliance/ssh"
    (node.root / folder.lstrip("/")).mkdir(parents=True)
    node.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", NODE.name, "-f", f"{folder}/host")
    relay = " ".join(appliance("node", "relay"))
    node.write(f"{folder}/authorized_keys", f'restrict,command="{relay}" {ssh_key}\n')
    node.write(f"{folder}/sshd_config", _sshd_config(folder))
    (node.root / "run/sshd").mkdir(exist_ok=True)
    sshd = node.run("sh", "-c", "command -v sshd").stdout.strip()  # sshd must be started by its absolute path
    node.service("sshd", sshd, "-D", "-e", "-f", f"{folder}/sshd_config")
    return " ".join((node.root / folder.lstrip("/") / "host.pub").read_text("utf-8").split()[:2])


def _sshd_config(folder: str) -> str:
    settings = {
        "ListenAddress": NODE_MGMT_ADDRESS,
        "HostKey": f"{folder}/host",
        "PidFile": "none",
        "AllowUsers": RELAY_USER,
        "AuthorizedKeysFile": f"{folder}/authorized_keys",
        "AuthenticationMethods": "publickey",
        "PasswordAuthentication": "no",
        "KbdInteractiveAuthentication": "no",
        "PermitRootLogin": "no",
        "UsePAM": "no",
        "DisableForwarding": "yes",
        "PermitTTY": "no",
        "PermitUserRC": "no",
        "LogLevel": "ERROR",
    }
    return "".join(f"{key} {value}\n" for key, value in settings.items())


def register_node(mgmt: Machine, host_key: str) -> None:
    """Tell control about the node."""
    control(
        mgmt,
        *("node", "add", NODE.name),
        *("--address", NODE_MGMT_ADDRESS, "--user", RELAY_USER, "--host-key", host_key),
        *("--endpoint", f"{NODE.outer4}:{WIREGUARD_PORT}"),
        *("--network4", TUNNEL_NETWORK4, "--network6", TUNNEL_NETWORK6),
        *("--address4", TUNNEL_ADDRESS4, "--address6", TUNNEL_ADDRESS6),
        *("--seats", "2"),
    )


def add_client(mgmt: Machine, name: str, model: str) -> None:
    """Create a client whose cell exits soon after its last session, so that a demo does not wait a minute for it."""
    mgmt.write(LIMITS, json.dumps({"cell_idle_s": CELL_IDLE_S}))
    control(mgmt, "client", "add", name, "--model", model, "--limits", LIMITS)


def pin_model(mgmt: Machine, weights: Path, manifest: Path) -> str:
    """Import a model into control, verify and activate it; return its pin id."""
    pin = control(mgmt, "model", "import", str(weights), "--manifest", str(manifest))
    for verb in ("verify", "activate"):
        control(mgmt, "model", verb, str(pin["name"]), str(pin["version"]))
    return str(pin["pin_id"])
