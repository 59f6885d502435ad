"""Why a cell does not serve: a closed set of codes, what each means and what mends it, and the exit codes.

These codes are all that a cell says about itself. Standard library only: it is imported before confinement.
"""

from __future__ import annotations

from enum import StrEnum

from appliance.core.errors import ConfinementError

EXIT_FAILED = 1  # an unexpected error; its text was dropped, since it could quote content
EXIT_NO_SEAT = 75  # EX_TEMPFAIL (sysexits.h): every seat is taken; 503 was answered
EXIT_REFUSED = 78  # EX_CONFIG: a required property or input is missing; the report names it


class Property(StrEnum):
    """What a cell requires before it serves."""

    LISTENER = "listener"
    NOTARY = "notary"
    SEATS = "seats"
    POLICY = "policy"
    MODELS = "models"
    SINGLE_THREAD = "single_thread"
    SWAP = "swap"
    CORE_DUMPS = "core_dumps"
    NEW_PRIVILEGES = "new_privileges"
    DUMPABLE = "dumpable"
    CAPABILITIES = "capabilities"
    NETWORK_NAMESPACE = "network_namespace"
    LANDLOCK = "landlock"
    SECCOMP = "seccomp"
    WRITE = "write"
    READ = "read"
    SOCKETS = "sockets"
    CONNECT = "connect"
    SIGNAL = "signal"
    EXEC = "exec"
    SHARED_MEMORY = "shared_memory"
    DESCRIPTORS = "descriptors"


_DOCTOR = "run `appliance doctor` and mend what it marks"

# property -> (what is missing, what to do)
MEANINGS: dict[Property, tuple[str, str]] = {
    Property.LISTENER: (
        "descriptor 3 is not a listening Unix socket passed to this process",
        "start the cell through systemd or `appliance launcher`, never by hand",
    ),
    Property.NOTARY: ("the notary does not answer", "start `appliance notary` and apply the bundle again"),
    Property.SEATS: ("there are no seat files", "apply the bundle again: `appliance node apply`"),
    Property.POLICY: ("the client's policy cannot be read", "apply the bundle again: `appliance node apply`"),
    Property.MODELS: ("the model folder cannot be read", "apply the bundle again: `appliance node apply`"),
    Property.SINGLE_THREAD: ("a thread ran before confinement", "start the cell without preloaded libraries"),
    Property.SWAP: (
        "swap is on, so memory can reach a disk",
        "run `swapoff -a` and remove it from /etc/fstab",
    ),
    Property.CORE_DUMPS: ("a core dump is possible", "start the cell with LimitCORE=0"),
    Property.NEW_PRIVILEGES: ("the process could gain privileges", _DOCTOR),
    Property.DUMPABLE: ("other processes could read the cell's memory", _DOCTOR),
    Property.CAPABILITIES: ("the process holds a capability", _DOCTOR),
    Property.NETWORK_NAMESPACE: (
        "the network namespace has a way out",
        "start the cell with PrivateNetwork=yes or through `appliance launcher`",
    ),
    Property.LANDLOCK: (
        "the kernel's Landlock is older than ABI 2 or off",
        "boot Linux 5.19 or later with `lsm=landlock,…` on its command line",
    ),
    Property.SECCOMP: ("the system call filter is not in force", "boot a kernel with CONFIG_SECCOMP_FILTER"),
    Property.WRITE: ("a file could be opened for writing", _DOCTOR),
    Property.READ: ("a file outside the cell's view could be read", _DOCTOR),
    Property.SOCKETS: ("a socket could be made", _DOCTOR),
    Property.CONNECT: ("a socket could be connected", _DOCTOR),
    Property.SIGNAL: ("another process could be signalled", _DOCTOR),
    Property.EXEC: ("another program could be executed", _DOCTOR),
    Property.SHARED_MEMORY: ("memory that outlives the process could be made", _DOCTOR),
    Property.DESCRIPTORS: ("a descriptor is open that should not be", _DOCTOR),
}


class PropertyError(ConfinementError):
    """A required property does not hold. `prop` names it; the hint says what mends it."""

    def __init__(self, prop: Property) -> None:
        meaning, hint = MEANINGS[prop]
        super().__init__(f"{prop}: {meaning}", hint=hint)
        self.prop = prop
