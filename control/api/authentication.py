"""Bearer tokens of operators (RFC 6750), and sessions of the console."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

from django.contrib.auth.models import User
from django.utils import timezone
from rest_framework.authentication import BaseAuthentication, SessionAuthentication
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.request import Request

from control.operators.models import ApiToken
from control.operators.services import token_digest
from control.operators.sessions import is_verified


def _comes_from(request: Request, token: ApiToken) -> bool:
    """Whether a request comes from where its token may. Behind something else that ends TLS, that is its address."""
    if not token.networks:
        return True
    try:
        address = ip_address(request.META.get("REMOTE_ADDR", ""))
    except ValueError:  # a server on a Unix socket knows none
        return False
    mapped = getattr(address, "ipv4_mapped", None) or address
    return any(mapped in ip_network(block) for block in token.networks)


class BearerAuthentication(BaseAuthentication):
    """Admits the operator whose token it is. One refusal for every reason, so nothing can be probed."""

    def authenticate(self, request: Request) -> tuple[User, ApiToken] | None:
        """Return the operator and token, or None when the request has no Authorization header.

        Raises:
            AuthenticationFailed: If there is one and it does not name a living token of an active operator, or comes from elsewhere.
        """
        header = request.META.get("HTTP_AUTHORIZATION")
        if header is None:
            return None
        scheme, _, text = header.partition(" ")
        if scheme.lower() != "bearer":
            raise AuthenticationFailed
        # Looked up by digest: the comparison's timing says nothing about the token.
        token = (
            ApiToken.objects.select_related("operator")
            .filter(sha256=token_digest(text), expires_at__gt=timezone.now(), operator__is_active=True)
            .first()
        )
        if token is None or not _comes_from(request, token):
            raise AuthenticationFailed
        return token.operator, token

    def authenticate_header(self, request: Request) -> str:  # noqa: ARG002 - DRF's signature
        """Return the challenge of a 401 answer."""
        return "Bearer"


class VerifiedSessionAuthentication(SessionAuthentication):
    """Admits the operator of a session whose second factor was verified."""

    def authenticate(self, request: Request) -> tuple[User, None] | None:
        """Return the operator, or None when the request belongs to no such session.

        Raises:
            PermissionDenied: If it does, and shows that another site may have made it.
        """
        return super().authenticate(request) if is_verified(request.session) else None
