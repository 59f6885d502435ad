"""What a client calls its models besides their names: `default`, `chat`. Which model that is can change without the client."""

from __future__ import annotations

from django.db import transaction

from appliance.core.errors import RefusedError
from appliance.core.names import Name
from appliance.core.schema import Closed
from control.clients.models import ClientState
from control.clients.services import find_client
from control.hints import hint_on_commit
from control.journal.services import record
from control.journal.vocabulary import Verb
from control.pins.models import ClientAlias, ModelPin
from control.query import QueryFilter


class NewAlias(Closed):
    """A name to give.

    Attributes:
        client: Whose.
        alias: What it asks for. `default` also decides which model the client's cell loads.
        model: The name of one of its models.
    """

    client: Name
    alias: Name
    model: Name


class AliasFilter(QueryFilter):
    """`?client=NAME` on the list of aliases."""

    client: Name | None = None


def set_alias(new: NewAlias) -> ClientAlias:
    """Let an alias of a client name a model from now on, whatever it named before.

    Raises:
        RefusedError: Naming the field: a client that was revoked, a model that it may not use, an alias that is a model's name.
    """
    with transaction.atomic():
        client = find_client(new.client)
        if client.state == ClientState.REVOKED:
            raise RefusedError("the client was revoked, which is for good", field="client")
        if new.model not in client.allowed_models:
            raise RefusedError(
                "the client may not use a model of this name",
                field="model",
                hint="appliance control client list",
            )
        if ModelPin.objects.filter(name=new.alias).exists():
            raise RefusedError("the name of a model", field="alias", hint="choose another, for example chat")
        before = ClientAlias.objects.filter(client=client, alias=new.alias).first()
        alias, _ = ClientAlias.objects.update_or_create(
            client=client, alias=new.alias, defaults={"model": new.model}
        )
        hint_on_commit()
        models = (before.model if before else None, new.model)
        record(Verb.ALIAS_SET, f"{client.name}/{new.alias}", {"model": models})
    return alias


def find_alias(client: str, alias: str) -> ClientAlias:
    """Return an alias of a client.

    Raises:
        RefusedError: If there is none of this name.
    """
    found = ClientAlias.objects.select_related("client").filter(client__name=client, alias=alias).first()
    if found is None:
        raise RefusedError(
            "the client has no such alias", field="alias", hint="list them: appliance control alias list"
        )
    return found


def remove_alias(alias: ClientAlias) -> None:
    """Take an alias away. Without `default` a client's cell loads the first of its models."""
    with transaction.atomic():
        gone, _ = ClientAlias.objects.filter(pk=alias.pk).delete()
        hint_on_commit()
        models = (alias.model if gone else None, None)
        record(Verb.ALIAS_REMOVE, f"{alias.client.name}/{alias.alias}", {"model": models})
