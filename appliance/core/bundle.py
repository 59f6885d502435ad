"""The bundle: everything that one node should be, in one signed text; and its fast companions, revocation and grant.

Normative text: docs/spec/bundle-v1.md. Control renders and signs it (`control.reconciler`), the node's agent verifies
and applies it (`netops.agent`). This module is the contract: schema, signature, and the rules that refuse a bundle.

Fields are declared in canonical order: a bundle of 10,000 devices is encoded and read in one pass then (`schema.is_canonical_as_declared`).
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterable
from typing import Annotated, Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import Field, StringConstraints

from appliance.core import signing
from appliance.core.box import Box
from appliance.core.errors import BundleError, RefusedError
from appliance.core.names import (
    Address4,
    Address6,
    Digest,
    Key32,
    Name,
    Network4,
    Network6,
    UnixTime,
    packed,
)
from appliance.core.pin import Manifest
from appliance.core.schema import Closed, is_absent

MAX_BUNDLE_BYTES = 64 * 2**20  # 10,000 devices need about 4 MB; more than this is refused before it is parsed
MAX_GUESTS = 1000  # with the longest answers they fill a bundle
Generation = Annotated[int, Field(ge=1, le=2**53 - 1)]
Port = Annotated[int, Field(ge=1, le=65535)]
MAX_COUNTED = 10**12  # tokens of a day on a machine that computes ten million in a second
ExpiresAt = Annotated[UnixTime | None, Field(exclude_if=is_absent)]
"""When something ends by itself, in seconds since 1970; None: never."""
Counted = Annotated[
    Annotated[int, Field(ge=1, le=MAX_COUNTED)] | None,
    Field(exclude_if=is_absent),
]
"""A number of requests or tokens; None: any."""
# Each certificate whole and nothing after the last: what is parsed is all that was signed.
_CERTIFICATE = r"-----BEGIN CERTIFICATE-----\n([A-Za-z0-9+/=]{1,76}\n)+-----END CERTIFICATE-----\n"
Pem = Annotated[str, StringConstraints(max_length=16384, pattern=rf"^({_CERTIFICATE}){{1,8}}\z")]


class Device(Closed):
    """One WireGuard peer of a client.

    Attributes:
        name: Of the device. One whose key is being replaced is there twice, with two keys that have nothing else in common.
        public_key: WireGuard public key, unique in the bundle.
        preshared_key: WireGuard pre-shared key.
        address4, address6: The device's tunnel addresses, unique in the bundle, inside the tunnel networks.
        token_sha256: Digest of the device's bearer token; the token itself never reaches a node.
        expires_at: When its key ends.
    """

    address4: Address4
    address6: Address6
    expires_at: ExpiresAt = None
    name: Name
    preshared_key: Key32
    public_key: Key32
    token_sha256: Digest


class Limits(Closed):
    """What one client may use.

    Attributes:
        sessions: Open sessions at once.
        session_idle_s: A kept session ends this long after its last request.
        session_max_s: A session ends at the latest this long after it was opened.
        cell_idle_s: The client's cell exits this long after its last session (0: at once).
        body_bytes: Largest request body.
        answer_tokens: Largest `max_tokens`.
        guess_in_streams: Whether tokens of a streamed answer may be guessed from its conversation: faster, but when its
            packets leave then depends on what it says.
        share_prefixes: Whether what a session computed for its system messages and tools may serve the client's other
            sessions while it is open: a long one is then read once, and the time to the first token tells the client's
            devices of each other whether they use the same.
        context_tokens: Largest prompt and answer together, where that is less than the model's context.
        requests_per_minute, tokens_per_minute: Rates: so many at once, and so many more with each minute.
        requests_per_day, tokens_per_day: Budgets of a day in UTC, counted by the notary. Tokens are those of prompts and answers.
    """

    answer_tokens: Annotated[int, Field(ge=1, le=1_048_576)] = 1024
    body_bytes: Annotated[int, Field(ge=1024, le=1_048_576)] = 1_048_576
    cell_idle_s: Annotated[int, Field(ge=0, le=86_400)] = 60
    context_tokens: Counted = None
    guess_in_streams: bool = False
    requests_per_day: Counted = None
    requests_per_minute: Counted = None
    session_idle_s: Annotated[int, Field(ge=1, le=86_400)] = 900
    session_max_s: Annotated[int, Field(ge=1, le=604_800)] = 14_400
    sessions: Annotated[int, Field(ge=1, le=255)] = 8
    share_prefixes: bool = False
    tokens_per_day: Counted = None
    tokens_per_minute: Counted = None


class Alias(Closed):
    """Another name by which a client may ask for one of its models."""

    alias: Name
    model: Name


class Client(Closed):
    """One client: the unit of isolation. It gets a cell of its own.

    Attributes:
        aliases: Other names of its models, each once.
        name: Also the name of its folder and unit instance on the node.
        pseudonym: What receipts call it (docs/spec/receipt-v1.md).
        models: Names of the pins it may use.
        limits: What it may use.
        devices: Its peers.
        expires_at: When it ends with all its devices.
    """

    aliases: Annotated[tuple[Alias, ...], Field(max_length=64, exclude_if=is_absent)] = ()
    devices: Annotated[tuple[Device, ...], Field(max_length=10_000)]
    expires_at: ExpiresAt = None
    limits: Limits
    models: Annotated[tuple[Name, ...], Field(min_length=1, max_length=64)]
    name: Name
    pseudonym: Digest


class Guest(Closed):
    """The throw-away peer of an invitation (docs/spec/enrolment-v1.md): it reaches the node's mailbox and nothing else.

    Attributes:
        public_key, preshared_key: Of WireGuard, as a device's.
        address4, address6: Its own tunnel addresses, unique in the bundle, inside the tunnel networks.
        secret_sha256: Digest of what it must show the mailbox.
        expires_at: Seconds since 1970; from then on the mailbox does not know it, whether control is reached or not.
        answer: What the mailbox hands to it, null until control has an answer. The node cannot open it.
    """

    address4: Address4
    address6: Address6
    answer: Box | None
    expires_at: Annotated[int, Field(ge=0, le=2**32 - 1)]
    preshared_key: Key32
    public_key: Key32
    secret_sha256: Digest


class Tunnel(Closed):
    """The node's end of the tunnel.

    Attributes:
        listen_port: UDP port of WireGuard on the outer interface.
        address4, address6: The node's tunnel addresses; NGINX listens there and nowhere else.
        network4, network6: Where device addresses come from.
        mtu: MTU of the tunnel interface, in bytes.
    """

    address4: Address4
    address6: Address6
    listen_port: Port
    mtu: Annotated[int, Field(ge=1280, le=9000)] = 1420
    network4: Network4
    network6: Network6


class Tls(Closed):
    """The certificate that control issued for the node's own TLS key (RFC 5280, PEM, leaf first)."""

    certificate: Pem


class Bundle(Closed):
    """Everything that one node should be.

    Attributes:
        v: Schema version.
        node: The node it is for.
        epoch: Raised only after control was restored from a backup, and with the restore key alone (`appliance.core.epoch`).
        generation: Grows by at least one with each bundle of an epoch.
        previous: SHA-256 of the canonical bytes of the bundle before it, null for the first.
        seats: How many cells may run at once.
        drain: Sessions go on to their ends, and none is opened.
        tunnel: WireGuard and tunnel addresses.
        tls: Certificate, null until the node's request was answered.
        pins: Model manifests, names unique.
        clients: Sorted by name, names unique.
        guests: Throw-away peers. Where there are none the field is left out: such a bundle has the bytes that it had before
            there were any, and nodes of either age accept it.
    """

    clients: Annotated[tuple[Client, ...], Field(max_length=10_000)]
    drain: Annotated[bool, Field(exclude_if=is_absent)] = False
    epoch: Generation
    generation: Generation
    guests: Annotated[tuple[Guest, ...], Field(max_length=MAX_GUESTS, exclude_if=is_absent)] = ()
    node: Name
    pins: Annotated[tuple[Manifest, ...], Field(max_length=64)]
    previous: Digest | None
    seats: Annotated[int, Field(ge=1, le=1024)]
    tls: Tls | None
    tunnel: Tunnel
    v: Literal[1] = 1

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical bytes."""
        return hashlib.sha256(self.canonical_bytes()).hexdigest()


class Revocation(Closed):
    """Devices and clients that must be cut off now; the next bundle follows without them.

    It can only remove, so applying it twice does no harm. It is bound to the generation it was made against, so an
    old one cannot cut off a device that was provisioned anew later.

    Attributes:
        node, epoch: As in the bundle.
        generation: The newest generation that control had sent when it made this.
        public_keys: WireGuard keys of devices to cut off.
        clients: Names of clients whose cell ends as well.
    """

    clients: Annotated[tuple[Name, ...], Field(max_length=10_000)]
    epoch: Generation
    generation: Generation
    node: Name
    public_keys: Annotated[tuple[Key32, ...], Field(max_length=10_000)]
    v: Literal[1] = 1


class Grant(Closed):
    """Devices that may connect now; the next bundle follows with them.

    It can only add: devices to a client of the bundle in force, or a client with its devices. Nothing else of a client
    that is there changes by it. It is bound to a generation as a revocation is, and what was revoked stays revoked, so
    an old one brings nobody back.

    Attributes:
        clients: Each with the devices to add, and no others.
        node, epoch, generation: As in a revocation.
    """

    clients: Annotated[tuple[Client, ...], Field(min_length=1, max_length=100)]
    epoch: Generation
    generation: Generation
    node: Name
    v: Literal[1] = 1


class Accepted(Closed):
    """What a node remembers of the last bundle it accepted; it survives a reboot."""

    digest: Digest
    epoch: Generation
    generation: Generation


def sign_bundle(bundle: Bundle, key: Ed25519PrivateKey) -> str:
    """Return control's signature over the bundle's canonical bytes."""
    return signing.sign(key, signing.Purpose.BUNDLE, bundle.canonical_bytes())


def sign_revocation(revocation: Revocation, key: Ed25519PrivateKey) -> str:
    """Return control's signature over the revocation's canonical bytes."""
    return signing.sign(key, signing.Purpose.REVOCATION, revocation.canonical_bytes())


def sign_grant(grant: Grant, key: Ed25519PrivateKey) -> str:
    """Return control's signature over the grant's canonical bytes."""
    return signing.sign(key, signing.Purpose.GRANT, grant.canonical_bytes())


def verify_bundle(
    data: bytes, signature: str, *, public_key: str, node: str, accepted: Accepted | None, raised: int = 0
) -> Bundle:
    """Return the bundle if this node may apply it.

    1. size, 2. signature over the bytes as they came, 3. schema, 4. this node, 5. consistency within the bundle,
    6. epoch and generation against what was accepted before.

    Args:
        data: Canonical bytes of the bundle.
        signature: Canonical base64.
        public_key: Control's bundle key, canonical base64.
        node: This node's name.
        accepted: What this node accepted last, None on a fresh node.
        raised: The epoch that the restore key raised this node to last, 0 if it never did.

    Raises:
        BundleError: Naming the field; nothing may be changed on the node then.
    """
    _verify_signed(data, signature, public_key, signing.Purpose.BUNDLE)
    bundle = Bundle.parse_canonical(data, BundleError)
    if bundle.node != node:
        raise BundleError("the bundle is for another node", field="node")
    verify_consistency(bundle)
    _verify_order(bundle, accepted, raised)
    return bundle


def verify_revocation(
    data: bytes, signature: str, *, public_key: str, node: str, accepted: Accepted | None
) -> Revocation:
    """Return the revocation if this node must apply it.

    Raises:
        BundleError: Naming the field.
    """
    _verify_signed(data, signature, public_key, signing.Purpose.REVOCATION)
    revocation = Revocation.parse_canonical(data, BundleError)
    _verify_companion(revocation, node, accepted)
    return revocation


def verify_grant(
    data: bytes, signature: str, *, public_key: str, node: str, accepted: Accepted | None
) -> Grant:
    """Return the grant if this node may apply it, once the bundle in force was found consistent with it.

    Raises:
        BundleError: Naming the field.
    """
    _verify_signed(data, signature, public_key, signing.Purpose.GRANT)
    grant = Grant.parse_canonical(data, BundleError)
    _verify_companion(grant, node, accepted)
    return grant


def _verify_companion(message: Revocation | Grant, node: str, accepted: Accepted | None) -> None:
    if message.node != node:
        raise BundleError("it is for another node", field="node")
    if accepted is None or message.epoch != accepted.epoch:
        raise BundleError("it is of another epoch", field="epoch")
    # Against replay: a device revoked in generation 5 and provisioned anew in 9 must not be cut off by 5's text, and
    # one granted in 5 and gone in 9 must not come back by it.
    if message.generation < accepted.generation:
        raise BundleError("older than the accepted generation", field="generation")


def _verify_signed(data: bytes, signature: str, public_key: str, purpose: signing.Purpose) -> None:
    if len(data) > MAX_BUNDLE_BYTES:
        raise BundleError("larger than it may be")
    try:
        signing.verify(public_key, purpose, data, signature)
    except RefusedError as refused:
        raise BundleError("not signed by this node's control", field="signature") from refused


def _verify_order(bundle: Bundle, accepted: Accepted | None, raised: int) -> None:
    if accepted is not None and (bundle.epoch, bundle.generation) == (accepted.epoch, accepted.generation):
        # The same bytes again are how a reconciler repeats itself, and a node that starts; other bytes are an alarm.
        if bundle.digest != accepted.digest:
            raise BundleError("the accepted generation came with other bytes before", field="generation")
        return
    epoch = node_epoch(accepted, raised)
    if bundle.epoch < epoch:
        raise BundleError("older than this node's epoch", field="epoch")
    if epoch and bundle.epoch > epoch:
        # Whoever holds the bundle key alone could begin the numbers again, and bring every revoked device back.
        raise BundleError("the epoch was not raised with the restore key", field="epoch")
    if accepted is None or bundle.epoch > accepted.epoch:
        return
    if bundle.generation < accepted.generation:
        raise BundleError("older than the accepted generation", field="generation")
    if bundle.previous is None:
        raise BundleError("a later bundle must name the one before it", field="previous")


def node_epoch(accepted: Accepted | None, raised: int) -> int:
    """Return the epoch that a node is in: the higher of its last bundle's and what it was raised to; 0 on a fresh node."""
    return max(raised, accepted.epoch if accepted else 0)


def verify_consistency(bundle: Bundle) -> None:
    """Check what no single field shows: names, keys and addresses are unique, addresses inside the networks, models pinned.

    Raises:
        BundleError: Naming the field.
    """
    tunnel = bundle.tunnel
    networks: dict[str, ipaddress.IPv4Network | ipaddress.IPv6Network] = {
        "address4": ipaddress.IPv4Network(tunnel.network4),
        "address6": ipaddress.IPv6Network(tunnel.network6),
    }
    # As bytes, since ten thousand devices are compared with them.
    lowest = {name: network.network_address.packed for name, network in networks.items()}
    highest = {name: network.broadcast_address.packed for name, network in networks.items()}
    seen: dict[str, str] = {tunnel.address4: "tunnel.address4", tunnel.address6: "tunnel.address6"}

    def claim_peer(peer: Device | Guest, path: str) -> None:
        _claim(seen, peer.public_key, f"{path}.public_key")
        _claim(seen, peer.address4, f"{path}.address4")
        _claim(seen, peer.address6, f"{path}.address6")
        for name in ("address4", "address6"):
            if not lowest[name] <= packed(getattr(peer, name)) <= highest[name]:
                raise BundleError("outside the tunnel network", field=f"{path}.{name}")

    pins = _unique((pin.name for pin in bundle.pins), "pins")
    _unique((client.name for client in bundle.clients), "clients")
    for i, client in enumerate(bundle.clients):
        for j, model in enumerate(client.models):
            if model not in pins:
                raise BundleError("no pin of this name in the bundle", field=f"clients.{i}.models.{j}")
        _unique((alias.alias for alias in client.aliases), f"clients.{i}.aliases", "alias")
        for j, alias in enumerate(client.aliases):
            if alias.model not in client.models:
                raise BundleError("not a model of the client", field=f"clients.{i}.aliases.{j}.model")
        for j, device in enumerate(client.devices):
            path = f"clients.{i}.devices.{j}"
            claim_peer(device, path)
    for i, guest in enumerate(bundle.guests):
        claim_peer(guest, f"guests.{i}")
        _claim(seen, guest.secret_sha256, f"guests.{i}.secret_sha256")


def _claim(seen: dict[str, str], value: str, field: str) -> None:
    if value in seen:
        raise BundleError(f"the same as {seen[value]}", field=field)
    seen[value] = field


def _unique(names: Iterable[str], field: str, part: str = "name") -> set[str]:
    seen: set[str] = set()
    for index, name in enumerate(names):
        if name in seen:
            raise BundleError("named twice", field=f"{field}.{index}.{part}")
        seen.add(name)
    return seen
