"""Operators: Django's users, each with a role, and their tokens for the API."""

from __future__ import annotations

from typing import ClassVar

from django.conf import settings
from django.db import models

from control.operators.roles import Role


class Operator(models.Model):
    """What a user may do. An administrator is Django's superuser, too.

    Attributes:
        session_epoch: Sessions of another one are over.
    """

    user = models.OneToOneField(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="operator")
    role = models.CharField(max_length=16, choices=[(role.value, role.value) for role in Role])
    session_epoch = models.PositiveIntegerField(default=0)

    def __str__(self) -> str:
        return f"{self.user}: {self.role}"


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
