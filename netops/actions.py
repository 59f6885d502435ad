"""What a plan consists of: batches of changes, each of which can say in text what it does.

A plan is a value. `World.apply` does one action, `simulate` says what it leads to, and `lines` is what
`appliance node plan` prints.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from netops.model import Account, Interface, Peer


@dataclass(frozen=True)
class RemovePeers:
    """Remove WireGuard peers; nothing of theirs passes from then on."""

    public_keys: tuple[str, ...]

    def lines(self) -> Iterator[str]:
        """Say what it does."""
        yield from (f"remove peer {key}" for key in self.public_keys)


@dataclass(frozen=True)
class SetPeers:
    """Add WireGuard peers, or change them in place; no other peer notices."""

    peers: tuple[Peer, ...]
    changed: frozenset[str] = frozenset()

    def lines(self) -> Iterator[str]:
        """Say what it does."""
        for peer in self.peers:
            verb = "change" if peer.public_key in self.changed else "add"
            yield f"{verb} peer {peer.public_key} {','.join(sorted(peer.allowed_ips))}"


@dataclass(frozen=True)
class DeleteElements:
    """Take addresses out of the firewall's sets."""

    peers4: tuple[str, ...]
    peers6: tuple[str, ...]
    guests4: tuple[str, ...] = ()
    guests6: tuple[str, ...] = ()

    def lines(self) -> Iterator[str]:
        """Say what it does."""
        yield from (f"close firewall for {address}" for address in (*self.peers4, *self.peers6))
        yield from (f"close mailbox for {address}" for address in (*self.guests4, *self.guests6))


@dataclass(frozen=True)
class AddElements:
    """Put addresses into the firewall's sets."""

    peers4: tuple[str, ...]
    peers6: tuple[str, ...]
    guests4: tuple[str, ...] = ()
    guests6: tuple[str, ...] = ()

    def lines(self) -> Iterator[str]:
        """Say what it does."""
        yield from (f"open firewall for {address}" for address in (*self.peers4, *self.peers6))
        yield from (f"open mailbox for {address}" for address in (*self.guests4, *self.guests6))


@dataclass(frozen=True)
class EndFlows:
    """Drop connection tracking entries, so that what was established is not any more."""

    addresses: tuple[str, ...]

    def lines(self) -> Iterator[str]:
        """Say what it does."""
        yield from (f"end flows of {address}" for address in self.addresses)


@dataclass(frozen=True)
class LoadFirewall:
    """Replace the whole table in one transaction, keeping these elements."""

    rules: str
    peers4: tuple[str, ...]
    peers6: tuple[str, ...]
    guests4: tuple[str, ...] = ()
    guests6: tuple[str, ...] = ()

    def lines(self) -> Iterator[str]:
        """Say what it does."""
        kept4, kept6 = len(self.peers4) + len(self.guests4), len(self.peers6) + len(self.guests6)
        yield f"load firewall rules, {kept4} IPv4 and {kept6} IPv6 addresses kept"


@dataclass(frozen=True)
class RemoveAddresses:
    """Take addresses off the tunnel interface."""

    addresses: tuple[str, ...]

    def lines(self) -> Iterator[str]:
        """Say what it does."""
        yield from (f"remove tunnel address {address}" for address in self.addresses)


@dataclass(frozen=True)
class DeleteInterface:
    """Delete the tunnel interface and every peer with it."""

    def lines(self) -> Iterator[str]:
        """Say what it does."""
        yield "delete tunnel interface"


@dataclass(frozen=True)
class ConfigureInterface:
    """Create the tunnel interface, or set what differs, without touching its peers."""

    interface: Interface
    create: bool

    def lines(self) -> Iterator[str]:
        """Say what it does."""
        addresses = ",".join(sorted(self.interface.addresses))
        verb = "create" if self.create else "configure"
        yield f"{verb} tunnel interface: port {self.interface.listen_port}, {addresses}"


@dataclass(frozen=True)
class WritePolicies:
    """Write policy.json of these clients; cells read it anew when it changes."""

    policies: Mapping[str, bytes]

    def lines(self) -> Iterator[str]:
        """Say what it does."""
        yield from (f"write policy of {client}" for client in self.policies)


@dataclass(frozen=True)
class RevokePolicies:
    """Mark these clients' policies as revoked; their cells end every session and exit."""

    policies: Mapping[str, bytes]

    def lines(self) -> Iterator[str]:
        """Say what it does."""
        yield from (f"revoke policy of {client}" for client in self.policies)


@dataclass(frozen=True)
class RemoveClients:
    """Remove the folders of clients that are gone."""

    clients: tuple[str, ...]

    def lines(self) -> Iterator[str]:
        """Say what it does."""
        yield from (f"remove folder of {client}" for client in self.clients)


@dataclass(frozen=True)
class WriteRoutes:
    """Point names in `peers/` at clients' sockets."""

    routes: Mapping[str, str]

    def lines(self) -> Iterator[str]:
        """Say what it does."""
        yield from (f"route {name} to {client}" for name, client in self.routes.items())


@dataclass(frozen=True)
class RemoveRoutes:
    """Remove names from `peers/`."""

    names: tuple[str, ...]

    def lines(self) -> Iterator[str]:
        """Say what it does."""
        yield from (f"remove route {name}" for name in self.names)


@dataclass(frozen=True)
class WriteRoster:
    """Tell the mailbox whom it knows, None for nobody, and forget the letters of all others."""

    roster: bytes | None

    def lines(self) -> Iterator[str]:
        """Say what it does."""
        yield "remove the roster of guests" if self.roster is None else "write the roster of guests"


@dataclass(frozen=True)
class WriteSeats:
    """Make seat files."""

    names: tuple[str, ...]

    def lines(self) -> Iterator[str]:
        """Say what it does."""
        yield from (f"add seat {name}" for name in self.names)


@dataclass(frozen=True)
class RemoveSeats:
    """Remove seat files; a cell that holds one keeps it until it exits."""

    names: tuple[str, ...]

    def lines(self) -> Iterator[str]:
        """Say what it does."""
        yield from (f"remove seat {name}" for name in self.names)


@dataclass(frozen=True)
class ServeNotary:
    """Tell the notary the whole set of clients.

    Attributes:
        clients: Name to account.
        added, removed: What changes by it.
    """

    clients: Mapping[str, Account]
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()

    def lines(self) -> Iterator[str]:
        """Say what it does."""
        yield from (f"notary: drop {client}" for client in self.removed)
        yield from (f"notary: serve {client}" for client in self.added)


@dataclass(frozen=True)
class ServeCells:
    """Tell whoever starts cells the whole set of clients; `added` and `removed` say what changes by it."""

    clients: tuple[str, ...]
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()

    def lines(self) -> Iterator[str]:
        """Say what it does."""
        yield from (f"cells: end {client}" for client in self.removed)
        yield from (f"cells: serve {client}" for client in self.added)


@dataclass(frozen=True)
class ConfigureWeb:
    """Start NGINX with this configuration, or have it read it."""

    config: str
    certificate: str
    start: bool

    def lines(self) -> Iterator[str]:
        """Say what it does."""
        yield "start nginx" if self.start else "reload nginx"


@dataclass(frozen=True)
class StopWeb:
    """Stop NGINX."""

    def lines(self) -> Iterator[str]:
        """Say what it does."""
        yield "stop nginx"


Action = (
    RemovePeers
    | SetPeers
    | DeleteElements
    | AddElements
    | EndFlows
    | LoadFirewall
    | RemoveAddresses
    | DeleteInterface
    | ConfigureInterface
    | WritePolicies
    | RevokePolicies
    | RemoveClients
    | WriteRoutes
    | RemoveRoutes
    | WriteRoster
    | WriteSeats
    | RemoveSeats
    | ServeNotary
    | ServeCells
    | ConfigureWeb
    | StopWeb
)
