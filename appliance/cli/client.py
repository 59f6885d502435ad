"""`appliance client`: redeem an invitation, or make a key and complete the configuration; chat."""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from appliance.core.errors import RefusedError, UsageError

if TYPE_CHECKING:
    from appliance.client.folder import Folder

HELP = "On the client's computer: redeem the operator's invitation, or make a key and complete the configuration that the operator sent; chat."


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
    enroll = verbs.add_parser(
        "enroll", help="redeem an invitation: make keys, be let in, write the same folder"
    )
    enroll.add_argument(
        "invitation", help="the line that the operator gave, the file that holds it, or - for standard input"
    )
    enroll.add_argument("--out", type=Path, default=Path("appliance-client"), help="the folder to write")
    enroll.add_argument(
        "--wait",
        type=float,
        default=600.0,
        metavar="SECONDS",
        help="how long to wait for the answer (default: 600)",
    )
    way = enroll.add_mutually_exclusive_group()
    way.add_argument("--no-tunnel", action="store_true", help="the throw-away tunnel is up already")
    way.add_argument(
        "--write-tunnel",
        type=Path,
        metavar="FILE",
        help="write the throw-away tunnel for wg-quick, and no more",
    )
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
    for sub in (keygen, config, enroll, chat):
        sub.add_argument("--json", action="store_true", help="print one JSON object as the last line")


def run(args: argparse.Namespace) -> int:
    """Run the action."""
    actions = {"keygen": _keygen, "config": _config, "enroll": _enroll, "chat": _chat}
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
    return _say_written(written, {}, as_json=args.json)


def _say_written(written: Folder, more: dict[str, str], *, as_json: bool) -> int:
    if as_json:
        print(json.dumps({"ok": True, "folder": str(written.path), "base_url": written.base_url, **more}))
        return 0
    print(f"Written to {written.path}. Next:", file=sys.stderr)
    print(f"  sudo wg-quick up {(written.path / 'appliance.conf').absolute()}", file=sys.stderr)
    print(f"  appliance client chat --dir {written.path}", file=sys.stderr)
    return 0


def _enroll(args: argparse.Namespace) -> int:
    from rich.console import Console

    from appliance.client import enrol, guest_tunnel
    from appliance.client.mailbox import Mailbox
    from appliance.core.ticket import Ticket

    ticket = Ticket.read(_invitation(args.invitation))
    if args.write_tunnel is not None:
        return _write_tunnel(args, guest_tunnel.render_wg_quick(ticket))
    console = Console(stderr=True, highlight=False)
    tunnel: AbstractContextManager[str | None] = guest_tunnel.guest_tunnel(ticket)
    with (
        nullcontext() if args.no_tunnel else tunnel as interface,
        console.status("bringing the throw-away tunnel up") as spinner,
    ):

        def report(text: str) -> None:
            spinner.update(f"{text} …")
            if not console.is_terminal:
                console.print(text, soft_wrap=True)

        written = enrol.enrol(ticket, args.out, Mailbox(ticket, interface), wait_s=args.wait, report=report)
    enrol.give_to_caller(written.path)
    return _say_written(written, {"client": ticket.client, "device": ticket.device}, as_json=args.json)


def _invitation(text: str) -> str:
    from appliance.core.ticket import MAX_TICKET_CHARACTERS, PREFIX

    if text.startswith(PREFIX):
        return text
    try:
        if text == "-":
            return sys.stdin.read(2 * MAX_TICKET_CHARACTERS)
        with Path(text).open(encoding="ascii") as file:
            return file.read(2 * MAX_TICKET_CHARACTERS)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"neither an invitation, which begins with {PREFIX}, nor a file that can be read"
        ) from error


def _write_tunnel(args: argparse.Namespace, text: str) -> int:
    from appliance.core.storage import write_new

    try:
        write_new(args.write_tunnel, text.encode("ascii"), 0o600)
    except FileExistsError as error:
        raise UsageError(f"{args.write_tunnel} exists", hint="choose another FILE") from error
    if args.json:
        print(json.dumps({"ok": True, "file": str(args.write_tunnel)}))
        return 0
    print(f"Written to {args.write_tunnel}. Next:", file=sys.stderr)
    print(f"  sudo wg-quick up {args.write_tunnel.absolute()}", file=sys.stderr)
    print("  appliance client enroll INVITATION --no-tunnel", file=sys.stderr)
    print(f"  sudo wg-quick down {args.write_tunnel.absolute()}; rm {args.write_tunnel}", file=sys.stderr)
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
