"""Log lines that hold codes, counts and durations, and never the text of a message.

Libraries put paths, user names and values into their messages. This formatter drops the message of every record and
keeps what cannot carry such text: the logger, our own `code` and integer fields, the class of an exception and the
line of our code that raised it.
"""

from __future__ import annotations

import json
import logging
import traceback
from datetime import UTC, datetime

EVENT = "event"


class CodeFormatter(logging.Formatter):
    """One JSON object per line."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
        }
        line.update(getattr(record, EVENT, {}))
        if isinstance(status := getattr(record, "status_code", None), int):
            line["status"] = status
        if record.exc_info and record.exc_info[0]:
            line["exception"] = record.exc_info[0].__name__
            frames = traceback.extract_tb(record.exc_info[2])
            if frames:
                line["where"] = f"{frames[-1].name}:{frames[-1].lineno}"
        return json.dumps(line)


def log_event(logger: logging.Logger, level: int, code: str, **fields: int | str) -> None:
    """Log one closed code with integers or names of our own making (never text that a client chose)."""
    logger.log(level, code, extra={EVENT: {"code": code, **fields}})
