"""Every URL of control. What is not here is 404."""

from __future__ import annotations

from django.contrib import admin
from django.contrib.staticfiles.views import serve
from django.urls import include, path
from django.views.generic import RedirectView

from control.api.metrics import Metrics
from control.operators.stepup import fresh_factor_required

admin.site.site_header = "Sovereign Appliance"
admin.site.site_title = "Sovereign Appliance"
admin.site.index_title = "Control"
admin.site.site_url = "/"  # the console; these pages are for when it fails

handler400 = "control.console.errors.bad_request"
handler403 = "control.console.errors.forbidden"
handler404 = "control.console.errors.not_found"
handler500 = "control.console.errors.server_error"

urlpatterns = [
    path("", include("control.operators.urls")),
    # The admin's own login knows no second factor, and its change of password asks for none.
    path("admin/login/", RedirectView.as_view(pattern_name="sign-in", query_string=True)),
    path("admin/password_change/", fresh_factor_required(admin.site.password_change)),
    path("admin/", admin.site.urls),
    path("metrics", Metrics.as_view(), name="metrics"),
    path("api/v1/", include("control.api.urls")),
    # `insecure` only means slow here: the finders know the installed packages' static folders and nothing else, and
    # a console for a handful of operators needs no second server for a style sheet.
    path("static/<path:path>", serve, {"insecure": True}),
    path("", include("control.console.urls")),
]
