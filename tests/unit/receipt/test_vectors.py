"""The vectors of docs/spec/receipt-v1.md, all in one loop; and the spec's own example."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from appliance.core.errors import ReceiptError
from appliance.core.receipt import Keyring, SignedReceipt, pseudonym, verify_receipt

FOLDER = Path(__file__).parents[2] / "vectors" / "receipts"
SPEC = Path(__file__).parents[3] / "docs" / "spec" / "receipt-v1.md"
VECTORS = sorted(FOLDER.glob("*.txt"))


def read_vector(path: Path) -> tuple[dict[str, str], bytes]:
    header, _, receipt = path.read_bytes().partition(b"\n\n")
    lines = (line.partition(": ") for line in header.decode().splitlines())
    return {name: value for name, _, value in lines}, receipt


def outcome(receipt: bytes, keyring: Keyring, log_key: str) -> str:
    try:
        verify_receipt(SignedReceipt.parse_canonical(receipt, ReceiptError), keyring, log_key=log_key)
    except ReceiptError as error:
        return str(error)
    return "valid"


@pytest.mark.parametrize("path", VECTORS, ids=lambda path: path.stem)
def test_a_vector_verifies_or_is_refused_as_it_says(path: Path) -> None:
    header, receipt = read_vector(path)
    keyring = Keyring.parse_canonical(header["keyring"].encode())
    assert outcome(receipt, keyring, header["log-key"]) == header["expect"]


def test_the_vectors_are_what_their_generator_writes() -> None:
    made = runpy.run_path(str(FOLDER / "generate.py"))
    texts = {f"{name}.txt": made["render"](*vector) for name, vector in made["vectors"]().items()}
    assert texts == {path.name: path.read_bytes() for path in VECTORS}


def test_every_changed_byte_is_refused() -> None:
    header, receipt = read_vector(FOLDER / "valid.txt")
    keyring = Keyring.parse_canonical(header["keyring"].encode())
    for place in range(len(receipt)):
        for change in (0x01, 0x20, 0x80):
            changed = bytearray(receipt)
            changed[place] ^= change
            assert outcome(bytes(changed), keyring, header["log-key"]) != "valid", place


def test_every_byte_left_out_or_doubled_is_refused() -> None:
    header, receipt = read_vector(FOLDER / "valid.txt")
    keyring = Keyring.parse_canonical(header["keyring"].encode())
    for place in range(len(receipt)):
        shorter = receipt[:place] + receipt[place + 1 :]
        longer = receipt[: place + 1] + receipt[place:]
        for changed in (shorter, longer):
            assert outcome(changed, keyring, header["log-key"]) != "valid", place


def test_the_example_of_the_spec_is_the_first_vector() -> None:
    text = SPEC.read_text("utf-8")
    example = text.partition("```json\n")[2].partition("\n```")[0]
    import json

    assert json.loads(example) == json.loads(read_vector(FOLDER / "valid.txt")[1])


def test_a_client_recognises_its_receipts_and_nobody_elses() -> None:
    receipt = SignedReceipt.parse_canonical(read_vector(FOLDER / "valid.txt")[1]).receipt
    assert receipt.client == pseudonym(bytes(range(32)), "acme")
    assert receipt.client != pseudonym(bytes(range(32)), "bolt")
    assert receipt.client != pseudonym(bytes(32), "acme")


def test_a_timestamp_has_ascii_digits_alone() -> None:
    receipt = read_vector(FOLDER / "valid.txt")[1].decode()
    arabic = receipt.replace("2026-01-02T03:04:05", "٢٠٢٦-01-02T03:04:05")
    with pytest.raises(ReceiptError, match="opened_at"):
        SignedReceipt.parse_canonical(arabic.encode(), ReceiptError)


@pytest.mark.parametrize("path", VECTORS, ids=lambda path: path.stem)
def test_the_few_lines_of_the_spec_agree_with_us_but_for_the_schema(path: Path) -> None:
    import json

    names: dict[str, object] = {}
    exec(SPEC.read_text("utf-8").partition("```python\n")[2].partition("\n```")[0], names)
    header, receipt = read_vector(path)
    try:
        names["verify"](receipt, json.loads(header["keyring"]), header["log-key"])  # type: ignore[operator]
        accepted = True
    except Exception:  # noqa: BLE001 - whatever the few lines raise is a refusal
        accepted = False
    # An unknown field inside the receipt changes what is signed, so it is refused even without a schema.
    assert accepted == (header["expect"] == "valid")
