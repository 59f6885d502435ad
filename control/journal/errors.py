"""What is refused of an export of the journal, as part of the tree in `appliance.core.errors`.

RefusedError
└── AuditError
    ├── AuditFormatError     a line that is no event, or a second spelling of one
    ├── AuditNumberError     an event that is missing, doubled or out of its order
    ├── AuditChainError      an event that does not follow the one before it
    └── AuditTruncatedError  events at the end are missing

That an event is not what was logged is `log_inclusion`, and a head that the log did not sign `log_signature` (`transparency.errors`).
"""

from __future__ import annotations

from appliance.core.errors import RefusedError


class AuditError(RefusedError):
    """An export that does not verify."""

    code = "audit_invalid"


class AuditFormatError(AuditError):
    """A line that is not exactly what the format says."""

    code = "audit_format"


class AuditNumberError(AuditError):
    """Numbers, or places in the log, do not follow each other."""

    code = "audit_number"


class AuditChainError(AuditError):
    """An event names another one before it than the one that is there."""

    code = "audit_chain"


class AuditTruncatedError(AuditError):
    """The last events are missing."""

    code = "audit_truncated"
