"""All who verify what a client holds: our command, the page that stands alone, OpenSSH and OpenSSL as VERIFY.md shows them.

Each says `valid` or the step that failed, in the words of the specifications; the two tools say only whether they refuse.
"""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from appliance.cli import main
from appliance.core.signing import Purpose, ssh_signature
from appliance.transparency import verify_receipt as page
from control.transparency import archive

VECTORS = Path(__file__).parents[2] / "vectors"
VALID, REFUSED = "valid", "refused"
_FORM, _ROOT = "receipt_format", "keyring_root"
_STEPS = {  # the fields that our errors name
    "keyring.log_key": _ROOT,
    "keyring.signature": "keyring_signature",
    "key": "receipt_key",
    "receipt.node": "receipt_node",
    "signature": "receipt_signature",
}


def read_vector(path: Path) -> tuple[dict[str, str], bytes]:
    """Return a vector's header and its file."""
    header, _, data = path.read_bytes().partition(b"\n\n")
    lines = (line.partition(":") for line in header.decode().splitlines())
    return {name: value.strip() for name, _, value in lines}, data


_RECEIPT, _LOGGED = (read_vector(VECTORS / kind / "valid.txt") for kind in ("receipts", "log"))


@dataclass(frozen=True)
class Evidence:
    """What a client holds, as bytes of files.

    Attributes:
        receipt, keyring, proof: As they came.
        root: The trusted root key.
        log, witnesses: The trusted keys of the log, and of those who must have cosigned.
    """

    receipt: bytes = _RECEIPT[1]
    keyring: bytes = _RECEIPT[0]["keyring"].encode()
    proof: bytes = _LOGGED[1]
    root: str = _RECEIPT[0]["log-key"]
    log: tuple[str, ...] = field(default=tuple(_LOGGED[0]["log"].split()))
    witnesses: tuple[str, ...] = ()

    def write(self, folder: Path) -> list[str]:
        """Write the files; return the options that name the witnesses'."""
        for name, content in (
            ("receipt.json", self.receipt),
            ("keyring.json", self.keyring),
            ("receipt.tlog-proof", self.proof),
            ("log.vkey", "".join(f"{key}\n" for key in self.log).encode()),
            ("verify_receipt.py", Path(page.__file__).read_bytes()),
        ):
            (folder / name).write_bytes(content)
        for number, key in enumerate(self.witnesses):
            (folder / f"{number}.vkey").write_text(f"{key}\n")
        return [word for n in range(len(self.witnesses)) for word in ("--witness", f"{n}.vkey")]


@dataclass(frozen=True)
class Bench:
    """Where verifiers run.

    Attributes:
        folder: Of the files; the working directory.
        capsys: What a command printed.
        patch: Sets a command line.
    """

    folder: Path
    capsys: pytest.CaptureFixture[str]
    patch: pytest.MonkeyPatch

    def command(self, evidence: Evidence) -> str:
        """Return what `appliance receipt verify` says."""
        witnesses = evidence.write(self.folder)
        options = ["--keys", "keyring.json", "--log-key", evidence.root, "--proof", "receipt.tlog-proof"]
        return self.named(["verify", "receipt.json", *options, "--log", "log.vkey", *witnesses])

    def named(self, arguments: list[str]) -> str:
        """Return what `appliance receipt` says: valid, a code of the log, or a step of receipts."""
        self.patch.chdir(self.folder)
        main(["receipt", *arguments, "--json"])
        said = json.loads(self.capsys.readouterr().out.splitlines()[-1])
        if said["ok"]:
            return VALID
        code, message = said["error"]["code"], said["error"]["message"]
        if code != "receipt_invalid":
            return str(code)
        return _STEPS.get(message.partition(": ")[0], _FORM)

    def page(self, evidence: Evidence) -> str:
        """Return what `verify_receipt.py` says, run in this process."""
        options = self._options(evidence)
        self.patch.chdir(self.folder)
        self.patch.setattr(sys, "argv", ["verify_receipt.py", *options])
        page.main()
        return _said(self.capsys.readouterr().out)

    def page_alone(self, evidence: Evidence) -> str:
        """Return what it says as a file of its own, in an environment with nothing in it."""
        command = [sys.executable, "-I", "verify_receipt.py", *self._options(evidence)]
        done = subprocess.run(
            command, cwd=self.folder, env={}, capture_output=True, text=True, check=False, timeout=60
        )
        assert not done.stderr
        return _said(done.stdout)

    def tools(self, evidence: Evidence, beside: Evidence | None = None) -> dict[str, str]:
        """Return what OpenSSH and OpenSSL say with the commands of VERIFY.md, word for word.

        Args:
            evidence: The files.
            beside: Whose signature files lie beside them; None: those that fit them.
        """
        evidence.write(self.folder)
        for name, signature in _ssh_signatures(beside or evidence):
            (self.folder / name).write_text(signature)
        shown = Path(archive.__file__).with_name("VERIFY.md").read_text("utf-8")
        _, openssh, openssl = re.findall(r"^```sh\n(.*?)^```$", shown, re.DOTALL | re.MULTILINE)
        environment = {"ROOT": evidence.root, "LOG": "log.vkey", "PATH": os.environ["PATH"]}
        said = {}
        for tool, commands in (("openssh", openssh), ("openssl", openssl)):
            done = subprocess.run(
                ["sh", "-c", commands], cwd=self.folder, env=environment, capture_output=True, check=False
            )
            said[tool] = REFUSED if done.returncode else VALID
        return said

    def _options(self, evidence: Evidence) -> list[str]:
        witnesses = evidence.write(self.folder)
        options = ["--root", evidence.root, "--keyring", "keyring.json", "--proof", "receipt.tlog-proof"]
        return ["receipt.json", *options, "--log", "log.vkey", *witnesses]


def _said(printed: str) -> str:
    return printed.strip().removeprefix("refused: ")


def _ssh_signatures(evidence: Evidence) -> Iterator[tuple[str, str]]:
    """Yield the two signature files of an archive. A forger's names whatever certified key makes them pass."""
    keyring = json.loads(evidence.keyring)
    made = re.search(rb'"signature":"([^"]*)"', evidence.receipt)
    node = next((n for n in keyring["body"]["nodes"] if n["node"] == "node-1"), keyring["body"]["nodes"][0])
    signature = made[1].decode() if made else base64.b64encode(bytes(64)).decode()
    yield "receipt.sig", ssh_signature(node["public_key"], Purpose.RECEIPT, signature)
    yield "keyring.sig", ssh_signature(evidence.root, Purpose.KEYRING, keyring["signature"])
