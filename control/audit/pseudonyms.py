"""Who a pseudonym is: control holds every client's pseudonym key, receipts do not say names."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from appliance.core.names import decode_base64
from appliance.core.receipt import pseudonym
from control.clients.models import Client

_REMEMBERED: Final = 65_536  # clients; a name and its key never change, and a digest costs 8 µs


def pseudonym_of(client: Client) -> str:
    """Return the name that receipts use for a client."""
    return _pseudonym(client.pseudonym_key, client.name)


def client_names() -> dict[str, str]:
    """Return the name of every client there ever was by its pseudonym. One query."""
    rows = Client.objects.order_by().values_list("pseudonym_key", "name")
    return {_pseudonym(key, name): name for key, name in rows}


@lru_cache(maxsize=_REMEMBERED)
def _pseudonym(key: str, name: str) -> str:
    return pseudonym(decode_base64(key), name)
