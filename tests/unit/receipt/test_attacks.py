"""Attacks on what a client holds, and what each verifier calls them: receipt, keyring, proof, and heads of the log.

Attacks on a node's journal, and on its way to control, are in test_journal_attacks.py.
"""

from __future__ import annotations

import os
import re
import runpy
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from verifiers import REFUSED, VALID, VECTORS, Bench, Evidence, read_vector

from appliance.core.receipt import sign_receipt
from appliance.transparency import verify_receipt as page

RECEIPTS = runpy.run_path(str(VECTORS / "receipts" / "generate.py"))

# The step that refuses it (docs/spec/receipt-v1.md section 5), by vector.
STEPS = {
    "valid": VALID,
    "valid-second-of-chain": VALID,
    "valid-key-of-two-nodes": VALID,
    "changed-byte": "receipt_signature",
    "moved-to-another-client": "receipt_signature",
    "renumbered": "receipt_signature",
    "other-nodes-key": "receipt_node",
    "other-nodes-key-relabelled": "receipt_signature",
    "uncertified-key": "receipt_key",
    "second-spelling": "receipt_format",
    "second-spelling-escape": "receipt_format",
    "second-spelling-of-the-version": "receipt_format",
    "version-left-out": "receipt_format",
    "erase-text-left-out": "receipt_format",
    "repeated-key": "receipt_format",
    "floating-point": "receipt_format",
    "unknown-field": "receipt_format",
    "trailing-newline": "receipt_format",
    "trailing-data": "receipt_format",
    "truncated": "receipt_format",
    "keyring-of-another-log-key": "keyring_root",
    "keyring-with-a-key-added": "keyring_signature",
}
# The commands of VERIFY.md take the signed text out of the file, and drop a newline at its end.
UNSEEN_BY_TOOLS = {"trailing-newline"}
# The log's head is signed in a format that OpenSSH does not have; OpenSSL sees its text and the first signature, and no hashes.
SEEN_BY_OPENSSL = {
    "another-logs-checkpoint",
    "a-line-of-extension",
    "carriage-returns",
    "ml-dsa-44-alone",
    "signed-by-a-thief",
    "size-changed",
}
PROOFS = sorted(p.stem for p in (VECTORS / "log").glob("*.txt") if read_vector(p)[0]["kind"] == "proof")
HEADS = sorted(p.stem for p in (VECTORS / "log").glob("*.txt") if read_vector(p)[0]["kind"] != "proof")


@pytest.fixture
def bench(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Bench]:
    with monkeypatch.context() as patch:
        yield Bench(tmp_path, capsys, patch)


def of_receipt(name: str) -> Evidence:
    """Return a vector about a receipt, with the proof that the log holds the honest one."""
    header, receipt = read_vector(VECTORS / "receipts" / f"{name}.txt")
    return Evidence(receipt=receipt, keyring=header["keyring"].encode(), root=header["log-key"])


def of_proof(name: str) -> tuple[str, Evidence]:
    """Return the expected outcome and the files of a vector about a proof."""
    header, proof = read_vector(VECTORS / "log" / f"{name}.txt")
    return header["expect"], replace(
        Evidence(),
        proof=proof,
        log=tuple(header["log"].split()),
        witnesses=tuple(header["witnesses"].split()),
    )


def expected(name: str) -> str:
    """Return what a verifier says of a receipt whose proof is of `valid`: a valid one of another number is not in the log."""
    return "log_inclusion" if name == "valid-second-of-chain" else STEPS[name]


def test_the_table_has_every_vector() -> None:
    assert set(STEPS) == {path.stem for path in (VECTORS / "receipts").glob("*.txt")}
    assert set(STEPS.values()) >= {"receipt_format", "receipt_key", "receipt_node", "receipt_signature"}


@pytest.mark.parametrize("name", STEPS)
def test_our_command_names_an_attack_on_a_receipt(bench: Bench, name: str) -> None:
    assert bench.command(of_receipt(name)) == expected(name)


@pytest.mark.parametrize("name", STEPS)
def test_the_page_names_it_alike(bench: Bench, name: str) -> None:
    assert bench.page(of_receipt(name)) == expected(name)


@pytest.mark.parametrize("name", STEPS)
def test_openssh_and_openssl_refuse_what_they_can_see(bench: Bench, name: str) -> None:
    said = bench.tools(of_receipt(name))
    seen = STEPS[name] != VALID and name not in UNSEEN_BY_TOOLS
    assert said == dict.fromkeys(said, REFUSED if seen else VALID)


@pytest.mark.parametrize("name", PROOFS)
def test_an_attack_on_a_proof_has_one_name(bench: Bench, name: str) -> None:
    step, evidence = of_proof(name)
    assert bench.command(evidence) == step
    assert bench.page(evidence) == step
    tools = bench.tools(evidence)
    assert tools == {"openssh": VALID, "openssl": REFUSED if name in SEEN_BY_OPENSSL else VALID}


@pytest.mark.parametrize("name", ["valid", "changed-byte", "other-nodes-key", "uncertified-key", "truncated"])
def test_the_page_says_so_in_an_empty_environment(bench: Bench, name: str) -> None:
    assert bench.page_alone(of_receipt(name)) == expected(name)


@pytest.mark.parametrize(
    "name", ["valid-with-two-witnesses", "no-witness", "entries-swapped", "ed25519-alone", "cut-off"]
)
def test_it_says_so_of_proofs(bench: Bench, name: str) -> None:
    step, evidence = of_proof(name)
    assert bench.page_alone(evidence) == step


def test_a_stolen_node_key_cannot_rewrite_what_was_logged(bench: Bench) -> None:
    forged = RECEIPTS["RECEIPT"].model_copy(update={"prompt_tokens": 13})
    evidence = Evidence(receipt=sign_receipt(forged, RECEIPTS["NODE"]).canonical_bytes())
    assert bench.command(evidence) == bench.page(evidence) == bench.page_alone(evidence) == "log_inclusion"
    # Neither tool reads hashes: to them it is the node that speaks.
    assert set(bench.tools(evidence).values()) == {VALID}


def test_a_proof_fits_no_other_receipt(bench: Bench) -> None:
    other = sign_receipt(RECEIPTS["RECEIPT"].model_copy(update={"id": "0" * 32}), RECEIPTS["NODE"])
    evidence = Evidence(receipt=other.canonical_bytes())
    assert bench.command(evidence) == bench.page(evidence) == "log_inclusion"


@pytest.mark.parametrize(
    ("old", "new", "step"),
    [
        (b'"v":1}', b'"v": 1}', "keyring_format"),
        (b'{"body"', b'{"body":{},"body"', "keyring_format"),
        (b'"v":1}', b'"v":true}', "keyring_format"),
        (b'"v":1}', b'"v":2}', "keyring_format"),
        (b'{"body"', b'{"also":1,"body"', "keyring_format"),
        (b'"node":"node-2"', b'"node":"node-3"', "keyring_signature"),
        (b'"log_key":"', b'"log_key":"A', "keyring_root"),
    ],
)
def test_the_page_names_an_attack_on_a_keyring(bench: Bench, old: bytes, new: bytes, step: str) -> None:
    honest = Evidence()
    assert honest.keyring.count(old) == 1
    evidence = replace(honest, keyring=honest.keyring.replace(old, new))
    assert bench.command(evidence) != VALID
    assert bench.page(evidence) == step


@pytest.mark.parametrize("lines", [["— x AAAA"], ["— x AAAAAA=="], ["— x AAAAAAAAAA=="] * 31])
def test_signatures_of_nobody_have_one_form(bench: Bench, lines: list[str]) -> None:
    evidence = replace(Evidence(), proof=Evidence().proof + "".join(f"{line}\n" for line in lines).encode())
    assert bench.command(evidence) == bench.page(evidence) == "log_format"
    few = replace(Evidence(), proof=Evidence().proof + "— x AAAAAAAAAA==\n".encode())
    assert bench.command(few) == bench.page(few) == VALID


# -- one byte changed at every offset

PLACES = int(
    os.environ.get("PLACES", "30")
)  # of a file for others' tools, which are processes; `make soak`: all

FILES = {
    "receipt": {"receipt_format", "receipt_key", "receipt_node", "receipt_signature"},
    "keyring": {"keyring_format", "keyring_root", "keyring_signature", "receipt_key", "not JSON"},
    "proof": {"log_format", "log_other", "log_signature", "log_inclusion"},
}


def changed_at(data: bytes, place: int) -> bytes:
    return data[:place] + bytes((data[place] ^ 1,)) + data[place + 1 :]


def in_page(evidence: Evidence) -> str:
    """Return what the functions of the page say: its command without the files."""
    import json

    try:
        page.verify_receipt(evidence.receipt, json.loads(evidence.keyring), evidence.root)
        index, hashes, text, signatures = page.read_proof(evidence.proof)
        size, root = page.verify_checkpoint(
            text, signatures, [page.read_key(key) for key in evidence.log], []
        )
        page.verify_inclusion(evidence.receipt, index, size, hashes, root)
    except page.Refused as refused:
        return str(refused)
    except ValueError:
        return "not JSON"
    return VALID


def in_our_code(evidence: Evidence) -> str:
    """Return what the functions behind our command say."""
    from verifiers import _FORM, _STEPS

    from appliance.core.errors import ReceiptError
    from appliance.core.receipt import Keyring, SignedReceipt, verify_receipt
    from appliance.transparency.checkpoint import Policy
    from appliance.transparency.errors import LogError
    from appliance.transparency.note import VerifierKey
    from appliance.transparency.proof import Proof

    try:
        signed = SignedReceipt.parse_canonical(evidence.receipt, ReceiptError)
    except ReceiptError:
        return _FORM
    try:
        keyring = Keyring.parse_canonical(evidence.keyring, ReceiptError)
    except ReceiptError as refused:
        return "keyring_root" if str(refused).startswith("log_key") else "keyring_format"
    try:
        verify_receipt(signed, keyring, log_key=evidence.root)
        policy = Policy(*map(VerifierKey.parse, evidence.log))
        Proof.parse(evidence.proof).verify(evidence.receipt, policy)
    except ReceiptError as refused:
        return _STEPS[str(refused).partition(": ")[0]]
    except LogError as refused:
        return refused.code
    return VALID


@pytest.mark.parametrize("name", FILES)
def test_one_byte_changed_anywhere_is_refused_by_both_under_one_name(name: str) -> None:
    honest = Evidence()
    assert in_our_code(honest) == in_page(honest) == VALID
    data, seen = getattr(honest, name), set()
    for place in range(len(data)):
        evidence = replace(honest, **{name: changed_at(data, place)})
        ours, theirs = in_our_code(evidence), in_page(evidence)
        assert ours != VALID
        assert theirs in ({ours, "not JSON"} if ours == "keyring_format" else {ours})
        seen.add(theirs)
    assert seen <= FILES[name]
    assert len(seen) >= 3


@pytest.mark.parametrize("name", FILES)
def test_so_it_is_by_the_page_alone(bench: Bench, name: str) -> None:
    honest = Evidence()
    data: bytes = getattr(honest, name)
    for place in range(5, len(data), len(data) // 5):
        evidence = replace(honest, **{name: changed_at(data, place)})
        said = bench.page_alone(evidence)
        assert said == in_page(evidence) or in_page(evidence) == "not JSON"
        assert said != VALID


# What the tools read, and who of them does: the head of the log has not OpenSSH's form.
SIGNED = {
    "receipt": (rb'"receipt":(.*),"signature"', {"openssh", "openssl"}),
    "keyring": (rb'"body":(.*),"log_key"', {"openssh", "openssl"}),
    "proof": (rb"\n\n((?s:.*))\n\n", {"openssl"}),
}


@pytest.mark.parametrize("name", SIGNED)
def test_one_byte_of_what_is_signed_changed_is_refused_by_openssh_and_openssl(
    bench: Bench, name: str
) -> None:
    honest, (pattern, tools) = Evidence(), SIGNED[name]
    assert set(bench.tools(honest).values()) == {VALID}
    data: bytes = getattr(honest, name)
    found = re.search(pattern, data)
    assert found is not None
    first, end = found.span(1)
    for place in range(first, end, max(1, (end - first) // PLACES)):
        said = bench.tools(replace(honest, **{name: changed_at(data, place)}), beside=honest)
        assert {tool for tool in tools if said[tool] == VALID} == set(), place


# -- heads of the log, to a client that has seen an earlier one


@pytest.fixture
def watching(bench: Bench) -> Bench:
    """A client that has seen the log at eleven receipts."""
    evidence = Evidence()
    evidence.write(bench.folder)
    first = b"old 0\n\n" + evidence.proof.partition(b"\n\n")[2]
    assert watch(bench, first) == VALID
    return bench


def watch(bench: Bench, continuation: bytes) -> str:
    (bench.folder / "continuation").write_bytes(continuation)
    return bench.named(["watch", "continuation"])


@pytest.mark.parametrize("name", HEADS)
def test_the_watch_names_an_attack_on_the_log(watching: Bench, name: str) -> None:
    header, continuation = read_vector(VECTORS / "log" / f"{name}.txt")
    before = (watching.folder / "log.seen").read_bytes()
    assert watch(watching, continuation) == header["expect"]
    if header["expect"] != VALID:
        assert (watching.folder / "log.seen").read_bytes() == before


def test_an_old_head_is_refused_by_whoever_saw_a_newer_one(watching: Bench) -> None:
    newer = read_vector(VECTORS / "log" / "continues.txt")[1]
    old = read_vector(VECTORS / "log" / "the-same-again.txt")[1]
    assert watch(watching, old) == VALID
    assert watch(watching, newer) == VALID
    assert watch(watching, old) == "log_consistency"
    first = b"old 0\n\n" + Evidence().proof.partition(b"\n\n")[2]
    assert watch(watching, first) == "log_consistency"
    assert watch(watching, b"old 17\n\n" + newer.partition(b"\n\n")[2]) == VALID


def test_one_byte_of_a_continuation_or_of_the_memory_changed_is_refused(watching: Bench) -> None:
    continuation = read_vector(VECTORS / "log" / "continues.txt")[1]
    memory = watching.folder / "log.seen"
    seen = memory.read_bytes()
    for place in range(0, len(continuation), 41):
        assert watch(watching, changed_at(continuation, place)).startswith(("log_", "usage"))
        assert memory.read_bytes() == seen
    for place in range(0, len(seen), 59):
        memory.write_bytes(changed_at(seen, place))
        assert watch(watching, continuation).startswith(("log_", "usage"))
    memory.write_bytes(seen)
    assert watch(watching, continuation) == VALID
