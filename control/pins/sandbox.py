"""Has a model's files examined by a process that is thrown away (`control.pins.examiner`, shut in by `control.pins.cage`)."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from io import BufferedReader
from pathlib import Path
from typing import Final

import control
from appliance.core.errors import HostError, PinError, RefusedError
from control.pins.facts import Answer, Facts, Question

TIMEOUT_S: Final = 60.0  # of wall clock: a file on a slow disk; processor time has its own limit
MAX_ANSWER_BYTES: Final = 2**20
_EXAMINER: Final = (sys.executable, "-s", "-P", "-B", "-m", "control.pins.examiner")


def examine(files: Sequence[BufferedReader], template: str | None, *, with_tools: bool = False) -> Facts:
    """Parse the heads of a model's GGUF files and render its chat template, out of this process.

    Args:
        files: Open for reading, in the order of the shards.
        template: Jinja source; None: the one in the first file, if there is one.
        with_tools: Whether the template must take tools.

    Raises:
        PinError: Naming what is at fault. So is a file whose examination crashes or hits a limit.
        HostError: If no process can be confined here.
    """
    descriptors = tuple(file.fileno() for file in files)
    question = Question(descriptors=descriptors, template=template, with_tools=with_tools)
    answer = _ask(question)
    if answer.field == "host":
        raise HostError(answer.refusal, hint="Linux 5.13 or later with lsm=landlock")
    if answer.facts is None:
        raise PinError(answer.refusal, field=answer.field)
    return answer.facts


def _ask(question: Question) -> Answer:
    # The child runs the code that this process runs, wherever that lies, and knows nothing else of its environment.
    environment = {"PYTHONPATH": str(Path(control.__file__).parents[1]), "LANG": "C.UTF-8"}
    try:
        ended = subprocess.run(
            _EXAMINER,
            input=question.canonical_bytes(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            pass_fds=question.descriptors,
            env=environment,
            cwd="/",
            timeout=TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise PinError("examining the files took too long", field="files") from None
    except OSError as error:
        raise HostError(
            "no process to examine a model can be started", hint="is the machine out of memory?"
        ) from error
    # Whoever took the child over writes what it likes: bounded, and parsed like any other input.
    if ended.returncode != 0 or len(ended.stdout) > MAX_ANSWER_BYTES:
        raise PinError("the process that examined the files broke down", field="files")
    try:
        return Answer.parse_canonical(ended.stdout)
    except RefusedError:
        raise PinError("the process that examined the files gave no answer", field="files") from None
