"""Runs `inference.cell.main` as a process, as the confinement stub would, with the simulated engine in its place.

Arguments: FOLDER LISTENER NOTARY, the last two inherited descriptors. With one argument, a listener: no seat was free.
"""

from __future__ import annotations

import os
import socket
import sys
import types
from pathlib import Path

sys.path.insert(0, os.fspath(Path(__file__).parent))


def refuse_sockets(event: str, _args: tuple[object, ...]) -> None:
    """After confinement there is no socket(), and nothing can be opened for writing."""
    if event in ("socket.__new__", "socket.bind", "socket.connect"):
        os._exit(99)


def main() -> int:
    if len(sys.argv) == 2:
        from inference.cell.busy import serve_busy

        assert not {"fastapi", "pydantic", "uvicorn"} & set(sys.modules), "no seat must cost nothing"
        serve_busy(socket.socket(fileno=int(sys.argv[1])), seconds=1.0)
        return 75
    from running_cell import CONFINEMENT
    from simulated_engine import SimulatedEngine

    from inference.cell.main import CellInputs, serve

    engine = types.ModuleType("inference.engine.engine")
    engine.Engine = SimulatedEngine()  # type: ignore[attr-defined]
    sys.modules["inference.engine.engine"] = engine
    folder = Path(sys.argv[1])
    inputs = CellInputs(
        client="acme",
        policy_file=folder / "policy.json",
        models=folder / "models",
        listener=socket.socket(fileno=int(sys.argv[2])),
        notary=socket.socket(fileno=int(sys.argv[3])),
        confinement=CONFINEMENT,
        cores=4,
    )
    return serve(inputs)


if __name__ == "__main__":
    sys.exit(main())
