"""The verbs of models. What a change means for a node is a committed change plus a hint; the reconciler carries it there."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import QuerySet
from django.utils import timezone

from appliance.core.errors import PinError, RefusedError, UsageError
from appliance.core.pin import Manifest
from control.clients.models import Client, ClientState
from control.hints import hint_on_commit
from control.journal.services import record
from control.journal.vocabulary import Verb
from control.pins.models import ModelPin, PinState
from control.pins.sandbox import examine
from control.pins.signature import Signer, read_signer, signer_id, verify_signature
from control.pins.store import ModelFiles, Progress, quiet, verify_bytes


def model_files() -> ModelFiles:
    """Return control's store."""
    return ModelFiles(settings.PATHS.models)


def add_pin(manifest: Manifest, signature: str = "") -> ModelPin:
    """Note a model whose files are in the store. The same manifest again is the same pin, whose signature may be a newer one.

    Raises:
        RefusedError: If this version was imported with other content, or this model was retired.
    """
    with transaction.atomic():
        before = ModelPin.objects.filter(name=manifest.name, version=manifest.version).first()
        if before is not None:
            return _add_again(before, manifest, signature)
        try:
            pin = ModelPin.objects.create(
                name=manifest.name,
                version=manifest.version,
                pin_id=manifest.pin_id,
                manifest=manifest.model_dump(mode="json"),
                signature=signature,
            )
        except IntegrityError as error:
            raise RefusedError("this version was imported a moment ago", field="version") from error
        record(Verb.PIN_ADD, _event_name(pin), {"pin_id": (None, pin.pin_id), "state": (None, pin.state)})
    return pin


def _add_again(pin: ModelPin, manifest: Manifest, signature: str) -> ModelPin:
    if pin.pin_id != manifest.pin_id:
        raise RefusedError(
            "this version was imported before, and was another model",
            field="version",
            hint="name another: --version",
        )
    if pin.state == PinState.RETIRED:
        raise RefusedError(
            "this model was retired, which is for good", field="version", hint="name another: --version"
        )
    before = _facts(pin)
    if signature and signature != pin.signature:
        pin.signature, pin.signer = signature, ""
        if pin.state == PinState.VERIFIED:
            pin.state = PinState.IMPORTED  # nobody looked at this signature yet
        pin.save(update_fields=["signature", "signer", "state"])
    record(Verb.PIN_ADD, _event_name(pin), _changes(before, pin))
    return pin


def find_pin(name: str, version: str) -> ModelPin:
    """Return the model of this name and version.

    Raises:
        RefusedError: If there is none.
    """
    pin = ModelPin.objects.filter(name=name, version=version).first()
    if pin is None:
        raise RefusedError(
            "there is no such model", field="name", hint="list them: appliance control model list"
        )
    return pin


def trusted_signers(named: Sequence[bytes] = ()) -> tuple[Signer, ...]:
    """Return who may sign models: those of control.json, or else those named now.

    Args:
        named: PEM texts.

    Raises:
        UsageError: If control.json says who, and others are named; or one is no signer's file.
    """
    paths = settings.CONFIG.model_signers
    if paths and named:
        raise UsageError("control.json says who may sign models", hint="add to `model_signers` there")
    try:
        texts = [Path(path).read_bytes() for path in paths]
    except OSError as error:
        raise UsageError(
            "a file of `model_signers` in control.json cannot be read", hint="mend the path, or its mode"
        ) from error
    return tuple(read_signer(pem) for pem in (*texts, *named))


def verify_pin(pin: ModelPin, signers: Sequence[Signer] = (), progress: Progress = quiet) -> None:
    """Look at a model: bytes, GGUF, template, signature. What was verified before is looked at again.

    1. every file of the store has the pinned bytes
    2. each GGUF parses, and the template renders, in a process that is thrown away
    3. the signature, where there is one, is by one of `signers`; where control.json names signers there must be one

    Raises:
        PinError: Naming what is at fault; the model's state is as it was.
        RefusedError: If it was retired.
    """
    if pin.state == PinState.RETIRED:
        raise RefusedError("the model was retired, which is for good", field="state")
    manifest = pin.parsed_manifest()
    files = model_files()
    with ExitStack() as stack:
        opened = []
        for index, pinned in enumerate(manifest.files):
            file = stack.enter_context(files.open(pinned, f"files.{index}"))
            verify_bytes(file, pinned, f"files.{index}", progress)
            if pinned.path.endswith(".gguf"):
                opened.append(file)
        if not opened or not manifest.files[0].path.endswith(".gguf"):
            raise PinError("the first file is no .gguf", field="files.0")
        facts = examine(opened, manifest.chat_template, with_tools=manifest.tool_calls is not None)
    signer = _verified_signer(pin, manifest, signers)
    with transaction.atomic():
        before = _facts(ModelPin.objects.select_for_update().get(pk=pin.pk))
        ModelPin.objects.filter(pk=pin.pk, state=PinState.IMPORTED).update(state=PinState.VERIFIED)
        ModelPin.objects.filter(pk=pin.pk).update(
            facts=facts.model_dump(mode="json", exclude={"template"}),
            signer=signer,
            verified_at=timezone.now(),
        )
        pin.refresh_from_db()
        record(Verb.PIN_VERIFY, _event_name(pin), _changes(before, pin))


def _verified_signer(pin: ModelPin, manifest: Manifest, signers: Sequence[Signer]) -> str:
    if pin.signature:
        return verify_signature(pin.signature, manifest, signers)
    _verify_signer("")
    return ""


def _verify_signer(signer: str) -> None:
    """Check that a signer is one of those that control.json asks for, if it asks for any; return None or raise."""
    if settings.CONFIG.model_signers and signer not in map(signer_id, trusted_signers()):
        raise PinError(
            "the model is not signed by one of those that control.json names",
            field="signature",
            hint="import it with its model.sig, then verify it",
        )


def activate_pin(pin: ModelPin) -> ModelPin:
    """Serve a verified model under its name from now on, and return it; the one before it goes back to `verified`.

    Doing it twice does no harm.

    Raises:
        RefusedError: If it is not verified, or a cell could not load it.
        PinError: If control.json asks for a signature that it does not have.
    """
    return _activate(pin, Verb.PIN_ACTIVATE)


def _activate(pin: ModelPin, verb: Verb) -> ModelPin:
    with transaction.atomic():
        pin = ModelPin.objects.select_for_update().get(pk=pin.pk)
        active = ModelPin.objects.filter(name=pin.name, state=PinState.ACTIVE)
        before, versions = _facts(pin), list(active.values_list("version", flat=True))
        if pin.state != PinState.ACTIVE:
            _verify_may_serve(pin)
            active.update(state=PinState.VERIFIED)
            _set_active(pin)
            hint_on_commit()
        served = {"active_version": (versions[0] if versions else None, pin.version)}
        record(verb, _event_name(pin), {**served, **_changes(before, pin)})
    return pin


def previous_pin(name: str) -> ModelPin | None:
    """Return what `rollback` goes back to; None if no other model of this name was active before."""
    return _active_before(name).first()


def _active_before(name: str) -> QuerySet[ModelPin]:
    before = ModelPin.objects.filter(name=name, state=PinState.VERIFIED, activated_at__isnull=False)
    return before.order_by("-activated_at")


def rollback(name: str) -> ModelPin:
    """Serve the model again that was active under this name before the one that is now; return it.

    Raises:
        RefusedError: If there is none to go back to.
    """
    with transaction.atomic():
        before = _active_before(name).select_for_update().first()
        if before is None:
            raise RefusedError(
                "no other model of this name was active before",
                field="name",
                hint="list them: appliance control model list",
            )
        return _activate(before, Verb.PIN_ROLLBACK)


def retire_pin(pin: ModelPin) -> ModelPin:
    """Give a model up for good, and return it; files that no other model has are removed from this machine.

    Doing it twice does no harm.

    Raises:
        RefusedError: If it is active and a client may use it.
    """
    with transaction.atomic():
        pin = ModelPin.objects.select_for_update().get(pk=pin.pk)
        before = _facts(pin)
        if pin.state == PinState.ACTIVE:
            _verify_unused(pin.name)
        if pin.state != PinState.RETIRED:
            pin.state, pin.retired_at = PinState.RETIRED, timezone.now()
            pin.save(update_fields=["state", "retired_at"])
        kept = ModelPin.objects.exclude(state=PinState.RETIRED).values_list("manifest", flat=True)
        used = {file["sha256"] for manifest in kept for file in manifest["files"]}
        free = {file.sha256 for file in pin.parsed_manifest().files} - used
        transaction.on_commit(lambda: model_files().remove(free))
        hint_on_commit()
        record(Verb.PIN_RETIRE, _event_name(pin), _changes(before, pin))
    return pin


def _verify_may_serve(pin: ModelPin) -> None:
    if pin.state != PinState.VERIFIED:
        raise RefusedError(
            f"the model is {pin.state}, not verified",
            field="state",
            hint=f"appliance control model verify {pin.name} {pin.version}",
        )
    _verify_signer(pin.signer)
    if sum(file["path"].endswith(".gguf") for file in pin.manifest["files"]) > 1:
        raise RefusedError(
            "a cell of this version loads one file, and this model has more",
            field="files",
            hint="join its shards with `llama-gguf-split --merge`, and import the result",
        )


def _verify_unused(name: str) -> None:
    clients = Client.objects.exclude(state=ClientState.REVOKED).values_list("name", "allowed_models")
    using = next((client for client, models in clients if name in models), None)
    if using is not None:
        raise RefusedError(
            f"the client {using} may use it",
            field="state",
            hint="activate another model of this name first, or revoke the client",
        )


def _set_active(pin: ModelPin) -> None:
    pin.state, pin.activated_at = PinState.ACTIVE, timezone.now()
    try:
        pin.save(update_fields=["state", "activated_at"])
    except IntegrityError as error:
        raise RefusedError("another model of this name was activated a moment ago", field="name") from error


def _event_name(pin: ModelPin) -> str:
    return f"{pin.name}/{pin.version}"


def _facts(pin: ModelPin) -> dict[str, str | None]:
    """Return what the journal keeps of a model's way."""
    return {"signer": pin.signer or None, "state": pin.state}


def _changes(before: dict[str, str | None], pin: ModelPin) -> dict[str, tuple[str | None, str | None]]:
    after = _facts(pin)
    return {fact: (value, after[fact]) for fact, value in before.items()}
