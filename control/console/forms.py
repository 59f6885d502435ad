"""Forms of the console that are nobody else's: operators and their tokens. What is allowed is said by the services."""

from __future__ import annotations

import secrets
from typing import Any, Final

from django import forms
from django.contrib.auth.models import User

from appliance.core.errors import ApplianceError
from control.clients.forms import show_refusal
from control.operators.roles import Role
from control.operators.services import NewOperator, NewToken, create_operator, create_token

MEANINGS: Final = {
    Role.MONITOR: "reads metrics of nodes and nothing else; for a program's token",
    Role.VIEWER: "sees clients, devices, nodes, models and alarms",
    Role.OPERATOR: "changes them, and sees receipts",
    Role.AUDITOR: "sees everything, changes nothing",
    Role.ADMINISTRATOR: "may do everything; made on the management machine alone",
}

# The console makes no administrators: whoever takes over a browser must not be able to stay.
GIVEN: Final = tuple(role for role in Role if role is not Role.ADMINISTRATOR)
_CHOICES: Final = [(role.value, f"{role.value}: {MEANINGS[role]}") for role in GIVEN]
_PASSWORD_BYTES: Final = 15  # 20 characters, 120 bits


class OperatorForm(forms.Form):
    """An operator to create."""

    name = forms.CharField(
        max_length=32, help_text="What they sign in with: lower-case letters, digits and single hyphens."
    )
    role = forms.ChoiceField(choices=_CHOICES, widget=forms.RadioSelect, initial=Role.VIEWER.value)
    console = forms.BooleanField(
        required=False,
        initial=True,
        label="May sign in to the console",
        help_text="Without it there is no password: tokens are the only way in.",
    )

    def save(self) -> tuple[User, str | None] | None:
        """Create the operator; return it with its first password. On a refusal say why, and return None."""
        password = secrets.token_urlsafe(_PASSWORD_BYTES) if self.cleaned_data["console"] else None
        try:
            wanted = {"name": self.cleaned_data["name"], "role": self.cleaned_data["role"]}
            return create_operator(NewOperator.parse(wanted), password), password
        except ApplianceError as error:
            show_refusal(self, error)
            return None


class RoleForm(forms.Form):
    """Another role for an operator."""

    role = forms.ChoiceField(choices=_CHOICES, widget=forms.RadioSelect)


class TokenForm(forms.Form):
    """A token to create."""

    operator = forms.ChoiceField(help_text="Whose it is; it ends when they are disabled.")
    name = forms.CharField(max_length=32, help_text="What it is for, for example backup or monitoring.")
    days = forms.IntegerField(min_value=1, max_value=366, initial=90, help_text="How long it lives, in days.")
    role = forms.ChoiceField(
        required=False,
        choices=[("", "what its operator may"), *((role.value, role.value) for role in Role)],
        label="At most",
        help_text="A token may do less than its operator, never more.",
    )
    networks = forms.CharField(
        required=False,
        max_length=2048,
        widget=forms.Textarea(attrs={"rows": 3, "spellcheck": "false"}),
        label="From these networks only",
        help_text="One per line, for example 10.0.0.0/8; none: from anywhere.",
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        names = User.objects.filter(is_active=True, is_staff=True).order_by("username")
        operator = self.fields["operator"]
        if isinstance(operator, forms.ChoiceField):
            operator.choices = [(name, name) for name in names.values_list("username", flat=True)]

    def save(self) -> str | None:
        """Create the token and return its text; on a refusal say why, and return None."""
        given = self.cleaned_data
        wanted = {
            **{name: given[name] for name in ("operator", "name", "days")},
            "role": given["role"] or None,
            "networks": given["networks"].split(),
        }
        try:
            return create_token(NewToken.parse(wanted))
        except ApplianceError as error:
            show_refusal(self, error)
            return None
