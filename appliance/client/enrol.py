"""Redeem an invitation: make keys, leave a letter in the node's mailbox, wait for control's answer, write the client's folder.

Everything secret is made here, and kept in a folder beside the one that is to be, before anything is sent: a run that was cut off goes on
where it was, with the same keys.

    wireguard.key    the private key
    preshared.key    the pre-shared key
    token            the bearer token
    invitation       the digest of the secret that redeems it
    letter           what is posted, written last
"""

from __future__ import annotations

import os
import secrets
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, Self, TypeVar

from appliance.client import wireguard_key
from appliance.client.folder import Folder, write
from appliance.core.client_configuration import TOKEN_PREFIX, ClientConfiguration
from appliance.core.enrolment import Answer, Redemption, close_redemption, fingerprint, open_answer
from appliance.core.errors import RefusedError, UnavailableError, UsageError
from appliance.core.names import encode_base64
from appliance.core.storage import read_or_none, write_new
from appliance.core.ticket import Ticket, redeem_digest

POLL_S: Final = 1.0
Report = Callable[[str], None]
T = TypeVar("T")


class Post(Protocol):
    """The node's mailbox, as `appliance.client.mailbox.Mailbox` speaks to it."""

    def post(self, letter: str) -> None:
        """Leave the letter."""

    def fetch(self) -> str | None:
        """Return the answer, None while there is none."""

    def confirm(self) -> None:
        """Say that it has arrived."""


@dataclass(frozen=True)
class Pending:
    """What the device made for one invitation."""

    path: Path

    @property
    def key(self) -> Path:
        """File of the private key."""
        return self.path / "wireguard.key"

    @property
    def token(self) -> str:
        """The bearer token."""
        return (self.path / "token").read_text("ascii").strip()

    @property
    def letter(self) -> str:
        """What is posted."""
        return (self.path / "letter").read_text("ascii").strip()

    @property
    def fingerprint(self) -> str:
        """Of the key, for two people to compare."""
        return fingerprint(wireguard_key.public_key(self.key))

    @classmethod
    def open(cls, ticket: Ticket, path: Path) -> Self:
        """Make it, or take up what an earlier run made for the same invitation.

        Raises:
            UsageError: If an earlier run was for another invitation.
        """
        known = read_or_none(path / "invitation")
        if known is not None and known.decode("ascii", "replace").strip() != ticket.keys.redeem_sha256:
            raise UsageError(
                f"{path} belongs to another invitation",
                hint="finish that one, or remove the folder if you gave it up",
            )
        if read_or_none(path / "letter") is None:
            shutil.rmtree(path, ignore_errors=True)  # nothing of it was ever sent
            _make(ticket, path)
        return cls(path)


def _make(ticket: Ticket, path: Path) -> None:
    path.mkdir(parents=True, mode=0o700)
    write_new(path / "invitation", f"{ticket.keys.redeem_sha256}\n".encode("ascii"), 0o600)
    public_key = wireguard_key.generate(path / "wireguard.key")
    token, preshared_key = TOKEN_PREFIX + secrets.token_urlsafe(32), encode_base64(secrets.token_bytes(32))
    write_new(path / "token", f"{token}\n".encode("ascii"), 0o600)
    write_new(path / "preshared.key", f"{preshared_key}\n".encode("ascii"), 0o600)
    redemption = Redemption(
        public_key=public_key, preshared_key=preshared_key, token_sha256=redeem_digest(token)
    )
    letter = close_redemption(ticket.keys.box, redemption)
    write_new(path / "letter", f"{letter}\n".encode("ascii"), 0o600)


def pending_folder(out: Path) -> Path:
    """Return where what the device makes is kept until `out` is whole."""
    return out.with_name(f"{out.name}.enrolling")


def enrol(ticket: Ticket, out: Path, mailbox: Post, *, wait_s: float, report: Report) -> Folder:
    """Redeem an invitation and write the client's folder.

    Args:
        ticket: The invitation.
        out: The folder to write.
        mailbox: The node's, through the tunnel.
        wait_s: How long to wait for the answer, in seconds.
        report: Told what is being done, for people.

    Raises:
        UsageError: If the folder is there.
        RefusedError: If the invitation is over, was redeemed by somebody else, or control refuses the device.
        UnavailableError: If there is no answer within `wait_s`; the next run goes on.
    """
    if out.exists():
        raise UsageError(f"{out} exists", hint="choose another --out, or remove it first")
    pending = Pending.open(ticket, pending_folder(out))
    deadline = time.monotonic() + wait_s
    report("leaving this device's public key with the node")
    _until(deadline, lambda: _post(mailbox, pending), ticket)
    report(_waiting(ticket, pending))
    box = _until(deadline, mailbox.fetch, ticket)
    folder = _take(ticket, pending, out, open_answer(ticket.keys.box, box), mailbox)
    shutil.rmtree(pending.path)
    return folder


def _post(mailbox: Post, pending: Pending) -> bool:
    mailbox.post(pending.letter)
    return True


def _waiting(ticket: Ticket, pending: Pending) -> str:
    if ticket.approval:
        return f"waiting for the operator, who compares this key's fingerprint: {pending.fingerprint}"
    return f"waiting for control (fingerprint of this key: {pending.fingerprint})"


def _take(ticket: Ticket, pending: Pending, out: Path, answer: Answer, mailbox: Post) -> Folder:
    if answer.configuration is None:
        _confirm(mailbox)
        shutil.rmtree(pending.path)
        raise RefusedError(f"control refuses this device: {answer.refused}", hint="ask the operator")
    configuration = ClientConfiguration(**dict(answer.configuration), token=pending.token)
    if (configuration.client, configuration.device) != (ticket.client, ticket.device):
        raise RefusedError("the configuration is for another device", field="device")
    folder = write(configuration, pending.key, out)
    _confirm(mailbox)
    return folder


def _confirm(mailbox: Post) -> None:
    """Confirm, if that can be: the invitation's own end does the same later."""
    try:
        mailbox.confirm()
    except (RefusedError, UnavailableError):
        return


def _until(deadline: float, ask: Callable[[], T | None], ticket: Ticket) -> T:
    """Ask until there is an answer."""
    while True:
        try:
            answer = ask()
            if answer is not None:
                return answer
        except UnavailableError as error:
            if time.monotonic() >= deadline:
                raise UnavailableError(error.message, hint=_hint(ticket)) from error
        if time.monotonic() >= deadline:
            raise UnavailableError("there is no answer yet", hint=_hint(ticket))
        time.sleep(POLL_S)


def _hint(ticket: Ticket) -> str:
    until = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(ticket.expires_at))
    return f"run the same command again; the invitation is good until {until} unless the operator cancels it"


def give_to_caller(path: Path) -> None:
    """Under sudo, give the folder to whoever called it: it is theirs to chat with."""
    if os.geteuid() != 0 or "SUDO_UID" not in os.environ:
        return
    user, group = int(os.environ["SUDO_UID"]), int(os.environ["SUDO_GID"])
    for one in (path, *path.rglob("*")):
        os.chown(one, user, group, follow_symlinks=False)
