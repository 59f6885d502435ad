"""API tokens. Operators themselves are Django's users."""

from __future__ import annotations

from typing import ClassVar

from django.conf import settings
from django.db import models


class ApiToken(models.Model):
    """A token of an operator for the API. Only its digest is here."""

    operator = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE)
    name = models.CharField(max_length=32)
    sha256 = models.CharField(max_length=64, unique=True)
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField()

    class Meta:
        ordering: ClassVar = ["operator", "name"]
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["operator", "name"], name="one_token_per_name")
        ]

    def __str__(self) -> str:
        return self.name
