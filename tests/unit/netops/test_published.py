"""The agent takes tiles of the log and its head, and nothing that has not the form of one."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey

from appliance.core.errors import RefusedError
from appliance.core.names import encode_base64
from appliance.transparency.checkpoint import LogSigner
from appliance.transparency.merkle import root
from appliance.transparency.tiles import TileReader, Tiles, load_tile, tile_path, tile_paths
from netops.agent.published import PublishedLog

SIGNER = LogSigner("log.example", Ed25519PrivateKey.generate(), MLDSA44PrivateKey.generate())
HASH = bytes(31) + b"x"


@pytest.fixture
def control(tmp_path: Path) -> Tiles:
    return Tiles(tmp_path / "control", 0)


def grow(control: Tiles, count: int, folder: Path, published: PublishedLog) -> str:
    """Let the log grow and send what the node lacks."""
    before = published.size()
    control.append([HASH] * count)
    control.publish()
    paths = [tile_path(*tile) for tile in tile_paths(before, control.size)]
    files = {path: encode_base64(load_tile(folder, path) or b"") for path in paths}
    note = SIGNER.sign(control.size, root(control, control.size), 1).render().decode()
    assert published.publish(files, "") == before
    assert published.publish({}, note) == control.size
    return note


def test_what_is_published_is_the_tree_at_every_size(control: Tiles, tmp_path: Path) -> None:
    published = PublishedLog(tmp_path / "node")
    for count in (1, 2, 252, 1, 700, 65_000):
        grow(control, count, tmp_path / "control", published)
        tree = TileReader(lambda path: load_tile(tmp_path / "node", path), control.size)
        assert root(tree, control.size) == root(control, control.size)
    partial = [path for path in (tmp_path / "node").rglob("*.p") if path.with_suffix("").exists()]
    assert partial == [], "partial tiles go once the tile is full"
    for path in (tmp_path / "node").rglob("*"):
        assert path.stat().st_mode & 0o777 == (0o755 if path.is_dir() else 0o644)


def test_a_smaller_log_is_refused(control: Tiles, tmp_path: Path) -> None:
    published = PublishedLog(tmp_path / "node")
    first = grow(control, 3, tmp_path / "control", published)
    grow(control, 3, tmp_path / "control", published)
    with pytest.raises(RefusedError, match="larger"):
        published.publish({}, first)
    assert published.size() == 6


@pytest.mark.parametrize(
    ("path", "data"),
    [
        ("checkpoint", HASH),
        ("../tile/0/000", HASH * 256),
        ("tile/0/../../../x", HASH * 256),
        ("/tile/0/000", HASH * 256),
        ("tile/0/000", HASH * 255),
        ("tile/0/000.p/256", HASH * 256),
        ("tile/0/000.p/0", b""),
        ("tile/0/000.p/2", HASH),
        ("tile/9/000", HASH * 256),
        ("tile/entries/000", HASH * 256),
        ("tile/0/000\n", HASH * 256),
    ],
)
def test_what_is_no_tile_is_refused_and_nothing_is_written(tmp_path: Path, path: str, data: bytes) -> None:
    good = {"tile/0/000.p/1": encode_base64(HASH)}
    published = PublishedLog(tmp_path / "node")
    with pytest.raises(RefusedError):
        published.publish(good | {path: encode_base64(data)}, "")
    assert list(tmp_path.rglob("*")) == []
    published.publish(good, "")
    assert (tmp_path / "node/tile/0/000.p/1").read_bytes() == HASH


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    published = PublishedLog(tmp_path / "node")
    for text in ("log.example\n1\n", "x", "log.example\n1\nAAAA\n\n"):
        with pytest.raises(RefusedError):
            published.publish({}, text)
    assert published.size() == 0
