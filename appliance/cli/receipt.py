"""`appliance receipt`: verify a receipt offline."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from appliance.core.chain import verify_chains
from appliance.core.errors import ReceiptError, UsageError
from appliance.core.receipt import Keyring, SignedReceipt, verify_receipt
from appliance.transparency.checkpoint import Checkpoint, Policy
from appliance.transparency.memory import Memory
from appliance.transparency.note import VerifierKey
from appliance.transparency.proof import Continuation, Proof

HELP = "Verify a receipt offline, with nothing but the receipt and the keys that came with the configuration."
KEYS, LOG_KEYS, WITNESS_KEYS, MEMORY = "receipt-keys.json", "log.vkey", "witnesses.vkey", "log.seen"


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
    verify.add_argument(
        "--proof",
        type=Path,
        metavar="FILE",
        help="of one receipt: check that the log of receipts holds it, too",
    )
    verify.add_argument(
        "--log",
        type=Path,
        metavar="FILE",
        help=f"keys of the log; default: {LOG_KEYS}, looked for like --keys",
    )
    verify.add_argument(
        "--witness",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="key of one that must have cosigned",
    )
    verify.add_argument("--json", action="store_true", help="print one JSON object as the last line")

    watch = verbs.add_parser(
        "watch", help="check that the log of receipts goes on from where it was seen last, and get proofs"
    )
    watch.add_argument(
        "file",
        type=Path,
        nargs="?",
        metavar="FILE",
        help="a continuation that the operator handed out; without it, ask through the tunnel and fetch proofs",
    )
    watch.add_argument("--dir", type=Path, default=Path("appliance-client"), help="the client's folder")
    watch.add_argument(
        "--log", type=Path, metavar="FILE", help=f"keys of the log; default: {LOG_KEYS} beside FILE or above"
    )
    watch.add_argument(
        "--quorum",
        type=int,
        default=0,
        metavar="N",
        help=f"refuse a head that fewer of the witnesses in {WITNESS_KEYS} have cosigned (default: 0)",
    )
    watch.add_argument("--memory", type=Path, help=f"what was seen last; default: {MEMORY} beside the keys")
    watch.add_argument("--json", action="store_true", help="print one JSON object as the last line")


def run(args: argparse.Namespace) -> int:
    """Do what the command line says."""
    return _watch(args) if args.action == "watch" else _verify(args)


def _watch(args: argparse.Namespace) -> int:
    """Accept a later head of the log and remember it. A fork, a shrink or a rewritten past ends the command."""
    if args.file is None:
        return _watch_through_tunnel(args)
    keys = args.log or _find(args.file, LOG_KEYS, "--log")
    memory = Memory(args.memory or keys.parent / MEMORY, _witnessed(keys, args.quorum))
    seen = memory.seen
    checkpoint = memory.advance(Continuation.parse(_text(args.file).encode("utf-8")))
    if args.json:
        print(json.dumps({"ok": True, "log": checkpoint.origin, "seen": seen.size, "size": checkpoint.size}))
    else:
        grown = (
            f"from {seen.size} to {checkpoint.size}"
            if checkpoint.size > seen.size
            else f"at {seen.size}, as before"
        )
        print(f"The log goes on: {checkpoint.origin} is {grown} entries.")
    return 0


def _watch_through_tunnel(args: argparse.Namespace) -> int:
    from appliance.client.api import Api
    from appliance.client.folder import Folder
    from appliance.client.log import render_json, render_lines, watch

    folder = Folder(args.dir)
    keys = args.log or folder.log_keys
    policy = _witnessed(keys, args.quorum)
    api = Api(folder)
    try:
        watched = watch(folder.receipts, api, Memory(args.memory or folder.path / MEMORY, policy), policy)
    finally:
        api.close()
    print("\n".join([render_json(watched)] if args.json else render_lines(watched)))
    return 0


def _verify(args: argparse.Namespace) -> int:
    """Verify each receipt, say what it says, and verify their chains; the first that does not verify ends the command."""
    if args.proof and len(args.files) > 1:
        raise UsageError("a proof is of one receipt", hint="verify them one after the other")
    verified, kept = [], []
    for file in args.files:
        signed, keyring = verify(file, args.keys, args.log_key)
        facts: dict[str, Any] = {"id": signed.receipt.id, "log_key": keyring.log_key, "key": signed.key}
        lines = describe(signed, keyring)
        if args.proof:
            proof, checkpoint = verify_logged(signed, file, args.proof, args.log, args.witness)
            facts |= {"place": proof.index, "size": checkpoint.size, "log": checkpoint.origin}
            cosigned = f", cosigned by {len(args.witness)}" if args.witness else ""
            lines.append(
                f"  {'logged':10} as {proof.index + 1} of {checkpoint.size} in {checkpoint.origin}{cosigned}"
            )
        verified.append(facts)
        kept.append(signed)
        if not args.json:
            print("\n".join(lines))
    gaps = verify_each_chain(kept)
    if args.json:
        told = [{"node": node, "first": first, "last": last} for node, first, last in gaps]
        print(json.dumps({"ok": True, "receipts": verified, "gaps": told}))
        return 0
    for node, first, last in gaps:
        print(f"Numbers {first} to {last} of {node} were not given.")
    return 0


def verify_each_chain(kept: list[SignedReceipt]) -> list[tuple[str, int, int]]:
    """Check that the receipts of each client are of one chain on each node; return the gaps.

    Raises:
        ReceiptError: As `verify_chains`.
    """
    clients = sorted({signed.receipt.client for signed in kept})
    return [
        gap
        for client in clients
        for gap in verify_chains(signed for signed in kept if signed.receipt.client == client)
    ]


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
    keys = keys or _find(file, KEYS, "--keys")
    try:
        keyring = Keyring.parse_canonical(keys.read_bytes().rstrip(b"\n"), ReceiptError)
    except OSError as error:
        raise UsageError(f"cannot read {keys}") from error
    verify_receipt(signed, keyring, log_key=log_key)
    return signed, keyring


def verify_logged(
    signed: SignedReceipt, file: Path, proof: Path, log: Path | None, witnesses: list[Path]
) -> tuple[Proof, Checkpoint]:
    """Verify that the log of receipts holds a receipt; return the proof and the head that shows it.

    Args:
        signed: The receipt.
        file: Where it was read.
        proof: File with the proof.
        log: File with the log's keys; None: the one beside the receipt or in the folder above it.
        witnesses: Files with the keys of those who must have cosigned.

    Raises:
        LogError: Naming what does not hold.
    """
    read = Proof.parse(_text(proof).encode("utf-8"))
    policy = _policy(log or _find(file, LOG_KEYS, "--log"), witnesses)
    return read, read.verify(signed.canonical_bytes(), policy)


def _policy(log: Path, witnesses: list[Path]) -> Policy:
    keys = [VerifierKey.parse(line) for line in _text(log).splitlines()]
    if len(keys) != 2:
        raise UsageError("a log has two keys", hint=f"{LOG_KEYS} came with the client's configuration")
    cosigners = tuple(VerifierKey.parse(_text(path).strip()) for path in witnesses)
    return Policy(keys[0], keys[1], cosigners, quorum=len(cosigners))


def _witnessed(log: Path, quorum: int) -> Policy:
    """Return a policy with the witnesses whose keys are beside the log's, where there are any."""
    file = log.parent / WITNESS_KEYS
    witnesses = tuple(map(VerifierKey.parse, _text(file).splitlines())) if file.exists() else ()
    if not 0 <= quorum <= len(set(witnesses)):
        raise UsageError(
            f"--quorum {quorum} of {len(set(witnesses))} witnesses", hint=f"their keys are in {file}"
        )
    return replace(_policy(log, []), witnesses=witnesses, quorum=quorum)


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
        return SignedReceipt.parse_canonical(path.read_bytes(), ReceiptError)
    except OSError as error:
        raise UsageError(f"cannot read {path}") from error


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {path}") from error


def _find(receipt: Path, name: str, option: str) -> Path:
    for folder in (receipt.parent, receipt.parent.parent):
        if (folder / name).exists():
            return folder / name
    raise UsageError(
        f"no {name} near {receipt}", hint=f"name it with {option}; it came with the client's configuration"
    )
