"""Numbers bundles: a new generation exactly when the content is new, and the same bytes again otherwise."""

from __future__ import annotations

from typing import Final, NoReturn

from django.db import transaction
from django.utils import timezone

from appliance.core.bundle import Accepted, Bundle
from appliance.core.errors import RefusedError
from control.audit.models import AlarmKind
from control.audit.services import raise_alarm
from control.fleet.models import BundleRecord, Node, current_epoch
from control.journal.actors import acting, process_actor
from control.journal.event import Source
from control.journal.services import created, record
from control.journal.vocabulary import Verb
from control.reconciler.outline import describe_changes, outline_of
from control.reconciler.render import Rows, number_content, render_content
from provisioning.answers import State

KEPT: Final = 100  # of a node's bundles that it has gone beyond, the newest


def number_bundle(node: Node, rows: Rows) -> Bundle:
    """Return the bundle of these rows under its number, which is on record before the bundle is sent."""
    rendered = render_content(rows)
    content = rendered.digest
    with transaction.atomic():
        epoch = current_epoch()
        last = BundleRecord.objects.filter(node=node).order_by("epoch", "generation").last()
        if last is not None and (last.epoch, last.content) == (epoch, content):
            return number_content(
                rendered, epoch=epoch, generation=last.generation, previous=last.previous or None
            )
        generation = last.generation + 1 if last is not None and last.epoch == epoch else 1
        previous = last.digest if last is not None else None
        bundle = number_content(rendered, epoch=epoch, generation=generation, previous=previous)
        outline = outline_of(bundle)
        if last is not None:
            BundleRecord.objects.filter(pk=last.pk).update(outline={})
        BundleRecord.objects.create(
            node=node,
            epoch=epoch,
            generation=generation,
            previous=previous or "",
            digest=bundle.digest,
            content=content,
            outline=outline,
            changes=describe_changes(last.outline if last is not None else {}, outline),
        )
        _forget_old(node)
    return bundle


def _forget_old(node: Node) -> None:
    """Delete what is beyond `KEPT`, but nothing from the last accepted one on: the node may show any of those."""
    records = BundleRecord.objects.filter(node=node)
    accepted = records.filter(accepted_at__isnull=False).order_by("pk").last()
    if accepted is not None:
        newest = records.order_by("-pk").values_list("pk", flat=True)[:KEPT]
        records.filter(pk__lt=min(accepted.pk, *newest)).delete()


def verify_not_ahead(node: Node, state: State) -> None:
    """Check that the node accepted nothing this control has no record of; return None or raise.

    After control was restored from an old backup a node is ahead of it. Sending what control remembers would be
    refused generation after generation; guessing a higher number would hide what happened.

    Raises:
        RefusedError: If the node is ahead; an alarm is raised too.
    """
    accepted = state.accepted
    if state.epoch > current_epoch():
        _refuse_ahead(node, str(state.epoch))
    if accepted is None:
        return
    records = BundleRecord.objects.filter(node=node, epoch=accepted.epoch)
    known = records.filter(generation=accepted.generation, digest=accepted.digest).exists()
    forgotten = records.exists() and not records.filter(generation__lte=accepted.generation).exists()
    if not known and not forgotten and accepted.epoch >= current_epoch():
        _refuse_ahead(node, f"{accepted.epoch}.{accepted.generation}")


def _refuse_ahead(node: Node, subject: str) -> NoReturn:
    raise_alarm(node, AlarmKind.NODE_AHEAD, subject)
    raise RefusedError(
        "the node accepted a bundle that this control has no record of",
        field="accepted",
        hint="was control restored from a backup? appliance control epoch raise",
    )


def record_accepted(node: Node, accepted: Accepted) -> None:
    """Note when a node accepted a bundle for the first time."""
    numbers = {"epoch": accepted.epoch, "generation": accepted.generation, "digest": accepted.digest}
    waiting = BundleRecord.objects.filter(node=node, accepted_at=None, **numbers)
    if not waiting.exists():  # nearly every pass: nothing to write
        return
    with acting(Source.RECONCILER, process_actor("reconciler")), transaction.atomic():
        if waiting.update(accepted_at=timezone.now()):
            record(Verb.BUNDLE_SHIPPED, node.name, created(**numbers))
