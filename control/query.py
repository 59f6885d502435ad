"""Filters in a query string, as closed schemas like every other input."""

from __future__ import annotations

from typing import Self

from django.http import QueryDict

from appliance.core.errors import RefusedError
from appliance.core.schema import Closed

_PAGING = {"page", "page_size"}


class QueryFilter(Closed):
    """Base of the filters of a list. Every field is text and optional."""

    @classmethod
    def parse_query(cls, query: QueryDict) -> Self:
        """Read the filter from a query string.

        Raises:
            RefusedError: Naming the parameter that is unknown, given twice or malformed.
        """
        for name, values in query.lists():
            if len(values) > 1:
                raise RefusedError("given twice", field=name if name in cls.model_fields else "query")
        return cls.parse({name: value for name, value in query.items() if name not in _PAGING})
