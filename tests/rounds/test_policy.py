"""The data holder's floor: each rule refuses with what was found and what to change."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from ridotto.errors import ConsentError
from ridotto.rounds.plan import Pairwise, Plan, Risk
from ridotto.rounds.policy import Policy
from ridotto.rounds.round import Attempt, make_sessions
from ridotto.secagg.session import Session
from tests.conformance.world import identity
from tests.rounds.federation import make_plan, members_of, names

ROSTER = {name: identity(name).public.hex() for name in names(10)}


def session_of(plan: Plan) -> Session:
    return make_sessions(Attempt(plan, 1, 1, b"m" * 32, 5, b"n" * 32, members_of(names(plan.cohort))))[0]


def check(policy: Policy, plan: Plan) -> None:
    policy.check(plan, session_of(plan))


def test_the_default_policy_allows_the_default_plan() -> None:
    check(Policy(), Plan(cohort=10))


@pytest.mark.parametrize(
    ("policy", "plan", "why"),
    [
        ({}, {"protocol": "ideal"}, "the protocol is \"ideal\"; the policy has protocols = \\['pairwise'\\]"),
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
    ],
)
def test_allows_what_it_says(policy: dict[str, Any], plan: dict[str, Any]) -> None:
    check(Policy(**policy), make_plan(10, **({"protocol": Pairwise(corrupt=0.1), "minimum": 7} | plan)))


def test_corruption_is_asked_for_where_there_are_masks_only() -> None:
    policy = Policy(protocols=("ideal",), min_corrupt=0.4, i_know=(Risk.NO_PROTECTION,))
    check(policy, make_plan(10, protocol="ideal"))


def test_a_policy_with_an_unknown_key_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError, match="unknown field `min_participant`"):
        msgspec.convert({"min_participant": 3}, Policy)
