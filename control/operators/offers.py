"""Offers an operator a second factor to set up: a passkey or an authenticator app. The login does, the first time, and one's own page."""

from __future__ import annotations

from typing import Any, Final

import segno
from django.contrib.auth.models import User
from django.http import HttpRequest
from django.utils.safestring import SafeString

from appliance.core.errors import RefusedError
from control.operators import totp
from control.operators.factors import Kind, add_app, has_factor, new_recovery_codes, propose_app, show_app
from control.operators.models import Passkey
from control.operators.passkeys import add_passkey, propose_passkey

ISSUER: Final = "Sovereign Appliance"
_PROPOSED: Final = "proposed_app"


def offer_factors(request: HttpRequest, user: User) -> dict[str, Any]:
    """Return what the page shows: `passkey_options`, `passkey_name`, and the app's `secret` as `qr` and text.

    The secret stays the same until it is taken up, so that a mistyped code costs no second scan.
    """
    sealed = request.session.setdefault(_PROPOSED, propose_app(user))
    secret = show_app(user, sealed)
    return {
        "passkey_options": propose_passkey(request, user),
        "passkey_name": _free_name(user),
        "qr": _qr_of(totp.uri_of(secret, ISSUER, user.get_username())),
        "secret": _grouped(totp.text_of(secret)),
    }


def take_up(request: HttpRequest, user: User) -> tuple[Kind, list[str] | None]:
    """Set up the factor that a form came back with.

    Returns:
        Which kind, and the recovery codes if it is the operator's first factor.

    Raises:
        RefusedError: If the form does not prove that its sender has the factor.
    """
    first = not has_factor(user)
    if credential := request.POST.get("credential", ""):
        add_passkey(request, user, request.POST.get("name", ""), credential)
        kind = Kind.PASSKEY
    else:
        sealed = request.session.get(_PROPOSED)
        if sealed is None:
            raise RefusedError("The secret of this page was taken up already.", hint="Take the new one.")
        add_app(user, sealed, request.POST.get("code", ""))
        del request.session[_PROPOSED]
        kind = Kind.APP
    return kind, new_recovery_codes(user) if first else None


def _free_name(user: User) -> str:
    taken = set(Passkey.objects.filter(user=user).values_list("name", flat=True))
    return next(name for number in range(1, len(taken) + 2) if (name := f"passkey-{number}") not in taken)


def _grouped(text: str) -> str:
    return " ".join(text[at : at + 4] for at in range(0, len(text), 4))


def _qr_of(uri: str) -> SafeString:
    """Return a QR code as SVG markup: the content security policy takes no `data:` image, and this has neither script nor style."""
    code = segno.make(uri, error="m", micro=False)
    return SafeString(
        code.svg_inline(scale=5, dark="#000", light="#fff", title="QR code for an authenticator app")
    )
