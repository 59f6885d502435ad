"""Every page of the console: who gets in by which method, what no page may hold, and what it costs."""

from __future__ import annotations

import re
from urllib.parse import urlencode

import pytest
from console_cast import PageReader, World, browser_of, make_world
from control_cast import OverTls, new_public_key
from django.contrib.auth.models import User
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import URLPattern
from hypothesis import HealthCheck, given
from hypothesis import settings as bounds
from hypothesis import strategies as st

from control.audit.models import Alarm, AlarmKind, ReceiptRecord
from control.audit.services import raise_alarm
from control.clients.models import Client, Device
from control.console.urls import urlpatterns
from control.console.views.nodes import describe_health
from control.fleet.models import BundleRecord, Node
from control.headers import CONTENT_SECURITY_POLICY
from control.operators.models import ApiToken
from control.operators.roles import Role
from control.operators.services import NewOperator, NewToken, create_operator, create_token
from control.pins.models import ModelPin
from control.reconciler.keys import ReconcilerKeys
from control.transparency.models import CheckpointRecord

pytestmark = pytest.mark.django_db

FORM = "application/x-www-form-urlencoded"
V, O, A, X = Role.VIEWER, Role.OPERATOR, Role.AUDITOR, Role.ADMINISTRATOR  # noqa: E741
ALL, SEES_RECEIPTS, CHANGES, SEES_OPERATORS, ADMIN = {V, O, A, X}, {O, A, X}, {O, X}, {A, X}, {X}
NOBODY: set[Role] = set()
ANYBODY = set(Role)

# Who sees which page and who may send its form, written down beside the code that decides it.
PAGES: dict[str, tuple[str, set[Role], set[Role]]] = {
    "overview": ("", ALL, NOBODY),
    "alarms": ("alarms/", ALL, NOBODY),
    "clients": ("clients/", ALL, NOBODY),
    "client-add": ("clients/add/", CHANGES, CHANGES),
    "client": ("clients/acme/", ALL, NOBODY),
    "client-limits": ("clients/acme/limits/", CHANGES, CHANGES),
    "client-end": ("clients/acme/end/", CHANGES, CHANGES),
    "client-invite": ("clients/acme/invite/", CHANGES, CHANGES),
    "alias-add": ("clients/acme/aliases/add/", CHANGES, CHANGES),
    "alias-remove": ("aliases/{alias}/remove/", CHANGES, CHANGES),
    "invitation-approve": ("invitations/{invitation}/approve/", CHANGES, CHANGES),
    "invitation-cancel": ("invitations/{invitation}/cancel/", CHANGES, CHANGES),
    "client-suspend": ("clients/acme/suspend/", CHANGES, CHANGES),
    "client-resume": ("clients/acme/resume/", CHANGES, CHANGES),
    "client-revoke": ("clients/acme/revoke/", CHANGES, CHANGES),
    "device-add": ("clients/acme/devices/add/", CHANGES, CHANGES),
    "devices": ("devices/", ALL, NOBODY),
    "device-rotate": ("devices/{device}/rotate/", CHANGES, CHANGES),
    "device-end": ("devices/{device}/end/", CHANGES, CHANGES),
    "device-revoke": ("devices/{device}/revoke/", CHANGES, CHANGES),
    "models": ("models/", ALL, NOBODY),
    "model": ("models/{pin}/", ALL, NOBODY),
    "model-activate": ("models/{verified}/activate/", CHANGES, CHANGES),
    "model-roll-back": ("models/{pin}/roll-back/", CHANGES, CHANGES),
    "model-retire": ("models/{verified}/retire/", CHANGES, CHANGES),
    "nodes": ("nodes/", ALL, NOBODY),
    "node": ("nodes/node-a/", ALL, NOBODY),
    "node-duty": ("nodes/node-a/duty/drained/", CHANGES, CHANGES),
    "node-plan": ("nodes/node-a/plan/", CHANGES, CHANGES),
    "node-health": ("nodes/node-a/health/", ALL, NOBODY),
    "node-bundles": ("nodes/node-a/bundles/", ALL, NOBODY),
    "receipts": ("receipts/", SEES_RECEIPTS, NOBODY),
    "receipts-export": ("receipts/export.csv", SEES_RECEIPTS, NOBODY),
    "receipt": ("receipts/{receipt}/", SEES_RECEIPTS, NOBODY),
    "receipt-file": ("receipts/{receipt}/receipt.zip", SEES_RECEIPTS, NOBODY),
    "log": ("log/", SEES_RECEIPTS, NOBODY),
    "checkpoint": ("log/{head}/", SEES_RECEIPTS, NOBODY),
    "log-file": ("log/keys.txt", SEES_RECEIPTS, NOBODY),
    "operators": ("operators/", SEES_OPERATORS, NOBODY),
    "operator-add": ("operators/add/", ADMIN, ADMIN),
    "operator-role": ("operators/{bob}/role/", ADMIN, ADMIN),
    "operator-sign-out": ("operators/{bob}/sign-out/", ADMIN, ADMIN),
    "operator-disable": ("operators/{bob}/disable/", ADMIN, ADMIN),
    "tokens": ("tokens/", SEES_OPERATORS, NOBODY),
    "token-add": ("tokens/add/", ADMIN, ADMIN),
    "token-revoke": ("tokens/{token}/revoke/", ADMIN, ADMIN),
    "reference": ("reference/", ALL, NOBODY),
    "theme": ("theme/", ANYBODY, ANYBODY),
}


@pytest.fixture
def world(node: Node, pin: ModelPin, keys: ReconcilerKeys) -> World:
    return make_world(node, pin, keys)


def address(name: str, world: World) -> str:
    rows = {
        "device": world.device.pk,
        "pin": world.pin.pin_id,
        "verified": world.verified.pin_id,
        "receipt": world.logged.pk,
        "head": CheckpointRecord.objects.latest("size").size,
        "bob": world.bob.pk,
        "alias": world.alias.pk,
        "invitation": world.invitation.pk,
        "token": world.token.pk,
    }
    return "/" + PAGES[name][0].format(**rows)


def test_the_table_has_every_page() -> None:
    assert all(isinstance(pattern, URLPattern) for pattern in urlpatterns)
    assert {pattern.name for pattern in urlpatterns} == set(PAGES)


def test_the_table_s_addresses_are_those_of_the_pages(world: World) -> None:
    from django.urls import resolve

    for name in PAGES:
        assert resolve(address(name, world)).view_name == f"console:{name}"


@pytest.mark.parametrize("role", Role)
def test_each_role_opens_its_own_pages_and_no_other_and_looking_changes_nothing(
    role: Role, world: World
) -> None:
    browser = browser_of(role)
    for name, (_, sees, _) in PAGES.items():
        with CaptureQueriesContext(connection) as queries:
            answer = browser.get(address(name, world))
        expected = {200, 302} if name == "theme" else {200}
        assert answer.status_code in (expected if role in sees else {403}), (name, answer.status_code)
        written = [q["sql"] for q in queries if re.match("(INSERT|UPDATE|DELETE)", q["sql"])]
        assert not written, (name, written)
        assert browser.head(address(name, world)).status_code == answer.status_code, name


@pytest.mark.parametrize("role", Role)
def test_each_role_sends_its_own_forms_and_no_other(role: Role, world: World) -> None:
    browser = browser_of(role)
    for name, (_, sees, sends) in PAGES.items():
        answer = browser.generic("POST", address(name, world), "", FORM)
        if role in sends:
            assert answer.status_code in {200, 302}, (name, answer.status_code)
        else:
            assert answer.status_code == (405 if role in sees else 403), (name, answer.status_code)


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"])
def test_no_page_knows_another_method(method: str, world: World) -> None:
    browser = browser_of(X)
    for name in PAGES:
        assert browser.generic(method, address(name, world)).status_code == 405, name


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "DELETE"])
def test_who_is_not_signed_in_is_sent_to_do_so(method: str, world: World) -> None:
    for name in PAGES:
        answer = OverTls(raise_request_exception=False).generic(method, address(name, world))
        assert answer.status_code == 302, name
        assert answer["Location"].startswith("/login/?next="), name


def test_who_is_no_operator_gets_a_page_that_says_so(world: World) -> None:
    browser = OverTls(raise_request_exception=False)
    browser.force_login(User.objects.create_user("stranger", is_staff=True))
    for name in PAGES:
        answer = browser.get(address(name, world))
        assert answer.status_code == 403, name
        assert "has no role" in answer.content.decode()


def test_no_form_is_taken_from_another_site(world: World) -> None:
    browser = browser_of(X, csrf=True)
    before = (Client.objects.values_list("state"), Device.objects.count(), ApiToken.objects.count())
    for name, (_, _, sends) in PAGES.items():
        if sends:
            answer = browser.generic("POST", address(name, world), "name=eve&role=viewer", FORM)
            assert answer.status_code == 403, name
            assert "out of date" in answer.content.decode()
    assert list(before[0]) == list(Client.objects.values_list("state"))
    assert before[1:] == (Device.objects.count(), ApiToken.objects.count())


def pages_of(role: Role, world: World) -> dict[str, str]:
    """Every page that a role sees, and those that answer a form or say no."""
    browser, texts = browser_of(role), {}
    for name, (_, sees, _) in PAGES.items():
        if role in sees and name not in ("receipts-export", "receipt-file", "log-file", "theme"):
            texts[name] = browser.get(address(name, world)).content.decode()
    for record in (world.invalid, world.waiting):
        texts[f"receipt {record.pk}"] = browser.get(f"/receipts/{record.pk}/").content.decode()
    texts["not found"] = browser.get("/nowhere/").content.decode()
    texts["nothing fits"] = browser.get("/clients/?q=zzz").content.decode()
    texts["refused"] = browser.get("/receipts/?from=soon").content.decode()
    for name in (
        "client-add",
        "client-limits",
        "client-end",
        "client-invite",
        "alias-add",
        "device-add",
        "device-rotate",
        "operator-add",
        "token-add",
        "operator-role",
    ):
        if role in PAGES[name][2]:
            answer = browser.generic(
                "POST",
                address(name, world),
                "name=A+b&alias=A+b&public_key=x&days=0&hours=0&sessions=0&expires_at=soon",
                FORM,
            )
            texts[f"wrong {name}"] = answer.content.decode()
    if role in CHANGES:
        form = urlencode({"name": "desk", "public_key": new_public_key()})
        texts["configuration"] = browser.generic(
            "POST", "/clients/acme/devices/add/", form, FORM
        ).content.decode()
        form = urlencode({"device": "kiosk", "hours": 24, "approval": "on"})
        texts["invitation"] = browser.generic("POST", "/clients/acme/invite/", form, FORM).content.decode()
        assert "shown once" in texts["invitation"]
    if role is X:
        form = "name=carol&role=viewer&console=on"
        texts["password"] = browser.generic("POST", "/operators/add/", form, FORM).content.decode()
        form = "operator=bob&name=monitoring&days=30"
        texts["token"] = browser.generic("POST", "/tokens/add/", form, FORM).content.decode()
    return texts


@pytest.mark.parametrize("role", sorted(ALL))
def test_every_page_is_well_formed_safe_and_has_names_for_everything(role: Role, world: World) -> None:
    pages = pages_of(role, world)
    assert len(pages) >= 14
    for name, text in pages.items():
        page = PageReader.read(text)
        assert page.problems == [], (name, page.problems)
        forms = [form for form in page.all("form") if form.attributes.get("method") == "post"]
        tokens = [each for each in page.all("input") if each.attributes.get("name") == "csrfmiddlewaretoken"]
        assert len(forms) == len(tokens), name


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('<p onclick="x()">a</p>', "<p onclick>"),
        ('<p style="color:red">a</p>', "<p style>"),
        ("<script>alert(1)</script>", "an inline script"),
        ('<a href="https://example.org">x</a>', "leads elsewhere"),
        ('<a href="//example.org">x</a>', "leads elsewhere"),
        ('<a href="javascript:x">x</a>', "leads elsewhere"),
        ("<p>a", "<p> is not closed"),
        ("<div></p></div>", "</p> closes nothing"),
        ("<input name=a>", "has no label"),
        ("<h1>a</h1><h3>b</h3>", "leaves a level out"),
        ("<table></table>", "without a caption"),
        ("<button></button>", "says nothing"),
        ('<img src="/static/x">', "without alt"),
        ('<p id="a"></p><p id="a"></p>', "an id twice"),
    ],
)
def test_the_reader_of_pages_sees_what_is_wrong(text: str, problem: str) -> None:
    assert any(problem in each for each in PageReader.read(f"<!doctype html>{text}").problems)


def test_every_answer_has_the_policy_and_is_kept_nowhere(world: World) -> None:
    browser = browser_of(X)
    answers = [browser.get(address(name, world)) for name in PAGES]
    answers += [browser.get("/nowhere/"), browser_of(V).get("/receipts/"), OverTls().get("/")]
    for answer in answers:
        assert answer["Content-Security-Policy"] == CONTENT_SECURITY_POLICY
        assert answer["Cache-Control"] == "no-store"
        assert answer["X-Frame-Options"] == "DENY"
        assert answer["Referrer-Policy"] == "same-origin"


def test_what_pages_load_is_there(world: World) -> None:
    browser = browser_of(X)
    text = browser.get("/").content.decode()
    assets = set(re.findall(r'(?:src|href)="(/static/[^"]+)"', text))
    assert len(assets) == 3
    for asset in assets:
        served = browser.get(asset)
        assert served.status_code == 200
        served.close()


PROBE = "<script>alert(1)</script><img src=x onerror=alert(1)>\"'><b>&amp;"


def test_no_text_becomes_markup(world: World) -> None:
    """Wherever a text can come from outside or from a changed database, and in what a page repeats of a request."""
    short = PROBE[:32]
    Node.objects.update(
        version=short,
        last_error=short,
        boot=short,
        user=short,
        health={**world.node.health, "cells": [{"client": PROBE, "rss_bytes": 1}], "load": [PROBE]},
    )
    Device.objects.filter(pk=world.device.pk).update(public_key=PROBE[:44], name=short)
    Device.objects.exclude(pk=world.device.pk).update(public_key=PROBE[1:44])
    Client.objects.update(allowed_models=[PROBE])
    Alarm.objects.filter(kind=AlarmKind.NODE_SILENT).update(subject=PROBE[:64])
    User.objects.filter(pk=world.bob.pk).update(username=PROBE)
    ApiToken.objects.update(name=short, networks=[PROBE], role=PROBE[:16])
    ModelPin.objects.update(
        manifest={**world.pin.manifest, "source": PROBE, "chat_template": PROBE, "stop": [PROBE[:64]]},
    )
    ReceiptRecord.objects.filter(pk=world.waiting.pk).update(text=f'{{"end":"x","note":"{PROBE[:20]}"}}')
    texts = pages_of(X, world)
    for query in ("q", "state", "kind", "node", "page", "client", "receipt", "from", "before", "end"):
        for path in ("clients", "devices", "alarms", "receipts", "operators", "tokens", "models", "log"):
            page = browser_of(X).get(f"/{path}/?{urlencode({query: PROBE})}")
            texts[f"{path} {query}"] = page.content.decode()
    shown = 0
    for name, text in texts.items():
        page = PageReader.read(text)
        assert page.problems == [], (name, page.problems)
        assert not [each for each in page.elements if each.tag == "b"], name
        shown += "&lt;script" in text
    assert shown > 15, "the probe was shown, as text"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "cells",
                    "client",
                    "rss_bytes",
                    "load",
                    "notary",
                    "up",
                    "gpus",
                    "disks",
                    "name",
                    "free_bytes",
                    "total_bytes",
                    "seats",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(health=json_values)
@bounds(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_a_node_says_of_itself_is_described(health: object) -> None:
    described = describe_health(health)
    assert isinstance(described["cells"], list)


@pytest.mark.parametrize(
    "path",
    [
        "clients/?page=x",
        "clients/?page=-1",
        "clients/?page=99999999999999999999",
        "clients/?q=%00",
        "clients/?state=nope",
        "receipts/?before=x",
        "receipts/?before=0",
        "receipts/?before=99999999999999999999",
        "receipts/?q=%00&node=node-a",
        "receipts/?node=nowhere",
        "receipts/?seq=1",
        "receipts/?text__contains=x",
        "receipts/export.csv?from=soon",
        "receipts/99999999999999999999/",
        "receipts/export.exe",
        "devices/99999999999999999999/revoke/",
        "log/99999999999999999999/",
        "log/secret.txt",
        "nodes/no-such-node/",
        "nodes/node-a/duty/sleeping/",
        "nodes/node-a/health/?hours=x",
        "clients/no-such-client/",
        "models/" + "0" * 64 + "/",
        "operators/99999999999999999999/role/",
        "alarms/?node=%00&kind=%00",
        "tokens/?q=%27%22",
    ],
)
def test_what_makes_no_sense_is_answered_with_a_page(path: str, world: World) -> None:
    answer = browser_of(X).get(f"/{path}", follow=True)
    assert answer.status_code in {200, 400, 404}, answer.status_code
    assert PageReader.read(answer.content.decode()).problems == []


def grow(world: World, count: int) -> None:
    """Add so many of everything."""
    world.issue(count)
    start = Client.objects.count()
    clients = [Client(name=f"c{start + n}", home=world.node, allowed_models=["tiny"]) for n in range(count)]
    Client.objects.bulk_create(clients)
    rows = [
        Device(
            client=world.client,
            name=f"d{start + n}",
            public_key=new_public_key(),
            token_sha256=f"{start + n}",
            index=1000 + start + n,
        )
        for n in range(count)
    ]
    Device.objects.bulk_create(rows)
    for n in range(start, start + count):
        raise_alarm(world.node, AlarmKind.BAD_SCHEMA, str(n))
        create_operator(NewOperator(name=f"o{n}", role=V), None)
        create_token(NewToken(operator=f"o{n}", name="t"))
        BundleRecord.objects.create(
            node=world.node, epoch=1, generation=10 + n, digest="d" * 64, content="c" * 64
        )


# Two of each are the session and its operator.
MOST_QUERIES = {"overview": 15, "log": 9, "receipts": 12, "client": 15, "receipt": 9}


def test_a_page_costs_the_same_queries_however_many_rows_there_are(world: World) -> None:
    browser = browser_of(X)
    lists = [
        name for name, (_, sees, sends) in PAGES.items() if sees and not sends and name != "receipts-export"
    ]
    grow(world, 2)
    before = {name: cost(browser, address(name, world)) for name in lists}
    grow(world, 25)
    for name in lists:
        after = cost(browser, address(name, world))
        assert after <= before[name], (name, before[name], after)
        assert after <= MOST_QUERIES.get(name, 8), (name, after)


def cost(browser: OverTls, path: str) -> int:
    with CaptureQueriesContext(connection) as queries:
        assert browser.get(path).status_code == 200
    return len(queries)


def test_a_list_shows_a_page_of_rows_and_leads_to_the_others(world: World) -> None:
    Client.objects.bulk_create(Client(name=f"c{n:04}", home=world.node) for n in range(120))
    browser = browser_of(V)
    first, last = (browser.get(f"/clients/?page={page}").content.decode() for page in (1, 3))
    assert first.count('<th scope="row">') == 50
    assert "122 clients, page 1 of 3" in first
    assert 'rel="next" href="?page=2"' in first
    assert last.count('<th scope="row">') == 22
    assert 'rel="next"' not in last


def test_pages_of_receipts_follow_each_other_without_gap_or_overlap(world: World) -> None:
    world.issue(118)
    browser, path, seen = browser_of(A), "/receipts/?node=node-a", []
    while path:
        text = browser.get(path).content.decode()
        seen += re.findall(r'href="/receipts/(\d+)/"', text)
        older = re.search(r'rel="next" href="([^"]+)"', text)
        path = f"/receipts/{older[1].replace('&amp;', '&')}" if older else ""
    assert seen == [str(pk) for pk in ReceiptRecord.objects.order_by("-pk").values_list("pk", flat=True)]
    newer = re.search(r'rel="prev" href="([^"]+)"', text)
    assert newer is not None
    back = browser.get(f"/receipts/{newer[1].replace('&amp;', '&')}").content.decode()
    assert re.findall(r'href="/receipts/(\d+)/"', back) == seen[50:100] if len(seen) == 121 else seen
