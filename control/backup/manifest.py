"""What a backup says of itself, signed with control's bundle key; and the note that a restored control finds in its state.

The signature keeps who may write to where backups lie from handing control another one: to encrypt for the operator takes a public key
alone, to sign takes control's. Nodes know that key (`bundle_key` in node.json).
"""

from __future__ import annotations

from typing import Annotated, Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import Field, StringConstraints

from appliance.core import signing
from appliance.core.bundle import Generation
from appliance.core.errors import RefusedError
from appliance.core.names import Digest, Hex128, Timestamp, Version
from appliance.core.schema import Closed

# Below the state folder, and nothing that leads out of it.
MemberPath = Annotated[
    str,
    StringConstraints(
        max_length=200,
        pattern=(
            r"^(control\.json|restored\.json|(keys|public|web)/[a-z0-9][a-z0-9.-]{0,62}"
            r"|db/control\.(sqlite3|pgdump)|log/(checkpoint|tile/[0-7](/x[0-9]{3}){0,6}/[0-9]{3}(\.p/[0-9]{1,3})?))\z"
        ),
    ),
]
Count = Annotated[int, Field(ge=0, le=2**53 - 1)]


class Member(Closed):
    """One file of a backup."""

    path: MemberPath
    size: Count
    sha256: Digest


class Restored(Closed):
    """`restored.json`: in the state of a control that was restored, and in no other.

    It is a file of the backup like any other, so that whoever unpacks one by hand is held to the same rule.

    Attributes:
        v: Schema version.
        backup: Which one, 128 random bits.
        taken_at: When.
        epoch: That control was in. Nothing is sent to nodes before it was raised above this.
        log_size: Receipts in the log's last head then.
    """

    v: Literal[1] = 1
    backup: Hex128
    taken_at: Timestamp
    epoch: Generation
    log_size: Count


class Manifest(Closed):
    """What is in a backup. Its last file but one.

    Attributes:
        v: Schema version.
        appliance: Version that made it.
        database: Kind of the database, and of its file.
        migrations: What the database had applied, `app.name`.
        restored: As above.
        receipts, devices: Rows in the database.
        keys: Private keys are in it.
        files: Every other file, in the order in which they lie there.
    """

    v: Literal[1] = 1
    appliance: Version
    database: Literal["sqlite", "postgresql"]
    migrations: Annotated[tuple[str, ...], Field(max_length=1000)]
    restored: Restored
    receipts: Count
    devices: Count
    keys: bool
    files: Annotated[tuple[Member, ...], Field(max_length=2_000_000)]


def sign_manifest(manifest: Manifest, key: Ed25519PrivateKey) -> str:
    """Return the signature of control's bundle key."""
    return signing.sign(key, signing.Purpose.BACKUP, manifest.canonical_bytes())


def verify_manifest(data: bytes, signature: str, public_key: str) -> Manifest:
    """Return the manifest.

    Raises:
        RefusedError: If this key did not sign it, or it is none.
    """
    try:
        signing.verify(public_key, signing.Purpose.BACKUP, data, signature)
    except RefusedError as refused:
        raise RefusedError("not signed by this control", field="manifest") from refused
    return Manifest.parse_canonical(data)
