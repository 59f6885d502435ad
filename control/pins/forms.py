"""What an operator types into the console about models: an alias of a client."""

from __future__ import annotations

from typing import Any

from django import forms

from appliance.core.errors import ApplianceError
from control.clients.forms import show_refusal
from control.clients.models import Client
from control.pins.aliases import NewAlias, set_alias
from control.pins.models import ClientAlias


class AliasForm(forms.Form):
    """Another name by which a client asks for one of its models."""

    alias = forms.CharField(
        max_length=32, help_text="For example chat. “default” also decides which model the cell loads."
    )
    model = forms.ChoiceField(help_text="One of the client's models.")

    def __init__(self, *args: Any, client: Client, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._client = client
        model = self.fields["model"]
        if isinstance(model, forms.ChoiceField):
            model.choices = [(name, name) for name in client.allowed_models]

    def save(self) -> ClientAlias | None:
        """Set the alias; on a refusal put the reason beside its field and return None."""
        try:
            return set_alias(NewAlias.parse({"client": self._client.name, **self.cleaned_data}))
        except ApplianceError as error:
            show_refusal(self, error)
            return None
