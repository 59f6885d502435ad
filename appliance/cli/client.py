"""`appliance client`: make a key, complete the configuration, chat."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from appliance.core.errors import RefusedError, UsageError

HELP = "On the client's computer: make a key, complete the configuration that the operator sent, chat."


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    verbs = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    keygen = verbs.add_parser(
        "keygen", help="make a WireGuard key; the private half never leaves this computer"
    )
    keygen.add_argument(
        "--out", type=Path, default=Path("wireguard.key"), help="where to write the private key"
    )
    keygen.add_argument("--show", action="store_true", help="print the public half of a key made before")
    config = verbs.add_parser("config", help="complete the configuration that the operator sent")
    config.add_argument(
        "configuration", type=Path, help="the JSON file from the operator, or - for standard input"
    )
    config.add_argument("--key", type=Path, default=Path("wireguard.key"), help="the private key")
    config.add_argument("--out", type=Path, default=Path("appliance-client"), help="the folder to write")
    chat = verbs.add_parser("chat", help="talk to the model through the tunnel")
    chat.add_argument(
        "prompt",
        nargs="?",
        help="ask this one thing (it shows in this computer's process list); without it, a conversation begins",
    )
    chat.add_argument("--dir", type=Path, default=Path("appliance-client"), help="the client's folder")
    chat.add_argument("--model", help="another model than the default one")
    chat.add_argument("--max-tokens", type=int, default=256)
    chat.add_argument(
        "--temperature", type=float, help="0 (always the likeliest word) to 2 (default: the API's, 1)"
    )
    for sub in (keygen, config, chat):
        sub.add_argument("--json", action="store_true", help="print one JSON object as the last line")


def run(args: argparse.Namespace) -> int:
    """Run the action."""
    actions = {"keygen": _keygen, "config": _config, "chat": _chat}
    return actions[args.action](args)


def _keygen(args: argparse.Namespace) -> int:
    from appliance.client import wireguard_key

    public = wireguard_key.public_key(args.out) if args.show else wireguard_key.generate(args.out)
    if args.json:
        print(json.dumps({"ok": True, "public_key": public, "private_key_file": str(args.out)}))
        return 0
    print(f"Private key in {args.out}; keep it there. Give this public key to the operator:", file=sys.stderr)
    print(public)
    return 0


def _config(args: argparse.Namespace) -> int:
    from appliance.client import folder
    from appliance.core.client_configuration import ClientConfiguration

    try:
        text = sys.stdin.read() if str(args.configuration) == "-" else args.configuration.read_text("utf-8")
        configuration = ClientConfiguration.parse(json.loads(text))
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read the configuration {args.configuration}") from error
    written = folder.write(configuration, args.key, args.out)
    if args.json:
        print(json.dumps({"ok": True, "folder": str(written.path), "base_url": written.base_url}))
        return 0
    print(f"Written to {written.path}. Next:", file=sys.stderr)
    print(f"  sudo wg-quick up {(written.path / 'appliance.conf').absolute()}", file=sys.stderr)
    print(f"  appliance client chat --dir {written.path}", file=sys.stderr)
    return 0


def _chat(args: argparse.Namespace) -> int:
    from appliance.client.chat import ask, converse
    from appliance.client.folder import Folder

    if args.json and args.prompt is None:
        raise UsageError("--json needs a prompt", hint='appliance client chat --json "Hello"')
    chosen = {"model": args.model, "temperature": args.temperature}
    options = {
        "max_tokens": args.max_tokens,
        **{name: value for name, value in chosen.items() if value is not None},
    }
    if args.prompt is None:
        return converse(Folder(args.dir), options)
    answer, file = ask(Folder(args.dir), args.prompt, options, quiet=args.json)
    if answer.receipt is None:
        raise RefusedError("the answer came without a receipt")
    if args.json:
        result = {
            "ok": True,
            "answer": "".join(answer.parts),
            "pin": answer.pin,
            "ttft_ms": round(answer.ttft_ms or 0.0, 1),
            "receipt": {"id": answer.receipt_id, "file": str(file), "verified": True},
            "access_expires_at": answer.access_expires_at and answer.access_expires_at.isoformat(),
        }
        print(json.dumps(result))
    return 0
