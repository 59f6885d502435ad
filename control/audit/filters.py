"""The filters beside the console's list of receipts. They show choices; `ReceiptFilter` does the filtering."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from django.contrib.admin import ListFilter, SimpleListFilter
from django.contrib.admin.views.main import ChangeList
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone

from appliance.core.receipt import End
from control.fleet.models import Node

if TYPE_CHECKING:
    from control.audit.models import ReceiptRecord

Choices = list[tuple[str, str]]


class _Choice(SimpleListFilter):
    """A parameter with a few values."""

    def queryset(self, request: HttpRequest, queryset: QuerySet[ReceiptRecord]) -> QuerySet[ReceiptRecord]:  # noqa: ARG002
        """Leave the rows to `ReceiptFilter`, which takes all parameters together."""
        return queryset


class NodeChoice(_Choice):
    """`node`."""

    title = "node"
    parameter_name = "node"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Choices:  # noqa: ARG002 - Django's signature
        """Return every node."""
        return [(name, name) for name in Node.objects.values_list("name", flat=True)]


class VerifiedChoice(_Choice):
    """`verified`."""

    title = "signature"
    parameter_name = "verified"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Choices:  # noqa: ARG002
        """Return both."""
        return [("true", "Verifies"), ("false", "Does not verify")]


class LoggedChoice(_Choice):
    """`logged`."""

    title = "log"
    parameter_name = "logged"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Choices:  # noqa: ARG002
        """Return both."""
        return [("true", "Has its place"), ("false", "Not logged")]


class EndChoice(_Choice):
    """`end`."""

    title = "why it ended"
    parameter_name = "end"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Choices:  # noqa: ARG002
        """Return every reason."""
        return [(end.value, end.value.replace("_", " ").capitalize()) for end in End]


class GivenChoice(_Choice):
    """`client` or `receipt`: comes with a link, and is shown so that it can be taken back."""

    def lookups(self, request: HttpRequest, model_admin: Any) -> Choices:  # noqa: ARG002
        """Return what was given."""
        value = self.value()
        return [] if value is None else [(value, value if len(value) <= 32 else f"{value[:12]}…")]


class ClientChoice(GivenChoice):
    """`client`."""

    title = "client"
    parameter_name = "client"


class ReceiptChoice(GivenChoice):
    """`receipt`."""

    title = "receipt"
    parameter_name = "receipt"


class AdmittedChoice(ListFilter):
    """`from` and `to`: usual times as links, any other by a form."""

    title = "time"
    template = "audit/admitted_filter.html"
    parameters: ClassVar = ("from", "to")

    def __init__(
        self, request: HttpRequest, params: dict[str, list[str]], model: type[Any], model_admin: Any
    ) -> None:
        super().__init__(request, params, model, model_admin)
        given = {name: params.pop(name)[-1] for name in self.parameters if name in params}
        # The form sends both fields; one that was left empty asks for nothing.
        self.used_parameters |= {name: value for name, value in given.items() if value}

    def has_output(self) -> bool:
        """It is always shown."""
        return True

    def expected_parameters(self) -> list[str | None]:
        """Return its parameters."""
        return list(self.parameters)

    def queryset(self, request: HttpRequest, queryset: QuerySet[ReceiptRecord]) -> QuerySet[ReceiptRecord]:  # noqa: ARG002
        """Leave the rows to `ReceiptFilter`."""
        return queryset

    def choices(self, changelist: ChangeList) -> Iterator[dict[str, Any]]:
        """Yield the links, then what the form needs."""
        today = timezone.now().date()
        day = timedelta(days=1)
        times = {
            "Any": {},
            "Today": {"from": today},
            "Yesterday": {"from": today - day, "to": today},
            "Past 7 days": {"from": today - 6 * day},
            "Past 30 days": {"from": today - 29 * day},
            "This year": {"from": today.replace(month=1, day=1)},
        }
        for display, bounds in times.items():
            texts = {name: bound.isoformat() for name, bound in bounds.items()}
            query = changelist.get_query_string({name: texts.get(name) for name in self.parameters})
            yield {"selected": self.used_parameters == texts, "query_string": query, "display": display}

    def kept(self) -> list[tuple[str, str]]:
        """Return the other parameters, which the form has to carry along."""
        query = self.request.GET
        return [(name, query[name]) for name in query if name not in (*self.parameters, "p", "e")]
