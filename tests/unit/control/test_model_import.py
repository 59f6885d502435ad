"""A model comes in whole, as what it is said to be, or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from control_cast import manifest_for
from django.conf import settings
from gguf_forge import METADATA, TEMPLATE, gguf, shards

from appliance.cli import main
from appliance.core.errors import ApplianceError, PinError, RefusedError, UsageError
from control.pins.imports import Said, find_files, import_model, node_runtime
from control.pins.models import ModelPin, PinState
from control.pins.services import model_files, verify_pin
from control.pins.store import ModelFiles

pytestmark = pytest.mark.django_db

SAID = Said(name="tiny", version="1.0")


def stored() -> set[str]:
    return {entry.name for entry in settings.PATHS.models.iterdir()}


@pytest.fixture(autouse=True)
def empty_store() -> None:
    for entry in settings.PATHS.models.iterdir():
        entry.unlink()


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.gguf"
    path.write_bytes(gguf())
    return path


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_a_file_and_its_digest_make_a_pin_of_what_the_file_says(weights: Path) -> None:
    pin = import_model(weights, SAID, sha256=sha256(gguf()))
    manifest = pin.parsed_manifest()
    assert pin.state == PinState.IMPORTED
    assert pin.pin_id == manifest.pin_id
    assert manifest.files[0].sha256 == sha256(gguf())
    assert (manifest.chat_template, manifest.licence) == (TEMPLATE, "apache-2.0")
    assert manifest.stop == ("<|end|>", "</s>")
    assert manifest.launch.context_tokens == 2048
    assert manifest.runtime.llama_cpp_python == node_runtime()
    path = model_files().path(manifest.files[0].sha256)
    assert path.read_bytes() == gguf()
    assert stat.S_IMODE(path.stat().st_mode) == 0o440
    assert stored() == {manifest.files[0].sha256}


def test_what_the_operator_says_goes_before_what_the_file_says(weights: Path) -> None:
    said = Said(
        name="other",
        version="2.1",
        licence="MIT",
        source="https://models.example/tiny",
        commit="a" * 40,
        template="{{ messages[-1].content }}",
        stop=("stop",),
        context_tokens=512,
        max_sessions=2,
        batch_tokens=64,
        runtime="0.9.1",
    )
    manifest = import_model(weights, said).parsed_manifest()
    assert (manifest.name, manifest.version, manifest.licence) == ("other", "2.1", "MIT")
    assert manifest.source == f"https://models.example/tiny@{'a' * 40}"
    assert (manifest.chat_template, manifest.stop) == ("{{ messages[-1].content }}", ("stop",))
    assert manifest.launch.model_dump() == {"batch_tokens": 64, "context_tokens": 512, "max_sessions": 2}
    assert manifest.runtime.llama_cpp_python == "0.9.1"


def test_everything_in_the_set_is_in_the_pin(weights: Path) -> None:
    """The promise of a pin: two that differ in anything have different ids."""
    changes: list[dict[str, Any]] = [
        {},
        {"licence": "MIT"},
        {"source": "elsewhere"},
        {"commit": "b" * 40},
        {"template": "{{ messages[-1].content }}"},
        {"stop": ("x",)},
        {"max_sessions": 3},
        {"runtime": "0.9.1"},
    ]
    said = [Said(name="tiny", version=f"1.{number}", **change) for number, change in enumerate(changes)]
    same = [
        import_model(weights, one).parsed_manifest().model_copy(update={"version": "1.0"}) for one in said
    ]
    assert len({manifest.pin_id for manifest in same}) == len(changes)


def test_another_file_than_the_one_named_is_refused_and_not_kept(weights: Path) -> None:
    with pytest.raises(PinError) as refused:
        import_model(weights, SAID, sha256="0" * 64)
    assert refused.value.field == "sha256"
    assert not ModelPin.objects.exists()
    assert stored() == set()


def test_a_folder_with_all_shards_is_one_model(tmp_path: Path) -> None:
    names = [f"big-{number:05}-of-00003.gguf" for number in (1, 2, 3)]
    for name, content in zip(names, shards(3), strict=True):
        (tmp_path / name).write_bytes(content)
    (tmp_path / "README.md").write_text("a card")
    for path in (tmp_path, tmp_path / names[1]):
        assert [found.name for found in find_files(path)] == names
    pin = import_model(tmp_path, SAID)
    assert [file.path for file in pin.parsed_manifest().files] == names
    verify_pin(pin)
    assert pin.facts["tensors"] == 3
    with pytest.raises(UsageError, match="digest is of one file"):
        import_model(tmp_path, SAID, sha256="0" * 64)
    (tmp_path / names[2]).unlink()
    with pytest.raises(UsageError, match="missing"):
        import_model(tmp_path, SAID)


def test_shards_in_the_wrong_order_are_not_a_model(tmp_path: Path) -> None:
    first, second, third = shards(3)
    for number, content in enumerate((first, third, second), 1):
        (tmp_path / f"big-{number:05}-of-00003.gguf").write_bytes(content)
    with pytest.raises(PinError):
        import_model(tmp_path, SAID)
    assert stored() == set()


@pytest.mark.parametrize(
    "names", [(), ("a.gguf", "b.gguf"), ("a-00001-of-00002.gguf", "b.gguf"), ("readme.md",)]
)
def test_a_folder_that_does_not_hold_one_model_is_refused(tmp_path: Path, names: tuple[str, ...]) -> None:
    for name in names:
        (tmp_path / name).write_bytes(gguf())
    with pytest.raises(UsageError):
        import_model(tmp_path, SAID)


@pytest.mark.parametrize("path", ["/dev/zero", "/missing.gguf", "/etc"])
def test_what_is_no_file_is_refused(path: str) -> None:
    with pytest.raises(UsageError):
        import_model(Path(path), SAID)


def test_a_fifo_does_not_hang_the_command(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "tiny.gguf")
    with pytest.raises(UsageError, match="no file"):
        import_model(tmp_path / "tiny.gguf", SAID)


def test_a_manifest_says_what_the_file_must_be(weights: Path) -> None:
    pin = import_model(weights, manifest_for(gguf()))
    assert pin.parsed_manifest() == manifest_for(gguf())
    with pytest.raises(PinError):
        import_model(weights, manifest_for(gguf(salt=b"x"), version="2.0"))
    assert stored() == {sha256(gguf())}


def test_a_file_that_says_too_little_needs_it_said(tmp_path: Path) -> None:
    bare = {key: value for key, value in METADATA.items() if "template" not in key and "license" not in key}
    path = tmp_path / "bare.gguf"
    path.write_bytes(gguf(bare))
    with pytest.raises(UsageError) as refused:
        import_model(path, SAID)
    assert "--licence" in str(refused.value.hint)
    with pytest.raises(UsageError, match="no template"):
        import_model(path, Said(name="tiny", version="1.0", licence="MIT"))
    assert import_model(path, Said(name="tiny", version="1.0", licence="MIT", template="{{ messages }}"))


def test_a_hostile_file_is_refused_and_not_kept(tmp_path: Path) -> None:
    path = tmp_path / "hostile.gguf"
    path.write_bytes(gguf(counts=(2**63, 1)))
    with pytest.raises(PinError):
        import_model(path, SAID)
    assert stored() == set()


def test_the_same_model_again_is_the_same_pin_and_mends_the_store(weights: Path) -> None:
    pin = import_model(weights, SAID)
    digest = pin.parsed_manifest().files[0].sha256
    model_files().remove([digest])
    assert import_model(weights, SAID).pk == pin.pk
    assert stored() == {digest}


def test_a_version_is_one_model_for_good(weights: Path) -> None:
    pin = import_model(weights, SAID)
    weights.write_bytes(gguf(salt=b"changed"))
    with pytest.raises(RefusedError) as refused:
        import_model(weights, SAID)
    assert refused.value.field == "version"
    # The model that is there keeps its files.
    assert stored() == {pin.parsed_manifest().files[0].sha256}


def test_a_refused_import_leaves_the_files_of_another_model(weights: Path) -> None:
    import_model(weights, SAID)
    with pytest.raises(PinError):
        import_model(weights, Said(name="other", version="1.0", template="{% for %}"))
    assert stored() == {sha256(gguf())}


def test_what_an_import_that_was_cut_off_left_is_removed_after_a_day(weights: Path) -> None:
    fresh, old = (settings.PATHS.models / f".incoming-{name}" for name in ("fresh", "old"))
    for path in (fresh, old):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    import_model(weights, SAID)
    assert fresh.exists()
    assert not old.exists()


def test_a_full_disk_is_said_before_anything_is_copied(
    weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    usage = shutil.disk_usage("/")._replace(free=10)
    monkeypatch.setattr(shutil, "disk_usage", lambda _folder: usage)
    with pytest.raises(ApplianceError, match="no room"):
        import_model(weights, SAID)
    assert stored() == set()


def test_a_signature_beside_the_file_comes_with_it(weights: Path) -> None:
    weights.with_name("model.sig").write_text("a signature")
    assert import_model(weights, SAID).signature == "a signature"
    weights.with_name("model.sig").write_bytes(bytes([255]) * 10)
    with pytest.raises(UsageError, match="no signature"):
        import_model(weights, Said(name="other", version="1.0"))


def test_progress_is_told_to_the_last_byte(weights: Path) -> None:
    told: list[tuple[str, int, int]] = []
    import_model(weights, SAID, progress=lambda *step: told.append(step))
    assert told[-1] == ("tiny.gguf", len(gguf()), len(gguf()))


def test_on_the_command_line_a_file_needs_a_digest_or_a_manifest(
    weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["control", "model", "import", str(weights), "--name", "tiny", "--version", "1.0", "--json"]
    assert main(command) == 2
    assert "--sha256" in json.loads(capsys.readouterr().out)["error"]["hint"]
    assert main([*command, "--sha256", sha256(gguf())]) == 0
    assert main([*command, "--manifest", "m.json"]) == 2


def test_a_store_that_is_not_there_is_said(tmp_path: Path, weights: Path) -> None:
    with pytest.raises(ApplianceError, match="cannot write"):
        ModelFiles(tmp_path / "missing").add(weights)
