"""`appliance receipt verify`: the shipped command, on files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from appliance.cli import main
from appliance.core import signing
from appliance.core.receipt import NodeKey, Receipt, SignedReceipt, make_keyring, sign_receipt

VECTOR = Path(__file__).parents[2] / "vectors" / "receipts" / "valid.txt"
NODE_KEY, LOG_KEY = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()


@pytest.fixture
def receipts(tmp_path: Path) -> list[Path]:
    """Two receipts in a client's folder, with the keyring above them."""
    example = _example()
    keyring = make_keyring((NodeKey(node=example.node, public_key=signing.public_text(NODE_KEY)),), LOG_KEY)
    (tmp_path / "receipt-keys.json").write_bytes(keyring.canonical_bytes() + b"\n")
    (tmp_path / "receipts").mkdir()
    files = []
    for number in (1, 2):
        signed = sign_receipt(example.model_copy(update={"id": f"{number:032x}"}), NODE_KEY)
        files.append(tmp_path / "receipts" / f"{number}.json")
        files[-1].write_bytes(signed.canonical_bytes() + b"\n")
    return files


def _example() -> Receipt:
    line = next(line for line in VECTOR.read_text("utf-8").splitlines() if '"receipt":{' in line)
    return SignedReceipt.parse(json.loads(line)).receipt


def test_every_named_receipt_is_verified_and_described(
    receipts: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["receipt", "verify", *map(str, receipts)]) == 0
    assert capsys.readouterr().out.count("The receipt verifies.") == 2


def test_machines_get_one_object_on_the_last_line(
    receipts: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["receipt", "verify", "--json", *map(str, receipts)]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["ok"] is True
    assert [receipt["id"] for receipt in result["receipts"]] == [f"{1:032x}", f"{2:032x}"]


def test_one_changed_receipt_among_good_ones_fails(
    receipts: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    receipts[1].write_text(receipts[1].read_text().replace('"seq":1', '"seq":2'))
    assert main(["receipt", "verify", *map(str, receipts)]) == 1
    assert "signature" in capsys.readouterr().err


def test_a_keyring_of_another_log_key_is_refused_where_one_is_pinned(receipts: list[Path]) -> None:
    pinned = signing.public_text(LOG_KEY)
    other = signing.public_text(Ed25519PrivateKey.generate())
    assert main(["receipt", "verify", str(receipts[0]), "--log-key", pinned]) == 0
    assert main(["receipt", "verify", str(receipts[0]), "--log-key", other]) == 1


def test_without_keys_it_says_where_they_come_from(
    tmp_path: Path, receipts: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    alone = tmp_path / "elsewhere" / "deep" / "receipt.json"
    alone.parent.mkdir(parents=True)
    alone.write_bytes(receipts[0].read_bytes())
    assert main(["receipt", "verify", str(alone)]) == 2
    assert "--keys" in capsys.readouterr().err
