"""What a session asks of its client's budgets of a day, and what it is granted: said between a cell and the notary."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from appliance.core.bundle import MAX_COUNTED
from appliance.core.schema import Closed, is_absent

Part = Annotated[int, Field(ge=1, le=MAX_COUNTED)]


class Asks(Closed):
    """What a session may need.

    Attributes:
        requests: So many requests at most.
        tokens: So many tokens of prompts and answers at most.
        least_tokens: With fewer than these it is of no use.
    """

    least_tokens: Part
    requests: Part
    tokens: Part


class Used(Closed):
    """What a client's sessions used within some time."""

    requests: Annotated[int, Field(ge=0, le=2**53 - 1)]
    tokens: Annotated[int, Field(ge=0, le=2**53 - 1)]


class Allowance(Closed):
    """What a session may use; None where the client has no such budget."""

    requests: Annotated[Part | None, Field(exclude_if=is_absent)] = None
    tokens: Annotated[Part | None, Field(exclude_if=is_absent)] = None
