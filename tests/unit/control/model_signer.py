"""Signs models as the reference does."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from typing import Any

from cryptography.hazmat.primitives import serialization

Sign = Callable[[bytes], bytes]


def bundle_of(statement: dict[str, Any], sign: Sign, **changes: Any) -> str:
    payload = json.dumps(statement).encode()
    kind = b"application/vnd.in-toto+json"
    signature = sign(b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload))
    bundle = {
        "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
        "verificationMaterial": {"publicKey": {"hint": ""}},
        "dsseEnvelope": {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": kind.decode(),
            "signatures": [{"sig": base64.b64encode(signature).decode(), "keyid": ""}],
        },
    }
    return json.dumps(bundle | changes)


def statement_of(*files: tuple[str, bytes], **changes: Any) -> dict[str, Any]:
    digests = [hashlib.sha256(content) for _, content in files]
    resources = [
        {"name": name, "algorithm": "sha256", "digest": digest.hexdigest()}
        for (name, _), digest in zip(files, digests, strict=True)
    ]
    root = hashlib.sha256(b"".join(digest.digest() for digest in digests)).hexdigest()
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "m", "digest": {"sha256": root}}],
        "predicateType": "https://model_signing/signature/v1.0",
        "predicate": {"serialization": {"method": "files", "hash_type": "sha256"}, "resources": resources},
        **changes,
    }


def pem_of(key: Any) -> bytes:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return bytes(key.public_key().public_bytes(serialization.Encoding.PEM, form))
