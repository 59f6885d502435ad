"""The console's pages of receipts, alarms and the log: what they show, who may see it, and at what cost."""

from __future__ import annotations

import io
import re
import shutil
import zipfile
from collections.abc import Callable
from datetime import timedelta

import pytest
from control_cast import OverTls, stored_node
from django.conf import settings
from django.contrib.auth.models import User
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from simulated_node import SimulatedNode

from appliance.core.receipt import End, NodeKey, SignedReceipt, make_keyring
from appliance.core.signing import public_text
from control.audit import admin as module
from control.audit.alarms import ADVICE, ON_RECEIPTS
from control.audit.export import Format, write_receipts
from control.audit.models import Alarm, AlarmKind, ReceiptRecord
from control.audit.pseudonyms import pseudonym_of
from control.audit.reading import ENDS
from control.audit.services import admit_receipt, raise_alarm
from control.clients.models import Client
from control.fleet.models import Node
from control.operators.models import Operator
from control.operators.roles import Role
from control.reconciler.keys import ReconcilerKeys
from control.transparency.keeper import Keeper

RECEIPTS = "/admin/audit/receiptrecord/"
ALARMS = "/admin/audit/alarm/"
LOG = "/admin/transparency/checkpointrecord/"
Issue = Callable[..., list[ReceiptRecord]]


@pytest.fixture
def node_row(db: None) -> Node:
    return stored_node()


@pytest.fixture(autouse=True)
def fresh_log() -> None:
    """The settings' log outlives a test's database, and a keeper refuses a log that is ahead of it."""
    shutil.rmtree(settings.PATHS.log, ignore_errors=True)


@pytest.fixture
def issue(node_row: Node, keys: ReconcilerKeys) -> Issue:
    """Receipts of acme, and of a pseudonym that is no client's, as a node signs them, admitted."""
    simulated = SimulatedNode("node-a", public_text(keys.bundle))
    keyring = make_keyring((NodeKey(node="node-a", public_key=public_text(simulated.receipt_key)),), keys.log)
    settings.PATHS.keyring.write_bytes(keyring.canonical_bytes())
    acme = pseudonym_of(Client.objects.create(name="acme", home=node_row))

    def admit(count: int, client: str = acme, **changes: object) -> list[ReceiptRecord]:
        for _ in range(count):
            assert admit_receipt(node_row, simulated.issue_receipt(client, **changes), keyring)
        return list(ReceiptRecord.objects.order_by("-pk")[:count])[::-1]

    return admit


@pytest.fixture
def log(keys: ReconcilerKeys) -> Callable[[], int]:
    return lambda: Keeper(settings.PATHS.log, keys.checkpoints).keep()


def browser_of(user: User) -> OverTls:
    made = OverTls()
    made.force_login(user)
    return made


@pytest.fixture
def browser(operator: User) -> OverTls:
    return browser_of(operator)


def text_of(browser: OverTls, path: str) -> str:
    answer = browser.get(path)
    assert answer.status_code == 200
    text: str = answer.content.decode()
    # Inline code and style would not work under the policy.
    assert not re.search(r"<script(?![^>]*(src=|application/json|text/html))[^>]*>", text)
    assert not re.search(r"\son[a-z]+=|style=\"|<style", text)
    return text


def listed(text: str) -> set[str]:
    return set(re.findall(r'<code title="([0-9a-f]{32})">', text))


def test_the_list_shows_who_where_why_and_the_state(
    browser: OverTls, issue: Issue, log: Callable[[], int]
) -> None:
    issue(2)
    log()
    (invalid,) = issue(1, end=End.CRASHED)
    ReceiptRecord.objects.filter(pk=invalid.pk).update(verified=False)
    issue(1, client="f" * 64)
    text = text_of(browser, RECEIPTS)
    assert text.count(">acme</span>") == 3
    assert f'<code title="{"f" * 64}">ffffffffffff</code>' in text
    assert len(listed(text)) == 4
    for state, times in (("good", 2), ("bad", 1), ("warn", 2)):  # logged; invalid; waiting and crashed
        assert text.count(f'class="badge {state}"') == times
    assert text.index(">waiting<") < text.index(">invalid<") < text.index(">logged<")  # the newest first


def test_filters_and_search_are_those_of_the_api(browser: OverTls, issue: Issue) -> None:
    first, second, third = issue(3)
    (stranger,) = issue(1, client="f" * 64, end=End.FAILED)
    ReceiptRecord.objects.filter(pk=second.pk).update(verified=False)
    every = {record.receipt_id for record in (first, second, third, stranger)}
    for query, expected in {
        "": every,
        "verified=false": {second.receipt_id},
        "verified=true&client=acme": {first.receipt_id, third.receipt_id},
        "end=failed": {stranger.receipt_id},
        "logged=true": set(),
        "node=node-a": every,
        "from=2020-01-01&to=": every,
        "to=2020-01-01": set(),
        f"receipt={third.receipt_id}": {third.receipt_id},
        "q=acm": every - {stranger.receipt_id},
        f"q={first.receipt_id[:12]}": {first.receipt_id},
        "q=ffffffff&verified=true": {stranger.receipt_id},
    }.items():
        assert listed(text_of(browser, f"{RECEIPTS}?{query}")) == expected, query


@pytest.mark.parametrize("query", ["node=nowhere", "from=soon", "client=nobody", "text__contains=x", "seq=1"])
def test_a_filter_that_is_not_one_shows_an_error_and_no_list(
    browser: OverTls, issue: Issue, query: str
) -> None:
    issue(1)
    for path in (RECEIPTS, f"{RECEIPTS}export.csv"):
        answer = browser.get(f"{path}?{query}", follow=True)
        assert answer.redirect_chain
        assert 'class="error"' in answer.content.decode()


def test_a_page_costs_the_same_queries_however_many_receipts_it_shows(browser: OverTls, issue: Issue) -> None:
    counts = []
    for more in (1, 30):
        issue(more)
        with CaptureQueriesContext(connection) as queries:
            assert (
                len(listed(text_of(browser, f"{RECEIPTS}?node=node-a&q=acme")))
                == ReceiptRecord.objects.count()
            )
        counts.append(len(queries))
    assert counts[0] == counts[1] <= 16


def test_counting_stops_where_nobody_pages_any_more(
    browser: OverTls, issue: Issue, monkeypatch: pytest.MonkeyPatch
) -> None:
    issue(5)
    assert "5 receipts" in text_of(browser, RECEIPTS)
    monkeypatch.setattr(module, "MOST_COUNTED", 3)
    assert "the first 3 receipts; narrow the search" in text_of(browser, RECEIPTS)


def test_a_receipt_is_shown_in_words(browser: OverTls, issue: Issue, log: Callable[[], int]) -> None:
    (record,) = issue(1)
    page = reverse("admin:audit_receiptrecord_change", args=[record.pk])
    waiting = text_of(browser, page)
    assert "waiting for the log" in waiting
    assert "receipt.zip" not in waiting
    log()
    text = text_of(browser, page)
    receipt = record.signed().receipt
    for word in (
        "<dd>acme",
        receipt.client,
        receipt.session,
        receipt.models[0],
        "One request, answered",
        "Landlock, ABI 7",
    ):
        assert word in text
    assert "1.000 s later" in text
    assert f"{page.removesuffix('change/')}receipt.zip" in text


def test_nothing_that_an_unverified_receipt_says_is_called_good(browser: OverTls, issue: Issue) -> None:
    (record,) = issue(1)
    page = reverse("admin:audit_receiptrecord_change", args=[record.pk])
    assert text_of(browser, page).count('class="badge good"') > 5
    ReceiptRecord.objects.update(verified=False)
    text = text_of(browser, page)
    assert "signature does not verify" in text
    assert 'class="badge good"' not in text


def test_every_way_to_end_has_words() -> None:
    assert set(ENDS) == set(End)


def test_a_receipt_and_what_verifies_it_are_downloaded(
    browser: OverTls, issue: Issue, log: Callable[[], int]
) -> None:
    (record,) = issue(1)
    link = f"{RECEIPTS}{record.pk}/receipt."
    assert SignedReceipt.parse_canonical(browser.get(f"{link}json").content) == record.signed()
    early = browser.get(f"{link}zip", follow=True)
    assert "The log does not hold this receipt" in early.content.decode()
    log()
    zipped = browser.get(f"{link}zip")
    assert zipped["Content-Disposition"] == f'attachment; filename="receipt-{record.receipt_id}.zip"'
    with zipfile.ZipFile(io.BytesIO(zipped.content)) as archive:
        assert archive.read("receipt.tlog-proof") == browser.get(f"{link}tlog-proof").content
    assert browser.get(f"{link}exe").status_code == 404
    assert browser.get(f"{RECEIPTS}999/receipt.json").status_code == 404


def test_all_that_match_and_the_ticked_ones_are_exported(browser: OverTls, issue: Issue) -> None:
    ticked, other = issue(2)
    issue(1, client="f" * 64)
    acme = ReceiptRecord.objects.filter(pk__in=(ticked.pk, other.pk))
    for form in Format:
        link = f"{RECEIPTS}export.{form.value}?q=acme"
        assert f'href="{link}"' in text_of(browser, f"{RECEIPTS}?q=acme&p=1")
        assert browser.get(link).getvalue() == b"".join(write_receipts(acme, form))
        chosen = {"action": f"export_{form.value}", "_selected_action": [ticked.pk]}
        answer = browser.post(RECEIPTS, chosen, format="multipart")
        assert answer.getvalue() == b"".join(write_receipts(acme.filter(pk=ticked.pk), form))
    assert browser.get(f"{RECEIPTS}export.exe").status_code == 404


PATHS = (
    RECEIPTS,
    f"{RECEIPTS}export.csv",
    f"{RECEIPTS}1/receipt.json",
    f"{RECEIPTS}1/change/",
    ALARMS,
    LOG,
    f"{LOG}log.vkey.file",
)


def test_a_viewer_looks_and_downloads_and_a_colleague_without_the_right_does_not(
    issue: Issue, log: Callable[[], int]
) -> None:
    (record,) = issue(1)
    log()
    colleague = User.objects.create_user("victor", is_staff=True)
    viewer = User.objects.create_user("vera", is_staff=True)
    Operator.objects.create(user=viewer, role=Role.AUDITOR)
    for path in (path.replace("/1/", f"/{record.pk}/") for path in PATHS):
        assert browser_of(colleague).get(path).status_code == 403, path
        assert browser_of(viewer).get(path).status_code == 200, path
        assert OverTls().get(path).status_code == 302, path  # to the login
    chosen = {"action": "export_csv", "_selected_action": [record.pk]}
    assert browser_of(colleague).post(RECEIPTS, chosen, format="multipart").status_code == 403
    assert browser_of(viewer).post(RECEIPTS, chosen, format="multipart").streaming
    for word in ("add/", f"{record.pk}/delete/"):
        assert browser_of(viewer).get(f"{RECEIPTS}{word}").status_code in {403, 404}


def test_a_receipt_that_somebody_changed_in_the_database_says_so(browser: OverTls, issue: Issue) -> None:
    (record,) = issue(1)
    ReceiptRecord.objects.update(text='{"end":"failed","note":"<script>alert(1)</script>"}')
    assert ">damaged<" in text_of(browser, RECEIPTS)
    text = text_of(browser, f"{RECEIPTS}{record.pk}/change/")
    assert "not a receipt any more" in text
    assert "&lt;script&gt;" in text


def test_every_alarm_says_what_it_means_and_what_to_do(
    browser: OverTls, issue: Issue, node_row: Node
) -> None:
    (record,) = issue(1)
    assert set(ADVICE) == set(AlarmKind)
    for kind in AlarmKind:
        raise_alarm(node_row, kind, record.receipt_id if kind in ON_RECEIPTS else "412")
    text = text_of(browser, ALARMS)
    assert text.count("<b>Next:</b>") == len(AlarmKind) == Alarm.objects.count()
    assert text.count(f"{RECEIPTS}?receipt={record.receipt_id}") == len(ON_RECEIPTS)
    shown = text_of(browser, f"{RECEIPTS}{record.pk}/change/")
    assert shown.count("<b>Next:</b>") == len(ON_RECEIPTS)


def test_alarms_cost_the_same_queries_however_many(browser: OverTls, node_row: Node) -> None:
    counts = []
    for subjects in (range(1), range(1, 20)):
        for subject in subjects:
            raise_alarm(node_row, AlarmKind.BAD_SCHEMA, str(subject))
        with CaptureQueriesContext(connection) as queries:
            text_of(browser, ALARMS)
        counts.append(len(queries))
    assert counts[0] == counts[1]


def test_the_log_s_page_shows_its_head_and_what_waits(
    browser: OverTls, issue: Issue, log: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    issue(2)  # and one event: the login
    assert "Nothing was logged yet. Entries waiting: 3." in text_of(browser, LOG)
    log()
    issue(1)
    text = text_of(browser, LOG)
    for label, figure in (("Entries in the log", 3), ("Entries waiting", 1)):
        assert f"<dt>{label}</dt><dd>{figure}</dd>" in text
    assert "ML-DSA-44 key" in text
    assert "Ed25519 key" in text
    checkpoint = browser.get(f"{LOG}checkpoint.file")
    assert checkpoint.content.split(b"\n")[1] == b"3"
    assert browser.get(f"{LOG}log.vkey.file").content == settings.PATHS.log_keys.read_bytes()
    assert browser.get(f"{LOG}secret.key.file").status_code == 404
    assert "older than it should be" not in text
    monkeypatch.setattr("control.transparency.admin._LATE", timedelta(0))
    assert "older than it should be" in text_of(browser, LOG)
