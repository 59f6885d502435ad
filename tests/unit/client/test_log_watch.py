"""A client watches the log through the tunnel: what a lying node can show it, and what it says then."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey

from appliance.client.api import Api
from appliance.client.folder import Folder
from appliance.client.log import Watched, render_json, render_lines, watch
from appliance.core.chain import verify_chains
from appliance.core.errors import HostError, ReceiptError, UnavailableError
from appliance.core.receipt import Receipt, SignedReceipt, sign_receipt
from appliance.transparency.checkpoint import Checkpoint, Cosigner, LogSigner, Policy
from appliance.transparency.errors import (
    ConsistencyError,
    InclusionError,
    LogError,
    LogSignatureError,
    WitnessError,
)
from appliance.transparency.memory import Memory
from appliance.transparency.merkle import inclusion_proof, leaf_hash, root
from appliance.transparency.note import Note
from appliance.transparency.proof import Proof
from appliance.transparency.tiles import Tiles, load_tile

VECTOR = Path(__file__).parents[2] / "vectors" / "receipts" / "valid.txt"
NODE_KEY = Ed25519PrivateKey.generate()
SIGNER = LogSigner("log.example", Ed25519PrivateKey.generate(), MLDSA44PrivateKey.generate())
POLICY = Policy(*SIGNER.verifier_keys)
FIRST: Receipt = SignedReceipt.parse_canonical(VECTOR.read_bytes().partition(b"\n\n")[2]).receipt


def chain(count: int, word: int = 0) -> list[SignedReceipt]:
    made: list[SignedReceipt] = []
    for seq in range(1, count + 1):
        prev = made[-1].receipt.digest if made else FIRST.prev
        changed = {"id": f"{word:016x}{seq:016x}", "seq": seq, "prev": prev}
        made.append(sign_receipt(FIRST.model_copy(update=changed), NODE_KEY))
    return made


class LyingNode:
    """What NGINX and the notary of a node answer; a test may change any of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tiles = Tiles(folder, 0)
        self.placed: dict[str, int] = {}

    def log(
        self, receipts: list[SignedReceipt], signer: LogSigner = SIGNER, witnesses: tuple[Cosigner, ...] = ()
    ) -> None:
        for signed in receipts:
            self.placed[signed.receipt.id] = self.tiles.size
            self.tiles.append([leaf_hash(signed.canonical_bytes())])
        self.tiles.publish()
        size = self.tiles.size
        note = signer.sign(size, root(self.tiles, size), 1)
        checkpoint = Checkpoint.parse(note.text)
        note = note.cosigned(*(witness.cosign(checkpoint, 1) for witness in witnesses))
        self.tiles.write_checkpoint(note.render())

    def answer(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        if path.startswith("/log/"):
            data = load_tile(self.folder, path.removeprefix("/log/"))
            return httpx.Response(404) if data is None else httpx.Response(200, content=data)
        receipt = path.split("/")[3]
        place = self.placed.get(receipt)
        if place is None:
            return httpx.Response(503, json={"error": {"code": "not_logged", "message": "not yet"}})
        size = self.tiles.size
        hashes = inclusion_proof(self.tiles, place, size)
        note = Note.parse((self.folder / "checkpoint").read_bytes())
        return httpx.Response(200, content=Proof(place, tuple(hashes), note).render())


class Client:
    """A client's folder with kept receipts."""

    def __init__(self, path: Path, node: LyingNode) -> None:
        self.path = path
        self.node = node
        (path / "receipts").mkdir(parents=True)
        (path / "token").write_text("token")
        (path / "client.json").write_text(json.dumps({"base_url": "https://node.example/v1"}))

    def keep(self, receipts: list[SignedReceipt]) -> None:
        for signed in receipts:
            (self.path / "receipts" / f"{signed.receipt.id}.json").write_bytes(signed.canonical_bytes())

    def watch(self, policy: Policy = POLICY) -> Watched:
        api = Api(Folder(self.path), transport=httpx.MockTransport(self.node.answer))
        try:
            return watch(self.path / "receipts", api, Memory(self.path / "log.seen", policy), policy)
        finally:
            api.close()


@pytest.fixture
def node(tmp_path: Path) -> LyingNode:
    return LyingNode(tmp_path / "log")


@pytest.fixture
def client(tmp_path: Path, node: LyingNode) -> Client:
    return Client(tmp_path / "client", node)


def test_proofs_come_as_the_log_grows_and_verify_on_their_own(client: Client, node: LyingNode) -> None:
    receipts = chain(600)
    client.keep(receipts[:3])
    node.log(receipts[:2])
    first = client.watch()
    assert (first.seen.size, first.head.size, len(first.proven), len(first.waiting)) == (0, 2, 2, 1)
    node.log(receipts[2:])
    second = client.watch()
    assert (second.seen.size, second.head.size, second.proven) == (2, 600, (receipts[2].receipt.id,))
    third = client.watch()
    assert (third.seen.size, third.head.size, third.proven, third.waiting) == (600, 600, (), ())
    proof = client.path / "receipts" / f"{receipts[2].receipt.id}.tlog-proof"
    assert Proof.parse(proof.read_bytes()).verify(receipts[2].canonical_bytes(), POLICY).size == 600
    assert "from 2 to 600" in "\n".join(render_lines(second))
    assert json.loads(render_json(second))["size"] == 600


def test_a_node_that_publishes_nothing_is_asked_again_later(client: Client) -> None:
    with pytest.raises(UnavailableError, match="no log yet"):
        client.watch()


def test_an_older_head_is_an_alarm(client: Client, node: LyingNode) -> None:
    node.log(chain(5))
    older = (node.folder / "checkpoint").read_bytes()
    node.log(chain(3, word=1))
    client.watch()
    (node.folder / "checkpoint").write_bytes(older)
    with pytest.raises(ConsistencyError):
        client.watch()


def test_a_fork_is_an_alarm_and_the_memory_stays(client: Client, node: LyingNode, tmp_path: Path) -> None:
    node.log(chain(5))
    client.watch()
    client.node = fork = LyingNode(tmp_path / "fork")
    fork.log(chain(9, word=1))
    with pytest.raises(ConsistencyError):
        client.watch()
    client.node = node
    assert client.watch().seen.size == 5


def test_a_head_of_other_keys_is_refused(client: Client, node: LyingNode) -> None:
    other = LogSigner("log.example", Ed25519PrivateKey.generate(), MLDSA44PrivateKey.generate())
    node.log(chain(5), other)
    with pytest.raises(LogSignatureError):
        client.watch()


def test_witnesses_are_counted_and_too_few_are_refused(client: Client, node: LyingNode) -> None:
    first, second = (Cosigner(f"w{n}.example", MLDSA44PrivateKey.generate()) for n in (1, 2))
    known = replace(POLICY, witnesses=(first.verifier_key, second.verifier_key))
    node.log(chain(5))
    watched = client.watch(known)
    assert (watched.witnesses, watched.cosigned) == (2, 0)
    with pytest.raises(WitnessError):
        client.watch(replace(known, quorum=1))
    node.log(chain(1, word=1), witnesses=(first,))
    watched = client.watch(replace(known, quorum=1))
    assert (watched.seen.size, watched.witnesses, watched.cosigned) == (5, 2, 1)
    assert "1 of 2 witnesses" in "\n".join(render_lines(watched))
    assert (json.loads(render_json(watched))["witnesses"], json.loads(render_json(watched))["cosigned"]) == (
        2,
        1,
    )
    with pytest.raises(WitnessError):
        client.watch(replace(known, quorum=2))
    stranger = Cosigner("w1.example", MLDSA44PrivateKey.generate())
    node.log(chain(1, word=2), witnesses=(stranger,))
    assert client.watch(known).cosigned == 0


def test_the_place_of_another_receipt_does_not_pass(client: Client, node: LyingNode) -> None:
    receipts = chain(5)
    client.keep(receipts[:1])
    node.log(receipts)
    node.placed[receipts[0].receipt.id] = 3
    with pytest.raises(InclusionError):
        client.watch()
    assert list((client.path / "receipts").glob("*.tlog-proof")) == []


def test_a_changed_tile_does_not_pass(client: Client, node: LyingNode) -> None:
    receipts = chain(300)
    client.keep(receipts[:1])
    node.log(receipts)
    tile = node.folder / "tile/0/000"
    tile.write_bytes(tile.read_bytes()[:-1] + b"x")
    with pytest.raises(LogError):
        client.watch()
    tile.write_bytes(tile.read_bytes()[:-32])
    with pytest.raises(HostError) as refused:
        client.watch()
    assert "tell the operator" in str(refused.value.hint)


def test_gaps_in_what_was_kept_are_told_and_forks_of_a_chain_are_an_alarm() -> None:
    receipts, others = chain(6), chain(6, word=1)
    assert verify_chains([]) == []
    assert verify_chains(receipts[::-1]) == []
    assert verify_chains([receipts[0], receipts[3]]) == [("node-1", 2, 3)]
    with pytest.raises(ReceiptError, match="have the number 2"):
        verify_chains([receipts[1], others[1]])
    with pytest.raises(ReceiptError, match="does not follow"):
        verify_chains([receipts[1], others[2]])
