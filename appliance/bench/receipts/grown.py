"""A control whose log has grown: as many leaves and rows as asked for, and a node's journal of receipts that continue them."""

from __future__ import annotations

import json
import os
import sqlite3
import time
from argparse import Namespace
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from appliance.core import signing
from appliance.core.names import encode_base64, random_id
from appliance.core.receipt import (
    Confinement,
    End,
    Erase,
    NodeKey,
    Receipt,
    RuntimeFacts,
    SignedReceipt,
    make_keyring,
    sign_receipt,
    timestamp,
)
from appliance.transparency import merkle
from appliance.transparency.merkle import HASH_BYTES
from appliance.transparency.tiles import Tiles

if TYPE_CHECKING:
    from control.config import ControlPaths

# As many as a node is made for; their receipts take turns, so that each looks up another head.
CLIENTS: Final = 500
_NODE: Final = "bench"
_FILL_CACHE_KIB: Final = 2**20  # the indexes of ten million rows are larger than a gigabyte
_FILL: Final = """
    INSERT INTO audit_receiptrecord (
        node_id, boot, receipt_id, client, seq, text, digest, key, signature, verified, admitted_at, place
    )
    WITH RECURSIVE row(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM row WHERE n + 1 < :leaves)
    SELECT :node, :boot, printf('%08x', n * 2654435761 & 4294967295) || lower(hex(randomblob(12))), printf('%064x', n % :clients),
        n / :clients + 1, '{"end":"one_shot"}', lower(hex(randomblob(32))), :key, :signature, 1, :now, n
    FROM row
"""


def make_grown(folder: Path, leaves: int, admissions: int) -> None:
    """Make a control under `folder`/control and a node's journal beside it, one entry a line.

    Args:
        folder: Empty; its path is short (see `control.config.StatePath`).
        leaves: In the log; a multiple of `CLIENTS`.
        admissions: Entries of the journal; one more follows whose receipt was changed after it was signed.
    """
    paths = _make_control(folder / "control")
    key = Ed25519PrivateKey.generate()
    node = _add_node(paths, key)
    _fill_database(paths.database, node, leaves, key)
    _fill_log(paths, leaves)
    with (folder / "journal").open("w", encoding="utf-8") as journal:
        for position, signed in enumerate(_sign_receipts(key, admissions), 1):
            journal.write(
                json.dumps({"position": position, "signed": signed.canonical_bytes().decode("utf-8")}) + "\n"
            )


def _make_control(state: Path) -> ControlPaths:
    from django.core.management import call_command

    from control.commands import init
    from control.config import read_config
    from control.startup import start_django

    asked = Namespace(
        state=state,
        listen="127.0.0.1:8443",
        plain_http=True,
        reconciler_user=None,
        web_user=None,
        config=None,
    )
    config = Path(init.run(asked)["config"])
    start_django(config)
    call_command("migrate", verbosity=0)
    return read_config(config).paths


def _add_node(paths: ControlPaths, key: Ed25519PrivateKey) -> int:
    """Store the node, met and certified; return its row. Nobody adds it: each entry of the log is to be a receipt."""
    from control.fleet.models import Node
    from control.reconciler.keys import read_keys

    asked = {
        "name": _NODE,
        "address": "192.0.2.1",
        "user": "appliance-relay",
        "host_key": "ssh-ed25519 " + encode_base64(b"\0\0\0\x0bssh-ed25519\0\0\0\x20" + bytes(32)),
        "endpoint": "203.0.113.1:51820",
        "network4": "10.1.0.0/16",
        "network6": "fd00:1::/64",
        "address4": "10.1.0.1",
        "address6": "fd00:1::1",
        "seats": 2,
    }
    node = Node.objects.create(**asked, listen_port=51820)
    certified = NodeKey(node=_NODE, public_key=signing.public_text(key))
    paths.keyring.write_bytes(make_keyring((certified,), read_keys(paths).log).canonical_bytes())
    return int(node.pk)


def _fill_database(database: Path, node: int, leaves: int, key: Ed25519PrivateKey) -> None:
    """Insert a row for each leaf, ids in no order: the pages of the indexes are as full as years of receipts leave them."""
    from django.db import connections

    connections.close_all()  # nobody else may have the file open while it has no write-ahead log
    values = {
        "leaves": leaves,
        "node": node,
        "boot": random_id(),
        "clients": CLIENTS,
        "key": signing.key_id(signing.public_text(key)),
        "signature": encode_base64(os.urandom(64)),
        "now": datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S.%f"),
    }
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode=OFF")
        connection.execute("PRAGMA synchronous=OFF")
        connection.execute(f"PRAGMA cache_size=-{_FILL_CACHE_KIB}")
        connection.execute(_FILL, values)


def _fill_log(paths: ControlPaths, leaves: int) -> None:
    from control.reconciler.keys import read_keys
    from control.transparency.models import CheckpointRecord

    tiles = Tiles(paths.log, 0)
    tiles.append(os.urandom(HASH_BYTES) for _ in range(leaves))
    tiles.publish()
    note = read_keys(paths).checkpoints.sign(leaves, merkle.root(tiles, leaves), int(time.time()))
    CheckpointRecord.objects.create(size=leaves, note=note.render().decode("utf-8"))
    tiles.write_checkpoint(note.render())


def _sign_receipts(key: Ed25519PrivateKey, count: int) -> Iterator[SignedReceipt]:
    """Yield receipts that continue the clients' chains, and one more that was changed after it was signed."""
    from control.audit.models import ReceiptRecord

    newest = ReceiptRecord.objects.order_by("-pk").values_list("client", "seq", "digest")[:CLIENTS]
    heads = {client: (seq, digest) for client, seq, digest in newest}
    clients = sorted(heads)
    boot, now = random_id(), timestamp(datetime.now(UTC))
    for number in range(count):
        client = clients[number % len(clients)]
        receipt = _receipt(client, *heads[client], boot, now)
        heads[client] = receipt.seq, receipt.digest
        yield sign_receipt(receipt, key)
    honest = sign_receipt(_receipt(clients[0], *heads[clients[0]], boot, now), key)
    yield honest.model_copy(update={"receipt": honest.receipt.model_copy(update={"completion_tokens": 0})})


def _receipt(client: str, seq: int, digest: str, boot: str, now: str) -> Receipt:
    return Receipt(
        id=random_id(),
        session=random_id(),
        client=client,
        seq=seq + 1,
        prev=digest,
        node=_NODE,
        boot=boot,
        opened_at=now,
        ended_at=now,
        end=End.ONE_SHOT,
        requests=1,
        prompt_tokens=1200,
        completion_tokens=340,
        retrieved_chunks=0,
        corpora=(),
        models=("6" * 64,),
        runtime=RuntimeFacts(appliance="0.1.0", llama_cpp="7" * 64, generation=3),
        confinement=Confinement(
            landlock_abi=7, seccomp=True, network="namespace", core_dumps=False, dumpable=False, swap=False
        ),
        erase=Erase(bytes=25_165_824, verified=True),
    )
