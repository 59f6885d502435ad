"""Everything that the parts of one running cell share."""

from __future__ import annotations

from dataclasses import dataclass

from inference.cell.admission import Admission
from inference.cell.completion import ModelName
from inference.cell.engine_protocol import CellEngine
from inference.cell.life import Life
from inference.cell.notary import Notary
from inference.cell.policy_file import PolicyFile
from inference.cell.rates import Rates
from inference.cell.sessions import Sessions


@dataclass
class Cell:
    """One running cell.

    Attributes:
        policy: The client's policy.
        admission: Who may speak; replaced when the policy changes.
        life: The requests that run.
        engine: The loaded model.
        model: How answers name it.
        notary: Where receipts come from.
        rates: What the client may use of a minute.
        sessions: The open sessions.
    """

    policy: PolicyFile
    admission: Admission
    life: Life
    engine: CellEngine
    model: ModelName
    notary: Notary
    rates: Rates
    sessions: Sessions

    @property
    def names(self) -> frozenset[str]:
        """What a client may call the model: its name, and the aliases that name it now."""
        aliases = self.policy.current.aliases
        return frozenset((self.model.name, *(a.alias for a in aliases if a.model == self.model.name)))
