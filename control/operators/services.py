"""The verbs of operators."""

from __future__ import annotations

import hashlib
import secrets
from datetime import timedelta
from typing import Annotated

from django.contrib.auth.models import User
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils import timezone
from pydantic import Field

from appliance.core.errors import RefusedError
from appliance.core.names import Name
from appliance.core.schema import Closed
from control.operators.models import ApiToken

PREFIX = "sac_"  # by which secret scanners find a leaked token


class NewOperator(Closed):
    """An operator to create."""

    name: Name


class NewToken(Closed):
    """A token to create.

    Attributes:
        operator: Whose.
        name: Unique among the operator's tokens.
        days: How long it lives, in days.
    """

    operator: Name
    name: Name
    days: Annotated[int, Field(ge=1, le=366)] = 90


def create_operator(new: NewOperator, password: str | None) -> User:
    """Create an operator. Without a password there is no way in but tokens.

    Raises:
        RefusedError: If the name is taken or the password is too weak.
    """
    if User.objects.filter(username=new.name).exists():
        raise RefusedError("the name is taken", field="name")
    user = User(username=new.name, is_staff=True, is_superuser=True)
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
    user.save()
    return user


def create_token(new: NewToken) -> str:
    """Create a token and return its text, which exists nowhere else.

    Raises:
        RefusedError: If there is no such operator, or it has a token of this name.
    """
    with transaction.atomic():
        operator = User.objects.filter(username=new.operator, is_active=True).first()
        if operator is None:
            raise RefusedError("there is no operator of this name", field="operator")
        if ApiToken.objects.filter(operator=operator, name=new.name).exists():
            raise RefusedError("the operator has a token of this name", field="name")
        text = PREFIX + secrets.token_urlsafe(32)
        ApiToken.objects.create(
            operator=operator,
            name=new.name,
            sha256=token_digest(text),
            expires_at=timezone.now() + timedelta(days=new.days),
        )
    return text


def token_digest(text: str) -> str:
    """Return the digest under which a token is known. 256 random bits need no salt and no slow hash."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
