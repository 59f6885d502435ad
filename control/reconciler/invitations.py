"""Carries invitations on: letters from a node's mailbox in, devices and answers out, and an end for each.

    open ──letter──▶ redeemed ──(approval)──▶ admitted ──confirmed──▶ over
                         └──────▶ refused ─────────────confirmed──▶ over
    whatever is not admitted when its time is up is expired; a device whose answer nobody fetched by then is revoked

The letter opens with a key that the ticket's holder and this process alone can derive or unseal, so neither the node nor the web process can
put another key in its place.
"""

from __future__ import annotations

from collections.abc import Iterable

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from django.db import transaction
from django.utils import timezone

from appliance.core.enrolment import Answer, Redemption, close_answer, open_redemption
from appliance.core.errors import RefusedError
from appliance.core.sealed import unseal
from control.clients.enrolment import KnownSecrets, admit_device
from control.clients.invitations import ended, event_name, invitation_context
from control.clients.models import ClientState, Device, Invitation, InvitationState
from control.clients.requests import NewDevice
from control.clients.services import revoke_device
from control.fleet.models import Node
from control.journal.actors import acting, process_actor
from control.journal.event import Source
from control.journal.services import record
from control.journal.vocabulary import Verb
from provisioning.answers import Letter

_KEY_BYTES = 32


def live_invitations(node: Node) -> list[Invitation]:
    """Return the node's invitations that are not over."""
    return list(Invitation.objects.select_related("client").filter(client__home=node, ended_at=None))


def open_keys(invitation: Invitation, seal_key: X25519PrivateKey) -> tuple[bytes, bytes]:
    """Return the pre-shared key of an invitation's throw-away peer, and the key of its boxes.

    Raises:
        RefusedError: If what is sealed does not open.
    """
    context = invitation_context(invitation.secret_sha256)
    both = unseal(seal_key, invitation.sealed_keys, context)
    return both[:_KEY_BYTES], both[_KEY_BYTES:]


def settle_invitations(
    invitations: Iterable[Invitation], letters: Iterable[Letter], seal_key: X25519PrivateKey
) -> None:
    """Bring each invitation as far as it can go now.

    Args:
        invitations: Of one node, not over.
        letters: What its mailbox holds.
        seal_key: Opens the invitations' keys.
    """
    by_digest = {letter.secret_sha256: letter for letter in letters}
    with acting(Source.RECONCILER, process_actor("reconciler")):
        for invitation in invitations:
            if invitation.client.state != ClientState.REVOKED:
                _settle(invitation, by_digest.get(invitation.secret_sha256), seal_key)
            else:
                _move(invitation, **ended(InvitationState.CANCELLED))


def _settle(invitation: Invitation, letter: Letter | None, seal_key: X25519PrivateKey) -> None:
    if letter is not None and invitation.state == InvitationState.OPEN:
        _take_letter(invitation, letter, seal_key)
    if timezone.now() >= invitation.expires_at:
        _expire(invitation, letter)
    elif invitation.state == InvitationState.APPROVED and invitation.client.state == ClientState.ACTIVE:
        _admit(invitation, seal_key)
    elif letter is not None and letter.progress == "confirmed" and invitation.answer:
        _move(invitation, **ended(InvitationState(invitation.state)))


def _take_letter(invitation: Invitation, letter: Letter, seal_key: X25519PrivateKey) -> None:
    _, box_key = open_keys(invitation, seal_key)
    taken = {"letter": letter.box, "redeemed_at": timezone.now()}
    try:
        redemption = open_redemption(box_key, letter.box)
    except RefusedError:
        # Whoever closed this held the redeeming secret and not the ticket: the node, or a client of another version.
        _refuse(invitation, box_key, "the letter is not one of this invitation", **taken)
        return
    state = InvitationState.REDEEMED if invitation.needs_approval else InvitationState.APPROVED
    _move(invitation, state=state, public_key=redemption.public_key, **taken)


def _admit(invitation: Invitation, seal_key: X25519PrivateKey) -> None:
    _, box_key = open_keys(invitation, seal_key)
    redemption = open_redemption(box_key, invitation.letter)
    try:
        with transaction.atomic():
            configuration = admit_device(_wanted(invitation, redemption), _secrets(redemption))
            answer = close_answer(box_key, Answer(configuration=configuration))
            device = Device.objects.get(public_key=redemption.public_key)
            if not _move(invitation, state=InvitationState.ADMITTED, answer=answer, device=device):
                raise RefusedError("the invitation was cancelled", field="state")
    except RefusedError as refused:
        _refuse(invitation, box_key, refused.message)


def _wanted(invitation: Invitation, redemption: Redemption) -> NewDevice:
    return NewDevice(
        client=invitation.client.name, name=invitation.device_name, public_key=redemption.public_key
    )


def _secrets(redemption: Redemption) -> KnownSecrets:
    return KnownSecrets(token_sha256=redemption.token_sha256, preshared_key=redemption.preshared_key)


def _refuse(invitation: Invitation, box_key: bytes, reason: str, **changes: object) -> None:
    answer = close_answer(box_key, Answer(refused=reason))
    _move(invitation, state=InvitationState.REFUSED, refusal=reason, answer=answer, **changes)


def _expire(invitation: Invitation, letter: Letter | None) -> None:
    delivered = letter is not None and letter.progress != "redeemed"
    if invitation.state == InvitationState.REFUSED or (invitation.device_id and delivered):
        _move(invitation, **ended(InvitationState(invitation.state)))
        return
    with transaction.atomic():
        if _move(invitation, **ended(InvitationState.EXPIRED)) and invitation.device is not None:
            revoke_device(invitation.device)


_EVENTS = {
    InvitationState.REDEEMED: Verb.INVITATION_REDEEM,
    InvitationState.APPROVED: Verb.INVITATION_REDEEM,
    InvitationState.REFUSED: Verb.INVITATION_REFUSE,
    InvitationState.CANCELLED: Verb.INVITATION_CANCEL,
    InvitationState.EXPIRED: Verb.INVITATION_EXPIRE,
}
"""What it means that an invitation comes into a state here. One that is admitted is a device, and that is its event."""


def _move(invitation: Invitation, **changes: object) -> bool:
    """Change an invitation if nobody else has meanwhile: the filtered update is the lock."""
    before, key = invitation.state, invitation.public_key or None
    unchanged = Invitation.objects.filter(pk=invitation.pk, state=before, ended_at=None)
    with transaction.atomic():
        moved = unchanged.update(**changes) == 1
        invitation.refresh_from_db()
        verb = _EVENTS.get(InvitationState(invitation.state))
        if moved and verb is not None and invitation.state != before:
            known = {"public_key": (key, invitation.public_key or None)}
            record(verb, event_name(invitation), {**known, "state": (before, invitation.state)})
    return moved
