"""`appliance receipt verify`: the shipped command, on files."""

from __future__ import annotations

import base64
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
    prev = example.prev
    for number in (1, 2):
        changed = {"id": f"{number:032x}", "seq": number, "prev": prev}
        signed = sign_receipt(example.model_copy(update=changed), NODE_KEY)
        prev = signed.receipt.digest
        files.append(tmp_path / "receipts" / f"{number}.json")
        files[-1].write_bytes(signed.canonical_bytes())
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


def test_two_receipts_that_are_of_no_one_chain_are_refused(
    receipts: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    second = SignedReceipt.parse_canonical(receipts[1].read_bytes()).receipt
    for changed, said in (
        ({"seq": 1}, "have the number 1"),
        ({"prev": "0" * 64}, "does not follow number 1"),
    ):
        receipts[1].write_bytes(sign_receipt(second.model_copy(update=changed), NODE_KEY).canonical_bytes())
        assert main(["receipt", "verify", *map(str, receipts)]) == 1
        assert said in capsys.readouterr().err
    receipts[1].write_bytes(sign_receipt(second.model_copy(update={"seq": 9}), NODE_KEY).canonical_bytes())
    assert main(["receipt", "verify", *map(str, receipts)]) == 0
    assert "Numbers 2 to 8 of node-1 were not given." in capsys.readouterr().out


def test_one_changed_receipt_among_good_ones_fails(
    receipts: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    receipts[1].write_text(receipts[1].read_text().replace('"seq":2', '"seq":3'))
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


LOGGED = Path(__file__).parents[2] / "vectors" / "log" / "valid-with-two-witnesses.txt"


@pytest.fixture
def logged(tmp_path: Path) -> Path:
    """A receipt of the vectors with its proof and keys, as a client has them."""
    header, _, proof = LOGGED.read_bytes().partition(b"\n\n")
    fields = dict(line.split(": ", 1) for line in header.decode().splitlines())
    keyring = next(line for line in VECTOR.read_text("utf-8").splitlines() if line.startswith("keyring: "))
    (tmp_path / "receipt-keys.json").write_text(keyring.removeprefix("keyring: "), "utf-8")
    (tmp_path / "log.vkey").write_text(fields["log"].replace(" ", "\n") + "\n", "utf-8")
    for name, key in zip(("alice", "bob"), fields["witnesses"].split(), strict=True):
        (tmp_path / f"{name}.vkey").write_text(key + "\n", "utf-8")
    (tmp_path / "receipt.tlog-proof").write_bytes(proof)
    (tmp_path / "receipt.json").write_bytes(base64.b64decode(fields["entry"]))
    return tmp_path


def verify_logged(folder: Path) -> list[str]:
    return [
        "receipt",
        "verify",
        str(folder / "receipt.json"),
        "--proof",
        str(folder / "receipt.tlog-proof"),
    ]


def test_a_proof_shows_that_the_log_has_the_receipt(logged: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = verify_logged(logged)
    witnesses = ["--witness", str(logged / "alice.vkey"), "--witness", str(logged / "bob.vkey")]
    assert main([*command, *witnesses]) == 0
    assert "as 5 of 11 in receipts.example/log, cosigned by 2" in capsys.readouterr().out
    assert main([*command, "--json"]) == 0
    (verified,) = json.loads(capsys.readouterr().out.splitlines()[-1])["receipts"]
    assert (verified["place"], verified["size"], verified["log"]) == (4, 11, "receipts.example/log")


def test_a_proof_that_does_not_hold_is_named(logged: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = verify_logged(logged)
    proof = logged / "receipt.tlog-proof"
    proof.write_bytes(proof.read_bytes().replace(b"index 4", b"index 5"))
    assert main(command) == 1
    assert "does not lead to the root" in capsys.readouterr().err
    (logged / "log.vkey").unlink()
    assert main(command) == 2
    assert "--log" in capsys.readouterr().err
    assert main([*command[:3], str(logged / "receipt.json"), *command[3:]]) == 2


def test_the_log_is_watched_and_a_fork_is_an_alarm(logged: Path, capsys: pytest.CaptureFixture[str]) -> None:
    vectors = LOGGED.parent
    continues, fork = (
        (vectors / f"{name}.txt").read_bytes().partition(b"\n\n")[2] for name in ("continues", "fork")
    )
    head = continues.partition(b"\n\n")[2]
    proof = (logged / "receipt.tlog-proof").read_bytes()
    first = b"old 0\n\n" + proof.partition(b"\n\n")[2]
    for content, code, said in (
        (first, 0, "from 0 to 11 entries"),
        (first, 1, "ask for one that begins at 11"),
        (fork, 1, "does not lead to the roots"),
        (continues, 0, "from 11 to 17 entries"),
        (b"old 17\n\n" + head, 0, "at 17, as before"),
    ):
        (logged / "continuation").write_bytes(content)
        assert main(["receipt", "watch", str(logged / "continuation")]) == code
        printed = capsys.readouterr()
        assert said in printed.out + printed.err
    assert main(["receipt", "watch", "--json", str(logged / "continuation")]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["size"] == 17
