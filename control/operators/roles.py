"""What an operator may do: one of five roles, whose rights are written here and nowhere else.

Django asks for rights by name (`app.verb_model`); the console and the API ask the same ones. No row of a database can widen a role.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Final

from django.contrib.auth.backends import ModelBackend
from django.contrib.auth.models import AbstractBaseUser, AnonymousUser, User
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest


class Role(StrEnum):
    """An operator's role."""

    MONITOR = "monitor"  # reads /metrics, and nothing else; for a program's token
    VIEWER = "viewer"  # sees clients, devices, nodes, models and alarms
    OPERATOR = "operator"  # changes them, and sees receipts
    AUDITOR = "auditor"  # sees everything, changes nothing
    ADMINISTRATOR = (
        "administrator"  # may do everything; for who sets up the others, and for when all else fails
    )


_MONITOR: Final = frozenset(["fleet.view_healthsample"])
_STATE: Final = (
    "clients.{}_client",
    "clients.{}_device",
    "clients.{}_invitation",
    "fleet.{}_node",
    "pins.{}_modelpin",
    "pins.{}_clientalias",
)
_HISTORY: Final = ("fleet.view_bundlerecord", "audit.view_alarm")
_RECEIPTS: Final = ("audit.view_receiptrecord", "transparency.view_checkpointrecord")
_VIEWER: Final = frozenset([*_MONITOR, *(right.format("view") for right in _STATE), *_HISTORY])
_OPERATOR: Final = frozenset(
    [*_VIEWER, *_RECEIPTS, *(right.format(verb) for right in _STATE for verb in ("add", "change"))]
)
_JOURNAL: Final = ("journal.view_auditevent", "operators.view_apitoken", "operators.view_operator")
_AUDITOR: Final = frozenset([*_VIEWER, *_RECEIPTS, *_JOURNAL])

RIGHTS: Final = {
    Role.MONITOR: _MONITOR,
    Role.VIEWER: _VIEWER,
    Role.OPERATOR: _OPERATOR,
    Role.AUDITOR: _AUDITOR,
}
"""The rights of each role but the administrator's, who has all."""


def role_of(user: AbstractBaseUser | AnonymousUser) -> Role | None:
    """Return a user's role; None for somebody who is no operator."""
    if not isinstance(user, User) or not user.is_active or not user.is_staff:
        return None
    if user.is_superuser:
        return Role.ADMINISTRATOR
    record = getattr(user, "operator", None)
    return None if record is None else known(record.role)


def known(role: str) -> Role | None:
    """Return the role of this name; None, which may do nothing, for one that nobody knows."""
    return Role(role) if role in tuple(Role) else None


def may(role: Role | None, right: str) -> bool:
    """Return whether a role has a right."""
    return role is Role.ADMINISTRATOR or (role is not None and right in RIGHTS[role])


class RoleBackend(ModelBackend):
    """Knows a password, unless the name was tried too often, and answers for rights by role alone.

    What groups and users are granted is not read. A password alone is no session: `control.operators.signin` asks on.
    """

    def authenticate(
        self,
        request: HttpRequest | None,
        username: str | None = None,
        password: str | None = None,
        **kwargs: Any,
    ) -> User | None:
        """Return who it is, or None.

        Raises:
            PermissionDenied: If nobody may try this name now.
        """
        from control.operators import login  # which needs the models, which need this

        if username is None or password is None:
            return None
        if login.wait_of(username):
            raise PermissionDenied
        user: User | None = super().authenticate(request, username=username, password=password, **kwargs)
        if user is None:
            login.note_failure(username)
        return user

    def get_user(self, user_id: int) -> User | None:
        """Return the active user of a session, its role with it."""
        user = User.objects.select_related("operator").filter(pk=user_id).first()
        return user if user is not None and self.user_can_authenticate(user) else None

    def has_perm(self, user_obj: AbstractBaseUser | AnonymousUser, perm: str, obj: Any = None) -> bool:
        """Return whether the user's role has the right. Rights are for all objects of a kind."""
        return obj is None and may(role_of(user_obj), perm)

    def has_module_perms(self, user_obj: AbstractBaseUser | AnonymousUser, app_label: str) -> bool:
        """Return whether the role has any right in an app; the console lists those."""
        role = role_of(user_obj)
        if role is Role.ADMINISTRATOR:
            return True
        return role is not None and any(right.startswith(f"{app_label}.") for right in RIGHTS[role])

    def get_all_permissions(self, user_obj: AbstractBaseUser | AnonymousUser, obj: Any = None) -> set[str]:
        """Return the rights of the user's role; an administrator's are not listed."""
        role = role_of(user_obj)
        return set() if obj is not None or role is None else set(RIGHTS.get(role, ()))
