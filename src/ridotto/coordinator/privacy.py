"""What a federation's attempts cost in privacy, for as long as the federation lives.

An attempt is charged in the transaction that begins it, before anybody is asked: a kill at any moment leaves an account
that holds at least what anybody may have seen. A round that is tried again draws new noise and is charged again. An
attempt that goes on after a restart is the same one: everybody sends what it sent before.

Unit: a participant. Neighbouring relation: zero-out. No sampling is credited, see `SERVED`. An attempt without
differential privacy is charged as what it is, no protection: a plan that gets noise later does not make it undone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import msgspec

from ridotto.core.rng import OsRng, Rng
from ridotto.core.vector import Layout
from ridotto.errors import StorageError
from ridotto.privacy.event import Event, NoPrivacyEvent, Repeated
from ridotto.privacy.statement import PrivacyStatement
from ridotto.rounds.plan import Plan
from ridotto.rounds.private import Draw, PrivacyAccount, calibrated, with_noise

PRIVACY_KEY = "privacy"

SERVED = Draw(
    why="No sampling is credited: devices choose when they are there, and a coordinator knows whom it asks, so "
    "everybody is taken to be in every round."
)
"""How a coordinator draws its cohorts, as far as an accountant may rely on it."""


class Spent(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Keep what a store must not lose.

    noise_multiplier: that was worked out when the federation began; None without differential privacy. events: of every
    attempt so far, equal ones together.
    """

    noise_multiplier: float | None = None
    events: tuple[Repeated, ...] = ()


def read_spent(values: Mapping[str, bytes], attempts: int) -> Spent:
    """Return what is stored. attempts: so far; those of a store that knows nothing of privacy had no noise.

    Raises StorageError if it can't be read.
    """
    if PRIVACY_KEY not in values:
        return Spent(events=(Repeated(NoPrivacyEvent(), attempts),) if attempts else ())
    try:
        return msgspec.msgpack.decode(values[PRIVACY_KEY], type=Spent)
    except msgspec.MsgspecError as error:
        raise StorageError(f"the privacy account of this federation can't be read: {error}") from error


def settled(plan: Plan, spent: Spent, rounds: int, layout: Layout) -> Plan:
    """Return the plan with its noise worked out: for these rounds, or as it was when the federation began.

    rounds: in all. Raises PlanError if no noise is enough.
    """
    if plan.dp is None or plan.dp.noise_multiplier is not None:
        return plan
    if spent.noise_multiplier is not None:
        return with_noise(plan, spent.noise_multiplier)
    return calibrated(plan, rounds, layout, SERVED)


def system_noise(number: int) -> Rng:
    """Return what the coordinator's noise on a round's sum is drawn from: always the operating system."""
    return OsRng()


class Ledger:
    """Keep the account of one federation in memory; a conductor stores it.

    plan: calibrated, with or without differential privacy. rounds: in all. spent: as it was stored.
    Raises PlanError if not even one round fits into the budget.
    """

    def __init__(self, plan: Plan, layout: Layout, rounds: int, spent: Spent) -> None:
        self._noise = None if plan.dp is None else plan.dp.noise_multiplier
        self._events = Counter[Event]()
        for repeated in spent.events:
            self._events[repeated.event] += repeated.times
        self._account = None if plan.dp is None else PrivacyAccount(plan, layout, SERVED, rounds, spent.events)
        self._look()

    @property
    def value(self) -> bytes:
        """Return what is to be stored under `PRIVACY_KEY`."""
        events = tuple(Repeated(event, times) for event, times in self._events.items())
        return msgspec.msgpack.encode(Spent(noise_multiplier=self._noise, events=events))

    def charge(self) -> None:
        """Spend one attempt; what `value` returns then is to be stored before anybody is asked.

        Raises LocalProtocolError if there is no room for it.
        """
        if self._account is not None:
            self._account.charge()
        self._events[NoPrivacyEvent() if self._account is None else self._account.event] += 1
        self._look()

    def _look(self) -> None:
        # Worked out once an attempt, and not whenever somebody asks.
        account = self._account
        self.statement: PrivacyStatement | None = None if account is None else account.statement()
        """What was spent so far; None without differential privacy."""
        self.why_stopped: str = "" if account is None or account.fits() else account.why_stopped()
        """Why there can be no further attempt; empty if there can."""
