"""What an operator types into the console to add a client or a device.

The forms only collect; what is allowed is said by the same requests and services as for the API and the command line.
"""

from __future__ import annotations

from typing import Any

from django import forms

from appliance.core.client_configuration import ClientConfiguration
from appliance.core.errors import ApplianceError, RefusedError
from control.clients.enrolment import add_device
from control.clients.models import Client
from control.clients.requests import NewClient, NewDevice
from control.clients.services import create_client
from control.fleet.models import Node
from control.pins.models import ModelPin


class ClientForm(forms.Form):
    """A client to create. Where there is more than one node, its home is asked for."""

    name = forms.CharField(
        max_length=32, help_text="Lower-case letters, digits and single hyphens; unique for ever."
    )
    models = forms.MultipleChoiceField(
        required=False,
        widget=forms.CheckboxSelectMultiple,
        help_text="The models it may use; none ticked: all that are pinned now.",
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        names = ModelPin.objects.filter(state="active").order_by("name").values_list("name", flat=True)
        models = self.fields["models"]
        if isinstance(models, forms.MultipleChoiceField):
            models.choices = [(name, name) for name in names]
        nodes = list(Node.objects.values_list("name", flat=True))
        if len(nodes) > 1:
            self.fields["node"] = forms.ChoiceField(
                choices=[(name, name) for name in nodes], help_text="Its home: its cell runs there."
            )

    def save(self) -> Client | None:
        """Create the client; on a refusal put the reason beside its field and return None."""
        given = self.cleaned_data
        wanted = {"name": given["name"], "models": given["models"] or None, "node": given.get("node")}
        try:
            return create_client(NewClient.parse(wanted))
        except ApplianceError as error:
            show_refusal(self, error)
            return None


class DeviceForm(forms.Form):
    """A device to add: the client made its key and gave the operator the public half."""

    client = forms.ChoiceField()
    name = forms.CharField(max_length=32, help_text="For example laptop; unique among the client's devices.")
    public_key = forms.CharField(
        max_length=64,
        widget=forms.TextInput(attrs={"size": 50, "autocomplete": "off", "spellcheck": "false"}),
        help_text="What “appliance client keygen” printed on the client's computer. The private key never leaves it.",
    )

    def __init__(self, *args: Any, client: str | None = None, **kwargs: Any) -> None:
        """Ask whose it is, unless the page knows the `client`."""
        super().__init__(*args, **kwargs)
        if client is not None:
            self.fields["client"] = forms.CharField(initial=client, disabled=True, widget=forms.HiddenInput)
            return
        names = Client.objects.filter(state="active").order_by("name").values_list("name", flat=True)
        choice = self.fields["client"]
        if isinstance(choice, forms.ChoiceField):
            choice.choices = [(name, name) for name in names]

    def save(self) -> ClientConfiguration | None:
        """Add the device; on a refusal put the reason beside its field and return None."""
        try:
            return add_device(NewDevice.parse(dict(self.cleaned_data)))
        except ApplianceError as error:
            show_refusal(self, error)
            return None


def show_refusal(form: forms.Form, error: ApplianceError) -> None:
    """Put the reason of a refusal beside the field that it names."""
    named = error.field.partition(".")[0] if isinstance(error, RefusedError) and error.field else ""
    field = named if named in form.fields else None
    form.add_error(field, f"{error.reason}. {error.hint}" if error.hint else error.reason)
