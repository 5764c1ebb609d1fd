"""The words that users see: complete, rounded to the honest side, and the same as data."""

import json
import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ridotto.errors import PlanError
from ridotto.privacy.event import Budget, Relation
from ridotto.privacy.statement import PrivacyStatement, Unit


def statement(**changes):
    return PrivacyStatement(
        **{
            "epsilon": 1.8301,
            "delta": 1e-6,
            "budget": 4.0,
            "rounds": 12,
            "planned_rounds": 100,
            "unit": Unit.PARTICIPANT,
            "relation": Relation.ZERO_OUT,
            "sampling": "No credit for sampling: the coordinator knows who takes part.",
            "mechanism": "distributed discrete Gaussian",
            "clip": 1.0,
            "noise_multiplier": 1.1,
            "trust": "The noise is there if at least 80 participants are honest.",
            "method": "rdp",
        }
        | changes
    )


def test_says_everything_that_the_number_depends_on():
    assert str(statement(notes=("And one more thing.",))) == (
        "After 12 of 100 rounds: epsilon 1.831 of 4 at delta 1e-06, 2.169 left. "
        "What was published is about as likely whether or not any one participant contributes anything (zero-out). "
        "Mechanism: distributed discrete Gaussian, clip 1, noise multiplier 1.1. "
        "Counted by Rényi differential privacy. "
        "No credit for sampling: the coordinator knows who takes part. "
        "The noise is there if at least 80 participants are honest. And one more thing."
    )


def test_says_less_where_less_is_known():
    text = str(statement(budget=None, planned_rounds=None, clip=None, noise_multiplier=None))
    assert text.startswith("After 12 rounds: epsilon 1.831 at delta 1e-06. What")
    assert "Mechanism: distributed discrete Gaussian. Counted" in text


@pytest.mark.parametrize("epsilon", [None, math.inf])
def test_no_protection_is_said_and_stored_as_such(epsilon):
    found = statement(epsilon=epsilon, method="none")
    assert found.epsilon is None
    assert str(found).startswith("After 12 of 100 rounds: no differential privacy (epsilon is infinite).")
    assert "may be able to tell whether or not any one participant" in str(found)
    assert found.left == 0.0
    assert not found.within(Budget(1e9, 0.5))


def test_left_and_within():
    assert statement().left == pytest.approx(2.1699)
    assert statement(budget=None).left is None
    assert statement(epsilon=4.1).left == 0.0
    assert statement().within(Budget(1.9, 1e-6))
    assert not statement().within(Budget(1.8, 1e-6))
    assert not statement().within(Budget(1.9, 1e-7))


@given(st.floats(0, 1000))
def test_what_was_spent_is_rounded_up_and_what_is_left_down(epsilon):
    words = str(statement(epsilon=epsilon, budget=1000.0)).split()
    spent, left = float(words[words.index("epsilon") + 1]), float(words[words.index("left.") - 1])
    assert epsilon - 1e-8 <= spent <= epsilon + 0.001 + 1e-8
    assert 1000 - epsilon - 0.001 - 1e-8 <= left <= 1000 - epsilon + 1e-8


def test_is_data_and_survives_storage():
    found = statement(notes=("One.",))
    data = json.loads(json.dumps(found.as_dict()))
    assert (data["epsilon"], data["left"], data["relation"], data["unit"]) == (
        1.8301,
        4.0 - 1.8301,
        "zero-out",
        "participant",
    )
    assert data["sentence"] == str(found)
    assert msgspec.json.decode(msgspec.json.encode(found), type=PrivacyStatement) == found


@pytest.mark.parametrize(
    "changes",
    [
        {"epsilon": -1.0},
        {"epsilon": math.nan},
        {"epsilon": -math.inf},
        {"delta": 0.0},
        {"budget": math.inf},
        {"clip": -1.0},
        {"noise_multiplier": math.nan},
        {"rounds": -1},
        {"rounds": 101},
        {"method": "guess"},
    ],
)
def test_refuses_what_cannot_be(changes):
    with pytest.raises(PlanError):
        statement(**changes)
