"""Receipts leave as CSV and JSON Lines: whole, exact, in bounded memory, and harmless to a spreadsheet."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from control_cast import stored_node
from django.conf import settings
from django.db.models import QuerySet
from django.utils import timezone
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from rest_framework.test import APIClient
from simulated_node import SimulatedNode

from appliance.cli import main
from appliance.core.errors import HostError
from appliance.core.receipt import (
    Confinement,
    End,
    Erase,
    Keyring,
    NodeKey,
    Receipt,
    RuntimeFacts,
    SignedReceipt,
    make_keyring,
    verify_receipt,
)
from appliance.core.signing import public_text
from control.audit import export as module
from control.audit.export import COLUMNS, Format, write_receipts
from control.audit.models import ReceiptRecord
from control.audit.pseudonyms import pseudonym_of
from control.audit.services import admit_receipt
from control.clients.models import Client
from control.fleet.models import Node
from control.reconciler.keys import ReconcilerKeys

Issue = Callable[[int], list[SignedReceipt]]
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")  # OWASP, "CSV injection"
EXPORT = "/api/v1/receipts/export"


@pytest.fixture
def node_row(db: None) -> Node:
    return stored_node()


@pytest.fixture
def issue(node_row: Node, keys: ReconcilerKeys) -> Issue:
    """Receipts of acme as a node signs them, admitted."""
    simulated = SimulatedNode("node-a", public_text(keys.bundle))
    keyring = make_keyring((NodeKey(node="node-a", public_key=public_text(simulated.receipt_key)),), keys.log)
    settings.PATHS.keyring.write_bytes(keyring.canonical_bytes())
    pseudonym = pseudonym_of(Client.objects.create(name="acme", home=node_row))

    def admit(count: int) -> list[SignedReceipt]:
        signed = [simulated.issue_receipt(pseudonym) for _ in range(count)]
        for receipt in signed:
            assert admit_receipt(node_row, receipt, keyring)
        return signed

    return admit


def everything(form: Format, receipts: QuerySet[ReceiptRecord] | None = None) -> bytes:
    return b"".join(write_receipts(ReceiptRecord.objects.all() if receipts is None else receipts, form))


def rows(content: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(content.decode("ascii"), newline=""), strict=True))


def test_a_line_cut_out_is_the_receipt_that_verifies(
    issue: Issue, keys: ReconcilerKeys, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    signed = issue(3)
    lines = everything(Format.JSONL).split(b"\n")
    assert lines.pop() == b""
    assert lines == [receipt.canonical_bytes() for receipt in signed]
    cut, keyring = tmp_path / "receipt.json", settings.PATHS.keyring
    for content, code in (
        (lines[1], 0),
        (lines[1].replace(b'"seq":2', b'"seq":3'), 1),
        (lines[1] + b"\n", 1),  # a second spelling: whoever cuts it out leaves the newline behind
    ):
        cut.write_bytes(content)
        assert main(["receipt", "verify", str(cut), "--keys", str(keyring)]) == code
    capsys.readouterr()


def test_a_row_says_what_the_receipt_says(issue: Issue) -> None:
    (signed,) = issue(1)
    content = everything(Format.CSV)
    assert content.startswith(",".join(COLUMNS).encode() + b"\r\n")
    (row,) = rows(content)
    receipt = signed.receipt
    assert row["client_name"] == "acme"
    assert (row["receipt"], row["seq"], row["end"]) == (receipt.id, "1", "one_shot")
    assert (row["prompt_tokens"], row["completion_tokens"]) == ("2", "3")
    assert (row["seccomp"], row["swap"], row["verified"], row["place"]) == ("true", "false", "true", "")
    assert row["models"] == receipt.models[0]
    # Flat, and nothing left out: every value of the receipt stands in the row of its own.
    told = json.loads(receipt.canonical_bytes())
    flat = [
        value for part in told.values() for value in (part.values() if isinstance(part, dict) else [part])
    ]
    cells = set(row.values())
    for value in flat:
        texts = (
            value if isinstance(value, list) else [str(value).lower() if isinstance(value, bool) else value]
        )
        assert all(str(text) in cells for text in texts)


@pytest.mark.parametrize("form", Format)
@pytest.mark.parametrize("piece", [1, 3, 1000])
def test_receipts_that_come_while_an_export_runs_double_and_skip_none(
    issue: Issue, monkeypatch: pytest.MonkeyPatch, form: Format, piece: int
) -> None:
    monkeypatch.setattr(module, "PIECE", piece)
    before = issue(7)
    content = b""
    for part in write_receipts(ReceiptRecord.objects.all(), form):
        content += part
        if ReceiptRecord.objects.count() < 30:
            issue(2)
    assert ReceiptRecord.objects.count() > 7  # positive control: some did come
    if form is Format.JSONL:
        ids = [json.loads(line)["receipt"]["id"] for line in content.splitlines()]
    else:
        ids = [row["receipt"] for row in rows(content)]
    new = 2 if form is Format.CSV else 0  # the header went out before the first piece was read
    assert ids[:7] == [receipt.receipt.id for receipt in before]
    assert len(ids) == len(set(ids)) == 7 + new


@pytest.mark.parametrize("form", Format)
def test_memory_does_not_grow_with_the_number_of_receipts(
    issue: Issue, monkeypatch: pytest.MonkeyPatch, form: Format, django_assert_num_queries: type
) -> None:
    monkeypatch.setattr(module, "PIECE", 5)
    issue(20)
    with django_assert_num_queries(6 + (form is Format.CSV)):  # newest, four pieces, the empty one; names
        parts = list(write_receipts(ReceiptRecord.objects.all(), form))
    assert max(part.count(b"\n") for part in parts) == 5


hex_text = st.text("0123456789abcdef", min_size=64, max_size=64)
count = st.integers(0, 2**53 - 1)
receipt_texts = st.builds(
    Receipt,
    id=hex_text.map(lambda text: text[:32]),
    session=hex_text.map(lambda text: text[:32]),
    client=hex_text,
    seq=st.integers(1, 2**53 - 1),
    prev=hex_text,
    node=st.from_regex(r"\A[a-z][a-z0-9]{0,8}(-[a-z0-9]{1,8}){0,2}\Z"),
    boot=hex_text.map(lambda text: text[:32]),
    opened_at=st.just("2026-01-02T03:04:05.006Z"),
    ended_at=st.from_regex(r"\A[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z\Z").filter(
        str.isascii
    ),
    end=st.sampled_from(End),
    requests=count,
    prompt_tokens=count,
    completion_tokens=count,
    retrieved_chunks=count,
    corpora=st.lists(hex_text, max_size=3).map(tuple),
    models=st.lists(hex_text, min_size=1, max_size=3).map(tuple),
    runtime=st.builds(
        RuntimeFacts,
        appliance=st.from_regex(r"\A[0-9]{1,5}(\.[0-9]{1,5}){1,3}\Z").filter(str.isascii),
        llama_cpp=hex_text,
        generation=count,
    ),
    confinement=st.builds(
        Confinement,
        landlock_abi=st.integers(0, 255),
        seccomp=st.booleans(),
        network=st.sampled_from(["namespace", "seccomp"]),
        core_dumps=st.booleans(),
        dumpable=st.booleans(),
        swap=st.booleans(),
    ),
    erase=st.builds(Erase, bytes=count, verified=st.booleans()),
)


@hypothesis_settings(deadline=None, max_examples=200)
@given(receipt=receipt_texts)
def test_no_cell_begins_like_a_formula(receipt: Receipt) -> None:
    admission = (timezone.now(), False, None)
    cells = module._row(
        {receipt.client: "acme"}, receipt.canonical_bytes().decode(), "0" * 64, "0" * 16, *admission
    )
    assert len(cells) == len(COLUMNS)
    for cell in cells:
        assert not cell.startswith(FORMULA)
        assert not set(cell) & set('",;\r\n\t')  # nor ends early
        assert cell.isascii()


def test_what_a_spreadsheet_would_take_for_a_formula_has_no_column(issue: Issue) -> None:
    """The positive control of the test above: signatures do begin with a plus sign."""
    assert "signature" not in COLUMNS
    assert any(signed.signature.startswith("+") for signed in issue(400))


def test_a_damaged_receipt_stops_a_table_and_does_not_pass_for_a_row(issue: Issue) -> None:
    issue(2)
    record = ReceiptRecord.objects.all()[1]
    ReceiptRecord.objects.filter(pk=record.pk).update(text=record.text.replace('"node-a"', '"=cmd()"'))
    with pytest.raises(HostError, match="damaged"):
        everything(Format.CSV)


@pytest.mark.parametrize(
    ("form", "kind"), [("csv", "text/csv; charset=utf-8; header=present"), ("jsonl", "application/jsonl")]
)
def test_an_export_is_a_streamed_file_with_a_name(api: APIClient, issue: Issue, form: str, kind: str) -> None:
    issue(2)
    answer = api.get(f"{EXPORT}?format={form}&client=acme&verified=true", headers={"Accept": "text/csv"})
    assert (answer.status_code, answer.streaming, answer["Content-Type"]) == (200, True, kind)
    assert answer["Content-Disposition"].startswith('attachment; filename="receipts-20')
    assert answer["Content-Disposition"].endswith(f'Z.{form}"')
    assert answer["Cache-Control"] == "no-store"
    assert answer.getvalue() == everything(Format(form))
    nothing = api.get(f"{EXPORT}?format={form}&verified=false").getvalue()
    assert nothing == (b"" if form == "jsonl" else ",".join(COLUMNS).encode() + b"\r\n")


@pytest.mark.parametrize(
    ("query", "field"),
    [("", "format"), ("format=xml", "format"), ("format=csv&what=1", "what"), ("format=csv&page=2", "page")],
)
def test_an_export_without_a_known_format_is_refused(api: APIClient, query: str, field: str) -> None:
    answer = api.get(f"{EXPORT}?{query}")
    assert (answer.status_code, answer.json()["field"]) == (400, field)


def test_one_receipt_is_downloaded_as_it_verifies(api: APIClient, issue: Issue, keys: ReconcilerKeys) -> None:
    (signed,) = issue(1)
    answer = api.get(
        f"/api/v1/receipts/{ReceiptRecord.objects.get().pk}/signed", headers={"Accept": "text/html"}
    )
    assert answer.content == signed.canonical_bytes()
    assert answer["Content-Disposition"] == f'attachment; filename="receipt-{signed.receipt.id}.json"'
    keyring = Keyring.parse_canonical(settings.PATHS.keyring.read_bytes())
    verify_receipt(SignedReceipt.parse_canonical(answer.content), keyring)


def test_the_command_line_exports_and_lists_with_the_same_filters(
    issue: Issue, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    issue(3)
    ReceiptRecord.objects.filter(seq=2).update(verified=False)
    out = tmp_path / "receipts.jsonl"
    export = ["control", "receipts", "export", "--format"]
    assert main([*export, "jsonl", "--out", str(out), "--verified", "true", "--json"]) == 0
    assert json.loads(capfdbinary.readouterr().out) == {"ok": True, "file": str(out)}
    assert out.read_bytes() == everything(Format.JSONL, ReceiptRecord.objects.filter(verified=True))
    assert list(tmp_path.iterdir()) == [out]

    with pytest.raises(SystemExit) as left:
        main([*export, "csv", "--client", "acme"])
    assert left.value.code == 0
    assert capfdbinary.readouterr().out == everything(Format.CSV)  # nothing before, nothing after

    assert main([*export, "csv", "--json"]) == 2
    assert main([*export, "csv", "--node", "nowhere"]) == 1
    capfdbinary.readouterr()
    assert main(["control", "receipts", "list", "--verified", "false", "--json"]) == 0
    (listed,) = json.loads(capfdbinary.readouterr().out)["receipts"]
    assert (listed["seq"], listed["client_name"], listed["logged"], listed["end"]) == (
        2,
        "acme",
        False,
        "one_shot",
    )
    assert main(["control", "receipts", "list", "--from", "soon", "--json"]) == 1
    assert "from: " in json.loads(capfdbinary.readouterr().out)["error"]["message"]


def test_an_export_that_fails_leaves_the_old_file(issue: Issue, tmp_path: Path) -> None:
    issue(1)
    out = tmp_path / "receipts.csv"
    out.write_bytes(b"the last export")
    ReceiptRecord.objects.update(text="{}")
    assert main(["control", "receipts", "export", "--format", "csv", "--out", str(out)]) == 1
    assert out.read_bytes() == b"the last export"
