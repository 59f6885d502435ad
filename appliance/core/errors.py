"""The error tree of the appliance.

    ApplianceError            every error that we raise on purpose
    ├── UsageError            the operator or client asked for something that makes no sense
    ├── RefusedError          the input is understood and refused; names the field
    │   ├── BundleError       a bundle or revocation that a node must not apply
    │   ├── PinError          a model that is not the pinned one
    │   └── ReceiptError      a receipt that does not verify
    ├── ConfinementError      a property the cell requires cannot be had on this host
    ├── UnavailableError      something we depend on does not answer now; try again
    └── HostError             the machine cannot do what is asked; the hint says what to install or change

`code` is stable and content-free: logs and metrics carry it and nothing else. `hint` is one sentence with the
command that mends it. Messages may name fields of our own schemas, never values that a client sent.
"""

from __future__ import annotations


class ApplianceError(Exception):
    """Base of every error raised on purpose.

    Args:
        message: One sentence for a person, no trailing full stop needed.
        hint: What to do next, with the command where there is one.
    """

    code = "error"
    retryable = False

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = self.reason = message
        self.hint = hint


class UsageError(ApplianceError):
    """The command line or the call makes no sense. Exit code 2."""

    code = "usage"


class RefusedError(ApplianceError):
    """Input that was understood and refused.

    Args:
        message: Why.
        field: Path of the offending field in dotted form, for example `clients.3.devices.0.public_key`.
        hint: What to do next.
    """

    code = "refused"

    def __init__(self, message: str, *, field: str | None = None, hint: str | None = None) -> None:
        super().__init__(f"{field}: {message}" if field else message, hint=hint)
        self.field = field
        self.reason = message  # for whoever shows it beside the field


class BundleError(RefusedError):
    """A bundle or revocation that this node must not apply."""

    code = "bundle_refused"


class PinError(RefusedError):
    """A model whose bytes or manifest are not the pinned ones."""

    code = "pin_mismatch"


class ReceiptError(RefusedError):
    """A receipt that does not verify."""

    code = "receipt_invalid"


class ConfinementError(ApplianceError):
    """A property that the cell requires cannot be had on this host."""

    code = "confinement"


class UnavailableError(ApplianceError):
    """Something we depend on does not answer now."""

    code = "unavailable"
    retryable = True


class HostError(ApplianceError):
    """The machine cannot do what is asked."""

    code = "host"
