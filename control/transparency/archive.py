"""What an operator hands out: a receipt with its proof, the keys, the page that verifies, and how."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Final

from appliance.core.receipt import Keyring, SignedReceipt
from appliance.core.signing import Purpose, key_id, ssh_signature
from appliance.transparency import verify_receipt
from appliance.transparency.errors import NotLoggedError
from control.audit.models import ReceiptRecord
from control.config import ControlPaths
from control.transparency.proofs import prove

_EARLIEST: Final = (1980, 1, 1, 0, 0, 0)  # the same files make the same archive
_VERIFY: Final = Path(__file__).with_name("VERIFY.md")


def make_archive(record: ReceiptRecord, paths: ControlPaths) -> bytes:
    """Return a zip file.

    Raises:
        NotLoggedError: If the receipt has no place in the log yet.
        HostError: If a tile of the log is missing or damaged.
    """
    signed, keyring = record.signed(), Keyring.parse_canonical(paths.keyring.read_bytes())
    files = {
        "receipt.json": signed.canonical_bytes(),
        "receipt.sig": _ssh_signature(signed, keyring).encode("ascii"),
        "receipt.tlog-proof": prove(record, paths.log).render(),
        "log.vkey": paths.log_keys.read_bytes(),
        "keyring.json": keyring.canonical_bytes(),
        "keyring.sig": ssh_signature(keyring.log_key, Purpose.KEYRING, keyring.signature).encode("ascii"),
        "verify_receipt.py": Path(verify_receipt.__file__).read_bytes(),
        "VERIFY.md": _VERIFY.read_bytes(),
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name, _EARLIEST), content)
    return buffer.getvalue()


def _ssh_signature(signed: SignedReceipt, keyring: Keyring) -> str:
    """Return a receipt's signature as OpenSSH writes it; the file names the key that made it."""
    for node in keyring.body.nodes:
        if key_id(node.public_key) == signed.key:
            return ssh_signature(node.public_key, Purpose.RECEIPT, signed.signature)
    raise NotLoggedError("the keyring lacks the key of this receipt", hint="ask again in a minute")
