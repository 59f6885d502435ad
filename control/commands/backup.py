"""`appliance control backup …`."""

from __future__ import annotations

import argparse
import getpass
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from appliance.core.errors import HostError, RefusedError, UsageError

if TYPE_CHECKING:
    from control.backup.age import Lock, Unlock
    from control.backup.container import Unpacked
    from control.config import ControlConfig, Postgresql


def add_parsers(actions: Any) -> None:
    """Declare the command line."""
    verbs = actions.add_parser("backup", help="keygen, create, verify, restore").add_subparsers(
        required=True, metavar="VERB"
    )
    keygen = verbs.add_parser(
        "keygen", help="make the two keys for the safe: one opens backups, one raises the epoch"
    )
    keygen.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="on a medium for the safe")
    keygen.set_defaults(handler=make_keys)
    create = verbs.add_parser("create", help="write an encrypted backup while control goes on")
    create.add_argument("file", type=Path)
    create.add_argument(
        "--recipient", metavar="age1…", help="who may open it (default: public/backup.recipient)"
    )
    _add_passphrase(create)
    create.add_argument("--without-keys", action="store_true", help="leave keys/ and web/ out")
    create.set_defaults(handler=create_backup)
    verify = verbs.add_parser("verify", help="check a backup without restoring it")
    _add_opening(verify)
    verify.set_defaults(handler=verify_backup, django=False)
    restore = verbs.add_parser("restore", help="make a state folder of a backup")
    _add_opening(restore)
    restore.add_argument("--state", type=Path, required=True, help="empty, or not there yet")
    restore.add_argument("--reconciler-user", metavar="U", help="owns the private keys (root only)")
    restore.add_argument("--web-user", metavar="U", help="runs the console and the API (root only)")
    restore.set_defaults(handler=restore_backup, django=False)


def _add_passphrase(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--passphrase-file", type=Path, metavar="FILE", help="its first line; - asks for it")


def _add_opening(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path)
    parser.add_argument("--identity", type=Path, metavar="FILE", help="the private key that opens it")
    _add_passphrase(parser)
    parser.add_argument(
        "--bundle-key", metavar="KEY", help="that must have signed it, as in a node's node.json"
    )


def make_keys(args: argparse.Namespace) -> dict[str, Any]:
    """Make the keys for the safe; their public halves stay here."""
    from django.conf import settings

    from control.backup.safe import make_safe

    return {"ok": True, **make_safe(args.out, settings.PATHS), "next": _KEEP}


def create_backup(args: argparse.Namespace) -> dict[str, Any]:
    """Write a backup."""
    from django.conf import settings

    from control.backup.create import Source
    from control.backup.create import create_backup as create

    lock = _lock(args, settings.PATHS.backup_recipient)
    _record(lock, keys=not args.without_keys)
    database = _living_database(settings.CONFIG)
    source = Source(settings.CONFIG, database, keys=not args.without_keys)
    total = database.stat().st_size if isinstance(database, Path) else None
    with _progress(total) as progress:
        manifest = create(source, args.file, lock, progress)
    return {"ok": True, "file": str(args.file), **_facts_of(manifest)}


def _record(lock: Lock, *, keys: bool) -> None:
    """Record that a backup is made, before it is: whoever stops this process at its end must not have one that nobody knows of."""
    from django.db import transaction

    from control.backup.age import Recipient
    from control.journal.services import created, record
    from control.journal.vocabulary import Verb

    recipient = lock.render() if isinstance(lock, Recipient) else None
    with transaction.atomic():
        record(Verb.BACKUP_CREATE, "control", created(keys=keys, recipient=recipient))


def verify_backup(args: argparse.Namespace) -> dict[str, Any]:
    """Check a backup."""
    from control.backup.restore import verify_backup as verify

    with _progress(None) as progress:
        unpacked = verify(args.file, _unlock(args), args.bundle_key, progress)
    return {"ok": True, **_facts_of(unpacked.manifest), "bundle_key": unpacked.bundle_key}


def restore_backup(args: argparse.Namespace) -> dict[str, Any]:
    """Restore a backup."""
    from control.backup.restore import Target
    from control.backup.restore import restore_backup as restore
    from control.commands.init import find_owners

    target = Target(args.state, find_owners(args.reconciler_user, args.web_user), args.bundle_key)
    with _progress(None) as progress:
        unpacked = restore(args.file, _unlock(args), target, progress)
    return {
        "ok": True,
        "state": str(args.state),
        **_facts_of(unpacked.manifest),
        "bundle_key": unpacked.bundle_key,
        "next": _next(unpacked),
    }


def _facts_of(manifest: Any) -> dict[str, Any]:
    restored = manifest.restored
    return {
        "taken_at": restored.taken_at,
        "epoch": restored.epoch,
        "receipts": manifest.receipts,
        "devices": manifest.devices,
        "log_size": restored.log_size,
        "keys": manifest.keys,
    }


def _next(unpacked: Unpacked) -> list[str]:
    keys = [] if unpacked.manifest.keys else ["put keys/ and web/ back, before anything else"]
    return [
        *keys,
        "see that the old control is off for good: two of them would fight over the nodes",
        "appliance control migrate",
        "appliance control epoch raise --restore-key FILE",
        "appliance control log compare",
        f"repeat what was done since {unpacked.manifest.restored.taken_at}; models are pinned again from their files",
    ]


def _living_database(config: ControlConfig) -> Path | Postgresql:
    """Return the database that this process is connected to."""
    from django.db import connection

    from control.config import Postgresql

    name = connection.settings_dict["NAME"]
    if isinstance(config.database, Postgresql):
        return config.database.model_copy(update={"name": str(name)})
    return Path(name)


def _lock(args: argparse.Namespace, default: Path) -> Lock:
    from control.backup.age import Passphrase, Recipient

    if args.passphrase_file is not None:
        if args.recipient is not None:
            raise UsageError("--recipient or --passphrase-file, not both")
        return Passphrase(_read_passphrase(args.passphrase_file, again=True))
    if args.recipient is not None:
        return Recipient.parse(args.recipient)
    try:
        return Recipient.parse(default.read_text("ascii"))
    except OSError as error:
        raise HostError(
            "no key is known that backups are encrypted to",
            hint="appliance control backup keygen --out FOLDER",
        ) from error


def _unlock(args: argparse.Namespace) -> Unlock:
    from control.backup.age import Identity, Passphrase

    if (args.identity is None) == (args.passphrase_file is None):
        raise UsageError("--identity or --passphrase-file", hint="as the backup was made")
    if args.passphrase_file is not None:
        return Passphrase(_read_passphrase(args.passphrase_file, again=False))
    try:
        return Identity.parse(args.identity.read_text("ascii"))
    except (OSError, ValueError) as error:
        raise HostError(
            f"cannot read {args.identity}", hint="the file backup.identity from the safe"
        ) from error


def _read_passphrase(path: Path, *, again: bool) -> str:
    """Return a passphrase from a file or the terminal.

    Raises:
        RefusedError: If it is too short for a file that may be copied and tried for years.
    """
    if str(path) == "-":
        text = getpass.getpass("passphrase: ")
        if again and getpass.getpass("once more: ") != text:
            raise RefusedError("two different passphrases", field="passphrase")
    else:
        try:
            text = path.read_text("utf-8").partition("\n")[0]
        except (OSError, ValueError) as error:
            raise HostError(
                f"cannot read {path}", hint="a text file, its first line the passphrase"
            ) from error
    if len(text) < _LEAST:
        raise RefusedError(
            f"shorter than {_LEAST} characters", field="passphrase", hint="several random words"
        )
    return text


@contextmanager
def _progress(total: int | None) -> Iterator[Callable[[int], None]]:
    """Yield what moves a bar, on a terminal; elsewhere what does nothing."""
    if not sys.stderr.isatty():
        yield lambda _count: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeElapsedColumn

    columns = (BarColumn(), DownloadColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        # The copy of the database is read twice: once into the copy, once out of it.
        task = bar.add_task("backup", total=None if total is None else 2 * total)
        yield lambda count: bar.advance(task, count)


_LEAST = 16
_KEEP = (
    "put the folder into the safe, a copy elsewhere, and nothing of it on this machine; "
    "give nodes restore.pub as restore_key in /etc/appliance/node.json"
)
