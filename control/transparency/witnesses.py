"""Asks witnesses to cosign the newest head (c2sp.org/tlog-witness). It is published when they were asked, whoever answered.

Only a head that was committed is shown to them: one that a crash took back would look like a fork.
"""

from __future__ import annotations

import http.client
import logging
import ssl
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from appliance.core.errors import RefusedError, UnavailableError
from appliance.transparency.checkpoint import Checkpoint, Policy
from appliance.transparency.errors import LogError
from appliance.transparency.note import Note, Signature, VerifierKey, parse_signature
from appliance.transparency.tiles import TileReader, Tiles
from control.config import WitnessConfig
from control.logs import log_event
from control.transparency.models import CheckpointRecord
from control.transparency.proofs import continuation

logger = logging.getLogger(__name__)

TIMEOUT_S: Final = 5.0
_MOST_ANSWER_BYTES: Final = 64 * 1024
_CONFLICT: Final = 409


class Witness:
    """One witness, as control sees it."""

    def __init__(self, config: WitnessConfig) -> None:
        self.key = VerifierKey.parse(config.key)
        self._url = urlsplit(config.url)
        self._seen = 0

    def cosign(self, note: Note, tiles: TileReader, log: tuple[VerifierKey, VerifierKey]) -> Signature:
        """Return its cosignature of a head.

        Raises:
            RefusedError: If it refuses, or its cosignature does not verify.
            UnavailableError: If it does not answer.
        """
        status, answer = self._post(continuation(self._seen, tiles, note).render())
        if status == _CONFLICT and answer.strip().isdigit() and len(answer) < 20:
            self._seen = int(answer)
            if self._seen > tiles.size:
                raise RefusedError("the witness has seen a larger log", field="old")
            status, answer = self._post(continuation(self._seen, tiles, note).render())
        if status != http.client.OK:
            raise RefusedError(f"the witness refuses with status {status}", field="status")
        signature = parse_signature(answer.decode("utf-8", "replace").removesuffix("\n"))
        Policy(*log, witnesses=(self.key,), quorum=1).verify(note.cosigned(signature))
        self._seen = tiles.size
        return signature

    def _post(self, body: bytes) -> tuple[int, bytes]:
        host, port = self._url.hostname or "", self._url.port
        connection: http.client.HTTPConnection
        if self._url.scheme == "https":
            context = ssl.create_default_context()
            connection = http.client.HTTPSConnection(host, port, timeout=TIMEOUT_S, context=context)
        else:
            connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT_S)
        try:
            connection.request("POST", f"{self._url.path.rstrip('/')}/add-checkpoint", body)
            response = connection.getresponse()
            return response.status, response.read(_MOST_ANSWER_BYTES)
        except (OSError, http.client.HTTPException) as error:
            raise UnavailableError("the witness does not answer") from error
        finally:
            connection.close()


class Witnesses:
    """All witnesses that control.json names.

    Args:
        folder: Of the log.
        log: Its keys.
        configured: The witnesses.
    """

    def __init__(
        self, folder: Path, log: tuple[VerifierKey, VerifierKey], configured: tuple[WitnessConfig, ...]
    ) -> None:
        self._folder = folder
        self._log = log
        self._witnesses = [Witness(config) for config in configured]

    def settle(self) -> int | None:
        """Have the newest head cosigned if nobody was asked yet; return how many cosigned it, None if there was none to ask about.

        Raises:
            HostError: If the tiles cannot be read.
        """
        last = CheckpointRecord.objects.last()
        if last is None or last.settled:
            return None
        note = Note.parse(last.note.encode("utf-8"))
        tiles = Tiles(self._folder, Checkpoint.parse(note.text).size)
        cosignatures = []
        for witness in self._witnesses:
            try:
                cosignatures.append(witness.cosign(note, tiles, self._log))
            except (LogError, RefusedError, UnavailableError) as error:
                log_event(logger, logging.ERROR, "witness_failed", error=error.code)
        note = note.cosigned(*cosignatures)
        CheckpointRecord.objects.filter(pk=last.pk).update(note=note.render().decode("utf-8"), settled=True)
        tiles.write_checkpoint(note.render())
        return len(cosignatures)
