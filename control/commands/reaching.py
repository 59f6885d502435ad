"""For commands that ask nodes themselves: whom to leave out, and nobody is left out unsaid."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from appliance.core.errors import RefusedError, UnavailableError

if TYPE_CHECKING:
    from control.backup.logs import FrozenLog, Place
    from provisioning.node import NodeClient

T = TypeVar("T")


def add_without(parser: argparse.ArgumentParser) -> None:
    """Declare `--without`."""
    parser.add_argument(
        "--without",
        action="append",
        default=[],
        metavar="NAME",
        help="a node or witness that cannot be asked any more; what it knows is lost",
    )


@contextmanager
def reached_nodes(without: list[str]) -> Iterator[Mapping[str, NodeClient]]:
    """Yield a client of each node but those left out.

    Raises:
        HostError: If control's SSH key cannot be read.
    """
    from django.conf import settings

    from control.fleet.models import Node
    from control.keyfiles import load_key
    from control.reconciler import reach
    from provisioning.node import NodeClient

    key_file = settings.PATHS.keys / "ssh.key"
    load_key(key_file)
    with ExitStack() as stack:
        nodes = Node.objects.exclude(name__in=without)
        yield {
            node.name: stack.enter_context(NodeClient(reach.connect_by_ssh(node, key_file))) for node in nodes
        }


def ask_all(nodes: Mapping[str, NodeClient], ask: Callable[[NodeClient], T]) -> dict[str, T]:
    """Ask every node.

    Raises:
        RefusedError: Naming those that do not answer.
    """
    answers, silent = {}, []
    for name, client in nodes.items():
        try:
            answers[name] = ask(client)
        except UnavailableError:
            silent.append(name)
    if silent:
        raise RefusedError(
            f"no answer from {', '.join(silent)}",
            field="nodes",
            hint=f"try again, or leave out for good: --without {silent[0]}",
        )
    return answers


@contextmanager
def reached_places(args: argparse.Namespace) -> Iterator[list[Place]]:
    """Yield everywhere the log is published: nodes, and copies of its folder that were named."""
    from appliance.transparency.tiles import CHECKPOINT, load_tile
    from control.backup.logs import Place

    copies = [Place(str(folder), partial(load_tile, folder)) for folder in args.log]
    with reached_nodes(args.without) as nodes:
        ask_all(nodes, lambda client: client.published(CHECKPOINT))
        yield [*(Place(name, client.published) for name, client in nodes.items()), *copies]


def frozen_log() -> FrozenLog:
    """Return the log of a control that was restored and has not gone on yet.

    Raises:
        RefusedError: If control was not restored, or its log goes on already.
    """
    from django.conf import settings

    from control.backup.logs import FrozenLog
    from control.backup.models import LogRelease
    from control.backup.restored import read_restored
    from control.keyfiles import read_log_signer

    restored = read_restored(settings.PATHS)
    if restored is None or LogRelease.objects.filter(backup=restored.backup).exists():
        raise RefusedError(
            "the log is not frozen", field="log", hint="only after a restore there is something to do"
        )
    return FrozenLog(settings.PATHS.log, read_log_signer(settings.PATHS), restored)
