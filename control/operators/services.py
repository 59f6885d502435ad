"""The verbs of operators."""

from __future__ import annotations

import hashlib
import secrets
from datetime import timedelta
from ipaddress import ip_network
from typing import Annotated

from django.contrib.auth.models import User
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils import timezone
from pydantic import AfterValidator, Field

from appliance.core.errors import RefusedError
from appliance.core.names import Name
from appliance.core.receipt import timestamp
from appliance.core.schema import Closed
from control.journal.services import created, record
from control.journal.vocabulary import Verb
from control.operators.factors import factor_facts, forget_factors
from control.operators.models import ApiToken, Operator
from control.operators.roles import Role, role_of
from control.operators.sessions import end_sessions

PREFIX = "sac_"  # by which secret scanners find a leaked token


def _network(value: str) -> str:
    if str(ip_network(value)) != value:
        raise ValueError("a network is written like 10.0.0.0/8 or 2001:db8::/32")
    return value


Network = Annotated[str, AfterValidator(_network)]


class NewOperator(Closed):
    """An operator to create."""

    name: Name
    role: Role = Role.OPERATOR


class NewToken(Closed):
    """A token to create.

    Attributes:
        operator: Whose.
        name: Unique among the operator's tokens.
        days: How long it lives, in days.
        role: What it may do at most; None: what its operator may.
        networks: Where it may come from, as CIDR blocks; none: from anywhere.
    """

    operator: Name
    name: Name
    days: Annotated[int, Field(ge=1, le=366)] = 90
    role: Role | None = None
    networks: Annotated[tuple[Network, ...], Field(max_length=32)] = ()


def create_operator(new: NewOperator, password: str | None) -> User:
    """Create an operator. Without a password there is no way in but tokens.

    Raises:
        RefusedError: If the name is taken or the password is too weak.
    """
    if User.objects.filter(username=new.name).exists():
        raise RefusedError("the name is taken", field="name")
    user = User(username=new.name, is_staff=True, is_superuser=new.role is Role.ADMINISTRATOR)
    if password is None:
        user.set_unusable_password()
    else:
        try:
            validate_password(password, user)
        except ValidationError as error:
            raise RefusedError(
                "too weak", field="password", hint="14 characters or more, none of the common ones"
            ) from error
        user.set_password(password)
    with transaction.atomic():
        user.save()
        Operator.objects.create(user=user, role=new.role)
        record(Verb.OPERATOR_ADD, new.name, created(active=True, role=new.role))
    return user


def give_role(name: str, role: Role) -> None:
    """Give an operator another role, in force with the next request, for tokens and open sessions alike.

    Raises:
        RefusedError: If there is no such operator.
    """
    with transaction.atomic():
        user = find_operator(name)
        before = role_of(user)
        Operator.objects.update_or_create(user=user, defaults={"role": role})
        User.objects.filter(pk=user.pk).update(is_superuser=role is Role.ADMINISTRATOR)
        record(Verb.OPERATOR_ROLE, name, {"role": (before, role)})


def disable_operator(name: str) -> None:
    """End an operator's tokens and sessions, and let nobody in under this name.

    Raises:
        RefusedError: If there is no such operator.
    """
    with transaction.atomic():
        user = find_operator(name)
        tokens, _ = ApiToken.objects.filter(operator=user).delete()
        sessions = end_sessions(user)
        User.objects.filter(pk=user.pk).update(is_active=False)
        record(
            Verb.OPERATOR_DISABLE,
            name,
            {"active": (True, False), "sessions": (sessions, 0), "tokens": (tokens, 0)},
        )


def sign_out(name: str) -> None:
    """End all sessions of an operator; tokens stay.

    Raises:
        RefusedError: If there is no such operator.
    """
    with transaction.atomic():
        sessions = end_sessions(find_operator(name))
        record(Verb.OPERATOR_SIGN_OUT, name, {"sessions": (sessions, 0)})


def reset_factor(name: str) -> None:
    """Forget an operator's second factors and end all sessions: the next login sets a factor up. Tokens stay.

    Until then the password alone is enough to set one up, so it should go by a safe way to whoever has lost the factor.

    Raises:
        RefusedError: If there is no such operator.
    """
    with transaction.atomic():
        user = find_operator(name)
        facts = factor_facts(user)
        forget_factors(user)
        sessions = end_sessions(user)
        gone = {fact: (before, 0) for fact, before in facts.items()}
        record(Verb.OPERATOR_RESET_FACTOR, name, {**gone, "sessions": (sessions, 0)})


def find_operator(name: str) -> User:
    """Return an active operator. Raises RefusedError if there is none of this name."""
    user = User.objects.filter(username=name, is_active=True).first()
    if user is None:
        raise RefusedError(
            "there is no operator of this name", field="operator", hint="appliance control operator list"
        )
    return user


def create_token(new: NewToken) -> str:
    """Create a token and return its text, which exists nowhere else.

    Raises:
        RefusedError: If there is no such operator, or it has a token of this name.
    """
    with transaction.atomic():
        operator = find_operator(new.operator)
        if ApiToken.objects.filter(operator=operator, name=new.name).exists():
            raise RefusedError("the operator has a token of this name", field="name")
        text = PREFIX + secrets.token_urlsafe(32)
        token = ApiToken.objects.create(
            operator=operator,
            name=new.name,
            sha256=token_digest(text),
            role=new.role or "",
            networks=list(new.networks),
            expires_at=timezone.now() + timedelta(days=new.days),
        )
        record(Verb.TOKEN_CREATE, f"{new.operator}/{new.name}", created(**_facts(token)))
    return text


def revoke_token(operator: str, name: str) -> None:
    """Delete a token. Raises RefusedError if there is none of this name."""
    with transaction.atomic():
        token = ApiToken.objects.filter(operator__username=operator, name=name).first()
        if token is None or not token.delete()[0]:
            raise RefusedError(
                "the operator has no token of this name", field="name", hint="appliance control token list"
            )
        record(
            Verb.TOKEN_REVOKE,
            f"{operator}/{name}",
            {fact: (value, None) for fact, value in _facts(token).items()},
        )


def _facts(token: ApiToken) -> dict[str, object]:
    """Return what the journal keeps of a token."""
    return {
        "expires_at": timestamp(token.expires_at),
        "networks": token.networks,
        "role": token.role or None,
    }


def operator_facts(user: User) -> dict[str, object]:
    """Return what a list says of an operator."""
    return {
        "name": user.get_username(),
        "role": role_of(user),
        "active": user.is_active,
        "password": user.has_usable_password(),
        "last_login": user.last_login,
    }


def token_digest(text: str) -> str:
    """Return the digest under which a token is known. 256 random bits need no salt and no slow hash."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
