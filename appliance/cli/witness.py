"""`appliance witness`: cosign heads of the log of receipts, for somebody who is not its operator."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from appliance.core.errors import HostError, UsageError

HELP = "Watch the log of receipts as a witness: cosign each head that continues the one before."


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    verbs = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    keygen = verbs.add_parser(
        "keygen", help="make a key; give its public half to the operator and to clients"
    )
    keygen.add_argument("name", help="of the witness, for example witness.example/receipts")
    keygen.add_argument(
        "--key", type=Path, default=Path("witness.key"), help="where to write the private key"
    )
    serve = verbs.add_parser("serve", help="answer control's requests (c2sp.org/tlog-witness) until SIGTERM")
    serve.add_argument("name", help="as given to keygen")
    serve.add_argument("--key", type=Path, default=Path("witness.key"))
    serve.add_argument("--log", type=Path, required=True, help="file with the log's two keys (log.vkey)")
    serve.add_argument(
        "--memory", type=Path, default=Path("witness.seen"), help="the last head; never lose it"
    )
    serve.add_argument("--listen", default="127.0.0.1:8790", metavar="ADDRESS:PORT")
    for sub in (keygen, serve):
        sub.add_argument("--json", action="store_true", help="print one JSON object as the last line")


def run(args: argparse.Namespace) -> int:
    """Run the action."""
    return _keygen(args) if args.action == "keygen" else _serve(args)


def _keygen(args: argparse.Namespace) -> int:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey

    from appliance.core.storage import write_new
    from appliance.transparency.checkpoint import Cosigner
    from appliance.transparency.note import VerifierKey

    key = MLDSA44PrivateKey.generate()
    line = Cosigner(args.name, key).verifier_key.render()
    VerifierKey.parse(line)  # a name that no verifier could read is refused before anything is written
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    try:
        write_new(args.key, pem, 0o600)
    except FileExistsError as error:
        raise HostError(f"{args.key} exists; a private key is never overwritten") from error
    if args.json:
        print(json.dumps({"ok": True, "key": line, "private_key_file": str(args.key)}))
        return 0
    print(f"Private key in {args.key}; keep it there. This is its public half:", file=sys.stderr)
    print(line)
    return 0


def _serve(args: argparse.Namespace) -> int:
    import uvicorn
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey

    from appliance.transparency.checkpoint import Cosigner, Policy
    from appliance.transparency.note import VerifierKey
    from appliance.transparency.witness import Witness, build_app

    host, separator, port = args.listen.rpartition(":")
    if not separator or not port.isdigit():
        raise UsageError("--listen is ADDRESS:PORT")
    try:
        key = serialization.load_pem_private_key(args.key.read_bytes(), password=None)
        keys = [VerifierKey.parse(line) for line in args.log.read_text("utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise UsageError("a key cannot be read", hint="appliance witness keygen NAME") from error
    if not isinstance(key, MLDSA44PrivateKey) or len(keys) != 2:
        raise UsageError("a witness has an ML-DSA-44 key, a log has two keys")
    app = build_app(Witness(Cosigner(args.name, key), args.memory, Policy(keys[0], keys[1])))
    config = uvicorn.Config(
        app, host=host.strip("[]"), port=int(port), log_level="warning", access_log=False, lifespan="off"
    )
    uvicorn.Server(config).run()
    return 0
