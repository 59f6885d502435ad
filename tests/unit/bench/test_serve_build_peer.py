"""llama-server is found where it was built, and what is missing to build it is said with what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.core.errors import HostError
from provisioning import build_peer


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


def test_what_was_built_is_found() -> None:
    folder = build_peer.peer_folder(build_peer.locked_version())
    folder.mkdir(parents=True)
    (folder / build_peer.SERVER).touch()
    assert build_peer.find_or_build() == folder


def test_other_flags_or_another_version_are_another_build(monkeypatch: pytest.MonkeyPatch) -> None:
    one = build_peer.peer_folder("0.3.36")
    assert build_peer.peer_folder("0.3.37") != one
    monkeypatch.setattr(build_peer, "PEER_ARGS", (*build_peer.PEER_ARGS, "-DGGML_NATIVE=OFF"))
    assert build_peer.peer_folder("0.3.36") != one


def test_a_missing_tool_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(HostError, match="cmake, ninja, c\\+\\+") as missing:
        build_peer.find_or_build()
    assert "apt-get install" in (missing.value.hint or "")


def test_a_source_that_cannot_be_had_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(build_peer, "PIP", ["false"])
    with pytest.raises(HostError, match="source") as missing:
        build_peer._source(tmp_path)
    assert "PIP_FIND_LINKS" in (missing.value.hint or "")


def test_a_build_is_put_in_place_whole(tmp_path: Path) -> None:
    binaries, folder = tmp_path / "bin", tmp_path / "kept" / "peer"
    binaries.mkdir()
    (binaries / "libllama.so.0.5.0").write_bytes(b"library")
    (binaries / "libllama.so.0").symlink_to("libllama.so.0.5.0")
    build_peer._keep(binaries, folder)
    assert (folder / "libllama.so.0").read_bytes() == b"library"
    assert list(folder.parent.iterdir()) == [folder]
