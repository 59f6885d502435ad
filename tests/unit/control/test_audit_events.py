"""Every change leaves one event, in its own transaction, by somebody; and what was recorded is never changed."""

from __future__ import annotations

import ast
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from control_cast import execute, manifest_for, new_public_key, node_request, store_pin
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from django.apps import apps
from django.contrib.auth import SESSION_KEY
from django.contrib.auth.models import User
from django.db import DatabaseError, connection, transaction
from django.http import HttpRequest
from django.test import RequestFactory
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st

import control
from appliance.core.bundle import Limits
from appliance.core.errors import RefusedError
from appliance.core.names import ZERO_DIGEST
from appliance.core.signing import public_text
from control.backup import epochs
from control.clients import enrolment, invitations
from control.clients import services as clients
from control.clients.models import Client, Device, Invitation, InvitationState
from control.clients.requests import NewClient, NewDevice, NewInvitation, Rotation
from control.clients.rotation import rotate_device
from control.fleet import services as fleet
from control.fleet.models import Duty, Node
from control.fleet.requests import NewNode, NodeChange
from control.journal import triggers
from control.journal.actors import NoActorError, acting
from control.journal.event import Actor, ActorKind, Change, Event, Source
from control.journal.models import AppendOnlyError, AuditEvent, EventPlace
from control.journal.services import record
from control.journal.vocabulary import FACTS, KINDS, Kind, Verb
from control.operators import factors, sessions, totp
from control.operators import services as operators
from control.operators.models import ApiToken, AppSecret, Passkey
from control.operators.roles import Role
from control.pins import aliases
from control.pins import services as pins
from control.pins.facts import Facts
from control.pins.models import ClientAlias, ModelPin, PinState
from control.reconciler.keys import ReconcilerKeys

pytestmark = pytest.mark.django_db

PASSWORD = "correct horse battery"


@dataclass
class Cast:
    """Somebody and something of each kind, to act on.

    Attributes:
        pin, newer, imported: The model that is served, a verified one that was before, and one that nobody looked at.
        operator, other: One with an app and a passkey, and one without.
        request: Of one of the operator's two sessions.
        handle: Of the other one.
    """

    client: Client
    device: Device
    redeemed: Invitation
    alias: ClientAlias
    pin: ModelPin
    newer: ModelPin
    imported: ModelPin
    operator: User
    other: User
    passkey: Passkey
    request: HttpRequest
    handle: str


@pytest.fixture
def cast(acme: Client, pin: ModelPin, operator: User, keys: ReconcilerKeys) -> Cast:
    enrolment.add_device(NewDevice(client="acme", name="laptop", public_key=new_public_key()))
    operators.create_token(operators.NewToken(operator="olivia", name="here"))
    invitations.invite(NewInvitation(client="acme", device="watch", approval=True))
    Invitation.objects.update(state=InvitationState.REDEEMED, public_key=new_public_key())
    newer = store_pin(b"GGUF weights of no other model", PinState.VERIFIED, version="2.0")
    ModelPin.objects.filter(pk=newer.pk).update(activated_at=timezone.now())
    AppSecret.objects.create(user=operator, sealed="", last_step=0)
    request, handle = two_sessions(operator)
    return Cast(
        client=acme,
        device=Device.objects.get(),
        redeemed=Invitation.objects.get(),
        alias=aliases.set_alias(aliases.NewAlias(client="acme", alias="chat", model="tiny")),
        pin=pin,
        newer=newer,
        imported=store_pin(b"GGUF weights of a third", PinState.IMPORTED, version="0.5"),
        operator=operator,
        other=User.objects.create(username="petra", is_staff=True),
        passkey=Passkey.objects.create(user=operator, name="key", rp_id="x", credential=b"", counter=0),
        request=request,
        handle=handle,
    )


def two_sessions(user: User) -> tuple[HttpRequest, str]:
    request = RequestFactory().get("/")
    request.user = user
    for _ in range(2):
        request.session = sessions.SessionStore()
        sessions.note_beginning(request.session, "127.0.0.1", "Firefox on Linux")
        sessions.note_factor(request.session, factors.Kind.APP)
        request.session[SESSION_KEY] = str(user.pk)
        request.session.save()
    return request, next(one.handle for one in sessions.list_sessions(request) if not one.current)


def verify_pin(cast: Cast) -> None:
    facts = Facts(
        architecture="llama", context_tokens=64, licence="", parameters=1, tensors=1, template="x", end=()
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pins, "examine", lambda *_, **__: facts)
        pins.verify_pin(cast.imported)


def change_node(cast: Cast) -> None:
    with fleet.changing_node(cast.client.home) as node:
        fleet.change_settings(node, NodeChange(seats=3))


def add_app(cast: Cast) -> None:
    sealed = factors.propose_app(cast.other)
    secret = factors.show_app(cast.other, sealed)
    factors.add_app(cast.other, sealed, totp.code_of(secret, totp.step_at(time.time())))


def raise_epoch(_: Cast) -> None:
    epochs.raise_epoch(Ed25519PrivateKey.generate(), public_text(Ed25519PrivateKey.generate()), 0)


# Every function of control that changes rows, by its name; what it leaves, and how it is called.
VERBS: dict[str, tuple[Verb, Callable[[Cast], Any]]] = {
    "clients.services.create_client": (
        Verb.CLIENT_CREATE,
        lambda _: clients.create_client(NewClient(name="bolt")),
    ),
    "clients.services.suspend_client": (Verb.CLIENT_SUSPEND, lambda c: clients.suspend_client(c.client)),
    "clients.services.resume_client": (Verb.CLIENT_RESUME, lambda c: clients.resume_client(c.client)),
    "clients.services.revoke_client": (Verb.CLIENT_REVOKE, lambda c: clients.revoke_client(c.client)),
    "clients.services.revoke_device": (Verb.DEVICE_REVOKE, lambda c: clients.revoke_device(c.device)),
    "clients.enrolment.add_device": (
        Verb.DEVICE_ADD,
        lambda _: enrolment.add_device(NewDevice(client="acme", name="phone", public_key=new_public_key())),
    ),
    "clients.services.limit_client": (
        Verb.CLIENT_LIMIT,
        lambda c: clients.limit_client(c.client, Limits(sessions=3)),
    ),
    "clients.services.expire_client": (
        Verb.CLIENT_EXPIRE,
        lambda c: clients.expire_client(c.client, timezone.now() + timedelta(days=1)),
    ),
    "clients.services.expire_device": (
        Verb.DEVICE_EXPIRE,
        lambda c: clients.expire_device(c.device, timezone.now() + timedelta(days=1)),
    ),
    "clients.enrolment.admit_device": (
        Verb.DEVICE_ADD,
        lambda _: enrolment.admit_device(
            NewDevice(client="acme", name="tablet", public_key=new_public_key()),
            enrolment.KnownSecrets("1" * 64, new_public_key()),
        ),
    ),
    "clients.rotation.rotate_device": (
        Verb.DEVICE_ROTATE,
        lambda c: rotate_device(c.device, Rotation(public_key=new_public_key())),
    ),
    "clients.invitations.invite": (
        Verb.INVITATION_CREATE,
        lambda _: invitations.invite(NewInvitation(client="acme", device="glasses")),
    ),
    "clients.invitations.approve_invitation": (
        Verb.INVITATION_APPROVE,
        lambda c: invitations.approve_invitation(c.redeemed),
    ),
    "clients.invitations.cancel_invitation": (
        Verb.INVITATION_CANCEL,
        lambda c: invitations.cancel_invitation(c.redeemed),
    ),
    "pins.services.add_pin": (
        Verb.PIN_ADD,
        lambda _: pins.add_pin(manifest_for(b"other", version="3.0")),
    ),
    "pins.services.verify_pin": (Verb.PIN_VERIFY, verify_pin),
    "pins.services.activate_pin": (Verb.PIN_ACTIVATE, lambda c: pins.activate_pin(c.newer)),
    "pins.services.rollback": (
        Verb.PIN_ROLLBACK,
        lambda c: pins.rollback(c.pin.name),
    ),
    "pins.services.retire_pin": (Verb.PIN_RETIRE, lambda c: pins.retire_pin(c.newer)),
    "pins.aliases.set_alias": (
        Verb.ALIAS_SET,
        lambda _: aliases.set_alias(aliases.NewAlias(client="acme", alias="code", model="tiny")),
    ),
    "pins.aliases.remove_alias": (Verb.ALIAS_REMOVE, lambda c: aliases.remove_alias(c.alias)),
    "fleet.services.set_duty": (
        Verb.NODE_DUTY,
        lambda c: fleet.set_duty(c.client.home, Duty.DRAINED),
    ),
    "fleet.services.change_settings": (Verb.NODE_CHANGE, change_node),
    "backup.epochs.raise_epoch": (Verb.EPOCH_RAISE, raise_epoch),
    "operators.factors.add_app": (Verb.OPERATOR_ADD_FACTOR, add_app),
    "operators.factors.remove_app": (
        Verb.OPERATOR_REMOVE_FACTOR,
        lambda c: factors.remove_app(c.operator),
    ),
    "operators.factors.remove_passkey": (
        Verb.OPERATOR_REMOVE_FACTOR,
        lambda c: factors.remove_passkey(c.operator, c.passkey.pk),
    ),
    "operators.factors.new_recovery_codes": (
        Verb.OPERATOR_NEW_CODES,
        lambda c: factors.new_recovery_codes(c.operator),
    ),
    "operators.services.reset_factor": (
        Verb.OPERATOR_RESET_FACTOR,
        lambda _: operators.reset_factor("olivia"),
    ),
    "operators.sessions.end_session": (
        Verb.OPERATOR_END_SESSIONS,
        lambda c: sessions.end_session(c.request, c.handle),
    ),
    "operators.sessions.end_other_sessions": (
        Verb.OPERATOR_END_SESSIONS,
        lambda c: sessions.end_other_sessions(c.request),
    ),
    "fleet.services.add_node": (
        Verb.NODE_ADD,
        lambda _: fleet.add_node(NewNode.parse(node_request("node-b", 78))),
    ),
    "operators.services.create_operator": (
        Verb.OPERATOR_ADD,
        lambda _: operators.create_operator(operators.NewOperator(name="ada"), PASSWORD),
    ),
    "operators.services.give_role": (
        Verb.OPERATOR_ROLE,
        lambda _: operators.give_role("olivia", Role.VIEWER),
    ),
    "operators.services.disable_operator": (
        Verb.OPERATOR_DISABLE,
        lambda _: operators.disable_operator("olivia"),
    ),
    "operators.services.sign_out": (Verb.OPERATOR_SIGN_OUT, lambda _: operators.sign_out("olivia")),
    "operators.services.create_token": (
        Verb.TOKEN_CREATE,
        lambda _: operators.create_token(operators.NewToken(operator="olivia", name="there")),
    ),
    "operators.services.revoke_token": (
        Verb.TOKEN_REVOKE,
        lambda _: operators.revoke_token("olivia", "here"),
    ),
}
# What writes as well, and why it has no row above.
OTHERS = {
    "fleet.models.current_epoch": "makes the row that says what holds from the beginning",
    "operators.login.note_failure": "a failed login: the next file's tests",
    "operators.login.note_success": "a login: the next file's tests",
    "clients.admin.Adding.add_view": "saves a form, which calls a verb",
    "operators.factors.verify_answer": "takes a code; the login that it allows is recorded",
    "operators.factors.forget_factors": "part of reset_factor",
    "operators.passkeys.verify_assertion": "takes an answer; the login that it allows is recorded",
    "operators.passkeys.add_passkey": "operator.add-factor, with a browser: test_passkeys.py",
    "operators.sessions.begin_session": "a login: the next file's tests",
    "operators.sessions.end_sessions": "part of sign_out, disable_operator, reset_factor",
    "backup.epochs.bring_epoch": "tells a node",
    "backup.logs.FrozenLog.succeed": "log.succeed, with nodes: test_restored.py",
    "clients.enrolment.take_index": "part of a device's or an invitation's beginning",
    "fleet.services.ask_plan": "a question to a node, whose row says who asked; nothing is different after it",
    "fleet.services.changing_node": "locks, for change_settings",
    "fleet.history.record_health": "what nodes say",
    "fleet.history.thin": "what nodes said",
    "fleet.peers.record_peers": "what nodes say",
    "fleet.peers.forget_peers": "what nodes said",
    "pins.progress.note_applied": "what nodes say",
    "pins.progress.note_held": "what nodes say",
    "pins.store.ModelFiles.add": "writes a file",
    "pins.store.verify_bytes": "updates a digest",
    "clients.invitations.render_svg": "draws",
    "console.qr.draw_code": "draws",
    "api.idempotency.idempotent": "keeps the answer of a verb, which is recorded",
    "api.openapi.describe": "updates a document",
    "api.openapi.Description.get": "describes",
}
# These write what nodes say, heads, and events themselves, or make files. What an operator does of them, the command line records.
ELSEWHERE = {"audit", "commands", "journal", "reconciler", "transparency"}
WRITES = {
    *("create", "get_or_create", "update_or_create", "bulk_create"),
    *("save", "update", "bulk_update", "delete", "hint_on_commit", "record"),
}


def writers_in(tree: ast.Module) -> Iterator[str]:
    """Yield the public functions and methods of a module that change rows, themselves or by others of the module, or record an event."""
    functions: dict[str, ast.FunctionDef] = {}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            functions[node.name] = node
        elif isinstance(node, ast.ClassDef):
            functions |= {
                f"{node.name}.{one.name}": one for one in node.body if isinstance(one, ast.FunctionDef)
            }
    called = {name: set(calls_in(function)) for name, function in functions.items()}
    writing = {name for name, calls in called.items() if calls & WRITES}
    while more := {name for name, calls in called.items() if calls & writing} - writing:
        writing |= more
    yield from (name for name in writing if not any(part.startswith("_") for part in name.split(".")))


def calls_in(function: ast.FunctionDef) -> Iterator[str]:
    for node in ast.walk(function):
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Attribute):
                yield node.func.attr
            elif isinstance(node.func, ast.Name):
                yield node.func.id


def writers() -> set[str]:
    root = Path(control.__file__).parent
    return {
        ".".join((*path.relative_to(root).with_suffix("").parts, name))
        for path in root.glob("*/*.py")
        if path.parent.name not in ELSEWHERE
        for name in writers_in(ast.parse(path.read_text("utf-8")))
    }


def test_every_function_that_changes_rows_is_one_of_these() -> None:
    """A new verb fails here until it has a row above, and there until it leaves its event."""
    assert writers() == set(VERBS) | set(OTHERS)


def test_a_new_function_that_changes_rows_is_found() -> None:
    source = """
def read(): return Client.objects.all()
def grow(): Client.objects.create()
def _inner(row): row.save()
def outer(row): _inner(row)
class Shape:
    def shrink(self, rows): rows.filter(x=1).delete()
"""
    assert set(writers_in(ast.parse(source))) == {"grow", "outer", "Shape.shrink"}


@pytest.mark.parametrize("name", VERBS)
def test_every_verb_leaves_exactly_one_event(name: str, cast: Cast) -> None:
    verb, act = VERBS[name]
    before = AuditEvent.objects.count()
    with acting(Source.API, Actor(kind=ActorKind.OPERATOR, name="olivia", token="here")):
        act(cast)
    (row,) = AuditEvent.objects.filter(number__gt=before)
    event = row.event()
    assert (event.verb, event.object.kind, event.source) == (verb, KINDS[verb], Source.API)
    assert (str(event.actor), event.digest) == ("olivia/here", row.digest)
    assert event.changes or verb is Verb.CLIENT_RESUME, "which was not suspended"


@pytest.mark.parametrize("name", VERBS)
def test_nothing_changes_where_nobody_acts(name: str, cast: Cast) -> None:
    _, act = VERBS[name]
    before = everything()
    with acting(Source.API, lambda: None), pytest.raises(NoActorError):
        act(cast)
    assert everything() == before
    act(cast)
    assert everything() != before, "the same, done by somebody, changes something"


def everything() -> dict[str, list[Any]]:
    return {
        model._meta.label: list(model._default_manager.order_by("pk").values_list())
        for model in apps.get_models()
        if model._meta.app_label != "sessions"
    }


def test_every_verb_of_the_vocabulary_is_somebody_s() -> None:
    elsewhere = {
        *(Verb.LOGIN_OK, Verb.LOGIN_ENDED, Verb.LOGIN_FAILED, Verb.LOGIN_LOCKED, Verb.BUNDLE_SHIPPED),
        *(Verb.INVITATION_REDEEM, Verb.INVITATION_REFUSE, Verb.INVITATION_EXPIRE),
        *(Verb.LOG_ROTATE_KEYS, Verb.LOG_RETIRE_KEYS, Verb.LOG_COMPARE, Verb.LOG_SUCCEED),
        Verb.BACKUP_CREATE,
    }
    assert {verb for verb, _ in VERBS.values()} | elsewhere == set(Verb)
    assert set(FACTS) == set(Kind)


def test_events_are_numbered_without_gaps_and_each_names_the_one_before(cast: Cast) -> None:
    for _, act in VERBS.values():
        try:
            act(cast)
        except RefusedError:  # what an earlier one ended: no event, and no gap either
            connection.check_constraints()
    events = [row.event() for row in AuditEvent.objects.all()]
    assert [event.number for event in events] == list(range(1, len(events) + 1))
    assert [event.prev for event in events] == [ZERO_DIGEST, *(event.digest for event in events[:-1])]
    assert len({event.id for event in events}) == len(events) > 10


def test_what_is_refused_or_rolled_back_leaves_no_event(cast: Cast) -> None:
    before = AuditEvent.objects.count()
    with pytest.raises(RefusedError):
        clients.create_client(NewClient(name="acme"))
    with transaction.atomic():
        clients.suspend_client(cast.client)
        assert AuditEvent.objects.count() == before + 1, "it was there"
        transaction.set_rollback(True)
    assert AuditEvent.objects.count() == before
    clients.suspend_client(cast.client)
    assert AuditEvent.objects.last().number == before + 1  # type: ignore[union-attr]


@pytest.mark.django_db(transaction=True)
def test_an_event_needs_the_transaction_of_its_change() -> None:
    with pytest.raises(RuntimeError, match="in the transaction of the change"):
        record(Verb.NODE_ADD, "node-a")
    with transaction.atomic():
        record(Verb.NODE_ADD, "node-a")
    assert AuditEvent.objects.count() == 1


def test_an_event_says_what_changed_and_from_what(cast: Cast) -> None:
    clients.suspend_client(cast.client)
    assert last().changes == (Change(fact="state", before="active", after="suspended"),)
    clients.suspend_client(cast.client)
    assert last().changes == (), "which did not change it"
    operators.give_role("olivia", Role.AUDITOR)
    assert last().changes == (Change(fact="role", before="administrator", after="auditor"),)
    clients.revoke_client(cast.client)
    changes = {change.fact: (change.before, change.after) for change in last().changes}
    assert changes == {"active_devices": (1, 0), "state": ("suspended", "revoked")}
    pins.activate_pin(cast.newer)
    assert last().changes[0] == Change(fact="active_version", before="1.0", after="2.0")


def last() -> Event:
    row = AuditEvent.objects.last()
    assert row is not None
    return row.event()


def test_no_event_holds_a_secret(cast: Cast) -> None:
    """Nothing that a row keeps to itself or that was shown once; the names and numbers around it are there."""
    configuration = enrolment.add_device(NewDevice(client="acme", name="phone", public_key=new_public_key()))
    token = operators.create_token(operators.NewToken(operator="olivia", name="there"))
    operators.create_operator(operators.NewOperator(name="ada"), PASSWORD)
    device = Device.objects.get(name="phone")
    texts = "".join(AuditEvent.objects.values_list("text", flat=True))
    told = configuration.model_dump(mode="json")
    secrets = [
        *(token, PASSWORD, ApiToken.objects.get(name="there").sha256),
        *(device.sealed_preshared_key, device.token_sha256, cast.client.pseudonym_key),
        *(value for name, value in told.items() if name in {"token", "preshared_key", "pseudonym_key"}),
    ]
    assert len(secrets) >= 8
    assert not [secret for secret in secrets if secret in texts]
    assert "acme/phone" in texts
    assert device.public_key in texts


GOOD = {
    "actor": {"kind": "operator", "name": "olivia", "token": None},
    "at": "2026-01-02T03:04:05.006Z",
    "changes": [{"after": "suspended", "before": "active", "fact": "state"}],
    "id": "0" * 32,
    "number": 1,
    "object": {"kind": "client", "name": "acme"},
    "prev": "0" * 64,
    "request": "1" * 32,
    "source": "api",
    "type": "audit-event",
    "v": 1,
    "verb": "client.suspend",
}


@pytest.mark.parametrize(
    "wrong",
    [
        {"changes": [{"after": "sleepy", "before": "active", "fact": "state"}]},
        {"changes": [{"after": "active", "before": "active", "fact": "state"}]},
        {"changes": [{"after": "x", "before": None, "fact": "pseudonym_key"}]},
        {"changes": [{"after": 1, "before": None, "fact": "state"}]},
        {"changes": [{"after": True, "before": None, "fact": "active_devices"}]},
        {"changes": GOOD["changes"] * 2},
        {"changes": [{"after": "a", "before": None, "fact": "home"}, *GOOD["changes"]][::-1]},
        {"object": {"kind": "device", "name": "acme"}},
        {"object": {"kind": "client", "name": "acme\n"}},
        {"verb": "client.tickle"},
        {"source": "telepathy"},
        {"type": "receipt"},
        {"v": 2},
        {"number": 0},
        {"number": 2**53},
        {"prompt": "hello"},
        {"note": None},
    ],
    ids=str,
)
def test_the_schema_is_closed(wrong: dict[str, Any]) -> None:
    Event.parse(GOOD)
    with pytest.raises(RefusedError):
        Event.parse({**GOOD, **wrong})


@given(st.binary(max_size=8), st.integers(0, 10_000))
def test_one_event_has_one_spelling(noise: bytes, place: int) -> None:
    data = Event.parse(GOOD).canonical_bytes()
    assert Event.parse_canonical(data) == Event.parse(GOOD)
    place %= len(data)
    other = data[:place] + noise + data[place + len(noise) :]
    if other == data:
        return
    try:
        assert Event.parse_canonical(other).canonical_bytes() == other
    except RefusedError:
        return


# -- what was recorded stays


@pytest.mark.parametrize(
    "change",
    [
        lambda row: AuditEvent.objects.update(text="{}"),
        lambda row: AuditEvent.objects.filter(number=1).delete(),
        lambda row: AuditEvent.objects.bulk_update([row], ["text"]),
        lambda row: row.delete(),
        lambda row: row.save(),
        lambda row: EventPlace.objects.all().delete(),
    ],
)
def test_the_orm_changes_and_deletes_no_event(change: Callable[[AuditEvent], Any], acme: Client) -> None:
    with pytest.raises(AppendOnlyError):
        change(AuditEvent.objects.get(number=1))


STATEMENTS = (
    "UPDATE journal_auditevent SET digest = '' WHERE number = 1",
    "DELETE FROM journal_auditevent WHERE number = 2",
    "UPDATE journal_eventplace SET place = 7",
    "DELETE FROM journal_eventplace",
)
REPLACEMENT = """
    INSERT OR REPLACE INTO journal_auditevent (number, text, digest)
    SELECT 2, text, digest FROM journal_auditevent WHERE number = 1
"""


@pytest.mark.parametrize("statement", [*STATEMENTS, REPLACEMENT])
def test_the_database_refuses_it_too(statement: str, acme: Client) -> None:
    if statement is REPLACEMENT and connection.vendor != "sqlite":
        pytest.skip("SQLite's own statement")
    EventPlace.objects.create(event_id=1, place=0)
    with pytest.raises(DatabaseError, match="only added to"), transaction.atomic():
        run_sql(statement)
    assert json.loads(AuditEvent.objects.get(number=2).text)["number"] == 2
    connection.check_constraints()  # PostgreSQL drops no trigger before them
    execute(triggers.remove)
    run_sql(statement)  # positive control: it is nothing else that refuses it


def run_sql(statement: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement)


def test_what_columns_say_is_read_out_of_the_event_by_the_database(acme: Client, node: Node) -> None:
    row = AuditEvent.objects.get(verb=Verb.CLIENT_CREATE)
    event = row.event()
    assert (row.uid, row.at, row.source) == (event.id, event.at, event.source)
    assert (row.actor, row.token, row.kind, row.name) == ("tests", None, "client", "acme")
    with pytest.raises(DatabaseError), transaction.atomic():
        run_sql("INSERT INTO journal_auditevent (number, text, digest, verb) VALUES (9, '{}', '', 'x')")
