"""Receipts are found by every filter, alone and together, and by an index however many there are."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from control_cast import stored_node
from django.db import connection
from django.db.models import QuerySet
from rest_framework.test import APIClient
from simulated_node import SimulatedNode

from appliance.core.errors import RefusedError
from appliance.core.receipt import End
from control.audit import search as module
from control.audit.models import ReceiptRecord
from control.audit.pseudonyms import client_names, pseudonym_of
from control.audit.search import Bare, ReceiptFilter, parse_moment, search_text
from control.clients.models import Client
from control.fleet.models import Node

pytestmark = pytest.mark.django_db

START = datetime(2026, 3, 1, tzinfo=UTC)
LIST = "/api/v1/receipts"
STRANGER = "f" * 64  # a pseudonym that is no client's
ENDS = (End.ONE_SHOT, End.DELETED, End.ONE_SHOT, End.CRASHED)


@pytest.fixture
def nodes(db: None) -> list[Node]:
    return [stored_node(name, 77 + n) for n, name in enumerate(("node-a", "node-b"))]


@pytest.fixture
def clients(nodes: list[Node]) -> list[Client]:
    return [Client.objects.create(name=name, home=nodes[0]) for name in ("acme", "acme-labs", "bolt")]


@pytest.fixture
def receipts(nodes: list[Node], clients: list[Client]) -> list[ReceiptRecord]:
    """Sixty, an hour apart: two nodes, three clients and a stranger, every seventh invalid, the last nine not logged."""
    pseudonyms = [*map(pseudonym_of, clients), STRANGER]
    made = []
    for number in range(60):
        node = nodes[number % 5 == 0]
        client = pseudonyms[(number // 4) % 4]
        signed = SimulatedNode(node.name, "").issue_receipt(client, seq=number + 1, end=ENDS[number % 4])
        record = ReceiptRecord.objects.create(
            node=node,
            boot=signed.receipt.boot,
            receipt_id=signed.receipt.id,
            client=client,
            seq=signed.receipt.seq,
            text=signed.receipt.canonical_bytes().decode(),
            digest=signed.receipt.digest,
            key=signed.key,
            signature=signed.signature,
            verified=number % 7 != 3,
            place=number if number % 7 != 3 and number < 51 else None,
        )
        made.append(record)
        ReceiptRecord.objects.filter(pk=record.pk).update(admitted_at=START + timedelta(hours=number))
    return list(ReceiptRecord.objects.select_related("node"))


FILTERS = {
    "node": ("node-a", "node-b"),
    "client": ("acme", "bolt", STRANGER),
    "end": ("one_shot", "crashed"),
    "verified": ("true", "false"),
    "logged": ("true", "false"),
    "from": ("2026-03-01T12:00:00Z", "2026-03-02T01:30:00+01:00"),
    "to": ("2026-03-02",),
}


def combinations() -> Iterator[dict[str, str]]:
    """No filter, each one, and every pair of two."""
    yield {}
    for names in (*itertools.combinations(FILTERS, 1), *itertools.combinations(FILTERS, 2)):
        for values in itertools.product(*(FILTERS[name] for name in names)):
            yield dict(zip(names, values, strict=True))


def matches(record: ReceiptRecord, given: dict[str, str], names: dict[str, str]) -> bool:
    """What the filters mean, said without a database."""
    return all(
        {
            "node": lambda value: record.node.name == value,
            "client": lambda value: value in (record.client, names.get(record.client)),
            "end": lambda value: record.signed().receipt.end == value,
            "verified": lambda value: record.verified == (value == "true"),
            "logged": lambda value: (record.place is not None) == (value == "true"),
            "from": lambda value: record.admitted_at >= parse_moment(value),
            "to": lambda value: record.admitted_at < parse_moment(value),
        }[name](value)
        for name, value in given.items()
    )


@pytest.mark.parametrize("dense", [5000, 4], ids=["all-rare", "all-common"])
def test_filters_alone_and_together_find_what_they_say_in_the_order_of_ids(
    receipts: list[ReceiptRecord], monkeypatch: pytest.MonkeyPatch, dense: int
) -> None:
    monkeypatch.setattr(module, "_DENSE", dense)
    names = client_names()
    some = 0
    for given in combinations():
        found = list(ReceiptFilter.parse(given).select())
        assert found == [record for record in receipts if matches(record, given, names)], given
        some += 0 < len(found) < len(receipts)
    assert some > 60  # positive control: most of them choose some and leave others


def test_a_clock_that_was_set_back_hides_nothing(receipts: list[ReceiptRecord]) -> None:
    early, late = receipts[40], receipts[3]
    ReceiptRecord.objects.filter(pk=early.pk).update(admitted_at=START - timedelta(days=2))
    ReceiptRecord.objects.filter(pk=late.pk).update(admitted_at=START + timedelta(days=9))
    assert list(ReceiptFilter.parse({"to": "2026-03-01"}).select()) == [early]
    assert list(ReceiptFilter.parse({"from": "2026-03-09"}).select()) == [late]
    around = list(ReceiptFilter.parse({"from": "2026-03-03T10:00:00Z", "node": "node-a"}).select())
    assert late in around
    assert early not in around


SEEKS = {
    "receipt": "receipt_id=?",
    "client": "client=?",
    "node": "node_id=?",
    "end": "receipts_by_end",
    "verified": "receipts_not_verified",
    "logged": "place=?",
}


@pytest.mark.skipif(connection.vendor != "sqlite", reason="PostgreSQL plans with statistics")
@pytest.mark.parametrize("newest_first", [False, True])
@pytest.mark.parametrize(("name", "seek"), SEEKS.items())
def test_every_filter_is_led_by_its_index_in_the_order_of_ids(
    receipts: list[ReceiptRecord], name: str, seek: str, newest_first: bool
) -> None:
    values = {"receipt": receipts[0].receipt_id, "verified": "false", "logged": "false", "end": "crashed"}
    values |= {"client": "acme", "node": "node-a"}
    found = ReceiptFilter.parse({name: values[name]}).select().filter(id__gt=2)
    plan = explain(found.order_by("-id") if newest_first else found)
    assert seek in plan
    if name != "receipt":  # one row for each node at most
        assert "TEMP B-TREE" not in plan


@pytest.mark.skipif(connection.vendor != "sqlite", reason="PostgreSQL plans with statistics")
def test_the_rarest_filter_leads_whatever_it_is(receipts: list[ReceiptRecord]) -> None:
    dull = {"node": "node-a", "client": "acme"}
    assert "client=?" in explain(ReceiptFilter.parse(dull).select())
    assert "receipts_not_verified" in explain(ReceiptFilter.parse({**dull, "verified": "false"}).select())
    ReceiptRecord.objects.filter(client=pseudonym_of(Client.objects.get(name="acme"))).exclude(
        pk=receipts[3].pk
    ).update(client=STRANGER)
    assert "client=?" in explain(ReceiptFilter.parse({**dull, "verified": "false"}).select())


@pytest.mark.skipif(connection.vendor != "sqlite", reason="PostgreSQL plans with statistics")
def test_a_time_is_a_range_of_ids_for_every_index(
    receipts: list[ReceiptRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_DENSE", 1)  # as if all were common
    plan = explain(ReceiptFilter.parse({"from": "2026-03-02", "node": "node-a"}).select())
    assert re.search(r"node_id=\? AND rowid>\? AND rowid<\?", plan)
    ends = ReceiptRecord.objects.filter(admitted_at__gte=START).order_by()
    assert "receipts_by_time" in explain(ends.filter(admitted_at__lt=START).values(bare=Bare("id")))


def explain(receipts: QuerySet[ReceiptRecord]) -> str:
    return receipts[:100].explain()


def test_a_search_means_a_receipt_a_pseudonym_or_a_name(receipts: list[ReceiptRecord]) -> None:
    def found(text: str) -> list[ReceiptRecord]:
        return list(ReceiptFilter().select(search_text(text)))

    def of(*names: str) -> list[ReceiptRecord]:
        return [r for r in receipts if client_names().get(r.client) in names]

    one = receipts[7]
    assert found(one.receipt_id) == found(f" {one.receipt_id[:16].upper()} ") == [one]
    assert found(STRANGER) == found(STRANGER[:9]) == [r for r in receipts if r.client == STRANGER]
    assert found("acme") == of("acme")  # the whole name, not every name that holds it
    assert found("acm") == of("acme", "acme-labs")
    assert found("OLT") == of("bolt")
    assert found("nobody") == found("%") == found("'\x00") == []


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("client=nobody", "client"),
        ("client=../x", "client"),
        ("node=nowhere", "node"),
        ("end=bored", "end"),
        ("verified=maybe", "verified"),
        ("logged=1", "logged"),
        ("receipt=7", "receipt"),
        ("from=yesterday", "from"),
        ("from=2026-02-30", "from"),
        ("from=2026-01-01T00:00:00", "from"),
        ("to=0001-01-01T00:00:00%2B14:00", "to"),
        ("to=٢٠٢٦-01-01", "to"),
        ("from=2026-01-01&from=2026-01-02", "from"),
        ("from_at=2026-01-01", "from_at"),
        ("after=-1", "after"),
        ("after=x", "after"),
        ("page_size=0", "page_size"),
        ("page_size=1001", "page_size"),
        ("page=2", "page"),
        ("format=json", "format"),
    ],
)
def test_a_bad_filter_is_refused_with_its_name_and_without_its_value(
    api: APIClient, receipts: list[ReceiptRecord], query: str, field: str
) -> None:
    answer = api.get(f"{LIST}?{query}")
    assert (answer.status_code, answer.json()["field"]) == (400, field)
    assert answer["Content-Type"] == "application/problem+json"
    assert "nowhere" not in answer.content.decode()


def test_a_list_shows_name_place_and_end(
    api: APIClient, receipts: list[ReceiptRecord], nodes: list[Node]
) -> None:
    shown = api.get(f"{LIST}?client=acme&logged=true").json()["results"][0]
    record = ReceiptRecord.objects.get(pk=shown["id"])
    assert shown["client_name"] == "acme"
    assert (shown["place"], shown["logged"], shown["end"]) == (
        record.place,
        True,
        record.signed().receipt.end,
    )
    waiting = api.get(f"{LIST}?logged=false&client={STRANGER}").json()["results"][0]
    assert (waiting["client_name"], waiting["place"], waiting["logged"]) == (None, None, False)


def test_pages_follow_each_other_while_receipts_come_in(
    api: APIClient, receipts: list[ReceiptRecord], nodes: list[Node]
) -> None:
    seen, url = [], f"{LIST}?node=node-a&page_size=7"
    while url:
        page = api.get(url).json()
        seen += [row["id"] for row in page["results"]]
        url = page["next"]
        if len(seen) == 14:
            copy = ReceiptRecord.objects.get(pk=receipts[1].pk)
            copy.pk, copy.receipt_id, copy.place = None, "0" * 32, None
            copy.save(force_insert=True)
    expected = ReceiptRecord.objects.filter(node__name="node-a").values_list("id", flat=True)
    assert seen == list(expected)
    assert len(seen) == 49


def test_a_page_costs_the_same_queries_however_long_it_is(
    api: APIClient, receipts: list[ReceiptRecord], django_assert_max_num_queries: type
) -> None:
    with django_assert_max_num_queries(6):  # token, user, node, count of the filter, names, page
        assert len(api.get(f"{LIST}?node=node-a&page_size=1000").json()["results"]) == 48


def test_a_filter_by_hand_is_the_filter_of_the_api() -> None:
    with pytest.raises(RefusedError) as refused:
        ReceiptFilter.parse({"from": "2026-01-01", "since": "x"})
    assert refused.value.field == "since"
