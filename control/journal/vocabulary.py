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

    BUNDLE = "bundle"  # named after its node
    CLIENT = "client"
    DEVICE = "device"  # CLIENT/DEVICE
    LOG = "log"  # the log's keys
    NODE = "node"
    OPERATOR = "operator"  # empty: somebody whom control does not know
    PIN = "pin"  # NAME/VERSION
    TOKEN = "token"  # noqa: S105 - OPERATOR/TOKEN


class Verb(StrEnum):
    """What was done."""

    BUNDLE_SHIPPED = "bundle.shipped"  # a node accepted it
    CLIENT_CREATE = "client.create"
    CLIENT_RESUME = "client.resume"
    CLIENT_REVOKE = "client.revoke"
    CLIENT_SUSPEND = "client.suspend"
    DEVICE_ADD = "device.add"
    DEVICE_REVOKE = "device.revoke"
    LOG_RETIRE_KEYS = "log.retire-keys"
    LOG_ROTATE_KEYS = "log.rotate-keys"
    LOGIN_FAILED = "login.failed"
    LOGIN_LOCKED = "login.locked"  # failed, and the name has to wait
    LOGIN_OK = "login.ok"
    NODE_ADD = "node.add"
    OPERATOR_ADD = "operator.add"
    OPERATOR_DISABLE = "operator.disable"
    OPERATOR_ROLE = "operator.role"
    OPERATOR_SIGN_OUT = "operator.sign-out"
    PIN_ADD = "pin.add"
    TOKEN_CREATE = "token.create"  # noqa: S105
    TOKEN_REVOKE = "token.revoke"  # noqa: S105


_LOGINS: Final = dict.fromkeys((Verb.LOGIN_FAILED, Verb.LOGIN_LOCKED, Verb.LOGIN_OK), Kind.OPERATOR)
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
_Role = Literal["viewer", "operator", "auditor", "administrator"]

_FACTS: Final[Mapping[Kind, Mapping[str, Any]]] = {
    Kind.BUNDLE: {"digest": Digest, "epoch": Count, "generation": Count},
    Kind.CLIENT: {
        "active_devices": Count,
        "home": Name,
        "models": _Names,
        "state": Literal["active", "suspended", "revoked"],
        **{
            f"limits.{name}": Annotated[field.annotation, Strict(), *field.metadata]
            for name, field in Limits.model_fields.items()
        },
    },
    Kind.DEVICE: {"index": Count, "public_key": Key32, "state": Literal["active", "revoked"]},
    Kind.LOG: {},
    Kind.NODE: {"address": _Address, "endpoint": _Endpoint, "seats": Count},
    Kind.OPERATOR: {"active": bool, "role": _Role, "session_epoch": Count, "tokens": Count},
    Kind.PIN: {"active_version": Version | Name, "pin_id": Digest},
    Kind.TOKEN: {"expires_at": Timestamp, "networks": _Networks, "role": _Role},
}
FACTS: Final[Mapping[Kind, Mapping[str, TypeAdapter[Any]]]] = {
    kind: {name: TypeAdapter(type_) for name, type_ in facts.items()} for kind, facts in _FACTS.items()
}
"""The facts of each kind of object whose change an event may state, and what values they have; null is always one."""
