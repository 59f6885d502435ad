"""Invitations from their ticket to a device that is let in, through a simulated node with the real mailbox; and who is not let in."""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from control_cast import new_public_key, node_request, store_pin
from django.conf import settings
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from rest_framework.test import APIClient
from simulated_node import SimulatedNode

from appliance.client import enrol as client_enrol
from appliance.core.bundle import Guest
from appliance.core.enrolment import Redemption, close_redemption, fingerprint, open_answer
from appliance.core.errors import RefusedError, UnavailableError
from appliance.core.names import encode_base64
from appliance.core.signing import public_text
from appliance.core.ticket import PREFIX, Ticket
from control.clients import services
from control.clients.enrolment import add_device
from control.clients.invitations import approve_invitation, cancel_invitation, find_invitation, invite
from control.clients.models import Client, Device, DeviceState, Invitation, InvitationState
from control.clients.requests import NewClient, NewDevice, NewInvitation
from control.fleet.models import Node
from control.fleet.requests import NewNode
from control.fleet.services import add_node
from control.reconciler.keys import ReconcilerKeys
from control.reconciler.service import Reconciler
from netops.mailbox.http import Mailbox
from netops.mailbox.roster import RosterFile
from netops.mailbox.spool import Spool

pytestmark = pytest.mark.django_db(transaction=True)


class Site:
    """A control with one node, whose mailbox is the real one without NGINX and tunnel."""

    def __init__(self, keys: ReconcilerKeys, folder: Path) -> None:
        add_node(NewNode.parse(node_request()))
        store_pin(b"GGUF weights of no model")
        (folder / "spool").mkdir()
        self.node = SimulatedNode("node-a", public_text(keys.bundle), mailbox=folder)
        self.keys = keys
        self.reconciler = self.make_reconciler()
        self.mailbox = Mailbox(RosterFile(folder / "guests.json"), Spool(folder / "spool"), time.time)
        assert self.passes() == {"node-a": ""}
        self.acme = services.create_client(NewClient(name="acme"))
        self.folder = folder

    def make_reconciler(self) -> Reconciler:
        return Reconciler(settings.PATHS, self.keys, 60.0, connect=lambda _: self.node)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Let a reconciler run, that was woken for what there is."""
        reconciler = self.make_reconciler()
        thread = threading.Thread(target=reconciler.run)
        thread.start()
        try:
            yield
        finally:
            reconciler.stop()
            thread.join(15)

    def passes(self) -> dict[str, str]:
        """Make one pass."""
        return self.reconciler.pass_once()

    def invite(self, **changes: Any) -> Ticket:
        """Invite, and let the node know."""
        shown = invite(NewInvitation.parse({"client": "acme", "device": "laptop", **changes}))
        assert self.passes() == {"node-a": ""}
        return Ticket.read(shown.invitation)

    def guests(self) -> tuple[Guest, ...]:
        """Return the node's throw-away peers."""
        assert self.node.bundle is not None
        return self.node.bundle.guests

    def ask(self, ticket: Ticket, method: str, letter: str = "") -> tuple[int, dict[str, Any]]:
        """Speak to the mailbox as whoever holds the ticket."""
        return self.mailbox.answer(
            method, ticket.address4, ticket.keys.redeem, json.dumps({"box": letter}).encode()
        )


class Post:
    """What the client's side speaks to: the mailbox, and a pass of the reconciler each time that something was left there."""

    def __init__(self, site: Site, ticket: Ticket) -> None:
        self.site, self.ticket = site, ticket
        self.losses = 0

    def _ask(self, method: str, letter: str = "") -> dict[str, Any]:
        if self.losses:
            self.losses -= 1
            raise UnavailableError("lost on the way")
        status, value = self.site.ask(self.ticket, method, letter)
        if status >= 400:
            raise RefusedError(value["error"]["code"])
        return value

    def post(self, letter: str) -> None:
        self._ask("POST", letter)
        assert self.site.passes() == {"node-a": ""}

    def fetch(self) -> str | None:
        return self._ask("GET").get("answer")

    def confirm(self) -> None:
        self._ask("DELETE")


@pytest.fixture
def site(keys: ReconcilerKeys, transactional_db: None, tmp_path: Path) -> Site:
    return Site(keys, tmp_path)


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_enrol, "POLL_S", 0.01)


def redeem(site: Site, ticket: Ticket, wait_s: float = 5.0, name: str = "folder") -> Any:
    """Redeem as `appliance client enroll` does."""
    said: list[str] = []
    post = Post(site, ticket)
    folder = client_enrol.enrol(ticket, site.folder / name, post, wait_s=wait_s, report=said.append)
    return folder, said


def letter_for(ticket: Ticket, **changes: str) -> tuple[str, Redemption]:
    fields = {
        "public_key": new_public_key(),
        "preshared_key": encode_base64(secrets.token_bytes(32)),
        "token_sha256": secrets.token_hex(32),
    }
    redemption = Redemption(**{**fields, **changes})
    return close_redemption(ticket.keys.box, redemption), redemption


def test_an_invitation_becomes_a_device_and_the_throw_away_peer_goes(site: Site) -> None:
    ticket = site.invite()
    (guest,) = site.guests()
    assert guest.public_key == ticket.keys.public_key in site.node.peers
    assert guest.preshared_key == encode_base64(ticket.keys.preshared_key)
    folder, said = redeem(site, ticket)
    device = Device.objects.get()
    assert site.node.peers[device.public_key] in (folder.path / "appliance.conf").read_text()
    assert device.index != Invitation.objects.get().index
    assert f"Address = 10.77.0.{device.index}/32" in (folder.path / "appliance.conf").read_text()
    assert any(fingerprint(device.public_key) in text for text in said)
    assert [key.node for key in folder.keyring.body.nodes] == ["node-a"]
    assert not (site.folder / "folder.enrolling").exists()
    assert site.passes() == {"node-a": ""}
    assert site.guests() == ()
    assert ticket.keys.public_key not in site.node.peers
    assert list((site.folder / "spool").iterdir()) == []
    invitation = Invitation.objects.get()
    assert (invitation.state, invitation.device) == (InvitationState.ADMITTED, device)
    assert (invitation.sealed_keys, invitation.letter, invitation.answer) == ("", "", "")


def test_neither_control_nor_node_keeps_what_redeems_an_invitation(site: Site, keys: ReconcilerKeys) -> None:
    ticket = site.invite()
    device_keys = letter_for(ticket)
    site.ask(ticket, "POST", device_keys[0])
    site.passes()
    held = json.dumps([str(value) for value in vars(Invitation.objects.get()).values()])
    node = site.node.bundle.canonical_bytes().decode() if site.node.bundle else ""
    spool = "".join(path.read_text() for path in (site.folder / "spool").iterdir())
    for place in (held, node, spool):
        assert encode_base64(ticket.keys.private_key) not in place
        assert ticket.secret not in place
        assert ticket.keys.redeem not in place
        assert ticket.keys.redeem_sha256 in place, "the positive control: it is known by its digest"
    for place in (held, spool):
        assert device_keys[1].preshared_key not in place, "the node's mailbox cannot read a letter"
    assert encode_base64(ticket.keys.box) not in node


def test_approval_lets_nothing_in_before_it_is_given(site: Site) -> None:
    ticket = site.invite(approval=True)
    with pytest.raises(UnavailableError):
        redeem(site, ticket, wait_s=0.05)
    invitation = Invitation.objects.get()
    pending = client_enrol.Pending(site.folder / "folder.enrolling")
    assert invitation.state == InvitationState.REDEEMED
    assert invitation.fingerprint == pending.fingerprint, "two people read the same to each other"
    assert not Device.objects.exists()
    assert invitation.public_key not in site.node.peers
    approve_invitation(invitation)
    site.passes()
    # The run that was cut off goes on with the same keys.
    folder, _ = redeem(site, ticket)
    assert Device.objects.get().public_key == invitation.public_key in site.node.peers
    assert folder.token
    with pytest.raises(RefusedError, match="waits for approval"):
        approve_invitation(invitation)


def test_a_lost_answer_is_asked_for_again(site: Site) -> None:
    ticket = site.invite()
    post = Post(site, ticket)
    post.losses = 3
    client_enrol.enrol(ticket, site.folder / "folder", post, wait_s=5.0, report=lambda _: None)
    assert Device.objects.count() == 1


# -- attacks


def test_a_second_redeemer_gets_nothing_and_the_first_is_undisturbed(site: Site) -> None:
    ticket = site.invite(approval=True)
    first, mine = letter_for(ticket)
    second, _ = letter_for(ticket)
    assert site.ask(ticket, "POST", first)[0] == 202
    status, value = site.ask(ticket, "POST", second)
    assert (status, value["error"]["code"]) == (409, "redeemed_before")
    site.passes()
    assert Invitation.objects.get().public_key == mine.public_key


def test_a_redeemed_ticket_is_worth_nothing_afterwards(site: Site) -> None:
    ticket = site.invite()
    redeem(site, ticket)
    site.passes()
    assert site.ask(ticket, "POST", letter_for(ticket)[0])[0] == 404
    site.passes()
    assert Device.objects.count() == 1


def test_an_expired_invitation_lets_nobody_in_and_its_peer_goes(site: Site) -> None:
    ticket = site.invite()
    assert site.ask(ticket, "POST", letter_for(ticket)[0])[0] == 202
    Invitation.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    site.passes()
    assert not Device.objects.exists()
    assert Invitation.objects.get().state == InvitationState.EXPIRED
    assert site.guests() == ()
    assert ticket.keys.public_key not in site.node.peers
    with pytest.raises(RefusedError):
        approve_invitation(Invitation.objects.get())


def test_a_device_whose_answer_nobody_fetched_is_revoked_at_the_end(site: Site) -> None:
    fetched, left = site.invite(), site.invite(device="phone")
    for ticket in (fetched, left):
        site.ask(ticket, "POST", letter_for(ticket)[0])
    site.passes()
    assert Device.objects.filter(state=DeviceState.ACTIVE).count() == 2
    assert site.ask(fetched, "GET")[0] == 200
    Invitation.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    site.passes()
    assert Device.objects.get(name="laptop").state == DeviceState.ACTIVE, "handed out, if never confirmed"
    assert Device.objects.get(name="phone").state == DeviceState.REVOKED
    assert site.guests() == ()


@pytest.mark.parametrize("redeemed", [False, True])
def test_a_cancelled_invitation_lets_nobody_in_and_its_peer_goes(site: Site, redeemed: bool) -> None:
    ticket = site.invite(approval=True)
    if redeemed:
        site.ask(ticket, "POST", letter_for(ticket)[0])
        site.passes()
    cancel_invitation(Invitation.objects.get())
    cancel_invitation(Invitation.objects.get())  # twice does no harm
    site.passes()
    assert site.guests() == ()
    assert site.ask(ticket, "POST", letter_for(ticket)[0])[0] == 404
    with pytest.raises(RefusedError):
        approve_invitation(Invitation.objects.get())
    assert not Device.objects.exists()


def test_a_suspended_client_admits_nobody_and_a_revoked_ones_invitations_are_over(site: Site) -> None:
    ticket = site.invite()
    site.ask(ticket, "POST", letter_for(ticket)[0])
    services.suspend_client(site.acme)
    site.passes()
    assert site.guests() == ()
    assert not Device.objects.exists()
    services.resume_client(site.acme)
    site.passes()
    assert Device.objects.count() == 1, "the positive control"
    other = site.invite(device="phone")
    services.revoke_client(site.acme)
    site.passes()
    assert site.guests() == ()
    assert site.ask(other, "GET")[0] == 404
    assert Invitation.objects.get(device_name="phone").state == InvitationState.CANCELLED


def test_a_node_that_puts_another_key_in_a_letter_s_place_is_found_out(site: Site) -> None:
    """It knows the redeeming secret, once that was shown to it, and the throw-away peer; not the key of the box."""
    ticket, another = site.invite(), site.invite(device="phone")
    forged, _ = letter_for(another)
    assert site.ask(ticket, "POST", forged)[0] == 202
    site.passes()
    assert not Device.objects.exists()
    status, value = site.ask(ticket, "GET")
    assert status == 200
    refused = open_answer(ticket.keys.box, value["answer"]).refused
    assert refused == "the letter is not one of this invitation"
    assert Invitation.objects.get(device_name="laptop").state == InvitationState.REFUSED
    with pytest.raises(RefusedError):
        open_answer(another.keys.box, value["answer"])


def test_a_refusal_is_told_and_ends_the_invitation(site: Site) -> None:
    ticket = site.invite()
    add_device(NewDevice(client="acme", name="laptop", public_key=new_public_key()))
    with pytest.raises(RefusedError, match="has a device of this name"):
        redeem(site, ticket)
    assert not (site.folder / "folder").exists()
    site.passes()
    invitation = Invitation.objects.get()
    assert (invitation.state, invitation.refusal) == (
        InvitationState.REFUSED,
        "name: the client has a device of this name",
    )
    assert site.guests() == ()


@pytest.mark.parametrize("reused", ["a device", "a node", "an invitation", "a token"])
def test_a_letter_with_somebody_elses_key_is_refused(site: Site, reused: str) -> None:
    ticket = site.invite()
    add_device(NewDevice(client="acme", name="tablet", public_key=new_public_key()))
    known = Device.objects.get()
    changes = {
        "a device": {"public_key": known.public_key},
        "a node": {"public_key": Node.objects.get().wireguard_public_key},
        "an invitation": {"public_key": ticket.keys.public_key},
        "a token": {"token_sha256": known.token_sha256},
    }
    site.ask(ticket, "POST", letter_for(ticket, **changes[reused])[0])
    assert site.passes() == {"node-a": ""}
    assert Invitation.objects.get().state == InvitationState.REFUSED
    assert Device.objects.count() == 1


# -- verbs, API and lists


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"client": "nobody"}, "client"),
        ({"device": "../x"}, "device"),
        ({"hours": 0}, "hours"),
        ({"hours": 169}, "hours"),
        ({"approval": "yes"}, "approval"),
        ({"extra": 1}, "extra"),
    ],
)
def test_a_bad_invitation_is_refused_with_the_field_named(site: Site, changes: Any, field: str) -> None:
    with pytest.raises(RefusedError) as refused:
        invite(NewInvitation.parse({"client": "acme", "device": "laptop", **changes}))
    assert refused.value.field == field
    assert not Invitation.objects.exists()


def test_a_name_is_invited_once_at_a_time_and_addresses_are_never_reused(site: Site) -> None:
    first = site.invite()
    with pytest.raises(RefusedError, match="open invitation"):
        invite(NewInvitation(client="acme", device="laptop"))
    cancel_invitation(Invitation.objects.get())
    second = site.invite()
    assert first.address4 != second.address4
    assert first.keys.public_key != second.keys.public_key
    add_device(NewDevice(client="acme", name="phone", public_key=new_public_key()))
    with pytest.raises(RefusedError, match="has a device"):
        invite(NewInvitation(client="acme", device="phone"))
    indexes = [
        *Device.objects.values_list("index", flat=True),
        *Invitation.objects.values_list("index", flat=True),
    ]
    assert len(set(indexes)) == 3
    services.suspend_client(site.acme)
    with pytest.raises(RefusedError, match="suspended"):
        invite(NewInvitation(client="acme", device="watch"))


def test_the_api_shows_a_ticket_once_and_bounds_its_queries(site: Site, token: str) -> None:
    api = APIClient(headers={"Authorization": f"Bearer {token}"})
    body = {"client": "acme", "device": "laptop", "approval": True}
    made = api.post("/api/v1/invitations", body, format="json", secure=True)
    assert made.status_code == 201
    shown = made.json()
    ticket = Ticket.read(shown["invitation"])
    assert ticket.approval
    assert shown["qr_svg"].startswith("<svg")
    assert "script" not in shown["qr_svg"]
    assert "style" not in shown["qr_svg"]
    one = api.get(f"/api/v1/invitations/{shown['id']}", secure=True).json()
    assert (one["client"], one["device"], one["state"], one["fingerprint"]) == ("acme", "laptop", "open", "")
    for listed in (api.get("/api/v1/invitations?open=true", secure=True).content, json.dumps(one).encode()):
        assert PREFIX.encode() not in listed
        assert ticket.keys.redeem_sha256.encode() not in listed
    for number in range(20):
        invite(NewInvitation(client="acme", device=f"d{number}"))
    with CaptureQueriesContext(connection) as queries:
        assert api.get("/api/v1/invitations?client=acme", secure=True).json()["count"] == 21
    assert len(queries) <= 5
    cancelled = api.post(f"/api/v1/invitations/{shown['id']}/cancel", {}, format="json", secure=True)
    assert cancelled.json()["state"] == "cancelled"
    assert api.get("/api/v1/invitations?open=false", secure=True).json()["count"] == 1
    assert (
        api.post(f"/api/v1/invitations/{shown['id']}/approve", {}, format="json", secure=True).status_code
        == 400
    )


def test_what_is_not_there_cannot_be_changed(site: Site) -> None:
    with pytest.raises(RefusedError, match="no such invitation"):
        find_invitation(7)
    ticket = site.invite()
    redeem(site, ticket)
    with pytest.raises(RefusedError, match="admitted already"):
        cancel_invitation(Invitation.objects.get())


def until(condition: Callable[[], object], timeout_s: float = 8.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)


def test_a_running_reconciler_looks_for_letters_while_somebody_waits(site: Site) -> None:
    """Without a hint from the node, which can send none, and although its next pass is a minute away."""
    with site.running():
        ticket = Ticket.read(invite(NewInvitation(client="acme", device="laptop")).invitation)
        until(lambda: ticket.keys.public_key in site.node.peers)
        site.ask(ticket, "POST", letter_for(ticket)[0])
        until(lambda: site.ask(ticket, "GET")[0] == 200)
        site.ask(ticket, "DELETE")
        until(lambda: ticket.keys.public_key not in site.node.peers)
    assert Device.objects.count() == 1


def test_a_cancelled_invitation_is_cut_off_by_a_revocation_that_waits_for_no_bundle(site: Site) -> None:
    with site.running():
        ticket = Ticket.read(invite(NewInvitation(client="acme", device="laptop")).invitation)
        until(lambda: ticket.keys.public_key in site.node.peers)
        site.node.seen.clear()
        cancel_invitation(Invitation.objects.get())
        until(lambda: ticket.keys.public_key not in site.node.peers)
        until(lambda: "apply" in site.node.ops())
        assert next(op for op in site.node.ops() if op in ("revoke", "apply")) == "revoke"


def test_a_client_is_the_only_one_who_can_be_invited_for_itself(site: Site) -> None:
    """A ticket of one client makes a device of that client, whatever else its holder posts."""
    services.create_client(NewClient(name="bolt"))
    ticket = site.invite()
    redeem(site, ticket)
    assert Device.objects.get().client == Client.objects.get(name="acme")
