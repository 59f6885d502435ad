"""The `appliance` command: one word per verb, one file per verb, imported only when it is used.

Exit codes: 0 done, 1 refused or failed with a reason, 2 bad usage. `--json` on every verb prints one JSON object as
the last line of standard output; whatever is for people goes to standard error.

A verb's module has `HELP: str`, `configure(parser)` and `run(args) -> int`.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Sequence

from appliance import __version__
from appliance.core.errors import ApplianceError, UsageError

# verb -> one line for `appliance --help`; the module is appliance.cli.<verb>
VERBS = {
    "demo": "see the whole product work on this machine",
    "lab": "network namespaces that behave like machines: up, down, status, exec",
    "client": "on the client's computer: keygen, config, enroll, chat",
    "receipt": "verify a receipt offline, watch the log of receipts",
    "witness": "cosign the log of receipts for others (a service)",
    "control": "the management plane: init, serve, reconcile, clients, devices, nodes, models",
    "node": "on a node: observe, plan, apply, health, receipts",
    "agent": "the node's privileged half (a service)",
    "notary": "signs receipts on a node (a service)",
    "mailbox": "takes redeemed invitations on a node (a service)",
    "cell": "one client's confined server (started by systemd or the launcher)",
    "launcher": "starts cells on demand where systemd is not PID 1 (a service)",
    "model": "examine a pinned model: does it read, does it say when it cannot",
    "audit": "the promises, tested from outside: erasure",
    "bench": "what the parts cost on this machine",
    "doctor": "is this host fit, and what to do if not",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb and return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(
        prog="appliance",
        description="WireGuard in, OpenAI API inside, nothing kept, a signed receipt for every session.",
        epilog="verbs:\n" + "\n".join(f"  {verb:10} {line}" for verb, line in VERBS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"appliance {__version__}")
    parser.add_argument("verb", choices=VERBS, metavar="VERB", help="one of the verbs below")
    verb = parser.parse_args(arguments[:1]).verb
    module = importlib.import_module(f"appliance.cli.{verb}")
    verb_parser = argparse.ArgumentParser(prog=f"appliance {verb}", description=module.HELP)
    module.configure(verb_parser)
    args = verb_parser.parse_args(arguments[1:])
    try:
        return int(module.run(args))
    except ApplianceError as error:
        return report(error, as_json=bool(getattr(args, "json", False)))
    except KeyboardInterrupt:
        return 130


def report(error: ApplianceError, *, as_json: bool) -> int:
    """Say what went wrong and what to do next; return the exit code."""
    print(f"appliance: {error}", file=sys.stderr)
    if error.hint:
        print(f"hint: {error.hint}", file=sys.stderr)
    if as_json:
        print(
            json.dumps(
                {"ok": False, "error": {"code": error.code, "message": str(error), "hint": error.hint}}
            )
        )
    return 2 if isinstance(error, UsageError) else 1


if __name__ == "__main__":
    sys.exit(main())
