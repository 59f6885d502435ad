"""Answers that were given to requests with an idempotency key, so that a repetition gets the same one."""

from __future__ import annotations

from typing import ClassVar

from django.db import models


class KeptAnswer(models.Model):
    """One key of one caller.

    Attributes:
        caller: A token or an operator.
        key: SHA-256 of the key.
        request: SHA-256 of method, path and body.
        claim: Of the request that works on it: random, so that one that came back from the dead notices that another took over.
        status: Of the answer; None while it is worked on.
        body: The answer, JSON; empty if it was shown once.
    """

    caller = models.CharField(max_length=32)
    key = models.CharField(max_length=64)
    request = models.CharField(max_length=64)
    claim = models.CharField(max_length=32)
    status = models.PositiveSmallIntegerField(null=True)
    body = models.TextField(blank=True)
    claimed_at = models.DateTimeField(db_index=True)

    class Meta:
        constraints: ClassVar = [models.UniqueConstraint(fields=["caller", "key"], name="one_answer_per_key")]

    def __str__(self) -> str:
        return self.key
