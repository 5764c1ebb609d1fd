"""Compiled loops are loaded when that pays, when somebody asks, and never needed."""

from __future__ import annotations

import sys

import pytest

from ridotto.privacy.noise import loops
from ridotto.privacy.noise.discrete_gaussian import DiscreteGaussian
from ridotto.privacy.noise.loops import PAY_ENTRIES, Loops
from tests.privacy.noise.engines import compiled
from tests.privacy.noise.zscores import words


def test_loads_when_enough_entries_have_come() -> None:
    compiled()
    found = Loops()
    assert found.kernels(PAY_ENTRIES) is None
    assert found.kernels(1) is not None
    assert found.kernels(1) is found.kernels(1)


def test_loads_when_asked() -> None:
    kernels = compiled()
    found = Loops()
    assert found.load()
    assert found.load()
    assert found.kernels(1) is kernels


def test_can_be_held_back() -> None:
    kernels = compiled()
    found = Loops()
    with found.held():
        assert found.kernels(PAY_ENTRIES + 1) is None
        with found.held():
            assert found.load()
        assert found.kernels(1) is None
    assert found.kernels(1) is kernels


def test_noise_counts_its_entries(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled()
    found = Loops()
    monkeypatch.setattr(loops, "PAY_ENTRIES", 100)
    monkeypatch.setattr("ridotto.privacy.noise.table.LOOPS", found)
    noise = DiscreteGaussian(1.0)
    noise.sample(words(), 100)
    assert found._kernels is None
    noise.sample(words(), 1)
    assert found._kernels is not None


def test_without_numba_nothing_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numba", None)
    for module in ("ridotto.core.compile", "ridotto.privacy.noise.kernels"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    found = Loops()
    assert found.kernels(PAY_ENTRIES + 1) is None
    assert not found.load()
    assert found.kernels(1) is None


def test_words_that_lie_the_other_way_round_are_left_to_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "byteorder", "big")
    assert not Loops().load()
