"""Runs the WSGI application under gunicorn, configured in code: no file, no environment, no control socket."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from gunicorn.app.base import BaseApplication
from gunicorn.glogging import Logger

from control.logs import CodeFormatter
from control.startup import UMASK

WORKERS = 2
THREADS = 2


class CodeLogger(Logger):  # type: ignore[misc]
    """gunicorn's logger without messages: it would log the path of a failed request."""

    def setup(self, cfg: Any) -> None:
        """Replace the formatter of every handler."""
        super().setup(cfg)
        for handler in self.error_log.handlers:
            handler.setFormatter(CodeFormatter())


class ControlServer(BaseApplication):  # type: ignore[misc]
    """gunicorn, with our settings."""

    def load_config(self) -> None:
        """Take everything from control.json."""
        for name, value in gunicorn_settings().items():
            self.cfg.set(name, value)

    def load(self) -> Any:
        """Return the WSGI application."""
        from control.wsgi import application

        return application


def gunicorn_settings() -> dict[str, Any]:
    """Return gunicorn's settings."""
    listen = settings.CONFIG.listen
    host = f"[{listen.address}]" if ":" in listen.address else listen.address
    values: dict[str, Any] = {
        "bind": f"{host}:{listen.port}",
        "workers": WORKERS,
        "threads": THREADS,
        "worker_class": "gthread",
        "worker_tmp_dir": "/dev/shm",  # noqa: S108 - the heartbeat file, unlinked at once, never a disk
        "umask": UMASK,
        "accesslog": None,
        "loglevel": "warning",
        "logger_class": CodeLogger,
        "limit_request_line": 2048,
        "limit_request_fields": 50,
        "timeout": 120,  # seconds; pinning a large model hashes it
        "control_socket_disable": True,
    }
    if listen.tls is not None:
        values |= {
            "certfile": listen.tls.certificate,
            "keyfile": listen.tls.key,
            "ssl_context": _modern_tls,
        }
    return values


def serve_forever() -> None:
    """Serve until SIGTERM."""
    ControlServer().run()


def _modern_tls(_config: Any, default: Any) -> Any:
    import ssl

    context = default()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
