"""Chat in the terminal: a spinner until the first token, text as it comes, the receipt at the end."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.status import Status

from appliance.client.api import Answer, Api, Message
from appliance.client.folder import Folder
from appliance.core.errors import ApplianceError
from appliance.core.receipt import SignedReceipt

_NOTES = Console(stderr=True, highlight=False)
_TEXT = Console(highlight=False, markup=False)
_WARN_AHEAD = timedelta(days=14)


def ask(
    folder: Folder, prompt: str, options: dict[str, Any], *, quiet: bool = False
) -> tuple[Answer, Path | None]:
    """Ask one thing in a session of its own.

    Returns:
        The answer, and the file of its receipt, which was verified.
    """
    api = Api(folder)
    try:
        answer = _stream(api, [{"role": "user", "content": prompt}], options, quiet=quiet)
    finally:
        api.close()
    file = folder.keep(answer.receipt) if answer.receipt else None
    if answer.receipt and not quiet:
        _say_receipt(answer.receipt, file)
        _say_end(answer)
    return answer, file


def converse(folder: Folder, options: dict[str, Any]) -> int:
    """Hold a conversation in one session until end of input; then end the session and keep its receipt."""
    api = Api(folder)
    session = api.open_session()
    messages: list[Message] = []
    answer: Answer | None = None
    _NOTES.print("[dim]One session, nothing of it is kept. End with Ctrl-D.[/]")
    try:
        while (prompt := _read_prompt()) is not None:
            messages.append({"role": "user", "content": prompt})
            try:
                answer = _stream(api, messages, {**options, "session": session})
            except ApplianceError as error:
                _NOTES.print(f"appliance: {error}")
                messages.pop()
                continue
            messages.append({"role": "assistant", "content": "".join(answer.parts)})
    finally:
        signed = api.end_session(session)
        api.close()
    _say_receipt(signed, folder.keep(signed))
    if answer is not None:
        _say_end(answer)
    return 0


def _read_prompt() -> str | None:
    try:
        return _TEXT.input("> ")
    except (EOFError, KeyboardInterrupt):
        return None


def _stream(api: Api, messages: list[Message], options: dict[str, Any], *, quiet: bool = False) -> Answer:
    answer = Answer()
    spinner: Status | None = None if quiet else _NOTES.status("thinking")
    if spinner:
        spinner.start()
    try:
        for text in api.chat(messages, answer, **options):
            if spinner:
                spinner.stop()
                _TEXT.print(text, end="", soft_wrap=True)
    finally:
        if spinner:
            spinner.stop()
    if not quiet:
        _TEXT.print()
    return answer


def expiry_warning(end: datetime | None, now: datetime) -> str | None:
    """Return what to say of the end of this device's access, if it is near: both aware."""
    if end is None or end - now > _WARN_AHEAD:
        return None
    return f"this device's access ends on {end.astimezone(UTC):%Y-%m-%d at %H:%M} UTC; ask the operator for another key"


def _say_end(answer: Answer) -> None:
    if warning := expiry_warning(answer.access_expires_at, datetime.now(UTC)):
        _NOTES.print(f"[yellow]{warning}[/]")


def _say_receipt(signed: SignedReceipt, file: Path | None) -> None:
    receipt = signed.receipt
    _NOTES.print(
        f"[dim]receipt {receipt.id}, verified: {receipt.prompt_tokens} + {receipt.completion_tokens} tokens, "
        f"model {receipt.models[0][:12]}, kept in {file}[/]"
    )
