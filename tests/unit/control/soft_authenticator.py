"""An authenticator and its browser in software: it makes and uses one passkey, honestly unless it is told to cheat."""

from __future__ import annotations

import hashlib
import json
import secrets
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from fido2.cose import ES256, CoseKey
from fido2.utils import websafe_encode
from fido2.webauthn import (
    Aaguid,
    AttestationObject,
    AttestedCredentialData,
    AuthenticatorData,
    CollectedClientData,
)

FLAG = AuthenticatorData.FLAG


@dataclass
class SoftAuthenticator:
    """One passkey.

    Attributes:
        origin, rp_id, cross_origin: What the browser says of the page that asks.
        flags: Whether somebody was there, and who.
        counter: Its count of signatures; it grows by `step` with each.
        challenge: What it signs in place of what it was asked.
        kind: What it says it does in place of what it does.
    """

    origin: str = "https://testserver"
    rp_id: str = "testserver"
    cross_origin: bool = False
    flags: int = FLAG.UP | FLAG.UV
    counter: int = 0
    step: int = 1
    challenge: str | None = None
    kind: str | None = None
    credential_id: bytes = field(default_factory=lambda: secrets.token_bytes(32))
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    public: CoseKey | None = None

    def create(self, options: str) -> str:
        """Answer what `navigator.credentials.create` is asked."""
        public = self.public or ES256.from_cryptography_key(self.key.public_key())
        made = AttestedCredentialData.create(Aaguid.NONE, self.credential_id, public)
        data = self._data(self.flags | FLAG.AT, made)
        client = self._client("webauthn.create", options)
        attestation = AttestationObject.create("none", data, {})
        return self._answer(clientDataJSON=client, attestationObject=attestation)

    def get(self, options: str) -> str:
        """Answer what `navigator.credentials.get` is asked."""
        data = self._data(self.flags)
        client = self._client("webauthn.get", options)
        signed = self.key.sign(data + hashlib.sha256(client).digest(), ec.ECDSA(hashes.SHA256()))
        return self._answer(clientDataJSON=client, authenticatorData=data, signature=signed)

    def _data(self, flags: int, credential: bytes = b"") -> AuthenticatorData:
        self.counter += self.step
        rp = hashlib.sha256(self.rp_id.encode()).digest()
        return AuthenticatorData.create(rp, FLAG(flags), self.counter, credential)

    def _client(self, kind: str, options: str) -> CollectedClientData:
        challenge = self.challenge or json.loads(options)["challenge"]
        return CollectedClientData.create(self.kind or kind, challenge, self.origin, self.cross_origin)

    def _answer(self, **response: bytes) -> str:
        answer: dict[str, Any] = {
            "id": websafe_encode(self.credential_id),
            "rawId": websafe_encode(self.credential_id),
            "type": "public-key",
            "clientExtensionResults": {},
            "response": {name: websafe_encode(value) for name, value in response.items()},
        }
        return json.dumps(answer)
