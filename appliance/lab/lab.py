"""A whole lab: boot the machines, connect them, provision them as an operator would, tear all of it down.

State is one JSON file under /run/appliance-lab/<name>/; a lab whose machines died is cleared away by the next `up` or
`down`.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from appliance.core.errors import HostError, UsageError
from appliance.lab import network, provision, tunnel
from appliance.lab.machine import Machine, require_root
from appliance.lab.provision import appliance, wait_until
from appliance.lab.topology import (
    ACME,
    BOLT,
    CLIENTS,
    ENDLESS_MODEL,
    MACHINES,
    MGMT,
    MODEL_OF,
    NODE,
    READING_MODEL,
    TUNNEL_ADDRESS4,
    MachineSpec,
)

BASE = Path("/run/appliance-lab")
CLIENT_FOLDER = "/etc/appliance-client"
Report = Callable[[str], None]


@dataclass(frozen=True)
class Lab:
    """A lab that is up.

    Attributes:
        name: Its name; several labs can be up at once.
        machines: By host name.
        pin_id: The shipped model's pin.
        handshake_ms: Time of the first client's first WireGuard handshake, in milliseconds.
    """

    name: str
    machines: dict[str, Machine]
    pin_id: str
    handshake_ms: float = 0.0

    def __getitem__(self, spec: MachineSpec) -> Machine:
        return self.machines[spec.name]

    @property
    def folder(self) -> Path:
        """The lab's folder on the host."""
        return BASE / self.name


def up(name: str, report: Report) -> Lab:
    """Bring a lab up: machines, cables, management, node, pinned model, two clients with their tunnels.

    Args:
        name: Letters, digits and hyphens.
        report: Told what is being done, for people.

    Raises:
        UsageError: If a lab of this name is up.
        HostError: If something does not start; everything is torn down again then.
    """
    require_root()
    with _lock(name):
        found = _read(name)
        if found and any(machine.alive for machine in found.machines.values()):
            raise UsageError(f"the lab {name} is up", hint=f"appliance lab down --name {name}")
        _clear(name, found)
        machines: dict[str, Machine] = {}
        try:
            report("starting machines")
            for spec in MACHINES:
                machines[spec.name] = Machine.boot(spec, BASE / name / spec.name)
                _write(Lab(name, machines, ""))
            network.connect(machines)
            lab = _provision(Lab(name, machines, ""), report)
        except BaseException:
            if not os.environ.get("APPLIANCE_LAB_KEEP"):
                _clear(name, Lab(name, machines, ""))
            raise
        _write(lab)
        return lab


def down(name: str) -> bool:
    """End a lab and remove everything of it. Returns False if there was none."""
    require_root()
    with _lock(name):
        found = _read(name)
        _clear(name, found)
        return found is not None


def find(name: str) -> Lab:
    """Return the lab of this name.

    Raises:
        UsageError: If it is not up.
    """
    found = _read(name)
    if found is None or not all(machine.alive for machine in found.machines.values()):
        raise UsageError(f"the lab {name} is not up", hint="sudo appliance lab up")
    return found


def add_device(lab: Lab, client: MachineSpec, device: str) -> Machine:
    """Provision a device for a client on its machine, the way a client and an operator do it together.

    The client makes its key; the operator pastes the public half; the client completes what comes back.
    """
    machine, mgmt = lab[client], lab[MGMT]
    machine.run("mkdir", "-p", "-m", "0700", CLIENT_FOLDER)
    key, folder = f"{CLIENT_FOLDER}/{device}.key", f"{CLIENT_FOLDER}/{device}"
    public = json.loads(machine.run(*appliance("client", "keygen", "--out", key, "--json")).stdout)[
        "public_key"
    ]
    configuration = provision.control(mgmt, "device", "add", client.name, device, "--public-key", public)
    given = json.dumps(configuration)
    machine.run(*appliance("client", "config", "-", "--key", key, "--out", folder, "--json"), stdin=given)
    return machine


def _provision(lab: Lab, report: Report) -> Lab:
    report("setting up control")
    public = provision.start_management(lab[MGMT])
    report("setting up the node")
    host_key = provision.start_node(lab[NODE], bundle_key=public["bundle.pub"], ssh_key=public["ssh.pub"])
    report("pinning models")
    pin_id = _pin_models(lab)
    provision.register_node(lab[MGMT], host_key)
    report("waiting for the node to join")
    nginx = lab[NODE].root / "run/appliance/nginx/nginx.conf"
    wait_until(nginx.exists, "the first bundle", lab[NODE])
    report("provisioning clients and tunnels")
    for client in CLIENTS:
        provision.add_client(lab[MGMT], client.name, MODEL_OF[client.name])
        add_device(lab, client, "laptop")
        tunnel.bring_up(lab[client], f"{CLIENT_FOLDER}/laptop/appliance.conf")
    handshakes = [tunnel.first_handshake(lab[client], TUNNEL_ADDRESS4) for client in CLIENTS]
    return Lab(lab.name, lab.machines, pin_id, handshakes[0])


def _pin_models(lab: Lab) -> str:
    """Pin the shipped model and one that talks without end; return the former's pin id."""
    from appliance.lab.synthetic_model import synthetic_manifest, write_model
    from appliance.models import read_model

    folder = lab[MGMT].root / "srv/models"
    folder.mkdir(parents=True, exist_ok=True)
    shipped = read_model()
    shutil.copyfile(shipped.weights, folder / f"{READING_MODEL}.gguf")
    (folder / f"{READING_MODEL}.json").write_bytes(shipped.manifest.canonical_bytes())
    endless = folder / f"{ENDLESS_MODEL}.gguf"
    write_model(endless, ends=False)
    endless.with_suffix(".json").write_bytes(synthetic_manifest(endless).canonical_bytes())
    pins = {
        name: provision.pin_model(
            lab[MGMT], Path(f"/srv/models/{name}.gguf"), Path(f"/srv/models/{name}.json")
        )
        for name in (READING_MODEL, ENDLESS_MODEL)
    }
    return pins[READING_MODEL]


@contextmanager
def _lock(name: str) -> Iterator[None]:
    """Let one command at a time change a lab."""
    BASE.mkdir(mode=0o755, exist_ok=True)
    with (BASE / f".{name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _read(name: str) -> Lab | None:
    try:
        value = json.loads((BASE / name / "lab.json").read_text("utf-8"))
    except (OSError, ValueError):
        return None
    machines = {
        m["name"]: Machine(m["name"], m["pid"], m["started"], Path(m["folder"])) for m in value["machines"]
    }
    return Lab(name, machines, value["pin_id"], value["handshake_ms"])


def _write(lab: Lab) -> None:
    machines = [{**asdict(machine), "folder": str(machine.folder)} for machine in lab.machines.values()]
    file = lab.folder / "lab.json"
    file.with_suffix(".new").write_text(
        json.dumps({"machines": machines, "pin_id": lab.pin_id, "handshake_ms": lab.handshake_ms}), "utf-8"
    )
    file.with_suffix(".new").replace(file)


def _clear(name: str, lab: Lab | None) -> None:
    for machine in lab.machines.values() if lab else ():
        machine.end()
    deadline = time.monotonic() + 10.0
    while (BASE / name).exists():
        try:
            shutil.rmtree(BASE / name)
        except OSError as error:
            # A mount point stays busy until the last process of its namespace is gone.
            if time.monotonic() > deadline:
                raise HostError(
                    f"cannot remove {BASE / name}", hint="is one of its machines still alive?"
                ) from error
            time.sleep(0.05)


__all__ = ["ACME", "BOLT", "CLIENT_FOLDER", "Lab", "add_device", "down", "find", "up"]
