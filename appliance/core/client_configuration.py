"""What a client's computer needs to use one of its devices: the file that control hands out once, when it is added.

Control writes it (`control.clients.configuration`), `appliance client` reads it. It holds three secrets: the bearer
token, the pre-shared key (inside `wireguard_conf`) and the pseudonym key; so it is written with mode 0600 and control
cannot produce it a second time.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from appliance.core.bundle import Pem
from appliance.core.names import Digest, Key32, Name
from appliance.core.receipt import Keyring
from appliance.core.schema import Closed

PRIVATE_KEY_PLACEHOLDER = "REPLACE-WITH-YOUR-PRIVATE-KEY"
TOKEN_PREFIX = "sa_"  # noqa: S105 - a prefix by which secret scanners find a leaked token, not a token
Token = Annotated[str, StringConstraints(pattern=r"^sa_[A-Za-z0-9_-]{43}$")]
LogKey = Annotated[str, StringConstraints(max_length=4096, pattern=r"^[!-~]+$")]
BaseUrl = Annotated[str, StringConstraints(max_length=64, pattern=r"^https://[0-9a-f.:\[\]]+/v1$")]


class DeviceConfiguration(Closed):
    """One device's way in, but for its bearer token: what a device that made its own secrets is told.

    Attributes:
        v: Schema version.
        client, device: Whose it is.
        public_key: The WireGuard public key that the operator was given; the client checks it against its own.
        base_url: The API inside the tunnel, as the `openai` package takes it.
        wireguard_conf: wg-quick(8) text; its `PrivateKey` is a placeholder, since the key never left the client.
        ca_pem: The CA that signed the node's TLS certificate.
        keyring: The keys that verify receipts.
        log_keys: The two keys that verify heads of the log of receipts (docs/spec/log-v1.md section 3).
        witness_keys: Keys of those who cosign the heads, as far as the operator named any (section 6 there).
        pseudonym_key: 32 bytes; receipts name the client by a keyed digest that only its holders can compute.
        pin_ids: Models that the client may use, the default first.
    """

    v: Literal[1] = 1
    client: Name
    device: Name
    public_key: Key32
    base_url: BaseUrl
    wireguard_conf: Annotated[str, StringConstraints(max_length=4096)]
    ca_pem: Pem
    keyring: Keyring
    log_keys: Annotated[tuple[LogKey, ...], Field(min_length=2, max_length=2)]
    witness_keys: Annotated[tuple[LogKey, ...], Field(max_length=16)] = ()
    pseudonym_key: Key32
    pin_ids: Annotated[tuple[Digest, ...], Field(max_length=64)]


class ClientConfiguration(DeviceConfiguration):
    """One device's way in.

    Attributes:
        token: Bearer token (256 random bits), the `api_key` of the `openai` package.
    """

    token: Token
