"""Django's settings, derived from control.json alone. There is no development mode: DEBUG is never on."""

from __future__ import annotations

from typing import Any

from appliance.core.errors import HostError
from control.config import ControlConfig, Postgresql, read_config

CONFIG: ControlConfig = read_config()
PATHS = CONFIG.paths


def _secret_key() -> str:
    try:
        return PATHS.secret_key.read_text("ascii").strip()
    except OSError as error:
        raise HostError(
            f"cannot read {PATHS.secret_key}", hint="run `appliance control init`, as a user who may read it"
        ) from error


def _database() -> dict[str, Any]:
    database = CONFIG.database
    if isinstance(database, Postgresql):
        return {
            "ENGINE": "django.db.backends.postgresql",
            "HOST": database.host,
            "PORT": database.port,
            "NAME": database.name,
            "USER": database.user,
        }
    return {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": PATHS.database,
        "OPTIONS": {
            # Two processes share the file: readers never wait (WAL), a commit is on the disk when it returns
            # (FULL), and a writer takes its lock at BEGIN, so no transaction fails half-way with SQLITE_BUSY. The cache
            # (16 MiB) holds the inner pages of all indexes up to some ten million receipts.
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA cache_size=-16384;",
            "transaction_mode": "IMMEDIATE",
            "timeout": 20,  # seconds
        },
        # A file, not memory: the reconciler's threads have a connection each.
        "TEST": {"NAME": PATHS.database_folder / "test.sqlite3"},
    }


DEBUG = False
SECRET_KEY = _secret_key()
ALLOWED_HOSTS = list(CONFIG.allowed_hosts)
DATABASES = {"default": _database()}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "rest_framework",
    "control.operators",
    "control.fleet",
    "control.pins",
    "control.clients",
    "control.audit",
    "control.transparency",
    "control.journal",
    "control.backup",
    "control.api",
    "control.console",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "control.headers.SecurityHeaders",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "control.operators.sessions.VerifiedSessions",
    "control.journal.middleware.RequestActor",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "control.console.context.layout",
            ]
        },
    }
]
ROOT_URLCONF = "control.urls"
WSGI_APPLICATION = "control.wsgi.application"
STATIC_URL = "/static/"

AUTHENTICATION_BACKENDS = ["control.operators.roles.RoleBackend"]
AUTH_PASSWORD_VALIDATORS = [
    {
        "NAME": "django.contrib.auth.password_validation.MinimumLengthValidator",
        "OPTIONS": {"min_length": 14},
    },
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
]
LOGIN_URL = "/login/"

# Cookies with the __Host- prefix are bound by the browser to this host, to TLS and to the path / (RFC 6265bis).
SESSION_ENGINE = "control.operators.sessions"
SESSION_COOKIE_NAME = "__Host-session"
SESSION_COOKIE_SECURE = True
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Strict"
SESSION_COOKIE_AGE = 8 * 3600  # seconds
SESSION_EXPIRE_AT_BROWSER_CLOSE = True
CSRF_FAILURE_VIEW = "control.console.errors.csrf_failure"
CSRF_COOKIE_NAME = "__Host-csrf"
CSRF_COOKIE_SECURE = True
CSRF_COOKIE_HTTPONLY = True
CSRF_COOKIE_SAMESITE = "Strict"
SECURE_HSTS_SECONDS = 365 * 86_400
SECURE_HSTS_INCLUDE_SUBDOMAINS = True
SECURE_HSTS_PRELOAD = True
SECURE_SSL_REDIRECT = CONFIG.listen.tls is not None
# Without TLS of its own the console stands behind something that ends TLS and redirects.
SILENCED_SYSTEM_CHECKS = [] if SECURE_SSL_REDIRECT else ["security.W008"]
X_FRAME_OPTIONS = "DENY"
DATA_UPLOAD_MAX_MEMORY_SIZE = 1_048_576  # bytes; a manifest with its chat template is far below

USE_TZ = True
TIME_ZONE = "UTC"
USE_I18N = False

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "control.api.authentication.BearerAuthentication",
        "control.api.authentication.VerifiedSessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["control.api.permissions.RolePermission"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["control.api.parsing.StrictJSONParser"],
    "DEFAULT_PAGINATION_CLASS": "control.api.pagination.Pages",
    "EXCEPTION_HANDLER": "control.api.problems.problem_response",
    "UNICODE_JSON": True,
    "STRICT_JSON": True,
}

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"codes": {"()": "control.logs.CodeFormatter"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "codes"}},
    "root": {"handlers": ["stderr"], "level": "INFO"},
    "loggers": {
        "django": {"handlers": ["stderr"], "level": "WARNING", "propagate": False},
        "fido2": {"handlers": ["stderr"], "level": "WARNING", "propagate": False},
        "paramiko": {"handlers": ["stderr"], "level": "ERROR", "propagate": False},
    },
}
