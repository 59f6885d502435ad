"""A cell that erases nothing and says that it did: what the audit must not let pass. Arguments as `cell_process`."""

from __future__ import annotations

import sys
from typing import Any

from appliance.bench.serve.cell_process import main
from inference.engine import runner
from inference.engine.erase import Erased
from inference.engine.llama import Context
from inference.engine.scheduler import Stream


def pretend(context: Context, layout: Any, stream: int, cells: int) -> Erased:
    context.truncate(stream, 0)
    return Erased(cells * layout.cell_bytes, verified=True)


if __name__ == "__main__":
    runner.erase = pretend
    runner.overwrite_activations = lambda *_: None
    Context.wipe_logits = lambda _self: None  # type: ignore[method-assign]
    Stream.wipe = lambda _self: None  # type: ignore[method-assign]
    sys.exit(main(sys.argv[1:]))
