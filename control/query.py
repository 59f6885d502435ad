"""Filters in a query string, as closed schemas like every other input."""

from __future__ import annotations

from typing import ClassVar, Self

from django.http import QueryDict

from appliance.core.errors import RefusedError
from appliance.core.schema import Closed


class QueryFilter(Closed):
    """Base of the filters of a list. Every field is text and optional.

    Attributes:
        paging: Parameters that the paginator reads, not the filter.
    """

    paging: ClassVar[frozenset[str]] = frozenset({"page", "page_size"})

    @classmethod
    def parse_query(cls, query: QueryDict) -> Self:
        """Read the filter from a query string.

        Raises:
            RefusedError: Naming the parameter that is unknown, given twice or malformed.
        """
        known = {field.alias or name for name, field in cls.model_fields.items()}
        for name, values in query.lists():
            if len(values) > 1:
                raise RefusedError("given twice", field=name if name in known else "query")
        return cls.parse({name: value for name, value in query.items() if name not in cls.paging})
