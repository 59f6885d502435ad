"""Every error of the API is a problem document (RFC 9457) with our stable code, and never echoes a value."""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import Any

from django.core.exceptions import PermissionDenied
from django.db import OperationalError
from django.http import Http404, HttpRequest, JsonResponse
from django.views.decorators.csrf import csrf_exempt
from rest_framework import exceptions
from rest_framework.response import Response

from appliance.core.errors import ApplianceError, HostError, RefusedError, UnavailableError
from control.logs import log_event

logger = logging.getLogger(__name__)
CONTENT_TYPE = "application/problem+json"


class StatusError(RefusedError):
    """A refusal of the API that has an HTTP status of its own.

    Attributes:
        status: That one.
    """

    status = HTTPStatus.BAD_REQUEST


def problem_response(error: Exception, context: dict[str, Any]) -> Response:  # noqa: ARG001 - DRF's signature
    """Turn any exception into a problem document; DRF's exception handler."""
    problem = describe_problem(error)
    if problem["status"] >= HTTPStatus.INTERNAL_SERVER_ERROR:
        log_event(logger, logging.ERROR, "api_problem", exception=type(error).__name__)
    headers = {}
    if isinstance(error, exceptions.APIException):
        challenge = getattr(error, "auth_header", None)
        if challenge:
            headers["WWW-Authenticate"] = challenge
    return Response(problem, status=problem["status"], headers=headers, content_type=CONTENT_TYPE)


def describe_problem(error: Exception) -> dict[str, Any]:
    """Return the members of the problem document of an exception."""
    if isinstance(error, ApplianceError):
        return _from_appliance(error)
    if isinstance(error, Http404):
        return _problem(HTTPStatus.NOT_FOUND, "not_found")
    if isinstance(error, PermissionDenied):
        return _problem(HTTPStatus.FORBIDDEN, "forbidden")
    if isinstance(error, exceptions.APIException):
        status = HTTPStatus(error.status_code)
        # DRF's details of our own parser and pages hold no values; its codes are a closed set.
        codes = error.get_codes()
        return _problem(status, codes if isinstance(codes, str) else "invalid")
    if isinstance(error, OperationalError):  # the database is locked or away
        return _problem(HTTPStatus.SERVICE_UNAVAILABLE, "unavailable")
    return _problem(HTTPStatus.INTERNAL_SERVER_ERROR, "internal")


def _from_appliance(error: ApplianceError) -> dict[str, Any]:
    status = HTTPStatus.BAD_REQUEST
    if isinstance(error, StatusError):
        status = error.status
    elif isinstance(error, UnavailableError):
        status = HTTPStatus.SERVICE_UNAVAILABLE
    elif isinstance(error, HostError):
        status = HTTPStatus.INTERNAL_SERVER_ERROR
    problem = _problem(status, error.code) | {"detail": error.message}
    if isinstance(error, RefusedError) and error.field:
        problem["field"] = error.field
    if error.hint:
        problem["hint"] = error.hint
    return problem


def _problem(status: HTTPStatus, code: str) -> dict[str, Any]:
    return {"type": "about:blank", "title": status.phrase, "status": int(status), "code": code}


@csrf_exempt  # else the answer to a POST would be Django's page for browsers
def not_found(request: HttpRequest, **_parts: str) -> JsonResponse:  # noqa: ARG001 - Django's signature
    """Answer an address under the API that does not exist."""
    return JsonResponse(
        _problem(HTTPStatus.NOT_FOUND, "not_found"), status=HTTPStatus.NOT_FOUND, content_type=CONTENT_TYPE
    )
