"""The verbs of pins."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from typing import Annotated

from django.db import IntegrityError, transaction
from pydantic import StringConstraints

from appliance.core.errors import PinError, RefusedError
from appliance.core.pin import Manifest, PinnedFile, verify_open_file
from appliance.core.schema import Closed
from control.hints import hint_on_commit
from control.journal.services import record
from control.journal.vocabulary import Verb
from control.pins.models import ModelPin, PinState


class NewPin(Closed):
    """A model to pin.

    Attributes:
        manifest: What exactly it is.
        file: Path of its first file on the management machine.
        replace: Retire the active pin of the same name in the same change; clients then get the new one.
    """

    manifest: Manifest
    file: Annotated[str, StringConstraints(pattern=r"^/[^\x00]*$", max_length=255)]
    replace: bool = False


def add_pin(new: NewPin) -> ModelPin:
    """Import a model: verify every file against the manifest, then pin it.

    Raises:
        PinError: Naming the file that is not what the manifest says.
        RefusedError: If the name is pinned already, or this version was pinned before.
    """
    verify_files(new.manifest, Path(new.file))
    with transaction.atomic():
        if ModelPin.objects.filter(name=new.manifest.name, version=new.manifest.version).exists():
            raise RefusedError("this version of the model was pinned before", field="manifest.version")
        active = ModelPin.objects.filter(name=new.manifest.name, state=PinState.ACTIVE)
        replaced = active.first()
        if replaced and not new.replace:
            raise RefusedError("the name is pinned", field="manifest.name", hint="say --replace to change it")
        active.update(state=PinState.RETIRED)
        try:
            pin = ModelPin.objects.create(
                name=new.manifest.name,
                version=new.manifest.version,
                pin_id=new.manifest.pin_id,
                manifest=new.manifest.model_dump(mode="json"),
                location=new.file,
            )
        except IntegrityError as error:
            raise RefusedError("the name was pinned a moment ago", field="manifest.name") from error
        hint_on_commit()
        versions = (replaced.version if replaced else None, pin.version)
        record(
            Verb.PIN_ADD,
            f"{pin.name}/{pin.version}",
            {"active_version": versions, "pin_id": (None, pin.pin_id)},
        )
    return pin


def pinned_paths(manifest: Manifest, first: Path) -> Iterator[tuple[PinnedFile, Path]]:
    """Return each file of a model with its path on this machine."""
    for index, pinned in enumerate(manifest.files):
        yield pinned, first if index == 0 else first.parent / pinned.path


def verify_files(manifest: Manifest, first: Path) -> None:
    """Check every file of a model; return None or raise.

    Raises:
        PinError: Naming the file in the manifest.
    """
    for index, (pinned, path) in enumerate(pinned_paths(manifest, first)):
        field = f"manifest.files.{index}"
        with _open_regular(path, field) as file:
            verify_open_file(file, pinned, field)


def _open_regular(path: Path, field: str) -> BufferedReader:
    try:
        # O_NONBLOCK: a FIFO named here must not hang the process; O_NOFOLLOW: a link is not the file.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise PinError("the file cannot be opened on this machine", field=field) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise PinError("not a regular file", field=field)
    return os.fdopen(descriptor, "rb")
