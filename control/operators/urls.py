"""The addresses of login and account."""

from __future__ import annotations

from django.contrib.auth.views import LogoutView
from django.urls import path

from control.operators import account, signin

urlpatterns = [
    path("login/", signin.sign_in, name="sign-in"),
    path("login/factor/", signin.sign_in_factor, name="sign-in-factor"),
    path("login/set-up/", signin.sign_in_set_up, name="sign-in-set-up"),
    path("logout/", LogoutView.as_view(next_page="sign-in"), name="sign-out"),
    path("account/", account.account, name="account"),
    path("account/step-up/", account.step_up_page, name="step-up"),
    path("account/add-factor/", account.add_factor, name="add-factor"),
    path("account/app/remove/", account.remove_app, name="remove-app"),
    path("account/passkeys/<int:key>/remove/", account.remove_passkey, name="remove-passkey"),
    path("account/recovery-codes/", account.recovery_codes, name="recovery-codes"),
    path("account/sessions/end/", account.end_one_session, name="end-session"),
]
