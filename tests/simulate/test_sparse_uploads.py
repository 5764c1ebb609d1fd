"""Top-k and ternary in a simulation: modelled uploads are as small as those of the real machines, to the byte."""

from __future__ import annotations

from typing import Any

import pytest

import ridotto
from ridotto.rounds.compression import Compression, ErrorFeedback, Ternary, TopK
from ridotto.rounds.plan import Ideal, Plan, Risk
from ridotto.simulate.faults import DropOut
from tests.simulate.test_engines import ENGINES, drawn, network

KNOWN = (Risk.NO_PROTECTION,)


def run(secure_sum: str, *compress: Compression, **options: Any) -> ridotto.Result:
    plan = Plan(cohort=7, protocol=Ideal(), compress=compress, clip=3.0, i_know=KNOWN)
    settings = {"rounds": 3, "seed": 4, "progress": False}
    return ridotto.simulate(network(), drawn(), plan, secure_sum=secure_sum, **(settings | options))


@pytest.mark.parametrize("compress", [(TopK(0.1),), (Ternary(),), (TopK(0.05), ErrorFeedback())])
def test_modelled_bytes_are_those_of_the_machines(compress: tuple[Compression, ...]) -> None:
    left = [DropOut("client-00", None, "Plain"), DropOut("client-03", 2)]
    real, modelled = (run(how, *compress, faults=left) for how in ("machines", "modelled"))
    assert real.digest == modelled.digest
    for column in ("bytes_up", "bytes_down", "compression", "lost"):
        assert real.table[column] == modelled.table[column]
    dense = run("modelled")
    assert all(small < large for small, large in zip(real.table["bytes_up"], dense.table["bytes_up"], strict=True))


@pytest.mark.parametrize("engine", ENGINES)
def test_every_engine_counts_the_same_bytes(engine: str) -> None:
    counted = run("modelled", Ternary(), **ENGINES[engine]).table["bytes_up"]
    assert counted == run("modelled", Ternary(), engine="inline").table["bytes_up"]


def test_a_round_that_fails_counts_what_may_be_said_beforehand() -> None:
    faults = [DropOut(client, None, "Plain") for client in range(11)]
    plan = Plan(cohort=12, minimum=3, protocol=Ideal(), compress=(TopK(0.1),), clip=3.0, i_know=KNOWN)
    options = {"rounds": 1, "seed": 4, "progress": False, "faults": faults}
    real, modelled = (
        ridotto.simulate(network(), drawn(), plan, secure_sum=how, **options) for how in ("machines", "modelled")
    )
    assert modelled.records[0].failure == real.records[0].failure
    # Six of 57 entries are kept; what is not said beforehand is which lanes are zero.
    assert 0 <= modelled.table["bytes_up"][0] - real.table["bytes_up"][0] <= 4


def test_top_k_sends_places_and_entries() -> None:
    dense, kept = run("modelled"), run("modelled", TopK(0.05))
    assert kept.table["compression"][0] > 1.5 * dense.table["compression"][0]
