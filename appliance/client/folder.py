"""The client's folder: what control gave out, completed with the private key that never left this computer.

appliance.conf      for wg-quick(8), mode 0600
ca.pem              the internal CA; nothing else is trusted
token               the bearer token, mode 0600; the OpenAI SDK's api_key
receipt-keys.json   the keys that verify receipts
log.vkey            the keys that verify heads of the log of receipts
witnesses.vkey      the keys of those who cosign them, where the operator named any
client.json         the rest: names, base URL, pins, pseudonym key (mode 0600)
log.seen            the last head of that log that was seen
receipts/           receipts as they come in, and the proofs that the log holds them
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from appliance.client import wireguard_key
from appliance.core.client_configuration import PRIVATE_KEY_PLACEHOLDER, ClientConfiguration
from appliance.core.errors import HostError, RefusedError, UsageError
from appliance.core.names import decode_base64
from appliance.core.receipt import Keyring, SignedReceipt, pseudonym, verify_receipt

_IN_FILES: Final = {
    "wireguard_conf",
    "token",
    "ca_pem",
    "keyring",
    "log_keys",
    "witness_keys",
}  # of their own


@dataclass(frozen=True)
class Folder:
    """A client's folder that was written by `write`."""

    path: Path

    @property
    def token(self) -> str:
        """The bearer token."""
        return self._read("token").strip()

    @property
    def base_url(self) -> str:
        """Base URL of the OpenAI API, for example `https://10.86.0.1/v1`."""
        return str(self._client()["base_url"])

    @property
    def ca_file(self) -> Path:
        """PEM file of the internal CA."""
        return self.path / "ca.pem"

    @property
    def keyring(self) -> Keyring:
        """The keys that verify receipts."""
        return Keyring.parse(json.loads(self._read("receipt-keys.json")))

    @property
    def log_keys(self) -> Path:
        """File with the keys of the log of receipts."""
        return self.path / "log.vkey"

    @property
    def witness_keys(self) -> Path:
        """File with the keys of the log's witnesses; it need not be there."""
        return self.path / "witnesses.vkey"

    @property
    def receipts(self) -> Path:
        """Folder of the receipts that were kept."""
        return self.path / "receipts"

    def keep(self, signed: SignedReceipt) -> Path:
        """Verify a receipt, check that it is about this client, and keep it.

        Raises:
            ReceiptError: If it does not verify.
            RefusedError: If it is about somebody else.
        """
        verify_receipt(signed, self.keyring)
        client = self._client()
        if signed.receipt.client != pseudonym(decode_base64(client["pseudonym_key"]), client["client"]):
            raise RefusedError("the receipt is about another client", field="receipt.client")
        self.receipts.mkdir(exist_ok=True)
        file = self.receipts / f"{signed.receipt.id}.json"
        file.write_bytes(signed.canonical_bytes())
        return file

    def _client(self) -> dict[str, str]:
        return dict(json.loads(self._read("client.json")))

    def _read(self, name: str) -> str:
        try:
            return (self.path / name).read_text("utf-8")
        except OSError as error:
            hint = "appliance client config CONFIGURATION --key KEY --out " + str(self.path)
            raise HostError(f"cannot read {self.path / name}", hint=hint) from error


def write(configuration: ClientConfiguration, key: Path, path: Path) -> Folder:
    """Complete a configuration with the private key and write the folder.

    Raises:
        UsageError: If the configuration was made for another public key, or the folder is already there.
    """
    if configuration.public_key != wireguard_key.public_key(key):
        raise UsageError(
            "the configuration belongs to another key",
            hint="use the key whose public half you gave to the operator",
        )
    try:
        path.mkdir(parents=True, mode=0o700)
    except FileExistsError as error:
        raise UsageError(f"{path} exists", hint="choose another --out, or remove it first") from error
    tunnel = configuration.wireguard_conf.replace(PRIVATE_KEY_PLACEHOLDER, wireguard_key.read(key))
    rest = configuration.model_dump(mode="json", exclude=_IN_FILES)
    _put(path / "appliance.conf", tunnel, 0o600)
    _put(path / "token", configuration.token + "\n", 0o600)
    _put(path / "ca.pem", configuration.ca_pem, 0o644)
    _put(path / "receipt-keys.json", configuration.keyring.canonical_bytes().decode() + "\n", 0o644)
    _put(path / "log.vkey", "".join(f"{key}\n" for key in configuration.log_keys), 0o644)
    if configuration.witness_keys:
        _put(path / "witnesses.vkey", "".join(f"{key}\n" for key in configuration.witness_keys), 0o644)
    _put(path / "client.json", json.dumps(rest, indent=2) + "\n", 0o600)
    return Folder(path)


def _put(path: Path, text: str, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
