"""Noise that the slots of a committee add: how much, whoever leaves, and what everybody checks about it."""

from __future__ import annotations

import math
import statistics
from typing import Any

import msgspec
import numpy as np
import pytest

from ridotto.core.machine import COORDINATOR, Envelope, Send
from ridotto.core.vector import Vector
from ridotto.errors import PeerProtocolError, PlanError
from ridotto.rounds.clipping import AdaptiveClip
from ridotto.rounds.messages import ANNOUNCE_CONTEXT, Announce, Trained
from ridotto.rounds.noise import noise_of
from ridotto.rounds.plan import Committee, CommitteeGaussian, Helpers, Oneshot, Pairwise, Plan, Risk
from ridotto.rounds.policy import Policy
from ridotto.rounds.private import EVERYBODY, PrivacyAccount
from ridotto.rounds.settings import CentralGaussian
from ridotto.secagg.session import session_id
from tests.conformance.world import identity
from tests.rounds.federation import ANYTHING, LAYOUT, Federation, names

DELTA = 1e-6
Z = 0.5


def private(cohort: int = 6, protocol: Any = None, **changes: Any) -> Plan:
    settings: dict[str, Any] = {
        "protocol": protocol or Committee(corrupt=0.0),
        "minimum": 3,
        "clip": 1.0,
        "max_examples": 1,
        "dp": CommitteeGaussian(noise_multiplier=Z, delta=DELTA),
        "i_know": (Risk.SMALL_COHORT,),
        "phase_s": 10.0,
    }
    return Plan(cohort=cohort, **(settings | changes))


def errors_of(plan: Plan, gone: dict[str, str], rounds: int, participants: int) -> np.ndarray:
    """Return the errors of sums of zero updates, in clips, whoever leaves before which message."""
    errors = []
    for seed in range(rounds):
        zero = Trained(np.zeros(LAYOUT.length, np.float32), 1, {})

        def leaves(envelope: Envelope) -> list[Envelope]:
            kind = gone.get(envelope.sender)
            return [] if kind == type(envelope.message).__name__ else [envelope]

        fed = Federation(plan, updates=dict.fromkeys(names(plan.cohort), zero), tamper=leaves)
        fed.attempts = seed
        assert fed.run().error is None
        errors.append(fed.vault.model.astype(np.float64) * participants)
    return np.array(errors)


def check_deviation(errors: np.ndarray, promised: float) -> None:
    """Hold mean and deviation against what was promised; each check fails by chance once in a million runs."""
    bound = statistics.NormalDist().inv_cdf(1 - 1e-6 / 4)
    deviation = math.sqrt(float(np.mean(errors**2)))
    assert deviation == pytest.approx(promised, rel=bound / math.sqrt(2 * errors.size))
    assert abs(float(errors.mean())) <= bound * deviation / math.sqrt(errors.size)


@pytest.mark.parametrize(
    ("gone", "there"),
    [
        ({}, 6),
        ({"p000": "MaskedVector", "p003": "MaskedVector", "p005": "MaskedVector"}, 3),
        ({"h000": "MaskSum", "h001": "MaskSum"}, 6),
        ({"h002": "MemberKey"}, 6),
    ],
    ids=["nobody leaves", "half of the participants", "two helpers at the end", "a helper at once"],
)
def test_4_17_the_noise_is_that_of_all_slots_whoever_leaves(gone: dict[str, str], there: int) -> None:
    """Two slots with a whole Z each; the plan counts on one of them."""
    check_deviation(errors_of(private(), gone, 50, there), Z * math.sqrt(2))


def test_every_session_has_noise_of_its_own() -> None:
    plan = private(8, Committee(corrupt=0.0, shard_size=4, helpers=Helpers(corrupt=2), replicas=1))
    check_deviation(errors_of(plan, {}, 50, 8), Z * math.sqrt(3 * 2))


def test_lanes_and_counts_get_none() -> None:
    """A single unit of noise on a lane would fail the sum, or count somebody twice."""
    plan = private(metrics={"loss": 1.0}, dp=CommitteeGaussian(noise_multiplier=Z, delta=DELTA, metrics_epsilon=1.0))
    told = Trained(np.zeros(LAYOUT.length, np.float32), 1, {"loss": 0.5})
    fed = Federation(plan, updates=dict.fromkeys(names(6), told))
    record = fed.run().result
    assert (record.participants, record.examples, record.saturated) == (6, 6, 0)


def test_it_costs_what_the_coordinators_noise_costs() -> None:
    """One honest slot adds as much as an honest coordinator; what the other slots add is no part of the promise."""
    committee, central = private(), private(dp=CentralGaussian(noise_multiplier=Z, delta=DELTA))
    spent = [PrivacyAccount(plan, LAYOUT.length, EVERYBODY).cost_after(10) for plan in (committee, central)]
    assert spent[0].epsilon == pytest.approx(spent[1].epsilon, rel=1e-5)
    ours, theirs = (noise_of(plan, LAYOUT.length) for plan in (committee, central))
    assert ours is not None
    assert theirs is not None
    # The ring has to hold the noise of both slots, so its units are a little coarser.
    assert ours.sigma / ours.sensitivity == pytest.approx(theirs.sigma / theirs.sensitivity, rel=1e-5)


@pytest.mark.parametrize("protocol", [Pairwise(corrupt=0.0), Oneshot(corrupt=0.0, committee=5, helpers=Helpers())])
def test_other_protocols_have_nobody_to_add_it(protocol: Any) -> None:
    with pytest.raises(PlanError, match="committee-gaussian is noise that the helpers of committee add"):
        private(protocol=protocol)


def announced(plan: Plan, to: str, **changes: Any) -> tuple[Federation, Announce]:
    fed = Federation(plan)
    fed.begin()
    sent = next(
        effect.message for effect in fed.coordinator().start(0.0) if isinstance(effect, Send) and effect.to == to
    )
    session = msgspec.structs.replace(sent.session, **changes)
    return fed, Announce(sent.plan, session, identity(COORDINATOR).sign(ANNOUNCE_CONTEXT, session_id(session)))


@pytest.mark.parametrize("sigma", [1.0, 2.0**40])
def test_a_participant_refuses_another_noise_than_the_plans(sigma: float) -> None:
    fed, announce = announced(private(), "p000", sigma=sigma)
    with pytest.raises(PeerProtocolError, match="asks its committee for noise of"):
        fed.participant("p000", layout=LAYOUT).receive(COORDINATOR, announce, 0.0)


def test_everybody_refuses_a_session_without_the_noise_and_one_with_noise_that_nobody_planned() -> None:
    for plan, sigma in ((private(), 0.0), (private(dp=None), 5.0)):
        fed, announce = announced(plan, "h000", sigma=sigma)
        with pytest.raises(PeerProtocolError, match="do not say the same about noise"):
            fed.helper("h000").receive(COORDINATOR, announce, 0.0)
        with pytest.raises(PeerProtocolError, match="do not say the same about noise"):
            fed.participant("p000").receive(COORDINATOR, announce, 0.0)


def test_two_helpers_of_a_slot_that_differ_by_noise_are_seen() -> None:
    """A helper that leaves its noise out releases other bytes than its slot's others."""
    fed = Federation(private())
    honest = fed.run()
    assert honest.error is None
    released: dict[str, bytes] = {
        envelope.sender: envelope.message.digest
        for envelope in fed.sent
        if type(envelope.message).__name__ == "MaskSum"
    }
    assert len(released) == 6
    assert len(set(released.values())) == 2


def test_a_policy_that_wants_distributed_noise_takes_it_and_one_that_wants_local_noise_does_not() -> None:
    for noise, refused in (("distributed", False), ("local", True)):
        policy = msgspec.structs.replace(ANYTHING, noise=noise)
        record = Federation(private(), policies=dict.fromkeys(names(6), policy)).run().result
        assert bool(record.failure) is refused
    assert Policy(noise="distributed").wants_noise


def test_what_is_said_names_the_helpers() -> None:
    plan = private()
    assert plan.trust == (
        "Trusted: all but 1 of 6 helpers, to add the noise and forget it; more noise is there if more are honest."
    )
    assert "Noise of 0.5 times the clip" in plan.protection()
    statement = str(PrivacyAccount(plan, LAYOUT.length, EVERYBODY).statement())
    assert "discrete Gaussian noise, added by every slot of the committee" in statement


def update() -> Vector:
    return np.full(LAYOUT.length, 0.1, np.float32)


def test_an_adaptive_clip_goes_with_it() -> None:
    plan = private(clip=AdaptiveClip(norm=1.0))
    fed = Federation(plan, updates=dict.fromkeys(names(6), Trained(update(), 1, {})))
    record = fed.run().result
    assert (record.clip, record.participants) == (1.0, 6)
    assert fed.vault.plan.clip_norm != 1.0
