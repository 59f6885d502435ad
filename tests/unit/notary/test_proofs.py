"""The notary tells a client where in the log its receipts are, once control has said so, and nobody else's."""

from __future__ import annotations

import asyncio

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey
from notary_world import CLIENTS, DRAFT, OPENING, Line, counter

from appliance.core.node import NodePaths
from appliance.core.receipt import SignedReceipt
from appliance.transparency.checkpoint import LogSigner, Policy
from appliance.transparency.errors import InclusionError
from appliance.transparency.merkle import leaf_hash, root
from appliance.transparency.proof import Proof
from appliance.transparency.tiles import Tiles
from inference.notary.archive import Archive
from inference.notary.notary import Notary

SIGNER = LogSigner("log.example", Ed25519PrivateKey.generate(), MLDSA44PrivateKey.generate())
POLICY = Policy(*SIGNER.verifier_keys)


async def receipt_of(cell: Line) -> SignedReceipt:
    opened = await cell.ask("open", opening=OPENING)
    return SignedReceipt.parse((await cell.ask("close", receipt=opened["receipt"], draft=DRAFT))["signed"])


def publish(paths: NodePaths, receipts: list[SignedReceipt]) -> None:
    """As control does, by way of the agent."""
    tiles = Tiles(paths.log, 0)
    tiles.append(leaf_hash(signed.canonical_bytes()) for signed in receipts)
    tiles.publish()
    tiles.write_checkpoint(SIGNER.sign(tiles.size, root(tiles, tiles.size), 1).render())


def places(receipts: list[SignedReceipt]) -> list[dict[str, object]]:
    return [
        {"kind": "place", "receipt": signed.receipt.id, "place": place}
        for place, signed in enumerate(receipts)
    ]


def test_a_client_gets_the_proof_of_its_receipt_once_it_is_logged(
    paths: NodePaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Archive.__init__, "__kwdefaults__", {"max_bytes": 2**20, "segment_bytes": 6000})

    async def scenario() -> None:
        notary = await Notary.start("node-1", paths)
        agent = await Line.to(paths.notary_control)
        await agent.ask("clients", clients=CLIENTS)
        mine, other = [await Line.to(counter(paths, name)) for name in "ab"]
        receipts = [await receipt_of(mine) for _ in range(9)]
        first, last = receipts[0], receipts[-1]
        assert await mine.ask("prove", receipt=first.receipt.id) == "not_logged"
        publish(paths, receipts)
        assert await mine.ask("prove", receipt=first.receipt.id) == "not_logged"
        assert await agent.ask("places", places=places(receipts[:8])) == {"placed": 8}
        proof = Proof.parse((await mine.ask("prove", receipt=first.receipt.id))["proof"].encode())
        assert proof.verify(first.canonical_bytes(), POLICY).size == 9
        with pytest.raises(InclusionError):
            proof.verify(last.canonical_bytes(), POLICY)
        assert await mine.ask("prove", receipt=last.receipt.id) == "not_logged"
        assert await other.ask("prove", receipt=first.receipt.id) == "not_found"
        for line in (mine, other, agent):
            await line.close()
        await notary.aclose()
        again = await Notary.start("node-1", paths)
        cell = await Line.to(counter(paths, "a"))
        told = Proof.parse((await cell.ask("prove", receipt=first.receipt.id))["proof"].encode())
        assert told == proof
        assert again.archive.placed == 8
        await cell.close()
        await again.aclose()

    asyncio.run(scenario())


@pytest.mark.parametrize("wrong", [None, [1], [{"receipt": "0" * 32, "place": -1}], [{"place": 1}], "x"])
def test_places_that_are_none_are_refused(paths: NodePaths, wrong: object) -> None:
    async def scenario() -> None:
        notary = await Notary.start("node-1", paths)
        agent = await Line.to(paths.notary_control)
        assert await agent.ask("places", places=wrong) == "refused"
        assert await agent.ask("places", places=[]) == {"placed": 0}
        unknown = {"kind": "place", "receipt": "0" * 32, "place": 7}
        assert await agent.ask("places", places=[unknown]) == {"placed": 8}, "it is never asked for again"
        await agent.close()
        await notary.aclose()

    asyncio.run(scenario())
