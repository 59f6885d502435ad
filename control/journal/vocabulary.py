"""What an event may say: verbs, kinds of objects, and the facts of each kind with their types. Nothing else can be recorded.

A new verb is a row of `KINDS`, a new fact a row of `FACTS`. A fact is public to every auditor and stays for ever: no secret, no digest of
one, no content, no free text.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, Final, Literal

from pydantic import Field, Strict, StringConstraints, TypeAdapter

from appliance.core.bundle import Limits
from appliance.core.names import Digest, Key32, Name, Timestamp, Version


class Kind(StrEnum):
    """What an event is about."""

    ALIAS = "alias"  # CLIENT/ALIAS
    BACKUP = "backup"
    BUNDLE = "bundle"  # named after its node
    CLIENT = "client"
    DEVICE = "device"  # CLIENT/DEVICE
    EPOCH = "epoch"  # control's
    INVITATION = "invitation"  # CLIENT/DEVICE
    LOG = "log"  # its keys, or the log itself
    NODE = "node"
    OPERATOR = "operator"  # empty: somebody whom control does not know
    PIN = "pin"  # NAME/VERSION
    TOKEN = "token"  # noqa: S105 - OPERATOR/TOKEN


class Verb(StrEnum):
    """What was done."""

    ALIAS_REMOVE = "alias.remove"
    ALIAS_SET = "alias.set"
    BACKUP_CREATE = "backup.create"  # began
    BUNDLE_SHIPPED = "bundle.shipped"  # a node accepted it
    CLIENT_CREATE = "client.create"
    CLIENT_EXPIRE = "client.expire"  # its end was said
    CLIENT_LIMIT = "client.limit"
    CLIENT_RESUME = "client.resume"
    CLIENT_REVOKE = "client.revoke"
    CLIENT_SUSPEND = "client.suspend"
    DEVICE_ADD = "device.add"
    DEVICE_EXPIRE = "device.expire"
    DEVICE_REVOKE = "device.revoke"
    DEVICE_ROTATE = "device.rotate"
    EPOCH_RAISE = "epoch.raise"
    INVITATION_APPROVE = "invitation.approve"
    INVITATION_CANCEL = "invitation.cancel"
    INVITATION_CREATE = "invitation.create"
    INVITATION_EXPIRE = "invitation.expire"
    INVITATION_REDEEM = "invitation.redeem"
    INVITATION_REFUSE = "invitation.refuse"  # what redeemed it could not become a device
    LOG_COMPARE = "log.compare"  # after a restore it goes on
    LOG_RETIRE_KEYS = "log.retire-keys"
    LOG_ROTATE_KEYS = "log.rotate-keys"
    LOG_SUCCEED = "log.succeed"  # after a restore another one begins
    LOGIN_ENDED = "login.ended"  # signed out by oneself
    LOGIN_FAILED = "login.failed"
    LOGIN_LOCKED = "login.locked"  # failed, and the name has to wait
    LOGIN_OK = "login.ok"
    NODE_ADD = "node.add"
    NODE_CHANGE = "node.change"
    NODE_DUTY = "node.duty"
    OPERATOR_ADD = "operator.add"
    OPERATOR_ADD_FACTOR = "operator.add-factor"
    OPERATOR_DISABLE = "operator.disable"
    OPERATOR_END_SESSIONS = "operator.end-sessions"  # others of one's own
    OPERATOR_NEW_CODES = "operator.new-codes"  # for recovery
    OPERATOR_REMOVE_FACTOR = "operator.remove-factor"
    OPERATOR_RESET_FACTOR = "operator.reset-factor"
    OPERATOR_ROLE = "operator.role"
    OPERATOR_SIGN_OUT = "operator.sign-out"
    PIN_ACTIVATE = "pin.activate"
    PIN_ADD = "pin.add"
    PIN_RETIRE = "pin.retire"
    PIN_ROLLBACK = "pin.rollback"
    PIN_VERIFY = "pin.verify"
    TOKEN_CREATE = "token.create"  # noqa: S105
    TOKEN_REVOKE = "token.revoke"  # noqa: S105


_LOGINS: Final = dict.fromkeys(
    (Verb.LOGIN_ENDED, Verb.LOGIN_FAILED, Verb.LOGIN_LOCKED, Verb.LOGIN_OK), Kind.OPERATOR
)
KINDS: Final[Mapping[Verb, Kind]] = {
    verb: _LOGINS.get(verb) or Kind(verb.value.partition(".")[0]) for verb in Verb
}
"""What each verb is done to: what stands before its dot, and an operator for a login."""

Count = Annotated[int, Field(ge=0, le=2**53 - 1)]
_Names = Annotated[tuple[Name, ...], Field(max_length=64)]
_Networks = Annotated[
    tuple[Annotated[str, StringConstraints(pattern=r"^[0-9a-f.:]{2,39}/[0-9]{1,3}$")], ...],
    Field(max_length=32),
]
_Address = Annotated[str, StringConstraints(pattern=r"^[0-9a-f.:]{2,39}$")]
_Endpoint = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9.:\[\]-]{1,64}$")]
_Recipient = Annotated[str, StringConstraints(pattern=r"^age1[0-9a-z]{58}$")]
_Role = Literal["monitor", "viewer", "operator", "auditor", "administrator"]

_FACTS: Final[Mapping[Kind, Mapping[str, Any]]] = {
    Kind.ALIAS: {"model": Name},
    Kind.BACKUP: {"keys": bool, "recipient": _Recipient},
    Kind.BUNDLE: {"digest": Digest, "epoch": Count, "generation": Count},
    Kind.CLIENT: {
        "active_devices": Count,
        "expires_at": Timestamp,
        "home": Name,
        "models": _Names,
        "state": Literal["active", "suspended", "revoked"],
        **{
            f"limits.{name}": Annotated[field.annotation, Strict(), *field.metadata]
            for name, field in Limits.model_fields.items()
        },
    },
    Kind.DEVICE: {
        "expires_at": Timestamp,
        "index": Count,
        "keys": Count,
        "public_key": Key32,
        "state": Literal["active", "replaced", "revoked"],
    },
    Kind.EPOCH: {"epoch": Count},
    Kind.INVITATION: {
        "approval": bool,
        "expires_at": Timestamp,
        "public_key": Key32,
        "state": Literal["open", "redeemed", "approved", "admitted", "refused", "cancelled", "expired"],
    },
    Kind.LOG: {"size": Count},
    Kind.NODE: {
        "address": _Address,
        "duty": Literal["serving", "drained", "maintenance"],
        "endpoint": _Endpoint,
        "seats": Count,
    },
    Kind.OPERATOR: {
        "active": bool,
        "apps": Count,
        "passkeys": Count,
        "recovery_codes": Count,
        "role": _Role,
        "sessions": Count,
        "tokens": Count,
    },
    Kind.PIN: {
        "active_version": Version | Name,
        "pin_id": Digest,
        "signer": Digest,
        "state": Literal["imported", "verified", "active", "retired"],
    },
    Kind.TOKEN: {"expires_at": Timestamp, "networks": _Networks, "role": _Role},
}
FACTS: Final[Mapping[Kind, Mapping[str, TypeAdapter[Any]]]] = {
    kind: {name: TypeAdapter(type_) for name, type_ in facts.items()} for kind, facts in _FACTS.items()
}
"""The facts of each kind of object whose change an event may state, and what values they have; null is always one."""
