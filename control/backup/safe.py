"""Makes what lies in the operator's safe: the key that opens backups, and the key that raises the epoch after a restore."""

from __future__ import annotations

from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from appliance.core.errors import HostError, RefusedError
from appliance.core.signing import public_text, write_private_key
from appliance.core.storage import write_new
from control.backup.age import make_identity
from control.config import ControlPaths


def make_safe(folder: Path, paths: ControlPaths) -> dict[str, str]:
    """Write both private keys into a folder, mode 0600, and their public halves into control's; return the public halves.

    Raises:
        RefusedError: If there are such keys already.
        HostError: If they cannot be written.
    """
    if paths.restore_public.exists() or paths.backup_recipient.exists():
        raise RefusedError(
            "there are keys for the safe already",
            field="keys",
            hint="nodes know the old restore key: remove public/restore.pub and public/backup.recipient only if it is lost",
        )
    identity, restore = make_identity(), Ed25519PrivateKey.generate()
    recipient, public = identity.recipient.render(), public_text(restore)
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_private_key(folder / "restore.key", restore)
        write_new(folder / "backup.identity", identity.render().encode("ascii"), 0o600)
        write_new(paths.backup_recipient, f"{recipient}\n".encode("ascii"), 0o644)
        write_new(paths.restore_public, f"{public}\n".encode("ascii"), 0o644)
    except FileExistsError as error:
        raise RefusedError(
            "the folder holds such keys already", field="out", hint="name another one"
        ) from error
    except OSError as error:
        raise HostError("a key cannot be written", hint="run as the reconciler's user") from error
    return {"recipient": recipient, "restore_key": public}
