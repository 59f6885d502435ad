"""Operators: Django's users, each with a role, their second factors, their sessions and their tokens for the API."""

from __future__ import annotations

from typing import ClassVar

from django.conf import settings
from django.contrib.sessions.backends.db import SessionStore
from django.contrib.sessions.base_session import AbstractBaseSession
from django.db import models

from control.operators.roles import Role


class Operator(models.Model):
    """What a user may do. An administrator is Django's superuser, too."""

    user = models.OneToOneField(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="operator")
    role = models.CharField(max_length=16, choices=[(role.value, role.value) for role in Role])

    def __str__(self) -> str:
        return f"{self.user}: {self.role}"


class AppSecret(models.Model):
    """What an operator's authenticator app knows, too (RFC 6238).

    Attributes:
        sealed: The secret, sealed under a key that is not in the database (`sealing`).
        last_step: The time step of the last code that was taken. That one and those before it are over.
    """

    user = models.OneToOneField(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="app_secret")
    sealed = models.CharField(max_length=128)
    last_step = models.PositiveBigIntegerField()
    created_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return f"{self.user}: authenticator app"


class Passkey(models.Model):
    """A WebAuthn credential of an operator.

    Attributes:
        rp_id: The name of the console that it was made for; browsers offer it under no other.
        credential: Attested credential data: id and public key (WebAuthn, section 6.5.1).
        credential_sha256: Digest of the id, of which there may be only one.
        counter: The authenticator's signature counter when it was last seen; 0 if it has none.
    """

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="passkeys")
    name = models.CharField(max_length=32)
    rp_id = models.CharField(max_length=253)
    credential = models.BinaryField()
    credential_sha256 = models.CharField(max_length=64, unique=True)
    counter = models.PositiveBigIntegerField()
    created_at = models.DateTimeField(auto_now_add=True)
    used_at = models.DateTimeField(null=True)

    class Meta:
        ordering: ClassVar = ["user", "name"]
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["user", "name"], name="one_passkey_per_name")
        ]

    def __str__(self) -> str:
        return self.name


class RecoveryCode(models.Model):
    """A recovery code that was not used yet. Only its digest is here."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE)
    sha256 = models.CharField(max_length=64, unique=True)

    def __str__(self) -> str:
        return f"{self.user}: recovery code"


class OperatorSession(AbstractBaseSession):
    """A session of the console. It is over when its row is gone.

    Attributes:
        user: Whose; None for somebody who has not signed in.
    """

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, null=True)

    def __str__(self) -> str:
        return "session"  # Django's own would say the cookie

    @classmethod
    def get_session_store_class(cls) -> type[SessionStore]:
        """Return what reads a row's data."""
        from control.operators import sessions  # which needs this model

        return sessions.SessionStore


class LoginFailures(models.Model):
    """How often a name was tried in vain.

    Attributes:
        name: Keyed digest of it.
    """

    name = models.CharField(max_length=64, unique=True)
    count = models.PositiveIntegerField(default=0)
    last_at = models.DateTimeField(db_index=True)

    def __str__(self) -> str:
        return f"{self.count} failures"


class ApiToken(models.Model):
    """A token of an operator for the API. Only its digest is here.

    Attributes:
        role: What it may do at most; empty: what its operator may.
        networks: Where it may come from, as CIDR blocks; empty: from anywhere.
    """

    operator = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE)
    name = models.CharField(max_length=32)
    sha256 = models.CharField(max_length=64, unique=True)
    role = models.CharField(max_length=16, blank=True, default="")
    networks = models.JSONField(default=list)
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField()

    class Meta:
        ordering: ClassVar = ["operator", "name"]
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["operator", "name"], name="one_token_per_name")
        ]

    def __str__(self) -> str:
        return self.name
