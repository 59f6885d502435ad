"""Brings a model in: its files into the store, and what it exactly is into a manifest."""

from __future__ import annotations

import re
from contextlib import ExitStack
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import StringConstraints

from appliance.core.errors import PinError, UsageError
from appliance.core.names import Name, Version
from appliance.core.pin import Launch, Manifest, PinnedFile
from appliance.core.schema import Closed
from control.pins.facts import Facts
from control.pins.models import ModelPin
from control.pins.sandbox import examine
from control.pins.services import add_pin, model_files
from control.pins.signature import MAX_BYTES
from control.pins.store import ModelFiles, Progress, open_source, quiet

SIGNATURE_NAME: Final = "model.sig"  # what the reference calls it
_SHARD: Final = re.compile(r"(?P<stem>.+)-(?P<number>[0-9]{5})-of-(?P<count>[0-9]{5})\.gguf")
_NO_DEFAULT: Final = "say it: --{}"


class Said(Closed):
    """What the operator says of a model that has no manifest.

    Attributes:
        name, version: Its pin's.
        licence, source: SPDX expression, and where it came from; null: what the file says, and nothing.
        commit: Of the source's repository, which is what makes a source exact; a branch or a tag can be moved.
        template: Jinja; null: the one in the file.
        stop: Texts that end a turn; null: those of the file's tokens that do.
        context_tokens, max_sessions, batch_tokens: As `Launch`; null: its defaults, the context not beyond the model's own.
        runtime: Version of llama-cpp-python; null: the one that nodes of this version have.
    """

    name: Name
    version: Version
    licence: Annotated[str, StringConstraints(min_length=1, max_length=128)] | None = None
    source: Annotated[str, StringConstraints(max_length=460)] = ""
    commit: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{40}([0-9a-f]{24})?$")] | None = None
    template: Annotated[str, StringConstraints(min_length=1, max_length=65_536)] | None = None
    stop: tuple[str, ...] | None = None
    context_tokens: int | None = None
    max_sessions: int | None = None
    batch_tokens: int | None = None
    runtime: Version | None = None


def import_model(
    path: Path,
    described: Manifest | Said,
    *,
    sha256: str | None = None,
    signature: Path | None = None,
    progress: Progress = quiet,
) -> ModelPin:
    """Import a model.

    Args:
        path: A GGUF file, one shard of several, or a folder that holds one model.
        described: Its manifest, whose digests the files must have, or what is needed to make one.
        sha256: Digest that the one file must have.
        signature: Its OpenSSF signature; None: `model.sig` beside the files, if there is one.
        progress: Told about every file as it is copied.

    Raises:
        UsageError: If the path is none of these, or something is missing that the file does not say.
        PinError: If the bytes are not those that were named, or the files do not parse.
        RefusedError: As `add_pin`.
    """
    sources = find_files(path)
    if sha256 is not None and len(sources) > 1:
        raise UsageError(
            "a digest is of one file, and this model has several", hint="give its manifest: --manifest"
        )
    signed = _read_signature(signature, sources[0].parent)
    files = model_files()
    files.clean()
    pinned = tuple(files.add(source, progress) for source in sources)
    try:
        if sha256 is not None and pinned[0].sha256 != sha256:
            raise PinError("the file's bytes are not the ones that were named", field="sha256")
        manifest = _manifest(described, pinned, files)
        return add_pin(manifest, signed)
    except Exception:
        _forget(files, pinned)
        raise


def find_files(path: Path) -> tuple[Path, ...]:
    """Return a model's GGUF files, all of its shards in their order.

    Raises:
        UsageError: If there is none, more than one model, or a shard is missing.
    """
    if path.is_dir():
        found = sorted(entry for entry in path.iterdir() if entry.name.endswith(".gguf"))
        if not found:
            raise UsageError(f"{path} holds no .gguf file")
        shards = _shards(found[0])
        if not set(found) <= set(shards):
            raise UsageError(f"{path} holds more than one model", hint="name the file, or its first shard")
        path = found[0]
    shards = _shards(path)
    missing = next((shard for shard in shards if not shard.exists()), None)
    if missing is not None:
        raise UsageError(f"{missing} is missing", hint="all shards lie in one folder")
    return shards


def _shards(path: Path) -> tuple[Path, ...]:
    matched = _SHARD.fullmatch(path.name)
    if matched is None:
        return (path,)
    count = int(matched["count"])
    if not 1 <= count <= 64:
        raise UsageError("a model has 1 to 64 shards")
    return tuple(
        path.with_name(f"{matched['stem']}-{number:05}-of-{count:05}.gguf") for number in range(1, count + 1)
    )


def _manifest(described: Manifest | Said, pinned: tuple[PinnedFile, ...], files: ModelFiles) -> Manifest:
    if isinstance(described, Manifest):
        _verify_described(described, pinned)
        return described
    with ExitStack() as stack:
        opened = [
            stack.enter_context(files.open(file, f"files.{index}")) for index, file in enumerate(pinned)
        ]
        facts = examine(opened, described.template)
    return render_manifest(described, pinned, facts)


def _verify_described(manifest: Manifest, pinned: tuple[PinnedFile, ...]) -> None:
    # A manifest's names are for people: the bytes count, in their order.
    for index, wanted in enumerate(manifest.files):
        if index >= len(pinned) or wanted.sha256 != pinned[index].sha256:
            raise PinError("the file's bytes are not the pinned ones", field=f"files.{index}.sha256")
    if len(pinned) != len(manifest.files):
        raise PinError("the manifest names fewer files than there are", field="files")


def render_manifest(said: Said, files: tuple[PinnedFile, ...], facts: Facts) -> Manifest:
    """Return the manifest of a model from what the operator and its file say. Pure, but for the default of the runtime.

    Raises:
        UsageError: If neither says something that a manifest needs.
    """
    licence = said.licence or facts.licence
    template = said.template or facts.template
    for value, option in ((licence, "licence"), (template, "template")):
        if not value:
            raise UsageError(f"the file says no {option}", hint=_NO_DEFAULT.format(option))
    context = said.context_tokens or min(Launch().context_tokens, facts.context_tokens or 2**20)
    launch: dict[str, Any] = {
        "context_tokens": context,
        "max_sessions": said.max_sessions,
        "batch_tokens": said.batch_tokens,
    }
    return Manifest.parse(
        {
            "name": said.name,
            "version": said.version,
            "files": [file.model_dump(mode="json") for file in files],
            "chat_template": template,
            "stop": list(facts.end if said.stop is None else said.stop),
            "launch": {key: value for key, value in launch.items() if value is not None},
            "runtime": {"llama_cpp_python": said.runtime or node_runtime()},
            "licence": licence,
            "source": f"{said.source}@{said.commit}" if said.commit else said.source,
        }
    )


def node_runtime() -> str:
    """Return the version of llama-cpp-python that nodes of this version of the product have.

    Raises:
        UsageError: If this installation does not say.
    """
    try:
        needs = requires("sovereign-appliance") or []
    except PackageNotFoundError:
        needs = []
    found = next((re.match(r"llama-cpp-python==([0-9.]+)", need) for need in needs if "llama" in need), None)
    if found is None:
        raise UsageError("this installation does not say what nodes run", hint=_NO_DEFAULT.format("runtime"))
    return found[1]


def _read_signature(named: Path | None, folder: Path) -> str:
    path = named or folder / SIGNATURE_NAME
    if named is None and not path.exists():
        return ""
    with open_source(path) as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise UsageError(f"{path} is too large for a signature")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is no signature") from error


def _forget(files: ModelFiles, pinned: tuple[PinnedFile, ...]) -> None:
    """Remove the files of an import that was refused, unless another model has them."""
    kept = ModelPin.objects.values_list("manifest", flat=True)
    used = {file["sha256"] for manifest in kept for file in manifest["files"]}
    files.remove({file.sha256 for file in pinned} - used)
