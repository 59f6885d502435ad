"""Finds receipts among millions: the filters that the API, the console and the command line share.

SQLite plans without statistics: it takes every equality for rare, and so would walk through a million receipts of the one node there is
to find three that do not verify. Here the rarest condition is found by counting index entries, up to a limit; it alone may
lead to an index, and all others are checked on the rows that it finds. Every index ends in the row's id, so rows come in their order and a
page costs what it shows.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Any, Final, NamedTuple

from django.db.models import BigIntegerField, Func, Max, Min, QuerySet
from django.db.models.sql.compiler import SQLCompiler
from pydantic import BeforeValidator, Field, StringConstraints

from appliance.core.names import Hex128, Name
from appliance.core.receipt import End
from control.audit.models import ReceiptRecord
from control.audit.pseudonyms import client_names, pseudonym_of
from control.clients.services import find_client
from control.fleet.services import find_node
from control.query import QueryFilter

_DENSE: Final = 5000  # matches from which on counting stops: half a millisecond in an index
_PREFIX: Final = 6  # hexadecimal digits from which on a search takes them for the beginning of an id
_NAMES: Final = 50  # clients that one search may mean

_MOMENT = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}(T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?(Z|[+-][0-9]{2}:[0-9]{2}))?",
    re.ASCII,
)


def parse_moment(value: object) -> datetime:
    """Read a time of RFC 3339; a date alone is its beginning in UTC.

    Raises:
        ValueError: If it is neither.
    """
    if not isinstance(value, str) or not _MOMENT.fullmatch(value):
        raise ValueError("a time like 2026-01-02T03:04:05Z, or a date")
    try:
        moment = datetime.fromisoformat(value)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise ValueError("there is no such time") from error


def _flag(value: object) -> bool:
    if value not in ("true", "false"):
        raise ValueError("true or false")
    return value == "true"


Moment = Annotated[datetime, BeforeValidator(parse_moment)]
Flag = Annotated[bool, BeforeValidator(_flag)]
NameOrPseudonym = Annotated[str, StringConstraints(pattern=r"^([0-9a-f]{64}|[a-z][a-z0-9-]{0,31})$")]


class Bare(Func):
    """A column by which SQLite must not seek (https://www.sqlite.org/optoverview.html, section 5)."""

    template = "%(expressions)s"
    arity = 1

    def as_sqlite(self, compiler: SQLCompiler, connection: Any, **context: Any) -> Any:
        """Write it with the unary plus that keeps an index from being used. PostgreSQL has statistics instead."""
        return self.as_sql(compiler, connection, template="+%(expressions)s", **context)


class Condition(NamedTuple):
    """One thing that a receipt must be.

    Attributes:
        column, lookup, value: As Django's `filter` takes them.
        indexed: It may be rare, and there is an index for it.
    """

    column: str
    value: Any
    lookup: str = "exact"
    indexed: bool = True

    def seek(self, receipts: QuerySet[ReceiptRecord]) -> QuerySet[ReceiptRecord]:
        """Filter in a way that an index may serve."""
        return receipts.filter(**{f"{self.column}__{self.lookup}": self.value})

    def check(self, receipts: QuerySet[ReceiptRecord]) -> QuerySet[ReceiptRecord]:
        """Filter row by row."""
        name = f"bare_{self.column}"
        column = (
            Bare(self.column, output_field=BigIntegerField())
            if self.column == "node_id"
            else Bare(self.column)
        )
        return receipts.alias(**{name: column}).filter(**{f"{name}__{self.lookup}": self.value})


class ReceiptFilter(QueryFilter):
    """Which receipts.

    Attributes:
        node: Name of the node.
        client: Name of the client, or its pseudonym.
        receipt: Receipt id.
        end: Why the session ended.
        verified: Whether the signature verified when it came in.
        logged: Whether it has a place in the log.
        from_at, to_at: Admitted at this moment or later, and before that one (`from`, `to`).
    """

    node: Name | None = None
    client: NameOrPseudonym | None = None
    receipt: Hex128 | None = None
    end: End | None = None
    verified: Flag | None = None
    logged: Flag | None = None
    from_at: Moment | None = Field(default=None, alias="from")
    to_at: Moment | None = Field(default=None, alias="to")

    def select(self, *more: Condition) -> QuerySet[ReceiptRecord]:
        """Return the receipts, with their nodes, in the order in which they came.

        Args:
            more: Further conditions.

        Raises:
            RefusedError: If there is no node or client of the name.
        """
        conditions, times = [*self._conditions(), *more], self._times()
        receipts = ReceiptRecord.objects.all()
        leader, count = _rarest(conditions, receipts)
        if times and count == _DENSE:
            receipts = _between(times, receipts)
            leader, _ = _rarest(conditions, receipts)
        for condition in (*conditions, *times):
            receipts = condition.seek(receipts) if condition is leader else condition.check(receipts)
        return receipts.select_related("node").order_by("id")

    def _conditions(self) -> list[Condition]:
        found = []
        if self.receipt is not None:
            found.append(Condition("receipt_id", self.receipt))
        if self.verified is not None:
            found.append(Condition("verified", self.verified, indexed=not self.verified))
        if self.logged is not None:
            found.append(Condition("place", not self.logged, "isnull", indexed=not self.logged))
        if self.end is not None:
            found.append(Condition("end", self.end.value))
        if self.client is not None:
            found.append(Condition("client", _pseudonym(self.client)))
        if self.node is not None:
            found.append(Condition("node_id", find_node(self.node).pk))
        return found

    def _times(self) -> list[Condition]:
        bounds = (("gte", self.from_at), ("lt", self.to_at))
        return [
            Condition("admitted_at", at, lookup, indexed=False) for lookup, at in bounds if at is not None
        ]


def search_text(text: str) -> Condition:
    """Return what an operator means who typed this: the beginning of a receipt id or a pseudonym, or part of a client's name."""
    text = text.strip().lower()
    if re.fullmatch(f"[0-9a-f]{{{_PREFIX},64}}", text):
        # "g" comes after every hexadecimal digit: a range that an index serves, where LIKE is not served.
        receipts = ReceiptRecord.objects.filter(receipt_id__gte=text, receipt_id__lt=f"{text}g").order_by()
        if ids := list(receipts.values_list("receipt_id", flat=True)[:_NAMES]):
            return Condition("receipt_id", ids, "in")
        clients = ReceiptRecord.objects.filter(client__gte=text, client__lt=f"{text}g").order_by("client")
        if (first := clients.values_list("client", flat=True).first()) is not None:
            return Condition("client", first)
    names = client_names().items()
    exact = [pseudonym for pseudonym, name in names if name == text]
    part = exact or [pseudonym for pseudonym, name in names if text in name][:_NAMES]
    return Condition("client", part[0]) if len(part) == 1 else Condition("client", part, "in")


def _rarest(conditions: list[Condition], receipts: QuerySet[ReceiptRecord]) -> tuple[Condition | None, int]:
    """Return the condition that should lead to an index, None where none would help, and how many it leaves, up to `_DENSE`.

    Several values of one column do not come in the order of ids: where they are common, sorting them costs more than walking.
    """
    leader, least = None, _DENSE
    for condition in conditions:
        if condition.indexed:
            count = condition.seek(receipts).order_by()[:_DENSE].count()
            if count < least or (leader is None and condition.lookup != "in"):
                leader, least = condition, count
    return leader, least


def _between(times: list[Condition], receipts: QuerySet[ReceiptRecord]) -> QuerySet[ReceiptRecord]:
    """Return the receipts between the first and the last id of a time.

    Ids grow with time while nobody sets the clock back, so these are hardly more than those of the time, and each index serves a
    range of ids. Both ends are exact whatever the clock did: they are looked for in the whole range of the index.
    """
    timely = receipts
    for condition in times:
        timely = condition.seek(timely)
    ends = timely.order_by().aggregate(first=Min(Bare("id")), last=Max(Bare("id")))
    return (
        receipts.none() if ends["first"] is None else receipts.filter(id__range=(ends["first"], ends["last"]))
    )


def _pseudonym(client: str) -> str:
    return client if re.fullmatch(r"[0-9a-f]{64}", client) else pseudonym_of(find_client(client))
