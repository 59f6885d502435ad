"""Passkeys (WebAuthn Level 2): asks a browser for one, and verifies what it answers.

`fido2` parses and verifies; here is what is ours to decide: the name and the origins, that the user is verified by PIN or biometrics each
time, that a challenge serves once and for minutes, that no two credentials are the same, and that a signature counter only grows. Attestation is
not asked for: any make of authenticator will do, and none has to say whose it is.
"""

from __future__ import annotations

import hashlib
import json
import struct
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from ipaddress import ip_address
from typing import Any, Final

from cryptography.exceptions import UnsupportedAlgorithm
from django.conf import settings
from django.contrib.auth.models import User
from django.contrib.sessions.backends.base import SessionBase
from django.db import transaction
from django.http import HttpRequest
from django.http.request import split_domain_port
from django.utils import timezone
from django.utils.crypto import salted_hmac
from fido2.server import Fido2Server
from fido2.webauthn import (
    AttestationConveyancePreference,
    AttestedCredentialData,
    AuthenticationResponse,
    CollectedClientData,
    PublicKeyCredentialParameters,
    PublicKeyCredentialRpEntity,
    PublicKeyCredentialType,
    PublicKeyCredentialUserEntity,
    RegistrationResponse,
    ResidentKeyRequirement,
    UserVerificationRequirement,
)

from appliance.core.errors import RefusedError
from appliance.core.names import Name
from appliance.core.schema import Closed
from control.journal.services import record
from control.journal.vocabulary import Verb
from control.operators.models import Passkey

MOST: Final = 10  # passkeys of one operator
CHALLENGE_S: Final = 300
LONGEST_ANSWER: Final = 16_384  # characters; an RSA key with its attestation has some two thousand
ALGORITHMS: Final = (-8, -7, -257)  # EdDSA, ES256, RS256: what WebAuthn (section 5.4) says to offer
_CHALLENGE: Final = "passkey_challenge"
_WRONG: Final = "This passkey's answer does not verify."
_MALFORMED: Final = (
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    NotImplementedError,
    ArithmeticError,
    RecursionError,
    UnsupportedAlgorithm,
    struct.error,
)  # what the library raises at one malformed answer or another


class NewPasskey(Closed):
    """What its operator calls a passkey."""

    name: Name


def relying_party(request: HttpRequest) -> str | None:
    """Return the name that passkeys are bound to: the one of `allowed_hosts` that was asked for; None if that is an address."""
    host = split_domain_port(request.get_host())[0]
    try:
        ip_address(host.strip("[]"))
    except ValueError:
        return host
    return None


def propose_passkey(request: HttpRequest, user: User) -> str | None:
    """Return, as JSON, what to ask the browser to make one; None where there is no name to bind it to."""
    rp_id = relying_party(request)
    if rp_id is None:
        return None
    options, state = _server(rp_id).register_begin(
        PublicKeyCredentialUserEntity(
            id=_user_handle(user), name=user.get_username(), display_name=user.get_username()
        ),
        [AttestedCredentialData(bytes(row.credential)) for row in Passkey.objects.filter(user=user)],
        resident_key_requirement=ResidentKeyRequirement.PREFERRED,
        user_verification=UserVerificationRequirement.REQUIRED,
    )
    _keep(request.session, state)
    return json.dumps(dict(options.public_key))


def add_passkey(request: HttpRequest, user: User, name: str, answer: str) -> None:
    """Store the passkey that a browser made.

    Raises:
        RefusedError: If the answer is not one to what was asked last, or the operator has enough of them, or one of that name.
    """
    rp_id, state = _asked(request)
    wanted = NewPasskey.parse({"name": name})
    if Passkey.objects.filter(user=user).count() >= MOST:
        raise RefusedError("You have as many passkeys as there may be.", hint="Remove one first.")
    if Passkey.objects.filter(user=user, name=wanted.name).exists():
        raise RefusedError("You have a passkey of this name.", field="name")
    with _refusing():
        registration = RegistrationResponse.from_dict(_parse(answer))
        _verify_top_level(registration.response.client_data)
        made = _server(rp_id).register_complete(state, registration)
        credential = made.credential_data
        if credential is None or credential.public_key[3] not in ALGORITHMS:
            raise RefusedError(_WRONG)
    digest = hashlib.sha256(credential.credential_id).hexdigest()
    if Passkey.objects.filter(credential_sha256=digest).exists():
        raise RefusedError("This passkey is known already.")
    with transaction.atomic():
        before = Passkey.objects.filter(user=user).count()
        Passkey.objects.create(
            user=user,
            name=wanted.name,
            rp_id=rp_id,
            credential=bytes(credential),
            credential_sha256=digest,
            counter=made.counter,
        )
        record(Verb.OPERATOR_ADD_FACTOR, user.get_username(), {"passkeys": (before, before + 1)})


def ask_for_passkey(request: HttpRequest, user: User) -> str | None:
    """Return, as JSON, what to ask the browser for a passkey; None if the operator has none for the name that was asked for."""
    rp_id = relying_party(request)
    known = {} if rp_id is None else _credentials(user, rp_id)
    if rp_id is None or not known:
        return None
    options, state = _server(rp_id).authenticate_begin(
        [credential for credential, _ in known.values()],
        user_verification=UserVerificationRequirement.REQUIRED,
    )
    _keep(request.session, state)
    return json.dumps(dict(options.public_key))


def verify_assertion(request: HttpRequest, user: User, answer: str) -> None:
    """Verify what a browser answered; return None or raise.

    Raises:
        RefusedError: If it does not answer what was asked last with a passkey of this operator, or the passkey was copied.
    """
    rp_id, state = _asked(request)
    known = _credentials(user, rp_id)
    with _refusing():
        response = AuthenticationResponse.from_dict(_parse(answer))
        _verify_top_level(response.response.client_data)
        credentials = [credential for credential, _ in known.values()]
        used = _server(rp_id).authenticate_complete(state, credentials, response)
        row = known[used.credential_id][1]
        counter = response.response.authenticator_data.counter
    # An authenticator counts its signatures, or says 0 always (WebAuthn, section 6.1.1). A number that came before is a copy's, or the
    # original's after its copy was used: neither is trusted any more.
    if (counter or row.counter) and counter <= row.counter:
        raise RefusedError("This passkey may have been copied.", hint="Log in otherwise, and remove it.")
    unchanged = Passkey.objects.filter(pk=row.pk, counter=row.counter)
    if not unchanged.update(counter=counter, used_at=timezone.now()):
        raise RefusedError(_WRONG, hint="Try again.")


def _server(rp_id: str) -> Fido2Server:
    server = Fido2Server(
        PublicKeyCredentialRpEntity(name="Sovereign Appliance", id=rp_id),
        attestation=AttestationConveyancePreference.NONE,
        verify_origin=_origins(rp_id).__contains__,
    )
    kind = PublicKeyCredentialType.PUBLIC_KEY
    server.allowed_algorithms = [PublicKeyCredentialParameters(type=kind, alg=alg) for alg in ALGORITHMS]
    return server


def _origins(rp_id: str) -> frozenset[str]:
    """The library would take every subdomain, every port and plain HTTP; we take where the console is, and HTTPS' own port before it."""
    return frozenset({f"https://{rp_id}", f"https://{rp_id}:{settings.CONFIG.listen.port}"})


def _credentials(user: User, rp_id: str) -> dict[bytes, tuple[AttestedCredentialData, Passkey]]:
    """Return the operator's passkeys for a name, by credential id."""
    rows = Passkey.objects.filter(user=user, rp_id=rp_id)
    read = [(AttestedCredentialData(bytes(row.credential)), row) for row in rows]
    return {credential.credential_id: (credential, row) for credential, row in read}


def _user_handle(user: User) -> bytes:
    """An opaque value, since authenticators show and sync it (WebAuthn, section 14.6.1)."""
    return salted_hmac("control.operators.passkeys", str(user.pk), algorithm="sha256").digest()


def _keep(session: SessionBase, state: Mapping[str, Any]) -> None:
    session[_CHALLENGE] = {**state, "at": int(time.time())}


def _asked(request: HttpRequest) -> tuple[str, dict[str, Any]]:
    """Return name and challenge of what was asked last, and forget the challenge: it serves once."""
    state = request.session.pop(_CHALLENGE, None)
    rp_id = relying_party(request)
    if rp_id is None or state is None or time.time() - state["at"] > CHALLENGE_S:
        raise RefusedError("The question for the passkey is too old.", hint="Try again.")
    return rp_id, state


def _parse(answer: str) -> Any:
    if len(answer) > LONGEST_ANSWER:
        raise RefusedError(_WRONG)
    return json.loads(answer)


def _verify_top_level(client_data: CollectedClientData) -> None:
    """The console is never framed, so who answers from within a frame of another site was led there."""
    if client_data.cross_origin is not False:
        raise RefusedError(_WRONG)


@contextmanager
def _refusing() -> Iterator[None]:
    try:
        yield
    except _MALFORMED as error:
        raise RefusedError(_WRONG, hint="Try again.") from error
