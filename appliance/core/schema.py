"""The base of every closed schema: unknown fields refused, no coercion, immutable, errors that name the field only."""

from __future__ import annotations

import json
from typing import Any, Self, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from appliance.core import canonical
from appliance.core.errors import RefusedError

E = TypeVar("E", bound=RefusedError)


class Closed(BaseModel):
    """A schema that accepts exactly its fields and quotes no value in its errors."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)

    def canonical_bytes(self) -> bytes:
        """Return the canonical JSON of this value (see `appliance.core.canonical`)."""
        return canonical.encode(self.model_dump(mode="json"))

    @classmethod
    def parse_canonical(cls, data: bytes, error: type[RefusedError] = RefusedError) -> Self:
        """Parse canonical bytes into this schema.

        Raises:
            RefusedError: Of the class given in `error`, naming the field and the reason, never the value.
        """
        try:
            value = canonical.decode(data)
        except RefusedError as refused:
            raise error(refused.message) from refused
        parsed = cls.parse(value, error)
        # A field left out that has a default, or `true` where 1 is meant, would be a second spelling too.
        if parsed.canonical_bytes() != data:
            raise error("not canonical JSON: a second spelling of the value", field="$")
        return parsed

    @classmethod
    def parse(cls, value: Any, error: type[RefusedError] = RefusedError) -> Self:
        """Validate a decoded JSON value against this schema.

        Raises:
            RefusedError: Of the class given in `error`, naming the field and the reason, never the value.
        """
        try:
            text = json.dumps(value)
        except (TypeError, ValueError, RecursionError):
            raise error("not a value of JSON", field="$") from None
        try:
            # JSON mode: tuples and enums are read from arrays and strings although the schema is strict.
            return cls.model_validate_json(text)
        except ValidationError as invalid:
            first = invalid.errors(include_input=False, include_url=False, include_context=False)[0]
            field = ".".join(str(part) for part in first["loc"]) or "$"
            raise error(first["msg"].removeprefix("Value error, "), field=field) from None
