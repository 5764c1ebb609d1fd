"""Noise that is correlated over rounds: in whole numbers, remembered, charged by participation."""

from __future__ import annotations

import math
from itertools import combinations, pairwise
from typing import Any

import numpy as np
import pytest

from ridotto.coordinator.privacy import Ledger, Spent
from ridotto.errors import LocalProtocolError, PlanError
from ridotto.privacy.account import cost
from ridotto.privacy.event import GaussianEvent, MatrixGaussianEvent
from ridotto.privacy.noise.banded import GRID_BITS, BandedNoise, column_norm, whole_coefficients
from ridotto.rounds.memory import next_noise
from ridotto.rounds.private import Draw, PrivacyAccount, calibrated, charges_after, forecast, round_event
from tests.rounds.federation import LAYOUT
from tests.rounds.test_mechanisms import DELTA, banded, private, words

SPACED = Draw(spaced=(3, 4))


def test_whole_coefficients_are_those_of_the_square_root() -> None:
    """(1 - x)^(-1/2) = 1 + 1/2 x + 3/8 x^2 + 5/16 x^3 + 35/128 x^4 + ..."""
    assert whole_coefficients(5) == (1024, 512, 384, 320, 280)
    assert column_norm(2) == pytest.approx(math.sqrt(1.25))


def test_noise_follows_the_recursion_in_whole_numbers() -> None:
    noise, rows = BandedNoise(3, 100.0), []
    for number in range(6):
        row = noise.row(number, rows[::-1], words("row", number), 1000)
        fresh = noise.fresh.sample(words("row", number), 1000)
        exact = fresh / 1024
        for back in range(1, min(number, 2) + 1):
            exact -= whole_coefficients(3)[back] / 1024 * rows[number - back]
        assert np.abs(row - exact).max() <= 0.5
        rows.append(row)
    with pytest.raises(LocalProtocolError, match="needs the noise of 2 rounds before it, not 1"):
        noise.row(4, rows[:1], words("x"), 1000)


def test_what_is_released_follows_from_private_whole_numbers() -> None:
    """The argument on top of `privacy.noise.banded`: sums of any rounds, rebuilt from W alone."""
    noise, count = BandedNoise(4, 50.0), 20
    sums = [np.arange(count) * (round_ + 1) for round_ in range(8)]
    rows: list[np.ndarray] = []
    for number in range(8):
        rows.append(noise.row(number, rows[::-1], words("w", number), count))
    released: list[np.ndarray] = []
    for number in range(8):
        back = range(1, min(number, 3) + 1)
        hidden = noise.fresh.sample(words("w", number), count) + 1024 * sums[number]
        hidden = hidden + sum((noise.coefficients[j] * sums[number - j] for j in back), np.zeros(count, np.int64))
        known = sum((noise.coefficients[j] * released[number - j] for j in back), np.zeros(count, np.int64))
        released.append((hidden - known + 512) >> GRID_BITS)
        assert np.array_equal(released[number], sums[number] + rows[number])


def test_no_pattern_moves_the_private_numbers_by_more_than_is_counted() -> None:
    """All patterns of at most 3 of 9 rounds, 3 or more apart; contributions of norm 1 along one line are the worst."""
    matrix = np.zeros((9, 9))
    for back, whole in enumerate(whole_coefficients(3)):
        matrix += np.diag(np.full(9 - back, whole / 1024), -back)
    counted = math.sqrt(3) * column_norm(3)
    for size in (1, 2, 3):
        for pattern in combinations(range(9), size):
            if all(later - earlier >= 3 for earlier, later in pairwise(pattern)):
                assert np.linalg.norm(matrix[:, pattern].sum(1)) <= counted
    assert np.linalg.norm(matrix[:, [0, 3, 6]].sum(1)) == pytest.approx(counted)


def test_noise_is_remembered_through_failed_rounds_and_never_drawn_twice() -> None:
    noise = BandedNoise(3, 1000.0)
    state: dict[str, Any] = {"other": np.zeros(2)}
    rows = {}
    for number in (1, 2, 5, 6):
        rows[number], state = next_noise(noise, state, number, words, 50)
        state = {name: np.frombuffer(array.astype("<f4").tobytes(), "<f4") for name, array in state.items()}
    assert "other" not in state
    straight: dict[str, Any] = {}
    for number in range(1, 7):
        row, straight = next_noise(noise, straight, number, words, 50)
        if number in rows:
            assert np.array_equal(row, rows[number])
    with pytest.raises(LocalProtocolError, match="round 6 had its noise, and 6 rounds have"):
        next_noise(noise, state, 6, words, 50)


def test_banded_noise_is_charged_by_participation() -> None:
    """Three rounds of one participant, 4 apart: charged in rounds 1, 5 and 9, and never again."""
    plan = private(banded(2.0))
    account = PrivacyAccount(plan, 1000, SPACED)
    found = []
    for _ in range(20):
        account.charge()
        found.append(account.cost.epsilon)
    for charges, rounds in ((1, (1, 4)), (2, (5, 8)), (3, (9, 20))):
        expected = cost(GaussianEvent(2.0 / column_norm(4) / math.sqrt(charges)), DELTA).epsilon
        assert found[rounds[0] - 1] == pytest.approx(expected, rel=1e-3)
        assert found[rounds[1] - 1] == found[rounds[0] - 1]
    assert isinstance(account.event, MatrixGaussianEvent)
    again = PrivacyAccount(plan, 1000, SPACED, spent=account.spent, done=20)
    assert again.consistent
    assert again.cost == account.cost
    assert not PrivacyAccount(plan, 1000, SPACED, spent=account.spent, done=2).consistent


def test_banded_noise_is_calibrated_and_forecast() -> None:
    plan = calibrated(private(banded(None, epsilon=4.0)), 100, 1000, SPACED)
    found = forecast(plan, 1000, SPACED, 100)
    assert 3.99 <= found.points[-1].epsilon <= 4.0
    assert found.affordable == 1_000_000
    assert charges_after(plan, 100) == 3
    assert "correlated over 4 rounds" in found.statement.mechanism


@pytest.mark.parametrize("draw", [Draw(), Draw(spaced=(4, 4)), Draw(spaced=(3, 3))])
def test_banded_noise_is_refused_where_nobody_keeps_participants_apart(draw: Draw) -> None:
    with pytest.raises(PlanError, match="needs somebody to keep every participant to 3 rounds at most, 4 or more"):
        round_event(private(banded()), 1000, draw)


def test_a_coordinator_refuses_banded_noise() -> None:
    plan = private(banded())
    with pytest.raises(PlanError, match="or take another mechanism"):
        Ledger(plan, LAYOUT, 10, Spent())
