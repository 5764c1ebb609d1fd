"""The benchmark of whole rounds, on a small one."""

from __future__ import annotations

from bench.rounds import Case


def test_a_round_goes_on_without_those_who_leave() -> None:
    finish = Case(20, 50, repeats=1, lost=0.1).make().run()
    assert finish.error is None
    assert set(finish.result.lost) == {"p00000", "p00001"}
