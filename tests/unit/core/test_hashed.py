"""A note that a file was hashed holds for that file as it was, in that boot, and for nothing else."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from appliance.core import hashed
from appliance.core.errors import PinError
from appliance.core.hashed import file_identity, is_hashed, note_hashed, read_boot_id, verify_weights
from appliance.core.pin import PinnedFile

CONTENT = b"weights " * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
PIN = PinnedFile(path="tiny.gguf", size=len(CONTENT), sha256=SHA256)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A file that was hashed in this boot."""
    path = tmp_path / SHA256
    path.write_bytes(CONTENT)
    with path.open("rb") as file:
        note_hashed(file_identity(file.fileno(), read_boot_id()), tmp_path, SHA256)
    time.sleep(0.02)  # ctime moves in steps of the kernel's clock
    return path


def holds(path: Path) -> bool:
    with path.open("rb") as file:
        return is_hashed(file.fileno(), path.parent, SHA256, read_boot_id())


def verify(path: Path) -> None:
    with path.open("rb") as file:
        verify_weights(file, PIN, path.parent, "files.0")


def test_a_file_that_was_hashed_is_not_hashed_again(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert holds(weights)

    def refuse(*_arguments: object) -> None:
        raise AssertionError("it was hashed")

    monkeypatch.setattr(hashed, "verify_open_file", refuse)
    verify(weights)
    os.utime(weights)  # positive control: now it must be
    with pytest.raises(AssertionError):
        verify(weights)


def overwrite(path: Path) -> None:
    """Change a byte in place, and set the clock of the file back."""
    before = path.stat()
    with path.open("r+b") as file:
        file.write(b"W")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def replace(path: Path) -> None:
    before = path.stat()
    other = path.with_name("other")
    other.write_bytes(b"W" + CONTENT[1:])
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.replace(path)


def truncate(path: Path) -> None:
    os.truncate(path, len(CONTENT) - 1)


def append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"x")


def link(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(b"W" + CONTENT[1:])
    path.unlink()
    path.symlink_to(other)


@pytest.mark.parametrize("change", [overwrite, replace, truncate, append, link])
def test_a_file_that_was_changed_is_hashed_and_refused(weights: Path, change: Callable[[Path], None]) -> None:
    verify(weights)
    change(weights)
    assert not holds(weights)
    with pytest.raises(PinError):
        verify(weights)


def test_a_file_that_was_only_touched_is_hashed_and_holds(weights: Path) -> None:
    os.utime(weights)
    assert not holds(weights)
    verify(weights)


def test_a_copy_with_the_same_bytes_is_another_file(weights: Path) -> None:
    copy = weights.with_name("copy")
    shutil.copy2(weights, copy)
    copy.replace(weights)
    assert not holds(weights)
    verify(weights)


@pytest.mark.skipif(os.geteuid() != 0, reason="mount(8) needs root")
def test_another_file_mounted_over_it_is_hashed_and_refused(weights: Path) -> None:
    other = weights.with_name("other")
    other.write_bytes(b"W" + CONTENT[1:])
    before = weights.stat()
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    program = f"""
from pathlib import Path
from appliance.core.errors import PinError
from appliance.core.pin import PinnedFile
from appliance.core.hashed import verify_weights
pin = PinnedFile(path="tiny.gguf", size={len(CONTENT)}, sha256="{SHA256}")
path = Path({str(weights)!r})
try:
    with path.open("rb") as file:
        verify_weights(file, pin, path.parent, "files.0")
    print("holds")
except PinError as error:
    print(error.field)
"""
    environment = {"PYTHONPATH": str(Path(__file__).parents[3]), "PATH": os.environ["PATH"]}
    for mount, printed in ((":", "holds"), (f"mount --bind {other} {weights}", "files.0.sha256")):
        script = f'{mount} && exec "$0" -c "$1"'
        done = subprocess.run(
            ["unshare", "--mount", "sh", "-c", script, sys.executable, program],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip() == printed


def test_a_note_of_another_boot_does_not_hold(
    weights: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    boot = tmp_path / "boot_id"
    boot.write_text("01234567-89ab-cdef-0123-456789abcdef\n")
    monkeypatch.setattr(hashed, "BOOT_ID", boot)
    assert hashed.read_boot_id() == "0123456789abcdef0123456789abcdef"
    with weights.open("rb") as file:
        assert not is_hashed(file.fileno(), weights.parent, SHA256, hashed.read_boot_id())


@pytest.mark.parametrize("note", [b"", b"\n", b"junk", None])
def test_a_note_that_says_something_else_does_not_hold(weights: Path, note: bytes | None) -> None:
    path = hashed.record_path(weights.parent, SHA256)
    path.unlink()
    if note is not None:
        path.write_bytes(note)
    assert not holds(weights)
    verify(weights)


def test_a_note_for_one_digest_is_none_for_another(weights: Path) -> None:
    """The file of one model under the name of another: its pin has another size or digest."""
    other = weights.with_name("0" * 64)
    os.link(weights, other)
    pin = PIN.model_copy(update={"sha256": "0" * 64})
    with other.open("rb") as file, pytest.raises(PinError):
        verify_weights(file, pin, weights.parent, "files.0")
