"""What is refused of a log, as part of the tree in `appliance.core.errors`.

RefusedError
└── LogError
    ├── LogFormatError       text that is no note, checkpoint or proof, or a second spelling of one
    ├── OtherLogError        a checkpoint of another log
    ├── LogSignatureError    a signature that is missing or does not verify
    ├── WitnessError         too few witnesses have cosigned
    ├── InclusionError       the tree does not hold this entry at this place
    └── ConsistencyError     the tree is no continuation of the one that was seen before: a fork or a shrink
"""

from __future__ import annotations

from appliance.core.errors import RefusedError, UnavailableError


class LogError(RefusedError):
    """Something of a log that does not verify."""

    code = "log_invalid"


class LogFormatError(LogError):
    """Text that is not exactly what the format says."""

    code = "log_format"


class OtherLogError(LogError):
    """Another log than the one that is trusted."""

    code = "log_other"


class LogSignatureError(LogError):
    """The log has not signed this, not with both of its keys, or not this text."""

    code = "log_signature"


class WitnessError(LogError):
    """Fewer witnesses than the policy asks for have cosigned."""

    code = "log_witnesses"


class InclusionError(LogError):
    """The proof does not lead from the entry to the root."""

    code = "log_inclusion"


class ConsistencyError(LogError):
    """The proof does not lead from the earlier tree to the later one."""

    code = "log_consistency"


class NotLoggedError(UnavailableError):
    """The log does not hold it yet."""

    code = "not_logged"
