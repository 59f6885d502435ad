"""`appliance node`: look at a node and apply a bundle, on the node, by its agent. `relay` is sshd's forced command."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HELP = "Ask this node's agent (as root): observe, plan, apply, health, receipts."
TIMEOUT_S = 600.0
RECEIPTS_PER_PAGE = 1000


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    # Written out: NodePaths needs pydantic, and `relay` starts for each SSH connection.
    parser.add_argument(
        "--socket", type=Path, default=Path("/run/appliance/agent.sock"), help="the agent's socket"
    )
    verbs = parser.add_subparsers(dest="node_verb", required=True, metavar="VERB")
    for name, help_text in (
        ("observe", "what the kernel and the file system hold now"),
        ("health", "the node's health in numbers"),
        ("receipts", "the signed receipts in the notary's journal"),
        ("plan", "what `apply` would do with this bundle"),
        ("apply", "make the node what this bundle says"),
    ):
        verb = verbs.add_parser(name, help=help_text, description=help_text)
        verb.add_argument("--json", action="store_true", help="print one JSON object")
        if name in {"plan", "apply"}:
            verb.add_argument("bundle", type=Path, help="file with the bundle's canonical JSON")
            verb.add_argument("--signature", type=Path, required=True, help="file with control's signature")
        if name == "receipts":
            verb.add_argument("--after", type=int, default=0, help="position after which to begin")
    verbs.add_parser("relay", help="copy standard streams to the agent (sshd's forced command)")


def run(args: argparse.Namespace) -> int:
    """Ask the agent and print its answer."""
    if args.node_verb == "relay":
        from netops.relay import relay

        return relay(str(args.socket))
    result = _ask(args)
    if args.json:
        print(json.dumps(result))
    else:
        for line in render(args.node_verb, result):
            print(line)
    return 0


def _ask(args: argparse.Namespace) -> Any:
    from netops.lines import call

    if args.node_verb in {"plan", "apply"}:
        fields = {"bundle": _read(args.bundle), "signature": _read(args.signature).strip()}
        return call(args.socket, args.node_verb, timeout_s=TIMEOUT_S, **fields)
    if args.node_verb == "receipts":
        return _receipts(args.socket, args.after)
    return call(args.socket, args.node_verb, timeout_s=TIMEOUT_S)


def _receipts(path: Path, after: int) -> dict[str, Any]:
    from netops.lines import call

    entries: list[dict[str, Any]] = []
    while True:
        page = call(path, "receipts", timeout_s=TIMEOUT_S, after=after, limit=RECEIPTS_PER_PAGE)
        entries += page["entries"]
        if not page["entries"]:
            return {"entries": entries, "next": page["next"]}
        after = page["next"]


def _read(path: Path) -> str:
    from appliance.core.errors import UsageError

    try:
        return path.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {path}") from error


def render(verb: str, result: dict[str, Any]) -> list[str]:
    """Return an answer as lines for people."""
    if verb == "plan":
        return result["actions"] or [f"nothing to do: {result['why_empty']}"]
    if verb == "apply":
        accepted = result["accepted"]
        done = f"epoch {accepted['epoch']} generation {accepted['generation']} in force"
        return [*result["actions"], f"{done}, {len(result['actions'])} changes, {result['milliseconds']} ms"]
    if verb == "receipts":
        return [
            f"{entry['position']:8}  {_summary(json.loads(entry['signed']))}" for entry in result["entries"]
        ]
    rows = list(_rows(result))
    width = max(len(name) for name, _ in rows)
    return [f"{name:{width}}  {value}" for name, value in rows]


def _summary(signed: dict[str, Any]) -> str:
    receipt = signed.get("receipt", {})
    return "  ".join(str(receipt.get(field, "?")) for field in ("id", "client", "end"))


def _rows(value: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield dotted names and values; lists become one row for each item."""
    for name, item in value.items():
        if isinstance(item, dict):
            yield from _rows(item, f"{prefix}{name}.")
        elif isinstance(item, list) and item and isinstance(item[0], dict):
            for index, entry in enumerate(item):
                text = "  ".join(f"{key}={_text(field)}" for key, field in entry.items())
                yield f"{prefix}{name}.{index}", text
        else:
            yield f"{prefix}{name}", _text(item)


def _text(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(str(item) for item in value) or "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "-" if value is None else str(value)
