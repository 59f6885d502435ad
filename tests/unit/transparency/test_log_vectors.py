"""The vectors of docs/spec/log-v1.md: our code and the page that stands alone say the same of each."""

from __future__ import annotations

import base64
import functools
import json
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from transparency_world import ORIGIN

from appliance.core import canonical
from appliance.core.errors import ReceiptError
from appliance.core.receipt import SignedReceipt
from appliance.transparency import verify_receipt as page
from appliance.transparency.checkpoint import Checkpoint, Policy
from appliance.transparency.errors import LogError
from appliance.transparency.note import VerifierKey
from appliance.transparency.proof import Continuation, Proof

FOLDER = Path(__file__).parents[2] / "vectors" / "log"
RECEIPTS = FOLDER.parent / "receipts"
SPEC = Path(__file__).parents[3] / "docs" / "spec" / "log-v1.md"
VECTORS = sorted(FOLDER.glob("*.txt"))
SEEN_SIZE = 11


def read_vector(path: Path) -> tuple[dict[str, str], bytes]:
    header, _, data = path.read_bytes().partition(b"\n\n")
    lines = (line.partition(":") for line in header.decode().splitlines())
    return {name: value.strip() for name, _, value in lines}, data


def policy(header: dict[str, str]) -> Policy:
    ed25519, mldsa44 = map(VerifierKey.parse, header["log"].split())
    witnesses = tuple(map(VerifierKey.parse, header.get("witnesses", "").split()))
    return Policy(ed25519, mldsa44, witnesses, quorum=len(witnesses))


def our_outcome(header: dict[str, str], data: bytes) -> str:
    try:
        if header["kind"] == "proof":
            Proof.parse(data).verify(base64.b64decode(header["entry"]), policy(header))
        else:
            seen = Checkpoint(ORIGIN, SEEN_SIZE, base64.b64decode(header["seen"]))
            Continuation.parse(data).verify(seen, policy(header))
    except LogError as error:
        return error.code
    return "valid"


def page_outcome(header: dict[str, str], data: bytes) -> str:
    try:
        index, hashes, text, signatures = page.read_proof(data)
        keys = [[page.read_key(line) for line in header[name].split()] for name in ("log", "witnesses")]
        size, root = page.verify_checkpoint(text, signatures, *keys)
        page.verify_inclusion(base64.b64decode(header["entry"]), index, size, hashes, root)
    except page.Refused as refused:
        return str(refused)
    return "valid"


@pytest.mark.parametrize("path", VECTORS, ids=lambda path: path.stem)
def test_a_vector_is_valid_or_refused_as_it_says(path: Path) -> None:
    header, data = read_vector(path)
    assert our_outcome(header, data) == header["expect"]
    if header["kind"] == "proof":
        assert page_outcome(header, data) == header["expect"]


def test_there_is_a_vector_for_each_refusal_and_each_attack() -> None:
    made = runpy.run_path(str(FOLDER / "generate.py"))
    assert {path.stem for path in VECTORS} == {*made["proofs"](), *made["consistencies"]()}
    expected = {read_vector(path)[0]["expect"] for path in VECTORS}
    codes = {error.code for error in LogError.__subclasses__()}
    assert expected == codes | {"valid"}


def test_no_byte_of_a_proof_can_be_changed_for_either_verifier() -> None:
    header, data = read_vector(FOLDER / "valid.txt")
    signature = data.rindex(b" ")
    for place in [*range(signature), *range(signature, len(data), 97)]:
        for changed in (
            data[:place] + bytes((data[place] ^ 1,)) + data[place + 1 :],
            data[:place] + data[place + 1 :],
        ):
            refused = our_outcome(header, changed)
            assert refused != "valid", place
            assert page_outcome(header, changed) != "valid", place


def test_the_page_runs_alone_on_files(tmp_path: Path) -> None:
    header, data = read_vector(FOLDER / "valid-with-two-witnesses.txt")
    receipt, _ = read_vector(RECEIPTS / "valid.txt")
    files = {
        "receipt.json": base64.b64decode(header["entry"]),
        "receipt.tlog-proof": data,
        "keyring.json": receipt["keyring"].encode(),
        "log.vkey": header["log"].replace(" ", "\n").encode() + b"\n",
        "alice.vkey": header["witnesses"].split()[0].encode() + b"\n",
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    script = (tmp_path / "verify_receipt.py").resolve()
    script.write_bytes(Path(page.__file__).read_bytes())
    command = [sys.executable, "-I", script, "receipt.json", "--root", receipt["log-key"]]
    command += ["--keyring", "keyring.json", "--proof", "receipt.tlog-proof", "--log", "log.vkey"]

    def run() -> tuple[int, str]:
        done = subprocess.run(
            [*command, "--witness", "alice.vkey"], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert not done.stderr
        return done.returncode, done.stdout.strip()

    assert run() == (0, "valid")
    (tmp_path / "receipt.json").write_bytes(files["receipt.json"].replace(b'"seq":1', b'"seq":2'))
    assert run() == (1, "refused: receipt_signature")
    (tmp_path / "receipt.json").write_bytes(files["receipt.json"])
    (tmp_path / "keyring.json").write_text(json.dumps({**json.loads(receipt["keyring"]), "log_key": "x"}))
    assert run() == (1, "refused: keyring_root")
    (tmp_path / "keyring.json").write_bytes(b"\xff{")
    assert run() == (1, "refused: a file is not text or JSON")


@pytest.mark.parametrize("path", sorted(RECEIPTS.glob("*.txt")), ids=lambda path: path.stem)
def test_the_page_refuses_what_our_code_refuses_of_receipts(path: Path) -> None:
    header, receipt = read_vector(path)
    try:
        page.verify_receipt(receipt, json.loads(header["keyring"]), header["log-key"])
    except page.Refused:
        assert header["expect"] != "valid"
    else:
        assert header["expect"] == "valid"


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from places(item, (*path, key))


def changed(value: Any, path: tuple[Any, ...], to: Any) -> Any:
    if not path:
        return to
    copy = value.copy()
    copy[path[0]] = changed(value[path[0]], path[1:], to)
    return copy


def test_the_page_and_our_code_have_the_same_closed_schema() -> None:
    signed = json.loads(read_vector(RECEIPTS / "valid.txt")[1])
    honest = signed["receipt"]["models"][0]
    values = [
        None,
        True,
        0,
        1,
        -1,
        7,
        256,
        2**53 - 1,
        "",
        "x",
        "A",
        "node-1",
        "-",
        "1.2",
        "1",
        honest,
        honest[:-1],
        [],
        {},
    ]
    values += [
        [honest],
        [honest] * 16,
        [honest] * 17,
        [honest] * 64,
        [honest] * 65,
        "at_exit",
        "crashed",
        "seccomp",
    ]
    values += [
        "2026-01-02T03:04:05.006Z",
        "2026-01-02T03:04:05Z",
        "2026-13-02T03:04:05.006Z",
        "A" * 86 + "==",
        honest.upper(),
    ]
    outcomes = set()
    for path in places(signed):
        for value in values:
            data = canonical.encode(changed(signed, path, value))
            try:
                SignedReceipt.parse_canonical(data, ReceiptError)
                ours = True
            except ReceiptError:
                ours = False
            assert page.fits(json.loads(data), page.SCHEMA) == ours, (path, value)
            outcomes.add(ours)
        for extra in ({"more": 1}, {"note": "text"}):
            inner = functools.reduce(lambda inside, key: inside[key], path, signed)
            if isinstance(inner, dict):
                assert not page.fits(changed(signed, path, {**inner, **extra}), page.SCHEMA)
    assert outcomes == {True, False}


def test_the_example_of_the_spec_is_the_first_vector() -> None:
    example = SPEC.read_text("utf-8").partition("```text\n")[2].partition("```")[0]
    data = read_vector(FOLDER / "valid.txt")[1].decode()
    shown = example.split("[…]")
    assert data.startswith(shown[0])
    assert len(shown) == 2
