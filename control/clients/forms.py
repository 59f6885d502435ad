"""What an operator types into the console about clients and devices.

The forms only collect; what is allowed is said by the same requests and services as for the API and the command line.
"""

from __future__ import annotations

from typing import Any, Final

from django import forms

from appliance.core.bundle import Limits
from appliance.core.client_configuration import ClientConfiguration
from appliance.core.errors import ApplianceError, RefusedError
from control.clients.enrolment import add_device
from control.clients.invitations import invite
from control.clients.models import Client, Device
from control.clients.requests import (
    Expiry,
    NewClient,
    NewDevice,
    NewInvitation,
    Rotation,
    ShownInvitation,
)
from control.clients.rotation import rotate_device
from control.clients.services import create_client, expire_client, expire_device, limit_client
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


class InvitationForm(forms.Form):
    """An invitation: the client's computer makes key and token by itself."""

    device = forms.CharField(
        max_length=32, help_text="For example laptop; unique among the client's devices."
    )
    hours = forms.IntegerField(
        min_value=1, max_value=168, initial=24, help_text="How long it can be redeemed, in hours."
    )
    approval = forms.BooleanField(
        required=False,
        initial=True,
        label="Ask me before the device is let in",
        help_text="You compare its fingerprint with the one on the device's screen: who intercepts the invitation gets nowhere.",
    )

    def save(self, client: Client) -> ShownInvitation | None:
        """Make the invitation; on a refusal put the reason beside its field and return None."""
        try:
            return invite(NewInvitation.parse({"client": client.name, **self.cleaned_data}))
        except ApplianceError as error:
            show_refusal(self, error)
            return None


LIMITS: Final = {
    "sessions": ("Open sessions", "At most so many at once."),
    "session_idle_s": ("A session ends after its last request", "Seconds."),
    "session_max_s": ("A session ends after it was opened", "Seconds, at the latest."),
    "cell_idle_s": ("The cell exits after its last session", "Seconds; 0: at once."),
    "answer_tokens": ("Longest answer", "Tokens."),
    "body_bytes": ("Largest request", "Bytes."),
    "context_tokens": ("Prompt and answer together", "Tokens; empty: as much as the model takes."),
    "requests_per_minute": ("Requests in a minute", "Empty: no limit."),
    "tokens_per_minute": ("Tokens in a minute", "Of prompts and answers; empty: no limit."),
    "requests_per_day": ("Requests in a day", "Counted in UTC; empty: no limit."),
    "tokens_per_day": ("Tokens in a day", "Of prompts and answers, counted in UTC; empty: no limit."),
    "guess_in_streams": (
        "Guess in streams",
        "Faster; but when packets of a streamed answer leave then depends on what it says.",
    ),
    "share_prefixes": (
        "Share beginnings between sessions",
        "Faster first tokens; but their time tells the client's devices whether they use the same system messages.",
    ),
}
"""What each limit is called and means, in the order of the form."""


class LimitsForm(forms.Form):
    """Other limits for a client: one field for each of `Limits`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name, (label, meaning) in LIMITS.items():
            default = Limits.model_fields[name].default
            if isinstance(default, bool):
                self.fields[name] = forms.BooleanField(required=False, label=label, help_text=meaning)
            else:
                self.fields[name] = forms.IntegerField(
                    required=default is not None, min_value=0, label=label, help_text=meaning
                )

    def save(self, client: Client) -> bool:
        """Change the limits; on a refusal put the reason beside its field and return False."""
        try:
            limit_client(client, Limits.parse(dict(self.cleaned_data)))
        except ApplianceError as error:
            show_refusal(self, error)
            return False
        return True


def _end_field() -> forms.DateTimeField:
    widget = forms.DateTimeInput(attrs={"type": "datetime-local"}, format="%Y-%m-%dT%H:%M")
    return forms.DateTimeField(
        required=False, widget=widget, label="Ends (UTC)", help_text="At most ten years ahead; empty: never."
    )


class EndForm(forms.Form):
    """When a client or a device's key ends."""

    expires_at = _end_field()

    def save(self, ending: Client | Device) -> bool:
        """Set the end, or take it away; on a refusal put the reason beside the field and return False."""
        end = Expiry(expires_at=self.cleaned_data["expires_at"]).expires_at
        try:
            if isinstance(ending, Client):
                expire_client(ending, end)
            else:
                expire_device(ending, end)
        except ApplianceError as error:
            show_refusal(self, error)
            return False
        return True


class RotationForm(forms.Form):
    """Another key for a device."""

    public_key = forms.CharField(
        max_length=64,
        widget=forms.TextInput(attrs={"size": 50, "autocomplete": "off", "spellcheck": "false"}),
        help_text="What “appliance client keygen” printed on the client's computer. The private key never leaves it.",
    )
    overlap_h = forms.IntegerField(
        min_value=0,
        max_value=720,
        initial=168,
        label="The old key works on for",
        help_text="Hours; 0 ends it at once.",
    )
    expires_at = _end_field()

    def save(self, device: Device) -> ClientConfiguration | None:
        """Give the device the key; on a refusal put the reason beside its field and return None."""
        try:
            given = self.cleaned_data
            end = given["expires_at"].isoformat() if given["expires_at"] else None
            return rotate_device(device, Rotation.parse({**given, "expires_at": end}))
        except ApplianceError as error:
            show_refusal(self, error)
            return None


def show_refusal(form: forms.Form, error: ApplianceError) -> None:
    """Put the reason of a refusal beside the field that it names."""
    named = error.field.partition(".")[0] if isinstance(error, RefusedError) and error.field else ""
    field = named if named in form.fields else None
    form.add_error(field, f"{error.reason}. {error.hint}" if error.hint else error.reason)
