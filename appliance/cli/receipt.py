"""`appliance receipt`: verify a receipt offline."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from appliance.core.errors import ReceiptError, UsageError
from appliance.core.receipt import Keyring, SignedReceipt, verify_receipt

HELP = "Verify a receipt offline, with nothing but the receipt and the keys that came with the configuration."
KEYS = "receipt-keys.json"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    verbs = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    verify = verbs.add_parser("verify", help="check signature, key and node of a receipt")
    verify.add_argument("files", type=Path, nargs="+", metavar="FILE", help="a receipt")
    verify.add_argument(
        "--keys", type=Path, help=f"default: {KEYS} beside the receipt or in the folder above it"
    )
    verify.add_argument(
        "--log-key", metavar="KEY", help="trust only keys certified by this log key; ask the operator for it"
    )
    verify.add_argument("--json", action="store_true", help="print one JSON object as the last line")


def run(args: argparse.Namespace) -> int:
    """Verify each receipt and say what it says; the first that does not verify ends the command."""
    verified = []
    for file in args.files:
        signed, keyring = verify(file, args.keys, args.log_key)
        verified.append({"id": signed.receipt.id, "log_key": keyring.log_key, "key": signed.key})
        if not args.json:
            print("\n".join(describe(signed, keyring)))
    if args.json:
        print(json.dumps({"ok": True, "receipts": verified}))
    return 0


def verify(file: Path, keys: Path | None, log_key: str | None) -> tuple[SignedReceipt, Keyring]:
    """Verify one receipt.

    Args:
        file: The receipt.
        keys: The keyring; None: the one beside the receipt or in the folder above it.
        log_key: The log key that is trusted; None where the keyring came with the client's own configuration.

    Raises:
        ReceiptError: Naming what does not hold.
    """
    signed = _read_receipt(file)
    keys = keys or _find_keys(file)
    try:
        keyring = Keyring.parse_canonical(keys.read_bytes().rstrip(b"\n"), ReceiptError)
    except OSError as error:
        raise UsageError(f"cannot read {keys}") from error
    verify_receipt(signed, keyring, log_key=log_key)
    return signed, keyring


def describe(signed: SignedReceipt, keyring: Keyring) -> list[str]:
    """Return the receipt as lines for people."""
    r = signed.receipt
    rows = {
        "receipt": f"{r.id}, number {r.seq} of this client on {r.node}",
        "session": f"{r.session}, {r.opened_at} to {r.ended_at}, ended: {r.end.replace('_', ' ')}",
        "used": f"{r.requests} requests, {r.prompt_tokens} prompt and {r.completion_tokens} completion tokens",
        "model": ", ".join(r.models),
        "confined": f"Landlock ABI {r.confinement.landlock_abi}, seccomp {_yes(r.confinement.seccomp)}, "
        f"no network by {r.confinement.network}, swap {_yes(r.confinement.swap)}",
        "erased": f"{r.erase.bytes} bytes, read back {_yes(r.erase.verified)}; text goes with the process",
        "signed by": f"node key {signed.key}, certified by log key {keyring.log_key}",
    }
    return ["The receipt verifies.", *(f"  {name:10} {value}" for name, value in rows.items())]


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _read_receipt(path: Path) -> SignedReceipt:
    try:
        return SignedReceipt.parse_canonical(path.read_bytes().removesuffix(b"\n"), ReceiptError)
    except OSError as error:
        raise UsageError(f"cannot read {path}") from error


def _find_keys(receipt: Path) -> Path:
    for folder in (receipt.parent, receipt.parent.parent):
        if (folder / KEYS).exists():
            return folder / KEYS
    raise UsageError(
        f"no {KEYS} near {receipt}", hint="name it with --keys; it came with the client's configuration"
    )
