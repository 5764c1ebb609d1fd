"""The data holder's floor: each rule refuses with what was found and what to change."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import pytest
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey

from ridotto.core.machine import COORDINATOR, Send
from ridotto.errors import ConfigError, ConsentError, LocalProtocolError
from ridotto.privacy.event import NoPrivacyEvent, Repeated
from ridotto.rounds.messages import Decline
from ridotto.rounds.plan import CentralGaussian, Committee, DistributedGaussian, Oneshot, Pairwise, Plan, Risk
from ridotto.rounds.policy import Policy
from ridotto.rounds.private import PrivacyAccount
from ridotto.rounds.round import Attempt, make_sessions
from ridotto.rounds.settings import DistributedSkellam, LocalGaussian
from ridotto.rounds.spending import Spending
from ridotto.secagg.session import Session
from tests.conformance.world import identity
from tests.rounds.federation import Federation, make_plan, members_of, names

ROSTER = {name: identity(name).public.hex() for name in names(10)}


def session_of(plan: Plan) -> Session:
    return make_sessions(Attempt(plan, 1, 1, b"m" * 32, 5, b"n" * 32, members_of(names(plan.cohort))))[0]


def check(policy: Policy, plan: Plan, spending: Spending | None = None) -> None:
    policy.check(plan, session_of(plan), spending)


def test_the_default_policy_allows_the_default_plan() -> None:
    check(Policy(), Plan(cohort=10))


@pytest.mark.parametrize(
    ("policy", "plan", "why"),
    [
        ({}, {"protocol": "ideal"}, "the policy has protocols = \\['pairwise', 'oneshot', 'committee'\\]"),
        (
            {"protocols": ("ideal", "pairwise"), "i_know": ()},
            {"protocol": "ideal"},
            "the plan takes the risk 'no-protection' .* the policy has i_know without it",
        ),
        ({"min_participants": 8}, {"minimum": 7}, "a sum of 7 may be opened; the policy has min_participants = 8"),
        ({"min_corrupt": 0.2}, {}, "1 of 10 members may collude safely; the policy has min_corrupt = 0.2"),
        ({"max_clip": 1.0}, {}, "updates are clipped at None; the policy has max_clip = 1.0"),
        ({"max_clip": 1.0}, {"clip": 2.0}, "updates are clipped at 2.0"),
        ({"roster": {}}, {}, "p000 with key [0-9a-f]{16} is in the session; the policy has a roster without it"),
        ({"roster": ROSTER | {"p003": "00" * 32}}, {}, "p003 with key"),
        ({}, {"minimum": 2, "protocol": Pairwise(corrupt=0.1)}, "the plan takes the risk 'small-cohort'"),
        ({"seal": "hybrid"}, {}, 'the plan seals nothing under ML-KEM; the policy has seal = "hybrid"'),
        ({"seal": "hybrid"}, {"protocol": Oneshot()}, "the plan seals nothing under ML-KEM"),
    ],
)
def test_refuses_with_what_was_found_and_what_is_asked_for(
    policy: dict[str, Any], plan: dict[str, Any], why: str
) -> None:
    settings = {"protocol": Pairwise(corrupt=0.1), "minimum": 7} | plan
    with pytest.raises(ConsentError, match=why):
        check(Policy(**policy), make_plan(10, **settings))


@pytest.mark.parametrize(
    ("policy", "plan"),
    [
        ({"min_participants": 7}, {}),
        ({"min_corrupt": 0.1}, {}),
        ({"max_clip": 1.0}, {"clip": 1.0}),
        ({"roster": ROSTER}, {}),
        ({"protocols": ("ideal",), "i_know": (Risk.NO_PROTECTION,)}, {"protocol": "ideal"}),
        ({"i_know": (Risk.SMALL_COHORT,), "min_participants": 2}, {"minimum": 2}),
        ({"seal": "hybrid"}, {"protocol": Oneshot(seal="hybrid")}),
        ({}, {"protocol": Oneshot(seal="hybrid")}),
    ],
)
def test_allows_what_it_says(policy: dict[str, Any], plan: dict[str, Any]) -> None:
    check(Policy(**policy), make_plan(10, **({"protocol": Pairwise(corrupt=0.1), "minimum": 7} | plan)))


@pytest.mark.parametrize("seal", ["x25519", "both", ""])
def test_a_policy_asks_for_hybrid_seals_or_none(seal: str) -> None:
    with pytest.raises(ConfigError, match='expected "hybrid" or nothing'):
        Policy(seal=seal)


def without_ml_kem(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the library be one that was built without it."""

    def refuse(private: bytes) -> None:
        raise UnsupportedAlgorithm("ML-KEM-768 is not supported by this backend.")

    monkeypatch.setattr(MLKEM768PrivateKey, "from_seed_bytes", refuse)


@pytest.mark.parametrize("protocol", [Oneshot, Committee])
def test_who_has_no_ml_kem_declines_and_says_what_to_install(protocol: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    without_ml_kem(monkeypatch)
    why = r'seal = "hybrid": ML-KEM-768 is needed .* pip install'
    federation = Federation(make_plan(6, protocol=protocol(seal="hybrid")))
    federation.begin()
    helpers = federation.attempt.helpers if protocol is Committee else ()
    announced = [one for one in federation.coordinator().start(0.0) if isinstance(one, Send)]
    for name in ("p000", *(helper.name for helper in helpers)):
        machine = federation.helper(name) if name.startswith("h") else federation.participant(name)
        [announce] = [one.message for one in announced if one.to == name]
        decline = machine.receive(COORDINATOR, announce, 0.0)[0].message
        assert isinstance(decline, Decline)
        assert re.search(why, decline.reason)
    check(Policy(), make_plan(10, protocol=Oneshot(), minimum=7))


def test_corruption_is_asked_for_where_there_are_masks_only() -> None:
    policy = Policy(protocols=("ideal",), min_corrupt=0.4, i_know=(Risk.NO_PROTECTION,))
    check(policy, make_plan(10, protocol="ideal"))


def test_a_policy_with_an_unknown_key_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError, match="unknown field `min_participant`"):
        msgspec.convert({"min_participant": 3}, Policy)


# Differential privacy.

NONE_YET = Spending(5)
NO_SPENDING_NEEDED = {"noise": "any", "min_noise_multiplier": 1.0, "max_delta": 1e-5}


def private_plan(dp: Any = None, **changes: Any) -> Plan:
    noise = dp or DistributedGaussian(noise_multiplier=4.0, delta=1e-6)
    settings = {"protocol": Pairwise(corrupt=0.1), "minimum": 7, "clip": 1.0, "max_examples": 1, "metrics": {}}
    return make_plan(10, dp=noise, **(settings | changes))


@pytest.mark.parametrize(
    ("policy", "dp", "why"),
    [
        (
            {"noise": "distributed"},
            CentralGaussian(noise_multiplier=9.0, delta=1e-6),
            'the coordinator adds the noise and sees the exact sums; the policy has noise = "distributed"',
        ),
        (
            {"noise": "local"},
            None,
            'what I send is private only together with what others add; the policy has noise = "local"',
        ),
        ({"min_noise_multiplier": 4.5}, None, "the noise multiplier is 4; the policy has min_noise_multiplier = 4.5"),
        ({"max_delta": 1e-7}, None, "delta is 1e-06; the policy has max_delta = 1e-07"),
        (
            {"max_epsilon": 2.0, "max_delta": 1e-5},
            DistributedGaussian(noise_multiplier=4.0, epsilon=8.0, delta=1e-6),
            "the plan may spend epsilon 8 in all; the policy has max_epsilon = 2",
        ),
        (
            {"max_epsilon": 0.5, "max_delta": 1e-5},
            None,
            r"after 0 rounds, one more makes epsilon 0\.\d+ at delta 1e-05 by my own count",
        ),
    ],
)
def test_refuses_less_privacy_than_it_asks_for(policy: dict[str, Any], dp: Any, why: str) -> None:
    with pytest.raises(ConsentError, match=why):
        check(Policy(**policy), private_plan(dp), NONE_YET)


@pytest.mark.parametrize("policy", [{key: value} for key, value in NO_SPENDING_NEEDED.items()])
def test_refuses_a_plan_without_noise_by_any_key_that_asks_for_some(policy: dict[str, Any]) -> None:
    (key,) = policy
    with pytest.raises(ConsentError, match=f"the plan has no differential privacy; the policy has {key} = "):
        check(Policy(**policy), make_plan(10, minimum=7))


def test_allows_the_privacy_that_it_asks_for() -> None:
    policy = Policy(**NO_SPENDING_NEEDED | {"noise": "distributed", "max_epsilon": 5.0})
    check(policy, private_plan(), NONE_YET)
    check(Policy(noise="local"), private_plan(LocalGaussian(noise_multiplier=40.0, delta=1e-6)))
    check(Policy(noise="distributed"), private_plan(DistributedSkellam(noise_multiplier=4.0, delta=1e-6)))
    check(Policy(noise="any"), private_plan(CentralGaussian(noise_multiplier=1.0, delta=1e-6)))


def test_counts_every_round_at_its_own_delta_and_stops_before_the_one_that_would_overspend() -> None:
    plan, policy = private_plan(), Policy(max_epsilon=4.0, max_delta=1e-5)
    dp = DistributedGaussian(noise_multiplier=4.0, epsilon=4.0, delta=1e-5)
    account, spending = PrivacyAccount(private_plan(dp), 5), NONE_YET
    while account.fits():
        check(policy, plan, spending)
        account.charge()
        spending = spending.after(spending.event(plan))
    assert spending.rounds == account.rounds > 1
    assert spending.epsilon(1e-5) == account.cost.epsilon <= 4.0
    with pytest.raises(ConsentError, match=r"one more makes epsilon 4\.\d+ at delta 1e-05 by my own count"):
        check(policy, plan, spending)


def test_a_round_without_noise_is_never_free() -> None:
    spending = NONE_YET.after(NONE_YET.event(make_plan(10, minimum=7)))
    assert spending.events == (Repeated(NoPrivacyEvent(), 1),)
    with pytest.raises(ConsentError, match="after 1 rounds, one more makes epsilon inf"):
        check(Policy(max_epsilon=1e6, max_delta=0.5), private_plan(), spending)


def test_a_limit_of_what_is_spent_takes_knowing_what_was_spent() -> None:
    with pytest.raises(LocalProtocolError, match="without what was spent so far"):
        check(Policy(max_epsilon=4.0, max_delta=1e-5), private_plan())


@pytest.mark.parametrize(
    ("policy", "why"),
    [
        ({"noise": "much"}, "noise is 'much', expected one of any, distributed, local"),
        ({"max_epsilon": 4.0}, "max_epsilon is 4.0 and max_delta is missing"),
        ({"max_epsilon": 0.0, "max_delta": 1e-6}, "max_epsilon is 0.0, expected a finite number above 0"),
        ({"max_epsilon": float("nan"), "max_delta": 1e-6}, "max_epsilon is nan"),
        ({"min_noise_multiplier": float("inf")}, "min_noise_multiplier is inf"),
        ({"max_delta": 1.0}, "max_delta is 1.0, expected a probability above 0 and below 1"),
    ],
)
def test_a_limit_that_limits_nothing_is_refused(policy: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        Policy(**policy)
