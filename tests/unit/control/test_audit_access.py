"""Who acts by which way is what events say: console, API, command line, reconciler, and logins. And who may read them."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from datetime import timedelta

import pytest
from control_cast import OverTls, new_public_key
from django.contrib.auth.models import User
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from rest_framework.test import APIClient
from signing_in import give_app, give_password, post

from appliance.cli import main
from appliance.core.bundle import Accepted
from appliance.core.errors import RefusedError
from control import keyfiles
from control.clients.models import Client
from control.clients.requests import NewClient
from control.clients.services import create_client, suspend_client
from control.fleet.models import BundleRecord, Node
from control.journal import logins
from control.journal.actors import acting
from control.journal.event import Actor, ActorKind, Event, Source
from control.journal.models import AuditEvent
from control.journal.services import record
from control.journal.vocabulary import Verb
from control.operators.login import FREE
from control.operators.models import ApiToken
from control.operators.roles import Role
from control.operators.services import NewOperator, NewToken, create_operator, create_token
from control.reconciler.generations import record_accepted

pytestmark = pytest.mark.django_db

EVENTS = "/api/v1/events"
PASSWORD = "correct horse battery"
FORM = "application/x-www-form-urlencoded"


def last() -> Event:
    row = AuditEvent.objects.last()
    assert row is not None
    return row.event()


def test_the_api_names_the_operator_and_the_token(api: APIClient, acme: Client) -> None:
    answer = api.post("/api/v1/clients/acme/suspend", {}, "json")
    assert answer.status_code == 200
    event = last()
    assert (event.verb, event.source) == (Verb.CLIENT_SUSPEND, Source.API)
    assert event.actor == Actor(kind=ActorKind.OPERATOR, name="olivia", token="laptop")
    assert answer["X-Request-Id"] == event.request
    assert api.get("/api/v1/clients")["X-Request-Id"] != event.request


def test_the_console_names_the_operator_and_one_request_for_all_that_it_did(
    operator: User, acme: Client
) -> None:
    bolt = create_client(NewClient(name="bolt"))
    browser = OverTls()
    browser.force_login(operator)
    chosen = {"action": "revoke", "_selected_action": [acme.pk, bolt.pk]}
    before = AuditEvent.objects.count()
    browser.post("/admin/clients/client/", chosen, format="multipart")
    events = [row.event() for row in AuditEvent.objects.filter(number__gt=before)]
    assert [event.verb for event in events] == [Verb.CLIENT_REVOKE] * 2
    assert {event.object.name for event in events} == {"acme", "bolt"}
    assert {(event.actor.name, event.actor.token, event.source) for event in events} == {
        ("olivia", None, Source.CONSOLE)
    }
    assert len({event.request for event in events}) == 1


@pytest.mark.parametrize("several", [False, True])
def test_tokens_that_the_console_deletes_are_revoked_by_the_verb(operator: User, several: bool) -> None:
    for name in ("one", "two"):
        create_token(NewToken(operator="olivia", name=name))
    tokens = list(ApiToken.objects.order_by("name"))
    browser = OverTls()
    browser.force_login(operator)
    if several:
        form = {
            "action": "delete_selected",
            "_selected_action": [token.pk for token in tokens],
            "post": "yes",
        }
        browser.post("/admin/operators/apitoken/", form, format="multipart")
    else:
        browser.post(f"/admin/operators/apitoken/{tokens[0].pk}/delete/", {"post": "yes"}, format="multipart")
    revoked = AuditEvent.objects.filter(verb=Verb.TOKEN_REVOKE).values_list("name", flat=True)
    assert list(revoked) == (["olivia/one", "olivia/two"] if several else ["olivia/one"])
    assert ApiToken.objects.count() == 2 - len(revoked)


def test_the_command_line_names_the_unix_user(acme: Client, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["control", "client", "suspend", "acme"]) == 0
    event = last()
    assert (event.source, event.actor.kind) == (Source.CLI, ActorKind.UNIX)
    assert event.actor.name not in {"", "tests"}
    capsys.readouterr()


def test_the_reconciler_says_once_that_a_bundle_was_accepted(node: Node) -> None:
    record_ = BundleRecord.objects.create(node=node, epoch=1, generation=3, digest="d" * 64, content="c" * 64)
    accepted = Accepted(epoch=1, generation=3, digest="d" * 64)
    for _ in range(2):
        record_accepted(node, accepted)
    (row,) = AuditEvent.objects.filter(verb=Verb.BUNDLE_SHIPPED)
    event = row.event()
    assert (event.actor.name, event.source, event.object.name) == (
        "reconciler",
        Source.RECONCILER,
        "node-a",
    )
    assert {change.fact: change.after for change in event.changes} == {
        "digest": "d" * 64,
        "epoch": 1,
        "generation": 3,
    }
    record_.refresh_from_db()
    assert record_.accepted_at is not None


# -- logins


def sign_in(name: str, password: str) -> int:
    return int(give_password(OverTls(), name, password).status_code)


def test_logins_are_events_and_what_strangers_type_is_not_kept() -> None:
    create_operator(NewOperator(name="ada", role=Role.VIEWER), PASSWORD)
    app = give_app(User.objects.get(username="ada"))
    browser = OverTls()
    begun = AuditEvent.objects.count()
    assert give_password(browser, "ada").status_code == 302
    assert AuditEvent.objects.count() == begun, "a password alone is no login"
    assert post(browser, "/login/factor/", code=app.code()).status_code == 302
    event = last()
    assert (event.verb, event.actor.name, event.object.name) == (Verb.LOGIN_OK, "ada", "ada")
    for _ in range(FREE + 2):
        sign_in("ada", "wrong")
    sign_in("my secret passphrase", "ada")
    events = [row.event() for row in AuditEvent.objects.filter(number__gt=begun + 1)]
    failed, locked = Verb.LOGIN_FAILED, Verb.LOGIN_LOCKED
    assert [event.verb for event in events] == [*[failed] * (FREE - 1), locked, failed]
    assert {event.actor.kind for event in events} == {ActorKind.NOBODY}
    assert [event.object.name for event in events] == ["ada"] * FREE + [""]
    assert "secret" not in "".join(AuditEvent.objects.values_list("text", flat=True))


def test_failures_fill_no_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logins, "MOST_FAILURES", 3)
    for number in range(6):
        sign_in(f"guess-{number}", "x")
    assert AuditEvent.objects.filter(verb=Verb.LOGIN_FAILED).count() == 3
    later = timezone.now() + timedelta(hours=1, seconds=1)
    monkeypatch.setattr(logins.timezone, "now", lambda: later)
    sign_in("ada", "x")
    assert AuditEvent.objects.filter(verb=Verb.LOGIN_FAILED).count() == 4


# -- reading


@pytest.fixture
def auditor(db: None) -> APIClient:
    create_operator(NewOperator(name="ann", role=Role.AUDITOR), None)
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {create_token(NewToken(operator='ann', name='t'))}")
    return client


Get = Callable[..., list[int]]


@pytest.fixture
def numbers(auditor: APIClient) -> Get:
    def get(**query: str) -> list[int]:
        answer = auditor.get(EVENTS, query, secure=True)
        assert answer.status_code == 200, answer.content
        return [row["number"] for row in answer.json()["results"]]

    return get


def test_events_are_found_by_who_what_whom_and_when(numbers: Get, acme: Client) -> None:
    with acting(Source.API, Actor(kind=ActorKind.OPERATOR, name="olivia")):
        suspend_client(acme)
    every = AuditEvent.objects.values_list("number", flat=True)
    (suspended,) = AuditEvent.objects.filter(verb=Verb.CLIENT_SUSPEND)
    assert numbers() == list(every)
    assert numbers(actor="olivia") == [suspended.number]
    assert numbers(verb="client.suspend") == numbers(source="api") == [suspended.number]
    assert numbers(request=suspended.request) == [suspended.number]
    assert numbers(object="acme", kind="client") == [suspended.number - 1, suspended.number]
    assert numbers(object="acme", actor="tests") == [suspended.number - 1]
    assert numbers(**{"from": "2020-01-01", "to": "2020-01-02"}) == []
    assert numbers(**{"from": "2020-01-01"}) == list(every)


@pytest.mark.parametrize(
    "query",
    [
        "verb=client.tickle",
        "surplus=1",
        "actor=",
        "from=yesterday",
        "after=-1",
        "page_size=0",
        "verb=a&verb=b",
    ],
)
def test_a_filter_that_makes_no_sense_is_refused(auditor: APIClient, query: str) -> None:
    assert auditor.get(f"{EVENTS}?{query}", secure=True).status_code == 400


def test_pages_follow_numbers_and_cost_the_same_queries_however_long(
    auditor: APIClient, acme: Client
) -> None:
    for _ in range(12):
        suspend_client(acme)
    total = AuditEvent.objects.count()
    url, seen, costs = f"{EVENTS}?page_size=5", list[int](), set[int]()
    while url:
        suspend_client(acme)  # comes while somebody reads
        with CaptureQueriesContext(
            connection,
        ) as queries:
            page = auditor.get(url, secure=True).json()
        costs.add(len(queries))
        seen += [row["number"] for row in page["results"]]
        url = page["next"]
    assert seen == list(range(1, len(seen) + 1))
    assert len(seen) > total
    assert max(costs) <= 3


def test_one_event_is_shown_as_it_is(auditor: APIClient, acme: Client) -> None:
    row = AuditEvent.objects.get(verb=Verb.CLIENT_CREATE)
    shown = auditor.get(f"{EVENTS}/{row.number}", secure=True).json()
    assert (shown["actor"], shown["object"], shown["place"]) == ("tests", "acme", None)
    assert {"after": "active", "before": None, "fact": "state"} in shown["changes"]
    entry = auditor.get(f"{EVENTS}/{row.number}/entry", secure=True)
    assert entry.content == row.event().canonical_bytes()
    assert auditor.get(f"{EVENTS}/{row.number}/proof", secure=True).status_code == 503
    assert auditor.get(f"{EVENTS}/999", secure=True).status_code == 404


def test_exports_hold_what_matches_and_no_formula(auditor: APIClient, acme: Client) -> None:
    User.objects.create(username="=cmd()", is_staff=True)
    with acting(Source.API, Actor(kind=ActorKind.OPERATOR, name="=cmd()")):
        suspend_client(acme)

    def export(**query: str) -> bytes:
        answer = auditor.get(f"{EVENTS}/export", query, secure=True)
        assert answer.status_code == 200
        return b"".join(answer.streaming_content)  # type: ignore[attr-defined]

    lines = export(format="jsonl", object="acme").splitlines()
    assert [Event.parse_canonical(line).object.name for line in lines] == ["acme", "acme"]
    rows = list(csv.DictReader(io.StringIO(export(format="csv", verb="client.suspend").decode())))
    assert [row["actor"] for row in rows] == ["'=cmd()"]
    assert rows[0]["changes"] == 'state: "active" to "suspended"'
    assert len(export(format="jsonl").splitlines()) == AuditEvent.objects.count()


def test_the_command_line_lists_the_newest_last(acme: Client, capsys: pytest.CaptureFixture[str]) -> None:
    suspend_client(acme)
    capsys.readouterr()
    assert main(["control", "audit", "list", "--object", "acme", "--limit", "1", "--json"]) == 0
    (event,) = json.loads(capsys.readouterr().out)["events"]
    assert Event.parse(event) == last()
    assert main(["control", "audit", "list", "--verb", "client.suspend"]) == 0
    assert "acme" in capsys.readouterr().out
    assert main(["control", "audit", "list", "--verb", "client.tickle"]) == 1
    capsys.readouterr()


def test_the_console_shows_events_with_as_many_queries_however_many(operator: User, acme: Client) -> None:
    browser = OverTls()
    browser.force_login(operator)
    browser.get("/admin/journal/auditevent/")

    def cost() -> int:
        with CaptureQueriesContext(connection) as queries:
            page = browser.get("/admin/journal/auditevent/?source=cli&q=acme")
        assert page.status_code == 200
        assert b"client.create" in page.content
        return len(queries)

    few = cost()
    for _ in range(30):
        suspend_client(acme)
    assert cost() == few <= 8
    one = AuditEvent.objects.get(verb=Verb.CLIENT_CREATE)
    shown = browser.get(f"/admin/journal/auditevent/{one.number}/change/")
    assert one.digest in shown.content.decode()
    for path in ("add/", f"{one.number}/delete/"):
        assert browser.get(f"/admin/journal/auditevent/{path}").status_code == 403


def test_an_event_costs_so_many_queries(acme: Client) -> None:
    with CaptureQueriesContext(connection) as queries:
        record(Verb.NODE_ADD, "node-x")
    assert len(queries) <= 3


def test_adding_a_device_is_an_event_of_the_device(acme: Client, api: APIClient) -> None:
    asked = {"client": "acme", "name": "laptop", "public_key": new_public_key()}
    assert api.post("/api/v1/devices", asked, "json").status_code == 201
    assert (last().object.name, last().actor.token) == ("acme/laptop", "laptop")


@pytest.mark.parametrize(
    ("verb", "function"), [("rotate-keys", "rotate_log_keys"), ("retire-keys", "retire_log_keys")]
)
def test_the_log_s_keys_are_replaced_with_an_event_or_not_at_all(
    verb: str, function: str, db: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(keyfiles, function, lambda _: None)
    assert main(["control", "log", verb]) == 0
    assert (last().verb, last().object.name, last().changes) == (f"log.{verb}", "keys", ())

    def refuse(_: object) -> None:
        raise RefusedError("not now")

    monkeypatch.setattr(keyfiles, function, refuse)
    assert main(["control", "log", verb]) == 1
    assert AuditEvent.objects.count() == 1
    capsys.readouterr()
