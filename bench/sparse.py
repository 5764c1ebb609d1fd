"""One session of 1,000 under a sparse graph of masks (SecAgg+), beside the shards of 125 that `rounds` measures."""

from __future__ import annotations

from bench.measure import Lines
from bench.rounds import Case, measure


def lines(quick: bool) -> Lines:
    count = 300 if quick else 1000
    yield from measure(Case(count, 10_000, repeats=1, graph="sparse"), 1)
