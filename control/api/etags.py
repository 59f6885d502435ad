"""Entity tags (RFC 9110 sections 8.8.3 and 13): who changes what somebody else changed meanwhile is told so.

The tag is a digest of what the API shows of a thing, so it needs no column, and a change that changes nothing keeps it. It is compared
within the transaction that changes the thing: the row must be locked before.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

from rest_framework.request import Request

from control.api.problems import StatusError

IF_MATCH: Final = "If-Match"
PATTERN: Final = r'^(\*|"[0-9a-f]{32}")(, ?"[0-9a-f]{32}"){0,15}$'
_TAG: Final = re.compile(r'"[0-9a-f]{32}"')


class ChangedError(StatusError):
    """Somebody else was faster."""

    code = "changed"
    status = HTTPStatus.PRECONDITION_FAILED


class TagRequiredError(StatusError):
    """What two people may edit is edited with the tag of what was seen."""

    code = "tag_required"
    status = HTTPStatus.PRECONDITION_REQUIRED


def etag_of(shown: Mapping[str, Any]) -> str:
    """Return the strong entity tag of what the API shows of a thing."""
    text = json.dumps(shown, sort_keys=True, separators=(",", ":"), default=str)
    return f'"{hashlib.sha256(text.encode()).hexdigest()[:32]}"'


def verify_match(request: Request, shown: Mapping[str, Any]) -> None:
    """Check that a request is about what there is now; return None or raise.

    Args:
        request: With `If-Match`: tags, or `*` for whatever there is.
        shown: What the API shows of the thing, whose row is locked.

    Raises:
        TagRequiredError: If there is no `If-Match`.
        ChangedError: If it names other tags.
    """
    wanted = request.headers.get(IF_MATCH)
    if wanted is None:
        raise TagRequiredError(
            "say what you have seen", field=IF_MATCH, hint="GET it, and send its ETag in If-Match"
        )
    if wanted.strip() != "*" and etag_of(shown) not in _TAG.findall(wanted):
        raise ChangedError(
            "it was changed since you saw it",
            field=IF_MATCH,
            hint="GET it again, look, then send its new ETag",
        )
