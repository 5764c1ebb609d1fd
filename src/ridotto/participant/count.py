"""What a participant says about its own account, and whether it can keep one here."""

from __future__ import annotations

from ridotto.core.machine import COORDINATOR
from ridotto.errors import MissingExtraError, PeerProtocolError, PlanError
from ridotto.participant.events import Spent
from ridotto.rounds.plan import Plan
from ridotto.rounds.policy import Policy
from ridotto.rounds.spending import Spending


def spent_by(spending: Spending, policy: Policy, plan: Plan | None) -> Spent | None:
    """Return what all rounds so far have cost, at the policy's delta or else the plan's.

    None while neither is about differential privacy, and where the number takes dp-accounting, which is not installed:
    a policy that limits it was refused then.
    """
    dp = None if plan is None else plan.dp
    delta = policy.max_delta or (None if dp is None else dp.delta)
    if delta is None:
        return None
    try:
        epsilon = spending.epsilon(delta)
    except MissingExtraError:
        return None
    return Spent(spending.rounds, epsilon, delta, policy.max_epsilon)


def require_accounting(spending: Spending, policy: Policy, plan: Plan) -> None:
    """Find out before a token is spent whether a limit of epsilon can be kept here.

    Raises MissingExtraError if counting this plan takes dp-accounting, PeerProtocolError if nobody can count it.
    """
    if policy.max_epsilon is None or policy.max_delta is None or plan.dp is None:
        return
    try:
        spending.after(spending.event(plan)).epsilon(policy.max_delta)
    except PlanError as error:
        raise PeerProtocolError(COORDINATOR, f"what its plan costs can't be counted: {error}") from error
