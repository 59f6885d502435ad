"""Signatures with a purpose, sealed boxes, key files, pins."""

import base64
import io
import stat
import subprocess

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from appliance.core import sealed, signing
from appliance.core.errors import HostError, PinError, RefusedError
from appliance.core.names import encode_base64
from appliance.core.pin import PinnedFile, pin_file, verify_open_file


def test_a_signature_verifies_only_for_its_purpose():
    key = Ed25519PrivateKey.generate()
    signature = signing.sign(key, signing.Purpose.BUNDLE, b"x")
    signing.verify(signing.public_text(key), signing.Purpose.BUNDLE, b"x", signature)
    with pytest.raises(RefusedError):
        signing.verify(signing.public_text(key), signing.Purpose.RECEIPT, b"x", signature)


def test_openssh_verifies_a_signature_for_its_purpose_and_no_other(tmp_path):
    key = Ed25519PrivateKey.generate()
    public = signing.public_text(key)
    line = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    (tmp_path / "signers").write_bytes(b"node " + line + b"\n")
    made = signing.sign(key, signing.Purpose.RECEIPT, b"message")
    (tmp_path / "sig").write_text(signing.ssh_signature(public, signing.Purpose.RECEIPT, made))
    outcomes = [
        subprocess.run(
            ["ssh-keygen", "-Y", "verify", "-f", "signers", "-I", "node", "-s", "sig", "-n", namespace],
            cwd=tmp_path,
            input=message,
            capture_output=True,
            check=False,
        ).returncode
        for namespace, message in (
            ("sovereign-appliance/receipt/v1", b"message"),
            ("sovereign-appliance/bundle/v1", b"message"),
            ("sovereign-appliance/receipt/v1", b"another"),
        )
    ]
    assert [code == 0 for code in outcomes] == [True, False, False]


def test_what_openssh_signed_verifies_here(tmp_path):
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    (tmp_path / "key").write_bytes(private)
    (tmp_path / "key").chmod(0o600)
    namespace = "sovereign-appliance/receipt/v1"
    command = ["ssh-keygen", "-q", "-Y", "sign", "-f", tmp_path / "key", "-n", namespace]
    armoured = subprocess.run(command, input=b"message", capture_output=True, check=True).stdout.decode()
    blob = base64.b64decode("".join(armoured.splitlines()[1:-1]))
    public = signing.public_text(key)
    signing.verify(public, signing.Purpose.RECEIPT, b"message", encode_base64(blob[-64:]))
    assert signing.ssh_signature(public, signing.Purpose.RECEIPT, encode_base64(blob[-64:])) == armoured


def test_a_key_file_is_private_and_never_overwritten(tmp_path):
    path = tmp_path / "key"
    key = Ed25519PrivateKey.generate()
    signing.write_private_key(path, key)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert signing.public_text(signing.read_private_key(path)) == signing.public_text(key)
    with pytest.raises(HostError):
        signing.write_private_key(path, key)


def test_an_unreadable_key_is_fatal(tmp_path):
    (tmp_path / "key").write_text("no key")
    with pytest.raises(HostError):
        signing.read_private_key(tmp_path / "key")


def test_a_sealed_box_opens_only_for_its_key_and_context():
    key = X25519PrivateKey.generate()
    public = encode_base64(key.public_key().public_bytes_raw())
    box = sealed.seal(public, b"secret", b"acme/laptop")
    assert sealed.unseal(key, box, b"acme/laptop") == b"secret"
    for opener, context in ((X25519PrivateKey.generate(), b"acme/laptop"), (key, b"bolt/laptop")):
        with pytest.raises(RefusedError):
            sealed.unseal(opener, box, context)


def test_a_changed_model_file_is_refused(tmp_path):
    path = tmp_path / "weights.gguf"
    path.write_bytes(b"weights")
    pinned = pin_file(path)
    verify_open_file(io.BytesIO(b"weights"), pinned, "files.0")
    for other, field in ((b"Weights", "files.0.sha256"), (b"weights!", "files.0.size")):
        with pytest.raises(PinError) as refused:
            verify_open_file(io.BytesIO(other), pinned, "files.0")
        assert refused.value.field == field


def test_a_file_name_in_a_manifest_has_no_folder():
    with pytest.raises(RefusedError):
        PinnedFile.parse({"path": "../weights", "size": 1, "sha256": "ab" * 32})
