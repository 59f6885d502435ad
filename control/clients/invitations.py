"""The verbs of invitations. What travels to and from nodes is the reconciler's (`control.reconciler.invitations`)."""

from __future__ import annotations

import secrets
from datetime import timedelta
from io import BytesIO, StringIO

import segno
from django.conf import settings
from django.db import IntegrityError, transaction
from django.utils import timezone

from appliance.core.bundle import MAX_GUESTS
from appliance.core.errors import RefusedError
from appliance.core.names import encode_base64
from appliance.core.sealed import seal
from appliance.core.ticket import Ticket, TicketKeys
from control.clients.addresses import device_addresses
from control.clients.configuration import NodeEnd
from control.clients.enrolment import node_end, read_public_material, read_seal_key, take_index
from control.clients.models import Client, ClientState, Device, DeviceState, Invitation, InvitationState
from control.clients.requests import NewInvitation, ShownInvitation
from control.clients.services import find_client
from control.hints import hint_on_commit
from control.journal.services import created, record
from control.journal.vocabulary import Verb

_CANCELLABLE = (InvitationState.OPEN, InvitationState.REDEEMED, InvitationState.APPROVED)


def invite(new: NewInvitation) -> ShownInvitation:
    """Create an invitation and return its ticket, which cannot be had a second time.

    Raises:
        RefusedError: Naming the field: a client that is not active, a name that is taken or invited already, a node that
            has as many invitations open, or no tunnel address left.
        UnavailableError: If the reconciler has not reached the client's node yet, so its key is not known.
    """
    material = read_public_material(settings.PATHS, settings.CONFIG.witnesses)
    seal_key = read_seal_key(settings.PATHS)
    secret = secrets.token_bytes(32)
    keys = TicketKeys.derive(secret)
    sealed = seal(seal_key, keys.preshared_key + keys.box, invitation_context(keys.redeem_sha256))
    expires_at = timezone.now() + timedelta(hours=new.hours)
    with transaction.atomic():
        client = find_client(new.client)
        node = node_end(client.home)
        _verify_new(client, new)
        try:
            invitation = Invitation.objects.create(
                client=client,
                device_name=new.device,
                needs_approval=new.approval,
                guest_public_key=keys.public_key,
                sealed_keys=sealed,
                secret_sha256=keys.redeem_sha256,
                index=take_index(node),
                expires_at=expires_at,
            )
        except IntegrityError as error:
            raise RefusedError("an invitation for this name was made a moment ago", field="device") from error
        hint_on_commit()
        facts = created(approval=new.approval, expires_at=expires_at, state=InvitationState.OPEN)
        record(Verb.INVITATION_CREATE, event_name(invitation), facts)
    ticket = _ticket(invitation, node, secret, material.ca_pem).render()
    return ShownInvitation(
        id=invitation.pk,
        client=client.name,
        device=new.device,
        expires_at=expires_at.isoformat(timespec="seconds"),
        invitation=ticket,
        qr_svg=render_svg(ticket),
    )


def find_invitation(number: int) -> Invitation:
    """Return an invitation.

    Raises:
        RefusedError: If there is none of this number.
    """
    invitation = Invitation.objects.select_related("client").filter(pk=number).first()
    if invitation is None:
        raise RefusedError(
            "there is no such invitation", field="id", hint="list them: appliance control invitation list"
        )
    return invitation


def approve_invitation(invitation: Invitation) -> None:
    """Let the key that redeemed an invitation in; whoever calls this has compared its fingerprint with the device's.

    Raises:
        RefusedError: If nobody has redeemed it, it needs no approval, or it is over.
    """
    live = Invitation.objects.filter(
        pk=invitation.pk, state=InvitationState.REDEEMED, expires_at__gt=timezone.now()
    )
    with transaction.atomic():
        # The filtered update is the lock, here and below.
        if live.update(state=InvitationState.APPROVED) != 1:
            raise RefusedError("this invitation has no key that waits for approval", field="state")
        hint_on_commit()
        invitation.refresh_from_db()
        changes = {
            "public_key": (None, invitation.public_key),
            "state": (InvitationState.REDEEMED, InvitationState.APPROVED),
        }
        record(Verb.INVITATION_APPROVE, event_name(invitation), changes)


def cancel_invitation(invitation: Invitation) -> None:
    """End an invitation, also one whose key waits for approval. Doing it twice does no harm.

    Raises:
        RefusedError: If its device was let in already, or it ended in another way.
    """
    with transaction.atomic():
        before = Invitation.objects.select_for_update().get(pk=invitation.pk).state
        pending = Invitation.objects.filter(pk=invitation.pk, state__in=_CANCELLABLE)
        if pending.update(**ended(InvitationState.CANCELLED)) != 1:
            invitation.refresh_from_db()
            if invitation.state != InvitationState.CANCELLED:
                hint = "appliance control device revoke CLIENT NAME" if invitation.device_id else None
                raise RefusedError(f"the invitation is {invitation.state} already", field="state", hint=hint)
        hint_on_commit()
        state = (before, InvitationState.CANCELLED)
        record(Verb.INVITATION_CANCEL, event_name(invitation), {"state": state})
    invitation.refresh_from_db()


def ended(state: InvitationState) -> dict[str, object]:
    """Return what an update writes when an invitation is over: nothing that could be opened any more is kept."""
    return {"state": state, "ended_at": timezone.now(), "sealed_keys": "", "letter": "", "answer": ""}


def event_name(invitation: Invitation) -> str:
    """Return what events call an invitation: the name of the device that it makes."""
    return f"{invitation.client.name}/{invitation.device_name}"


def invitation_context(secret_sha256: str) -> bytes:
    """Return what an invitation's sealed keys are bound to: they open for its own row and no other."""
    return b"invitation\n" + secret_sha256.encode("ascii")


def render_svg(ticket: str) -> str:
    """Return a ticket as a QR code (ISO/IEC 18004), an SVG document without script or style."""
    out = BytesIO()
    segno.make(ticket, error="l", boost_error=False, micro=False).save(
        out, kind="svg", scale=3, border=4, light="#fff", xmldecl=False, svgns=True, nl=False
    )
    return out.getvalue().decode("utf-8")


def render_terminal(ticket: str) -> str:
    """Return a ticket as a QR code of block characters, two rows of modules in a line of text."""
    out = StringIO()
    segno.make(ticket, error="l", boost_error=False, micro=False).terminal(out=out, border=2, compact=True)
    return out.getvalue()


def _verify_new(client: Client, new: NewInvitation) -> None:
    if client.state != ClientState.ACTIVE:
        raise RefusedError(f"the client is {client.state}", field="client")
    if Device.objects.filter(client=client, state=DeviceState.ACTIVE, name=new.device).exists():
        raise RefusedError("the client has a device of this name", field="device")
    open_ones = Invitation.objects.filter(ended_at=None)
    if open_ones.filter(client=client, device_name=new.device).exists():
        raise RefusedError(
            "there is an open invitation for this name",
            field="device",
            hint="cancel it: appliance control invitation cancel ID",
        )
    if open_ones.filter(client__home=client.home).count() >= MAX_GUESTS:
        raise RefusedError("the node has as many open invitations as there can be", field="client")


def _ticket(invitation: Invitation, node: NodeEnd, secret: bytes, ca_pem: str) -> Ticket:
    address4, address6 = device_addresses(node.tunnel, invitation.index)
    return Ticket(
        client=invitation.client.name,
        device=invitation.device_name,
        approval=invitation.needs_approval,
        expires_at=int(invitation.expires_at.timestamp()),
        secret=encode_base64(secret),
        endpoint=node.endpoint,
        node_public_key=node.public_key,
        node4=node.tunnel.address4,
        node6=node.tunnel.address6,
        address4=address4,
        address6=address6,
        mtu=node.tunnel.mtu,
        ca_pem=ca_pem,
    )
