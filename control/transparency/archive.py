"""What an operator hands out: a receipt with its proof, the keys, the page that verifies, and how."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Final

from appliance.transparency import verify_receipt
from control.audit.models import ReceiptRecord
from control.config import ControlPaths
from control.transparency.proofs import prove

_EARLIEST: Final = (1980, 1, 1, 0, 0, 0)  # the same files make the same archive
_VERIFY: Final = """# How to verify this receipt

You need Python 3.9 or later with the library `cryptography` (48 or later), no network, and no trust in whoever sent you this.

    python3 verify_receipt.py receipt.json --root ROOT --keyring keyring.json --proof receipt.tlog-proof --log log.vkey

ROOT is the root key of your configuration (`log_key`). `log.vkey` must be the file that came with your configuration: compare the one in
here with it, or use yours. The page `verify_receipt.py` is a few hundred lines; read it, or use your own copy.

With OpenSSL alone, the log's Ed25519 signature over the tree head: the text is what stands between the first and the second empty
line of `receipt.tlog-proof`, up to its last newline; the signature is the first line behind it, decoded from base64, without its first
four bytes; the key is the first line of `log.vkey`, decoded from what stands behind the second plus sign, without its first byte.

    openssl pkeyutl -verify -rawin -pubin -inkey log.pem -sigfile signature -in text

Formats: docs/spec/receipt-v1.md and docs/spec/log-v1.md of the appliance; the latter follows c2sp.org/tlog-proof.
"""


def make_archive(record: ReceiptRecord, paths: ControlPaths) -> bytes:
    """Return a zip file.

    Raises:
        NotLoggedError: If the receipt has no place in the log yet.
        HostError: If a tile of the log is missing or damaged.
    """
    files = {
        "receipt.json": record.signed().canonical_bytes(),
        "receipt.tlog-proof": prove(record, paths.log).render(),
        "log.vkey": paths.log_keys.read_bytes(),
        "keyring.json": paths.keyring.read_bytes(),
        "verify_receipt.py": Path(verify_receipt.__file__).read_bytes(),
        "VERIFY.md": _VERIFY.encode("utf-8"),
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name, _EARLIEST), content)
    return buffer.getvalue()
