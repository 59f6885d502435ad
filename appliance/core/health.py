"""A node's health: what its agent says about the machine when control asks (docs/spec/node-protocols.md section 1.2).

Closed, and numbers throughout: nothing here is about any request. Rates are coarse, and peers are counted, not named.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field

from appliance.core.bundle import Accepted
from appliance.core.names import Digest, Hex128, Key32, Name, Timestamp, Version
from appliance.core.schema import Closed

CONNECTED_S: Final = 180
"""A handshake this long ago no longer carries packets (WireGuard, REJECT_AFTER_TIME): the peer counts as connected until then."""
STEP_S: Final = 30
"""How coarse the age of a handshake leaves the node."""

Count = Annotated[int, Field(ge=0, le=2**53 - 1)]
Celsius = Annotated[int, Field(ge=-100, le=1000)]
Percent = Annotated[int, Field(ge=0, le=100)]
DiskName = Literal["root", "state", "models", "receipts"]


class CellHealth(Closed):
    """A running cell, as the kernel shows it from outside.

    Attributes:
        client, pid, rss_bytes: Whose, and its resident memory.
        confined: A system call filter is in force, it can gain no privileges and has no capability (proc_pid_status(5)).
            A cell that is just starting is not yet.
    """

    client: Name
    confined: bool
    pid: Count
    rss_bytes: Count


class Seats(Closed):
    """Seats, and how many a cell holds."""

    taken: Count
    total: Count


class Memory(Closed):
    """Main memory; available is what new work can have without swapping (MemAvailable, proc_meminfo(5))."""

    available_bytes: Count
    total_bytes: Count


class Disk(Closed):
    """A file system of the node, under the first name of what lies on it. Free is what unprivileged users can have."""

    free_bytes: Count
    name: DiskName
    total_bytes: Count


class Gpu(Closed):
    """A GPU; None is what it does not tell."""

    index: Annotated[int, Field(ge=0, le=255)]
    memory_total_bytes: Count | None = None
    memory_used_bytes: Count | None = None
    temperature_c: Celsius | None = None
    utilisation_percent: Percent | None = None


class NotaryHealth(Closed):
    """The notary, and how full its journal is.

    Attributes:
        up: It answers; if not, the others are 0.
        records: Receipts ever.
        sessions: Open now.
        waiting: Receipts that control has not said it has.
        bytes, max_bytes: Of the journal.
    """

    bytes: Count
    max_bytes: Count
    records: Count
    sessions: Count
    up: bool
    waiting: Count


class TunnelHealth(Closed):
    """The WireGuard interface.

    Attributes:
        kind: Who carries it; None if there is no interface.
        up: It carries packets.
        connected, stale, never_seen: Peers by their last handshake: within `CONNECTED_S`, longer ago, none since it came up.
    """

    connected: Count
    kind: Literal["kernel", "wireguard-go"] | None
    never_seen: Count
    stale: Count
    up: bool


class ModelHealth(Closed):
    """A pinned model file.

    Attributes:
        state: `verified`: its bytes have the digest, read whole once in this run of the agent for this very file; `reading`;
            `failed`: they have another, or the file is gone or cannot be read.
    """

    sha256: Digest
    state: Literal["verified", "reading", "failed"]


class Health(Closed):
    """The report.

    Attributes:
        node, boot, appliance: Who, in which boot of the machine, and the agent's version.
        accepted: The bundle in force.
        clock: Wall clock, read last.
        uptime_s: Since boot, sleep included.
        cores: Logical processors.
        load: Over 1, 5 and 15 minutes, in thousandths.
        temperature_c: Of the hottest sensor outside of GPUs; None if there is none.
        swap: Whether any is on; cells refuse to run then.
        queue: Connections that wait for a cell to take them. What waits inside of a cell is not told.
        tokens_per_s: Written in sessions that ended lately, rounded down to 1, 2 or 5 times a power of ten.
        nginx: Whether it runs.
    """

    accepted: Accepted | None
    appliance: Version
    boot: Hex128
    cells: Annotated[tuple[CellHealth, ...], Field(max_length=1024)]
    clock: Timestamp
    cores: Count
    disks: Annotated[tuple[Disk, ...], Field(max_length=4)]
    gpus: Annotated[tuple[Gpu, ...], Field(max_length=64)]
    load: tuple[Count, Count, Count]
    memory: Memory
    models: Annotated[tuple[ModelHealth, ...], Field(max_length=4096)]
    nginx: bool
    node: Name
    notary: NotaryHealth
    queue: Count
    seats: Seats
    swap: bool
    temperature_c: Celsius | None
    tokens_per_s: Count
    tunnel: TunnelHealth
    uptime_s: Count


class Fresh(Closed):
    """Peers that are connected.

    Attributes:
        left_s: How long that can still be said of them, rounded down to a multiple of `STEP_S`.
        public_keys: Of the peers.
    """

    left_s: Annotated[int, Field(ge=0, le=CONNECTED_S, multiple_of=STEP_S)]
    public_keys: Annotated[tuple[Key32, ...], Field(max_length=10_000)]


class Peers(Closed):
    """Who is connected, and of whom the kernel knows an older handshake; of all others it knows none."""

    connected: Annotated[tuple[Fresh, ...], Field(max_length=CONNECTED_S // STEP_S + 1)]
    stale: Annotated[tuple[Key32, ...], Field(max_length=10_000)]


def coarse(value: float) -> int:
    """Return the greatest of 0, 1, 2, 5, 10, 20, 50, … that is not above a value."""
    step = 1
    while step * 10 <= value:
        step *= 10
    return next((step * factor for factor in (5, 2, 1) if step * factor <= value), 0)
