"""The operations of the agent: one request in, one result out (docs/spec/node-protocols.md section 1)."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

from appliance import __version__
from appliance.core.errors import UsageError
from appliance.core.hashed import read_boot_id
from appliance.core.names import encode_base64
from appliance.core.node import NodePaths, NodeSettings
from netops.agent.health import (
    ask_notary,
    now_text,
    observe_host,
    observe_serving,
    sort_peers,
    summarise_tunnel,
)
from netops.agent.identity import Identity
from netops.agent.memory import Memory, Signed
from netops.agent.models import ModelStore
from netops.agent.passes import Passes
from netops.agent.published import MAX_FILES, PublishedLog
from netops.agent.rate import TokenRate
from netops.world import World

MAX_RECEIPTS = 10_000
MAX_MODEL_BYTES = 2**43  # as in a pin
_DIGEST = re.compile(r"[0-9a-f]{64}")

# op -> its fields besides `id` and `op`, and their types
FIELDS: Mapping[str, Mapping[str, type]] = {
    "identity": {},
    "state": {},
    "model": {"sha256": str, "size": int},
    "observe": {},
    "plan": {"bundle": str, "signature": str},
    "apply": {"bundle": str, "signature": str},
    "revoke": {"revocation": str, "signature": str},
    "grant": {"grant": str, "signature": str},
    "raise": {"statement": str, "signature": str},
    "health": {},
    "peers": {},
    "receipts": {"after": int, "limit": int},
    "heartbeat": {"nonce": str},
    "admitted": {"position": int},
    "publish": {"files": dict, "checkpoint": str},
    "published": {"path": str},
    "places": {"places": list},
    "letters": {},
}


class Operations:
    """Everything that a request can ask for."""

    def __init__(
        self,
        settings: NodeSettings,
        paths: NodePaths,
        *,
        world: World,
        memory: Memory,
        models: ModelStore,
        identity: Identity,
        passes: Passes,
    ) -> None:
        self._settings = settings
        self._paths = paths
        self._world = world
        self._memory = memory
        self._models = models
        self._identity = identity
        self._passes = passes
        self._published = PublishedLog(paths.log)
        self._rate = TokenRate()
        self._handlers: Mapping[str, Callable[..., dict[str, Any]]] = {
            "identity": self._identify,
            "state": self._state,
            "observe": world.report,
            "plan": self._plan,
            "apply": self._apply,
            "revoke": self._revoke,
            "grant": self._grant,
            "raise": self._raise,
            "health": self._health,
            "peers": self._peers,
            "receipts": self._receipts,
            "heartbeat": self._heartbeat,
            "admitted": self._admitted,
            "publish": self._publish,
            "published": self._show_published,
            "places": self._places,
            "letters": self._letters,
        }

    def answer(self, request: Mapping[str, Any], stream: BinaryIO) -> dict[str, Any]:
        """Return the result of a request.

        Args:
            request: The request's JSON object; the caller has checked `id`.
            stream: Where bytes that follow the request's line come from.

        Raises:
            UsageError: If the operation or a field is unknown, missing or of another type.
            ApplianceError: Whatever the operation raises.
        """
        op = request.get("op")
        if not isinstance(op, str) or op not in FIELDS:
            raise UsageError("no such operation")
        fields = {name: value for name, value in request.items() if name not in {"id", "op"}}
        _check_fields(fields, FIELDS[op])
        if op == "model":
            return self._model(stream, **fields)
        return self._handlers[op](**fields)

    def _identify(self) -> dict[str, Any]:
        return {
            "node": self._settings.node,
            "wireguard_public_key": self._identity.wireguard_public_key(),
            "receipt_public_key": self._world.notary.status()["public_key"],
            "tls_request": self._identity.tls_request(),
            "boot": read_boot_id(),
            "appliance": __version__,
        }

    def _state(self) -> dict[str, Any]:
        return {
            "accepted": self._accepted(),
            "boot": read_boot_id(),
            "epoch": self._memory.epoch,
            "models": self._models.digests(),
        }

    def _accepted(self) -> dict[str, Any] | None:
        accepted = self._memory.accepted
        return accepted.model_dump(mode="json") if accepted else None

    def _model(self, stream: BinaryIO, sha256: str, size: int) -> dict[str, Any]:
        if not _DIGEST.fullmatch(sha256) or not 1 <= size <= MAX_MODEL_BYTES:
            raise UsageError("`sha256` or `size` is not one of a model file")
        return {"stored": self._models.store(stream, sha256, size)}

    def _plan(self, bundle: str, signature: str) -> dict[str, Any]:
        lines = self._passes.plan(Signed(bundle, signature)).lines()
        if lines:
            return {"actions": lines}
        return {"actions": [], "why_empty": "the node is what this bundle says"}

    def _apply(self, bundle: str, signature: str) -> dict[str, Any]:
        applied = self._passes.apply(Signed(bundle, signature))
        return {
            "accepted": applied.accepted.model_dump(mode="json"),
            "actions": applied.lines,
            "milliseconds": applied.milliseconds,
        }

    def _revoke(self, revocation: str, signature: str) -> dict[str, Any]:
        revoked = self._passes.revoke(Signed(revocation, signature))
        return {"removed": revoked.removed, "ended": revoked.ended, "milliseconds": revoked.milliseconds}

    def _grant(self, grant: str, signature: str) -> dict[str, Any]:
        granted = self._passes.grant(Signed(grant, signature))
        return {"added": granted.added, "milliseconds": granted.milliseconds}

    def _raise(self, statement: str, signature: str) -> dict[str, Any]:
        return {"epoch": self._passes.raise_epoch(Signed(statement, signature))}

    def _health(self) -> dict[str, Any]:
        world, notary = self._world, ask_notary(self._world.notary)
        return {
            "node": self._settings.node,
            "boot": read_boot_id(),
            "appliance": __version__,
            "accepted": self._accepted(),
            **observe_host(self._paths),
            **observe_serving(self._paths, world.cells, notary),
            "tokens_per_s": self._rate.note(int(notary.get("tokens", 0)), time.monotonic()),
            "tunnel": summarise_tunnel(world.tunnel.observe(), int(time.time())),
            "nginx": world.web.pid() is not None,
            "models": self._models.observe(self._memory.bundle),
            "clock": now_text(),  # last: control compares it with its own
        }

    def _peers(self) -> dict[str, Any]:
        return sort_peers(self._world.tunnel.observe().peers, int(time.time()))

    def _receipts(self, after: int, limit: int) -> dict[str, Any]:
        if after < 0 or not 1 <= limit <= MAX_RECEIPTS:
            raise UsageError(f"`after` is 0 or more, `limit` 1 to {MAX_RECEIPTS}")
        return self._world.notary.export(after, limit)

    def _heartbeat(self, nonce: str) -> dict[str, Any]:
        return self._world.notary.heartbeat(nonce)

    def _admitted(self, position: int) -> dict[str, Any]:
        return self._world.notary.note_admitted(position)

    def _places(self, places: list[Any]) -> dict[str, Any]:
        return self._world.notary.note_places(places)

    def _letters(self) -> dict[str, Any]:
        return {"letters": [letter.model_dump(mode="json") for letter in self._world.files.letters()]}

    def _publish(self, files: dict[str, Any], checkpoint: str) -> dict[str, Any]:
        if len(files) > MAX_FILES or not all(isinstance(text, str) for text in files.values()):
            raise UsageError(f"`files` are at most {MAX_FILES} tiles in base64")
        return {"size": self._published.publish(files, checkpoint)}

    def _show_published(self, path: str) -> dict[str, Any]:
        data = self._published.read(path)
        return {"data": None if data is None else encode_base64(data)}


def _check_fields(fields: Mapping[str, Any], schema: Mapping[str, type]) -> None:
    # The names of unknown fields are not repeated: they are whatever the other side sent.
    if fields.keys() != schema.keys():
        raise UsageError(f"this operation has the fields: {', '.join(sorted(schema)) or 'none'}")
    for name, kind in schema.items():
        # bool is an int in Python, and not one in the protocol
        if type(fields[name]) is not kind:
            raise UsageError(f"`{name}` has another type than the protocol says")
