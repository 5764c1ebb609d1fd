"""What a plan does not protect against, and what it does, in sentences that people read before they agree."""

from __future__ import annotations

import math
from enum import StrEnum
from typing import TYPE_CHECKING

from ridotto.rounds.protocol_settings import Oneshot, Seated
from ridotto.rounds.settings import BandedGaussian, DistributedSkellam, Ideal, Pairwise, PrivUnit
from ridotto.secagg.graph import complete_threshold

if TYPE_CHECKING:
    from ridotto.rounds.plan import Plan

HIDING = 3
"""An update hides in a sum with at least this many honest contributions. With two, each of the two can subtract
its own."""


class Risk(StrEnum):
    """Name a risk that a plan takes only if its author says `i_know`."""

    SMALL_COHORT = "small-cohort"
    """The sum may hold so few honest contributions that it shows one to another party."""

    NO_PROTECTION = "no-protection"
    """The coordinator sees every update."""

    SPARSE_GRAPH = "sparse-graph"
    """Masks are safe only while drop-outs are random and nobody makes up keys until the graph suits it."""


def risks_of(plan: Plan) -> dict[Risk, str]:
    """Return what a plan does not protect against, in sentences."""
    if isinstance(plan.protocol, Ideal):
        return {Risk.NO_PROTECTION: 'With protocol "ideal" the coordinator sees every update in clear.'}
    return _sparse_risk(plan) | _cohort_risk(plan)


def protection_of(plan: Plan) -> str:
    """Say in a few sentences what the coordinator can learn, which risks a plan takes, and what liars can do."""
    liars = _robust_words(plan)
    if isinstance(plan.protocol, Ideal):
        local = plan.dp is not None and plan.dp.local
        seen = "every update, and every update is private." if local else "every update."
        return " ".join([f"No protection: the coordinator sees {seen}", *_noise_words(plan), *liars])
    members = plan.smallest_session
    corrupt = plan.corrupt_of(members)
    limit = ["What the sum and the trained model reveal is not limited: that takes differential privacy."]
    return (
        f"The coordinator sees only sums of at least {plan.least} updates, even if it lies and {corrupt} of "
        f"{members} participants help it. {''.join(f'{risk} ' for risk in risks_of(plan).values())}"
        f"{_survival(plan, members, corrupt)} {' '.join([*(_noise_words(plan) or limit), *liars])}"
    )


def _survival(plan: Plan, members: int, corrupt: int) -> str:
    """Say who may leave a session of so many without the sum being lost, and whom it takes besides."""
    if isinstance(plan.protocol, Seated):
        return _seated_survival(plan, plan.protocol, members)
    threshold = plan.sparse(members)[1] or complete_threshold(members, corrupt)
    return f"A session of {members} survives {members - max(threshold, plan.least)} drop-outs."


def _seated_survival(plan: Plan, protocol: Seated, members: int) -> str:
    helpers = plan.most_helpers
    seats, spare = plan.seats(members), protocol.spare(members, helpers)
    alone = "A participant sends one message and may leave"
    survives = f"A session survives if {plan.least} send their message and"
    if protocol.helpers is None:
        return (
            f"{alone}; {seats} of {members}, drawn by lot, also hold shares of the keys and speak four more times. "
            f"{survives} {seats - spare} of the {seats} stay to the end."
        )
    believed = (
        f"Trusted: all but {protocol.helpers.corrupt} of {helpers} helpers, who open the sum, not to work with the "
        "coordinator."
    )
    if isinstance(protocol, Oneshot):
        return f"{believed} {alone}. {survives} {seats - spare} of {seats} helpers stay to the end."
    return (
        f"{believed} {alone}. {survives} more than half of the helpers in each of {protocol.slots} slots stay to the "
        "end."
    )


def trust_of(plan: Plan) -> str:
    """Say who must be honest for the noise of a plan to be there."""
    if plan.dp is not None and plan.dp.local:
        return "Trusted: nobody but one's own device."
    if isinstance(plan.dp, BandedGaussian):
        return (
            "Trusted: the coordinator, which sees the exact sums, to add the noise, to show nobody the noise of rounds "
            "before, and to keep participants to their rounds."
        )
    if plan.dp is not None and plan.dp.central:
        return "Trusted: the coordinator, which sees the exact sums, to add the noise and forget it."
    if plan.dp is not None and plan.dp.seated and plan.helpers is not None:
        return (
            f"Trusted: all but {plan.helpers.corrupt} of {plan.most_helpers} helpers, to add the noise and forget it; "
            "more noise is there if more are honest."
        )
    seen = ""
    if isinstance(plan.protocol, Ideal):
        seen = " The coordinator sees every update with one share only, and is trusted with that."
    return (
        f"Trusted: {plan.honest} of every {plan.least} participants in a sum, to add their share of the noise and "
        f"forget it; more noise is there if more are honest.{seen}"
    )


def mechanism_of(plan: Plan) -> str:
    """Say in a few words what makes a plan private."""
    match plan.dp:
        case None:
            return "none"
        case PrivUnit(report_epsilon=epsilon):
            return f"a random direction from every participant (PrivUnit2), of epsilon {epsilon or 0:.4g} each"
        case BandedGaussian(bands=bands, participations=k, separation=s):
            return (
                f"discrete Gaussian noise, correlated over {bands} rounds (DP-FTRL) and added by the coordinator; for "
                f"at most {k} rounds of a participant, {s} or more apart"
            )
        case _ if plan.dp.local:
            return "discrete Gaussian noise, added by every participant to its own update"
    law = "Skellam" if isinstance(plan.dp, DistributedSkellam) else "discrete Gaussian"
    who = "added by the coordinator" if plan.dp.central else "a share of it added by every participant"
    if plan.dp.seated:
        who = "added by every slot of the committee"
    return f"{law} noise, {who}"


def metric_words(plan: Plan) -> tuple[str, ...]:
    """Say what the metrics of a plan with differential privacy cost; nothing without any."""
    if plan.dp is None or plan.dp.metrics_epsilon is None:
        return ()
    names = ", ".join(sorted(plan.metrics))
    return (
        f"Included: epsilon {plan.dp.metrics_epsilon:g} in every round for each of the metrics {names}, which every "
        "participant answers by itself with one random bit.",
    )


def _sparse_risk(plan: Plan) -> dict[Risk, str]:
    if not isinstance(plan.protocol, Pairwise) or plan.protocol.graph == "complete":
        return {}
    sentence = (
        "With a sparse graph an update is hidden only while drop-outs are random: not from a coordinator that "
        "chooses whom to drop, or tries key books until the graph suits it."
    )
    return {Risk.SPARSE_GRAPH: sentence}


def _cohort_risk(plan: Plan) -> dict[Risk, str]:
    corrupt, honest = plan.corrupt_of(plan.largest_session), plan.honest
    if honest >= HIDING:
        return {}
    if plan.least <= 2:
        sentence = "Two parties always learn each other's update from the sum: without your own, the other's is left."
    else:
        sentence = (
            f"A sum of {plan.least} contributions, {corrupt} of which may collude, can hold only {honest} honest "
            "ones: one of them, with the colluding ones, can learn another's update."
        )
    return {Risk.SMALL_COHORT: sentence}


def _noise_words(plan: Plan) -> list[str]:
    """Say what noise there is, and who must be honest for it to be there."""
    if plan.dp is None:
        return []
    z = plan.dp.noise_multiplier
    if isinstance(plan.dp, PrivUnit):
        size = "an epsilon yet to be worked out" if z is None else f"epsilon {1 / z:.4g}"
        return [f"Every participant sends a random report of {size} in place of its update.", trust_of(plan)]
    size = " a size that epsilon decides" if z is None else f" {z:.4g} times the clip"
    if plan.dp.local:
        return [f"Noise of{size} on every contribution limits what it reveals, whoever sees it.", trust_of(plan)]
    gives = f"Noise of{size} limits what sums and model reveal about a participant."
    if plan.dp.central:
        return [gives, "The coordinator adds it and sees the exact sums: it must be trusted."]
    return [gives, trust_of(plan)]


def _robust_words(plan: Plan) -> list[str]:
    """Say what holds against liars; nothing where nothing does."""
    if plan.robust is None:
        return []
    chosen = plan.robust.build()
    whose = "updates" if plan.robust.individual else f"the means of {plan.sessions_of(plan.cohort)} groups"
    withstands = chosen.withstands(plan.fewest_sums)
    said = [f"Against liars: {chosen.name} over {whose}, {withstands} of which may be lies. {chosen.promise}"]
    odds = _crowded(plan)
    if odds >= 0.005:
        counted = plan.corrupt_of(plan.largest_session)
        said.append(
            f"Groups are dealt at random: in {min(odds, 1):.0%} of the rounds some group has more than the {counted} "
            "corrupt members that its masks and its noise are made for."
        )
    return said


def _crowded(plan: Plan) -> float:
    """Return a bound on the odds that the plan's fraction of corrupt participants crowds into some group."""
    if plan.individual or isinstance(plan.protocol, Ideal):
        return 0.0
    size, counted = plan.largest_session, plan.corrupt_of(plan.largest_session)
    corrupt = math.ceil(plan.protocol.corrupt * plan.cohort - 1e-9)
    ways = sum(
        math.comb(corrupt, many) * math.comb(plan.cohort - corrupt, size - many)
        for many in range(counted + 1, min(size, corrupt) + 1)
    )
    return plan.sessions_of(plan.cohort) * ways / math.comb(plan.cohort, size)
