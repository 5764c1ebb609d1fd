"""What one participant's rounds have cost it, by its own count: no coordinator's word is taken for it.

Unit: the participant. Neighbouring relation: zero-out. No sampling is credited: a participant knows when it took part,
and so does the coordinator. A round without differential privacy is counted as what it is, no protection.
Trusted: those that `Plan.trust` names; a participant can only be sure of the share of noise that it adds itself.
"""

from __future__ import annotations

from dataclasses import dataclass

from ridotto.core.vector import Layout
from ridotto.privacy.account import Accountant
from ridotto.privacy.event import Event, NoPrivacyEvent, Relation, Repeated
from ridotto.rounds.plan import Plan
from ridotto.rounds.private import round_event


@dataclass(frozen=True)
class Spending:
    """Hold what was spent. size: d, or the model's layout. events: of the rounds so far, equal ones together."""

    size: int | Layout
    events: tuple[Repeated, ...] = ()

    @property
    def rounds(self) -> int:
        """Return how many rounds were counted."""
        return sum(repeated.times for repeated in self.events)

    def event(self, plan: Plan) -> Event:
        """Return what one round of this plan is to the account.

        Raises PlanError if the plan's noise is not worked out yet.
        """
        return NoPrivacyEvent() if plan.dp is None else round_event(plan, self.size)

    def after(self, event: Event) -> Spending:
        """Return what is spent once this has happened as well."""
        accountant = self._accountant()
        accountant.spend(event)
        return Spending(self.size, accountant.spent)

    def epsilon(self, delta: float) -> float:
        """Return the epsilon of all of it at this delta; infinite after a round without differential privacy."""
        return self._accountant().epsilon(delta)

    def _accountant(self) -> Accountant:
        return Accountant(Relation.ZERO_OUT, self.events)
