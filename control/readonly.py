"""The admin of rows that services alone may change."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.utils.decorators import method_decorator

from control.operators.stepup import fresh_factor_required, has_fresh_factor, step_up

if TYPE_CHECKING:  # generic for the type checker only
    from django.db.models import Model

    Base = admin.ModelAdmin[Model]
else:
    Base = admin.ModelAdmin


class ReadOnlyAdmin(Base):
    """Shows rows; adds, edits and deletes none. What may be changed is an action that calls a service, with `permissions=["verb"]`.

    Such an action, and a deletion where a kind of rows allows it, asks for the second factor anew.
    """

    def has_verb_permission(self, request: HttpRequest) -> bool:
        """Whoever may change rows of this kind, by the services' verbs."""
        return request.user.has_perm(f"{self.opts.app_label}.change_{self.opts.model_name}")

    def has_add_permission(self, request: HttpRequest) -> bool:  # noqa: ARG002 - Django's signature
        """Nothing is added here."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:  # noqa: ARG002
        """Nothing is edited here; this also makes every field read-only."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:  # noqa: ARG002
        """Nothing is deleted, alone or in bulk."""
        return False

    def response_action(
        self, request: HttpRequest, queryset: Any, *args: Any, **kwargs: Any
    ) -> HttpResponse | None:
        """Do what was chosen for the rows that were ticked."""
        actions = self.get_actions(request)
        # A form may name several, of which Django takes the one that another field points to.
        named = [found[0] for name in request.POST.getlist("action") if (found := actions.get(name))]
        changes = any(
            {"verb", "delete"} & set(getattr(action, "allowed_permissions", ())) for action in named
        )
        if changes and not has_fresh_factor(request):
            return step_up(request)
        return super().response_action(request, queryset, *args, **kwargs)

    @method_decorator(fresh_factor_required)
    def delete_view(self, request: HttpRequest, object_id: str, extra_context: Any = None) -> HttpResponse:
        """Show what would be deleted, or delete it."""
        return super().delete_view(request, object_id, extra_context)
