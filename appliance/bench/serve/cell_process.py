"""Runs a cell as a process of its own, as the confinement stub would, without confinement.

`python -m appliance.bench.serve.cell_process SPEC`, where SPEC is a JSON object: `client`, `policy`, `models`,
`listener` (path to listen on), `notary` (path of its socket), `cores`, and `delay_ms`, which the positive control
sleeps before every decode call.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from appliance.core.receipt import Confinement
from inference.cell.main import CellInputs, run_cell, settle

if TYPE_CHECKING:
    from inference.cell.engine_protocol import EngineLoader

# Nothing confines this process, and its receipts do not claim it.
_UNCONFINED: Final = Confinement(
    landlock_abi=0, seccomp=False, network="namespace", core_dumps=True, dumpable=True, swap=True
)


def main(argv: list[str]) -> int:
    """Serve until SIGTERM; return the cell's exit code."""
    spec: dict[str, Any] = json.loads(argv[0])
    logging.disable(logging.CRITICAL)  # as a cell does
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(spec["listener"])
    listener.listen(128)
    notary = socket.socket(socket.AF_UNIX)
    notary.connect(spec["notary"])
    inputs = CellInputs(
        client=spec["client"],
        policy_file=Path(spec["policy"]),
        models=Path(spec["models"]),
        listener=listener,
        notary=notary,
        confinement=_UNCONFINED,
        cores=spec["cores"],
    )
    return asyncio.run(run_cell(inputs, _loader(spec["delay_ms"]), settle))


def _loader(delay_ms: float) -> EngineLoader:
    from inference.engine import llama
    from inference.engine.engine import Engine

    if delay_ms:
        decode = llama.Context.decode

        def slow_decode(self: llama.Context, *batch: Any) -> None:
            time.sleep(delay_ms / 1000)
            decode(self, *batch)

        llama.Context.decode = slow_decode  # type: ignore[method-assign, assignment]
    return Engine.load


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
