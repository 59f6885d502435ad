"""The statement that raises a node's epoch, signed with the restore key, which lies offline in the operator's safe.

After control was restored from a backup its generations begin again, and a node that took them from whoever holds the bundle key would take
any past from a thief as well. So a node goes on to another epoch only by this statement. Normative text: docs/spec/bundle-v1.md.
"""

from __future__ import annotations

from typing import Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from appliance.core import signing
from appliance.core.bundle import Generation
from appliance.core.errors import BundleError, RefusedError
from appliance.core.names import Key32
from appliance.core.schema import Closed

MAX_STATEMENT_BYTES = 1024


class EpochStatement(Closed):
    """Nodes of one control go on in another epoch.

    Attributes:
        control: Public bundle key of that control: one restore key may belong to several.
        epoch: The new one.
        v: Schema version.
    """

    control: Key32
    epoch: Generation
    v: Literal[1] = 1


def sign_statement(statement: EpochStatement, key: Ed25519PrivateKey) -> str:
    """Return the restore key's signature over the statement's canonical bytes."""
    return signing.sign(key, signing.Purpose.EPOCH, statement.canonical_bytes())


def verify_statement(
    data: bytes, signature: str, *, restore_key: str | None, bundle_key: str, epoch: int
) -> EpochStatement:
    """Return the statement if a node must follow it.

    Args:
        data: Canonical bytes of the statement.
        signature: Canonical base64.
        restore_key: The public restore key, canonical base64; None where provisioning named none.
        bundle_key: The public bundle key of this node's control.
        epoch: The node's own, 0 before the first bundle.

    Raises:
        BundleError: Naming the field; nothing may be changed on the node then.
    """
    if restore_key is None:
        raise BundleError(
            "this node knows no restore key",
            field="signature",
            hint="set restore_key in /etc/appliance/node.json",
        )
    if len(data) > MAX_STATEMENT_BYTES:
        raise BundleError("larger than a statement may be")
    try:
        signing.verify(restore_key, signing.Purpose.EPOCH, data, signature)
    except RefusedError as refused:
        raise BundleError("not signed with the restore key", field="signature") from refused
    statement = EpochStatement.parse_canonical(data, BundleError)
    if statement.control != bundle_key:
        raise BundleError("it is about the nodes of another control", field="control")
    if statement.epoch <= epoch:
        raise BundleError("not above this node's epoch", field="epoch")
    return statement
