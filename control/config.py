"""The settings of control: one frozen, typed file, read once, and where everything lies under the state folder.

`appliance control init` writes the file; `APPLIANCE_CONTROL_CONFIG` names it. Nothing else configures control.
"""

from __future__ import annotations

import ipaddress
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints

from appliance.core.bundle import Port
from appliance.core.errors import HostError, RefusedError
from appliance.core.names import Address4, Address6
from appliance.core.schema import Closed

VARIABLE = "APPLIANCE_CONTROL_CONFIG"

# 64 characters leave room for the hint socket's own name in a Unix socket address (108 bytes, unix(7)).
AbsolutePath = Annotated[str, StringConstraints(pattern=r"^/[^\x00\n]*$", max_length=255)]
StatePath = Annotated[str, StringConstraints(pattern=r"^/[^\x00\n]*$", max_length=80)]
Host = Annotated[str, StringConstraints(pattern=r"^[a-z0-9\[][a-z0-9.:\]-]{0,252}$")]


def _one_address(value: str) -> str:
    if ipaddress.ip_address(value).is_unspecified:
        raise ValueError("control listens on one address, on the management network")
    return value


class Sqlite(Closed):
    """The default: one file under the state folder, write-ahead log, fsync at every commit."""

    engine: Literal["sqlite"] = "sqlite"


class Postgresql(Closed):
    """A PostgreSQL server.

    Attributes:
        host: Folder of its Unix socket (peer authentication, no password), or a host name.
        port: Its port, also part of the Unix socket's name.
        name, user: Database and role.
    """

    engine: Literal["postgresql"]
    host: Annotated[str, StringConstraints(min_length=1, max_length=255)]
    port: Port = 5432
    name: Annotated[str, StringConstraints(pattern=r"^[a-z_][a-z0-9_]{0,62}$")]
    user: Annotated[str, StringConstraints(pattern=r"^[a-z_][a-z0-9_-]{0,62}$")]


class Tls(Closed):
    """The console's own certificate and key (PEM files)."""

    certificate: AbsolutePath
    key: AbsolutePath


class Listen(Closed):
    """Where the console and the API listen.

    Attributes:
        address: An address on the management network. The unspecified address is refused: the console must not
            appear on a network nobody thought of.
        port: TCP port.
        tls: Certificate and key, or null for plain HTTP behind something that ends TLS.
    """

    address: Annotated[Address4 | Address6, AfterValidator(_one_address)]
    port: Port = 8443
    tls: Tls | None = None


class WitnessConfig(Closed):
    """Somebody who cosigns heads of the log of receipts (`appliance witness serve`, c2sp.org/tlog-witness).

    Attributes:
        url: Where its `/add-checkpoint` is.
        key: Its verifier key, one line.
    """

    url: Annotated[str, StringConstraints(pattern=r"^https?://[a-z0-9\[][a-z0-9.:\]/-]{0,252}$")]
    key: Annotated[str, StringConstraints(pattern=r"^[!-~]{1,4096}$")]


class ControlConfig(Closed):
    """Everything that configures control.

    Attributes:
        v: Schema version.
        state_dir: Keys, public material, database, sockets (see `ControlPaths`).
        database: SQLite or PostgreSQL.
        allowed_hosts: Values of the Host header that the console answers to.
        listen: Where it listens.
        interval_s: Time between two periodic passes of the reconciler, in seconds, before jitter.
        witnesses: Who cosigns heads of the log of receipts.
        receipt_days: After so many days what a receipt says is deleted; number, digest and place stay. Null: never.
        model_signers: Public keys or certificates (PEM files) of who may sign models. Empty: a model may come unsigned, and whoever
            verifies a signed one names the key. Else: every model must be signed by one of these.
    """

    v: Literal[1] = 1
    state_dir: StatePath
    database: Annotated[Sqlite | Postgresql, Field(discriminator="engine")] = Sqlite()
    allowed_hosts: Annotated[tuple[Host, ...], Field(min_length=1, max_length=32)]
    listen: Listen
    interval_s: Annotated[int, Field(ge=1, le=3600)] = 30
    witnesses: Annotated[tuple[WitnessConfig, ...], Field(max_length=8)] = ()
    receipt_days: Annotated[int, Field(ge=1, le=36_500)] | None = None
    model_signers: Annotated[tuple[AbsolutePath, ...], Field(max_length=8)] = ()

    @property
    def paths(self) -> ControlPaths:
        """Where things are."""
        return ControlPaths(Path(self.state_dir))


@dataclass(frozen=True)
class ControlPaths:
    """Every path of control. R is the reconciler's user, W the web process's group.

    | path | mode | written by | read by |
    |---|---|---|---|
    | control.json | 0644 | init | all |
    | keys/ | 0700 R | init | reconciler alone |
    | public/ | 0755 R | init; reconciler: receipt-keys.json | all |
    | web/ | 0750 | init | web, reconciler |
    | db/ | 2770 R:W | web, reconciler | web, reconciler |
    | log/ | 0755 R | reconciler | web; may be served to anybody |
    | models/ | 2770 R:W | `model import`, `retire` | reconciler (sends) |
    | run/hints.sock | 0660 R:W | reconciler | web (sends) |
    | restored.json | 0644 | a restore | reconciler: what it may not do yet |
    """

    state: Path

    @property
    def config(self) -> Path:
        return self.state / "control.json"

    @property
    def keys(self) -> Path:
        return self.state / "keys"

    @property
    def public(self) -> Path:
        return self.state / "public"

    @property
    def web(self) -> Path:
        return self.state / "web"

    @property
    def database_folder(self) -> Path:
        return self.state / "db"

    @property
    def database(self) -> Path:
        return self.database_folder / "control.sqlite3"

    @property
    def log(self) -> Path:
        return self.state / "log"

    @property
    def models(self) -> Path:
        return self.state / "models"

    @property
    def run(self) -> Path:
        return self.state / "run"

    @property
    def hint_socket(self) -> Path:
        return self.run / "hints.sock"

    @property
    def secret_key(self) -> Path:
        return self.web / "secret.key"

    @property
    def factor_key(self) -> Path:
        return self.web / "factor.key"

    @property
    def console_key(self) -> Path:
        return self.web / "console.key"

    @property
    def console_certificate(self) -> Path:
        return self.public / "console.pem"

    @property
    def ca_certificate(self) -> Path:
        return self.public / "ca.pem"

    @property
    def seal_public(self) -> Path:
        return self.public / "seal.pub"

    @property
    def log_keys(self) -> Path:
        return self.public / "log.vkey"

    @property
    def keyring(self) -> Path:
        return self.public / "receipt-keys.json"

    @property
    def restore_public(self) -> Path:
        return self.public / "restore.pub"

    @property
    def backup_recipient(self) -> Path:
        return self.public / "backup.recipient"

    @property
    def restored(self) -> Path:
        return self.state / "restored.json"


def read_config(path: Path | None = None) -> ControlConfig:
    """Read the settings file; without a path, the one that `APPLIANCE_CONTROL_CONFIG` names.

    Raises:
        HostError: If the variable is not set, or the file is missing or not what the schema says.
    """
    if path is None:
        named = os.environ.get(VARIABLE)
        if not named:
            raise HostError(f"{VARIABLE} is not set", hint=_HINT)
        path = Path(named)
    try:
        return ControlConfig.parse(json.loads(path.read_text("utf-8")))
    except OSError as error:
        raise HostError(f"cannot read {path}", hint=_HINT) from error
    except RefusedError as refused:
        raise HostError(f"{path}: {refused}", hint="mend the named field") from refused
    except ValueError as error:
        raise HostError(f"{path}: it is not JSON", hint="write it anew: appliance control init") from error


_HINT = "make one with `appliance control init --state DIR`, then pass --config DIR/control.json or set the variable"
