"""What a control that was restored from a backup must not do yet, and what lets it go on.

    sending bundles     until `appliance control epoch raise`
    signing heads       until `appliance control log compare` (or `log succeed`)

Both are read from what cannot lie: the file that came with the backup, and rows that the backup cannot hold.
"""

from __future__ import annotations

from appliance.core.errors import HostError, RefusedError
from appliance.core.storage import read_or_none
from control.backup.manifest import Restored
from control.config import ControlPaths


class RestoredError(RefusedError):
    """Control was restored from a backup, and nobody has said yet how it goes on."""

    code = "restored"


def read_restored(paths: ControlPaths) -> Restored | None:
    """Return what a restore left in the state; None for a control that was never restored.

    Raises:
        HostError: If it is there and damaged.
    """
    data = read_or_none(paths.restored)
    try:
        return None if data is None else Restored.parse_canonical(data)
    except RefusedError as error:
        raise HostError(f"{paths.restored} is damaged", hint="restore the backup again") from error


def verify_raised(restored: Restored | None) -> None:
    """Check that bundles may be sent; return None or raise.

    Raises:
        RestoredError: If control was restored and its epoch is still the backup's.
    """
    from control.fleet.models import current_epoch

    if restored is not None and current_epoch() <= restored.epoch:
        raise RestoredError(
            "control was restored from a backup, and its epoch was not raised",
            field="epoch",
            hint="appliance control epoch raise --restore-key FILE",
        )


def verify_compared(restored: Restored | None) -> None:
    """Check that heads of the log may be signed; return None or raise.

    Raises:
        RestoredError: If control was restored and nobody compared its log with what was published.
    """
    from control.backup.models import LogRelease

    if restored is not None and not LogRelease.objects.filter(backup=restored.backup).exists():
        raise RestoredError(
            "the log is frozen: control was restored from a backup, and may have signed later heads before",
            field="log",
            hint="appliance control log compare",
        )
