"""`Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header): a request that is repeated is answered again and not done again.

    1. claim     the key is noted, and committed: whoever comes with it meanwhile is told to wait (409)
    2. do, keep  what is asked and its answer are committed together: a stop leaves both or neither
    3. repeat    for a day the same request gets the same answer, and another one under the key is refused (422)

A claim that nobody works on any more is taken over after a minute. Refused requests have changed nothing and are not kept. An answer that
is shown once, since it holds a secret, is not kept either: its repetition is told that it was done.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from datetime import timedelta
from functools import wraps
from http import HTTPStatus
from typing import Any, Final, TypeVar, cast

from django.db import IntegrityError, transaction
from django.utils import timezone
from rest_framework.request import Request
from rest_framework.response import Response

from appliance.core.errors import RefusedError
from appliance.core.names import random_id
from control.api.models import KeptAnswer
from control.api.problems import StatusError
from control.operators.models import ApiToken

HEADER: Final = "Idempotency-Key"
PATTERN: Final = r'^("[!#-\[\]-~]{1,64}"|[!#-\[\]-~]{1,64})$'
REPLAYED: Final = "Idempotency-Replayed"
KEPT: Final = timedelta(days=1)
WORKED_ON: Final = timedelta(minutes=1)
MOST: Final = 10_000  # keys of one caller in a day; an honest script needs fewer
_SWEPT: Final = 1000  # old rows that one request removes at most

Action = TypeVar("Action", bound=Callable[..., Response])


class BusyError(StatusError):
    """The request under this key is being worked on."""

    code = "busy"
    status = HTTPStatus.CONFLICT
    retryable = True


class AlreadyDoneError(StatusError):
    """It was done, and its answer was shown once."""

    code = "already_done"
    status = HTTPStatus.CONFLICT


class KeyReusedError(StatusError):
    """Another request came under this key."""

    code = "key_reused"
    status = HTTPStatus.UNPROCESSABLE_ENTITY


class TooManyKeysError(StatusError):
    """As many keys as a caller may have in a day."""

    code = "too_many_keys"
    status = HTTPStatus.TOO_MANY_REQUESTS


def idempotent(*, shown_once: str = "") -> Callable[[Action], Action]:
    """Let an action of a view take an idempotency key.

    Args:
        shown_once: What to do if the answer was lost, for one that holds a secret; empty: it is kept.
    """

    def decorate(action: Action) -> Action:
        @wraps(action)
        def answer(view: Any, request: Request, *args: Any, **kwargs: Any) -> Response:
            key = request.headers.get(HEADER)
            if key is None:
                return action(view, request, *args, **kwargs)
            return _once(request, key, lambda: action(view, request, *args, **kwargs), shown_once)

        answer.takes_key = True  # type: ignore[attr-defined]  # which the description asks
        return cast("Action", answer)

    return decorate


def _once(request: Request, text: str, act: Callable[[], Response], shown_once: str) -> Response:
    if re.fullmatch(PATTERN, text) is None:
        raise RefusedError("1 to 64 printable characters without spaces", field=HEADER, hint="a random UUID")
    caller = f"token-{request.auth.pk}" if isinstance(request.auth, ApiToken) else f"user-{request.user.pk}"
    # As a structured string or bare: it is the same key.
    key = hashlib.sha256(text.strip('"').encode("ascii")).hexdigest()
    claim, kept = _claim(caller, key, _digest(request))
    if kept is not None:
        return _repeat(kept, shown_once)
    mine = KeptAnswer.objects.filter(caller=caller, key=key, claim=claim)
    try:
        with transaction.atomic():
            response = act()
            body = "" if shown_once else json.dumps(response.data, default=str)
            if mine.update(status=response.status_code, body=body) != 1:
                raise BusyError(
                    "another request took this one over", field=HEADER, hint="try again in a minute"
                )
    except BaseException:
        mine.filter(status=None).delete()
        raise
    return response


def _claim(caller: str, key: str, digest: str) -> tuple[str, KeptAnswer | None]:
    """Return a new claim on a key, and None; or what is kept under it."""
    now, claim = timezone.now(), random_id()
    _sweep(caller)
    try:
        with transaction.atomic():
            KeptAnswer.objects.create(caller=caller, key=key, request=digest, claim=claim, claimed_at=now)
    except IntegrityError:
        return _look(caller, key, digest, claim)
    return claim, None


def _look(caller: str, key: str, digest: str, claim: str) -> tuple[str, KeptAnswer | None]:
    kept = KeptAnswer.objects.filter(caller=caller, key=key).first()
    if kept is not None and kept.request != digest:
        raise KeyReusedError("another request came under this key", field=HEADER, hint="a new key for each")
    if kept is not None and kept.status is not None:
        return claim, kept
    left = KeptAnswer.objects.filter(caller=caller, key=key, status=None)
    stale = left.filter(claimed_at__lt=timezone.now() - WORKED_ON)
    if stale.update(claim=claim, claimed_at=timezone.now()) != 1:
        raise BusyError("the request is being worked on", field=HEADER, hint="try again in a second")
    return claim, None


def _sweep(caller: str) -> None:
    """Forget the keys of yesterday. Raises TooManyKeysError if there are too many of today."""
    old = KeptAnswer.objects.filter(claimed_at__lt=timezone.now() - KEPT).order_by("claimed_at")
    KeptAnswer.objects.filter(pk__in=list(old.values_list("pk", flat=True)[:_SWEPT])).delete()
    if KeptAnswer.objects.filter(caller=caller)[:MOST].count() >= MOST:
        raise TooManyKeysError(
            "more keys than a caller may have in a day", field=HEADER, hint="come again later"
        )


def _repeat(kept: KeptAnswer, shown_once: str) -> Response:
    if shown_once:
        raise AlreadyDoneError("it was done, and its answer was shown once", field=HEADER, hint=shown_once)
    return Response(json.loads(kept.body), status=kept.status, headers={REPLAYED: "true"})


def _digest(request: Request) -> str:
    body = json.dumps(request.data, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(f"{request.method}\n{request.get_full_path()}\n{body}".encode()).hexdigest()
