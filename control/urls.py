"""Every URL of control. What is not here is 404."""

from __future__ import annotations

from django.contrib import admin
from django.contrib.staticfiles.views import serve
from django.urls import include, path

from control.operators.login import LoginForm

admin.site.site_header = "Sovereign Appliance"
admin.site.site_title = "Sovereign Appliance"
admin.site.index_title = "Control"
admin.site.login_form = LoginForm
admin.site.site_url = "/"  # the console; these pages are for when it fails

handler400 = "control.console.errors.bad_request"
handler403 = "control.console.errors.forbidden"
handler404 = "control.console.errors.not_found"
handler500 = "control.console.errors.server_error"

urlpatterns = [
    path("admin/", admin.site.urls),
    path("api/v1/", include("control.api.urls")),
    # `insecure` only means slow here: the finders know the installed packages' static folders and nothing else, and
    # a console for a handful of operators needs no second server for a style sheet.
    path("static/<path:path>", serve, {"insecure": True}),
    path("", include("control.console.urls")),
]
