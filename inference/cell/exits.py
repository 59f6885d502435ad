"""How a cell ends, as its exit code: the only thing that it can say outside of its answers."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """Exit codes of a cell."""

    DONE = 0  # idle, drained, revoked, or its model is no longer the pinned one: the next request starts a fresh cell
    MODEL_REFUSED = 11  # no file, or its bytes or the runtime are not the pinned ones
    MODEL_FAILED = 12  # the engine could not load the model, or its self-test failed
    ENGINE_FAILED = 13  # the engine gave up while it served
    ERASE_FAILED = 14  # a session's memory could not be overwritten and read back as zero
    NOTARY_LOST = 15  # the connection to the notary ended
    INTERNAL = 16  # a fault of ours
