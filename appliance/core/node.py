"""Where things are on a node, and the few settings that come from provisioning rather than from a bundle.

Ansible (or the lab) writes `/etc/appliance/node.json` once; everything else is desired state and comes in bundles.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from appliance.core.errors import HostError, RefusedError
from appliance.core.names import Address4, Address6, InterfaceName, Key32, Name
from appliance.core.schema import Closed

SETTINGS_FILE = Path("/etc/appliance/node.json")


class NodeSettings(Closed):
    """What a node knows before its first bundle.

    Attributes:
        node: Its name.
        outer_interface: Faces the world; only WireGuard's port answers there.
        management_interface: Faces control; only sshd answers there, and only to `control_addresses`.
        tunnel_interface: Name of the WireGuard interface.
        control_addresses: Where control connects from, IPv4 or IPv6.
        bundle_key: Control's bundle key (Ed25519, canonical base64).
        restore_key: Public half of the operator's offline key that alone raises the epoch; None: nothing does.
        services: Who starts NGINX and the cells: systemd, or this product's own launcher where systemd is not PID 1.
        nginx_group: Group that may connect to a cell's http.sock.
        cell_uid_base: First of the uids that the launcher gives to cells (systemd picks its own).
        outer_neighbours: Routers on the outer network whose IPv6 neighbour discovery is answered. Empty: nobody's,
            and the router needs a static neighbour entry.
    """

    node: Name
    outer_interface: InterfaceName
    management_interface: InterfaceName
    tunnel_interface: InterfaceName
    control_addresses: Annotated[tuple[Address4 | Address6, ...], Field(min_length=1, max_length=16)]
    bundle_key: Key32
    restore_key: Key32 | None = None
    services: Literal["systemd", "launcher"]
    nginx_group: str = "www-data"
    cell_uid_base: Annotated[int, Field(ge=1000, le=2**31)] = 61_184
    outer_neighbours: Annotated[tuple[Address6, ...], Field(max_length=8)] = ()


def read_settings(path: Path = SETTINGS_FILE) -> NodeSettings:
    """Read the node's settings.

    Raises:
        HostError: If the file is missing or not what the schema says.
    """
    import json

    try:
        return NodeSettings.parse(json.loads(path.read_text("utf-8")))
    except OSError as error:
        raise HostError(f"cannot read {path}", hint="provision this node first (ansible/)") from error
    except (ValueError, RefusedError) as error:
        reason = error.message if isinstance(error, RefusedError) else "it is not JSON"
        raise HostError(f"{path}: {reason}", hint="provision this node again (ansible/)") from error


@dataclass(frozen=True)
class NodePaths:
    """Every path of a node. `root` is `/` except in tests.

    | path | written by | read by |
    |---|---|---|
    | state/ | agent | agent: accepted.json, bundle.json, raised.json |
    | keys/wireguard.key, keys/tls.key | agent | agent, NGINX |
    | notary/ | notary | notary: signing.key, journal/ |
    | log/ | agent | NGINX, notary: checkpoint, tile/ |
    | models/sha256/<digest>, <digest>.hashed | agent | cells |
    | clients/<client>/ | agent: policy.json; launcher or systemd: http.sock | the client's cell, NGINX |
    | notary_clients/<client>/notary.sock | notary | the client's cell alone: bound into its view |
    | peers/<address>.sock | agent | NGINX; symlink to ../clients/<client>/http.sock |
    | seats/<n> | agent | cells: flock |
    | guests.json | agent | mailbox |
    | mailbox/ (in run) | mailbox: http.sock | NGINX: the folder is its group's |
    | mailbox/ (in var) | mailbox: letters; agent: removes | agent |
    """

    root: Path = Path("/")

    @property
    def etc(self) -> Path:
        return self.root / "etc/appliance"

    @property
    def var(self) -> Path:
        return self.root / "var/lib/appliance"

    @property
    def run(self) -> Path:
        return self.root / "run/appliance"

    @property
    def state(self) -> Path:
        return self.var / "state"

    @property
    def keys(self) -> Path:
        return self.var / "keys"

    @property
    def notary(self) -> Path:
        return self.var / "notary"

    @property
    def log(self) -> Path:
        return self.var / "log"

    @property
    def models(self) -> Path:
        return self.var / "models" / "sha256"

    @property
    def clients(self) -> Path:
        return self.run / "clients"

    @property
    def notary_clients(self) -> Path:
        return self.run / "notary"

    @property
    def notary_control(self) -> Path:
        # In the notary's own folder: its user may make files nowhere else in /run.
        return self.notary_clients / "control.sock"

    @property
    def peers(self) -> Path:
        return self.run / "peers"

    @property
    def mailbox(self) -> Path:
        return self.var / "mailbox"

    @property
    def mailbox_socket(self) -> Path:
        return self.run / "mailbox" / "http.sock"

    @property
    def roster(self) -> Path:
        return self.run / "guests.json"

    @property
    def seats(self) -> Path:
        return self.run / "seats"

    @property
    def nginx(self) -> Path:
        return self.run / "nginx"

    @property
    def agent_socket(self) -> Path:
        return self.run / "agent.sock"

    @property
    def launcher_socket(self) -> Path:
        return self.run / "launcher.sock"
