"""`appliance control model …`: import, verify, activate, roll back, retire, list and show models."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from appliance.core.errors import UsageError


def add_parsers(actions: Any) -> None:
    """Declare the command line."""
    verbs = actions.add_parser("model", help="import, verify, activate and retire models").add_subparsers(
        required=True, metavar="VERB"
    )
    _add_import_parser(
        verbs.add_parser("import", help="copy a model in and pin it; it is not served by that")
    )
    verify = _add_pin_parser(verbs, "verify", verify_model, "look at its bytes, GGUF, template and signature")
    verify.add_argument(
        "--signer",
        action="append",
        type=Path,
        default=[],
        metavar="FILE",
        help="public key or certificate (PEM) of who may have signed it; may be repeated",
    )
    _add_pin_parser(verbs, "activate", activate_model, "serve it under its name, in place of the one before")
    rollback = verbs.add_parser(
        "rollback", help="serve the model again that was active under this name before"
    )
    rollback.add_argument("name")
    rollback.set_defaults(handler=roll_back)
    _add_pin_parser(verbs, "retire", retire_model, "give it up for good; its files are removed here")
    _add_pin_parser(verbs, "show", show_model, "its manifest, and how far each node is with it")
    verbs.add_parser("list", help="list models").set_defaults(handler=list_models)


def _add_pin_parser(verbs: Any, verb: str, handler: Any, text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = verbs.add_parser(verb, help=text)
    parser.add_argument("name")
    parser.add_argument("version")
    parser.set_defaults(handler=handler)
    return parser


def _add_import_parser(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "path", type=Path, help="a GGUF file, one of its shards, or a folder that holds one model"
    )
    parser.add_argument(
        "--sha256", metavar="DIGEST", help="what the file must be; needed where no manifest names it"
    )
    parser.add_argument(
        "--manifest", type=Path, metavar="FILE", help="its manifest, in place of all options below"
    )
    parser.add_argument(
        "--signature", type=Path, metavar="FILE", help="default: model.sig beside it, if there is one"
    )
    parser.add_argument("--name", help="what clients ask for")
    parser.add_argument("--version", help="for example 1.0")
    parser.add_argument("--licence", help="SPDX expression; default: what the file says")
    parser.add_argument("--source", help="where it came from")
    parser.add_argument("--commit", help="of the source's repository")
    parser.add_argument(
        "--template", type=Path, metavar="FILE", help="chat template; default: the file's own"
    )
    parser.add_argument(
        "--stop", action="append", metavar="TEXT", help="ends a turn; default: as the file says"
    )
    parser.add_argument("--context", type=int, metavar="TOKENS", help="of one session")
    parser.add_argument("--sessions", type=int, metavar="N", help="open at once in one cell")
    parser.add_argument("--batch", type=int, metavar="TOKENS", help="in one step")
    parser.add_argument("--runtime", metavar="VERSION", help="of llama-cpp-python; default: what nodes have")
    parser.set_defaults(handler=import_model)


def import_model(args: argparse.Namespace) -> dict[str, Any]:
    """Import a model."""
    from control.commands.progress import shown_progress
    from control.pins import imports

    described = _described(args)
    if args.sha256 is None and args.manifest is None and not args.path.is_dir():
        raise UsageError(
            "say which file it must be", hint="--sha256 DIGEST as its publisher names it, or --manifest FILE"
        )
    with shown_progress() as progress:
        pin = imports.import_model(
            args.path, described, sha256=args.sha256, signature=args.signature, progress=progress
        )
    return _summary(pin)


def _described(args: argparse.Namespace) -> Any:
    from appliance.core.pin import Manifest
    from control.commands.clients import read_json
    from control.pins.imports import Said

    said = {
        "name": args.name,
        "version": args.version,
        "licence": args.licence,
        "source": args.source,
        "commit": args.commit,
        "stop": args.stop,
        "context_tokens": args.context,
        "max_sessions": args.sessions,
        "batch_tokens": args.batch,
        "runtime": args.runtime,
        "template": None if args.template is None else _read_text(args.template),
    }
    said = {name: value for name, value in said.items() if value is not None}
    if args.manifest is None:
        return Said.parse(said)
    if said:
        raise UsageError("a manifest says everything", hint="leave the other options out, or the manifest")
    return Manifest.parse(read_json(args.manifest))


def _read_text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read {path} as text") from error


def verify_model(args: argparse.Namespace) -> dict[str, Any]:
    """Verify a model."""
    from control.commands.progress import shown_progress
    from control.pins import services

    pin = services.find_pin(args.name, args.version)
    signers = services.trusted_signers([_read_text(path).encode("utf-8") for path in args.signer])
    with shown_progress() as progress:
        services.verify_pin(pin, signers, progress)
    return _summary(pin) | {"signer": pin.signer or None, "facts": pin.facts}


def activate_model(args: argparse.Namespace) -> dict[str, Any]:
    """Activate a model."""
    from control.pins import services

    return _summary(services.activate_pin(services.find_pin(args.name, args.version)))


def roll_back(args: argparse.Namespace) -> dict[str, Any]:
    """Go back to the model that was active before."""
    from control.pins import services

    return _summary(services.rollback(args.name))


def retire_model(args: argparse.Namespace) -> dict[str, Any]:
    """Retire a model."""
    from control.pins import services

    return _summary(services.retire_pin(services.find_pin(args.name, args.version)))


def show_model(args: argparse.Namespace) -> dict[str, Any]:
    """Show a model."""
    from control.pins import services
    from control.pins.progress import node_progress

    pin = services.find_pin(args.name, args.version)
    shown = {
        "facts": pin.facts,
        "signed": bool(pin.signature),
        "signer": pin.signer or None,
        "verified_at": pin.verified_at,
        "activated_at": pin.activated_at,
        "manifest": pin.manifest,
        "nodes": node_progress(pin),
    }
    return {key: value for key, value in _summary(pin).items() if key != "ok"} | shown


def list_models(args: argparse.Namespace) -> dict[str, Any]:  # noqa: ARG001 - every handler's signature
    """List models."""
    from control.pins.models import ModelPin

    models = ModelPin.objects.values("name", "version", "state", "pin_id", "activated_at")
    return {"ok": True, "models": list(models)}


def _summary(pin: Any) -> dict[str, Any]:
    return {"ok": True, "name": pin.name, "version": pin.version, "pin_id": pin.pin_id, "state": pin.state}
