"""The node as it is: everything that is read and changed, in one place. `observe` reads it, `apply` does one action."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from appliance.core.node import NodePaths, NodeSettings
from netops import actions
from netops.actions import Action
from netops.files import NodeFiles
from netops.firewall import FirewallTable
from netops.model import Served, State
from netops.nftables import SETS, Elements
from netops.services import Notary, make_cells
from netops.tunnel import Tunnel
from netops.web import WebServer


class World:
    """A node's kernel tables, files and services."""

    def __init__(self, settings: NodeSettings, paths: NodePaths) -> None:
        self.tunnel = Tunnel(settings.tunnel_interface, paths.keys / "wireguard.key", paths.run)
        self.firewall = FirewallTable(paths.run)
        self.files = NodeFiles(paths)
        self.web = WebServer(paths, settings.services)
        self.notary = Notary(paths)
        self.cells = make_cells(settings, paths)
        self._name = settings.tunnel_interface

    def observe(self) -> State:
        """Read everything.

        Raises:
            HostError: If a tool fails.
        """
        with ThreadPoolExecutor(2) as tools:  # their processes take half of the time, and do not need ours
            asked = tools.submit(self.tunnel.observe), tools.submit(self.firewall.observe)
            files = self.files.observe()
            served = Served(notary=self.notary.observe(), cells=self.cells.observe())
            web = self.web.observe()
            tunnel, (_, firewall) = asked[0].result(), asked[1].result()
        return State(
            firewall=firewall,
            interface=tunnel.interface,
            peers={status.peer.public_key: status.peer for status in tunnel.peers},
            files=files,
            served=served,
            web=web,
        )

    def apply(self, action: Action) -> None:  # noqa: PLR0912 - one line for each action, nothing else
        """Do one action.

        Raises:
            HostError: If a tool fails.
            UnavailableError: If the notary or the launcher does not answer.
        """
        match action:
            case actions.RemovePeers(keys):
                self.tunnel.remove_peers(keys)
            case actions.SetPeers(peers):
                self.tunnel.set_peers(peers)
            case actions.DeleteElements():
                self.firewall.delete(_elements(action))
            case actions.AddElements():
                self.firewall.add(_elements(action))
            case actions.EndFlows(addresses):
                self.firewall.end_flows(addresses)
            case actions.LoadFirewall(rules):
                self.firewall.load(rules, _elements(action))
            case actions.RemoveAddresses(addresses):
                self.tunnel.remove_addresses(addresses)
            case actions.DeleteInterface():
                self.tunnel.delete()
            case actions.ConfigureInterface(interface, create):
                self.tunnel.configure(interface, create=create)
            case actions.WritePolicies(policies) | actions.RevokePolicies(policies):
                self.files.write_policies(policies)
            case actions.RemoveClients(clients):
                self.files.remove_clients(clients)
            case actions.WriteRoutes(routes):
                self.files.write_routes(routes)
            case actions.RemoveRoutes(names):
                self.files.remove_routes(names)
            case actions.WriteRoster(roster):
                self.files.write_roster(roster)
            case actions.WriteSeats(names):
                self.files.write_seats(names)
            case actions.RemoveSeats(names):
                self.files.remove_seats(names)
            case actions.ServeNotary(accounts):
                self.notary.serve(accounts)
            case actions.ServeCells(served):
                self.cells.serve(served)
            case actions.ConfigureWeb(config, certificate):
                self.web.configure(config, certificate)
            case actions.StopWeb():
                self.web.stop()

    def report(self) -> dict[str, Any]:
        """Return what `observe` answers (docs/spec/node-protocols.md section 1.1)."""
        now = int(time.time())
        tunnel, (loaded, firewall) = self.tunnel.observe(), self.firewall.observe()
        files, interface = self.files.observe(), tunnel.interface
        return {
            "interface": {
                "name": self._name,
                "kind": tunnel.kind,
                "listen_port": interface.listen_port if interface else None,
                "addresses": sorted(interface.addresses) if interface else [],
            },
            "peers": [
                {
                    "public_key": status.peer.public_key,
                    "preshared": status.peer.preshared_key is not None,
                    "allowed_ips": sorted(status.peer.allowed_ips),
                    "handshake_age_s": now - status.handshake_at_s if status.handshake_at_s else None,
                }
                for status in sorted(tunnel.peers, key=lambda status: status.peer.public_key)
            ],
            "firewall": {"loaded": loaded, **{name: len(getattr(firewall, name)) for name in SETS}},
            "clients": sorted(files.policies),
            "routes": len(files.routes),
            "nginx": {"running": self.web.pid() is not None},
            "seats": len(files.seats),
        }


def _elements(action: actions.LoadFirewall | actions.AddElements | actions.DeleteElements) -> Elements:
    return {name: getattr(action, name) for name in SETS}
