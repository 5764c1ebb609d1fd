"""Full rounds: what all parties together cost, against the masks alone; and what crosses the wire."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from statistics import mean, median

from bench.federation import Federation, names_of
from bench.floor import mask_seconds
from bench.measure import Bar, Line, Lines, timed
from bench.parts import Parts
from ridotto.rounds.plan import Pairwise, Plan, Risk

BITS = 32


@dataclass(frozen=True)
class Case:
    count: int
    length: int
    repeats: int
    graph: str = "complete"
    lost: float = 0.0
    bar: Bar | None = None
    quick: bool = False

    @property
    def what(self) -> str:
        kind = "" if self.graph == "complete" else ", sparse graph"
        lost = f", {self.lost:.0%} leave before Masked" if self.lost else ""
        return f"round: n = {self.count:,}, d = {self.length:,}{kind}{lost}"

    def make(self) -> Federation:
        known = (Risk.SPARSE_GRAPH,) if self.graph == "sparse" else ()
        plan = Plan(cohort=self.count, bits=BITS, protocol=Pairwise(graph=self.graph), i_know=known)
        return Federation(plan, self.length, names_of(self.count)[: round(self.count * self.lost)])


CASES = (
    Case(10, 1_000_000, repeats=5, quick=True),
    Case(100, 100_000, repeats=3, quick=True),
    Case(100, 1_000_000, repeats=3, bar=Bar("ratio", 1.5), quick=True),
    Case(100, 1_000_000, repeats=1, lost=0.05),
    Case(1000, 10_000, repeats=1),
)


def lines(quick: bool) -> Lines:
    for case in CASES:
        if case.quick or not quick:
            yield from measure(case, 1 if quick else case.repeats)


def measure(case: Case, repeats: int) -> Iterator[Line]:
    """Run a round `repeats` times, with the floor of one mask measured before and after each."""
    floors, totals, walls = mask_seconds(case.length), [], []
    for _ in range(repeats):
        federation, parts = case.make(), Parts()
        with parts.watching():
            cpu, wall = timed(partial(_succeed, federation))
        totals.append(cpu)
        walls.append(wall)
        floors += mask_seconds(case.length)
    yield Line(
        what=case.what,
        ours=median(totals),
        floor=parts.masks * median(floors),
        wall=median(walls),
        unit="s",
        bar=case.bar,
        notes=(f"floor: {parts.masks:,} masks of {median(floors) * 1e3:.4f} ms", _breakdown(parts, totals[-1])),
    )
    if not case.lost:
        yield from _traffic(case, federation)


def _succeed(federation: Federation) -> None:
    error = federation.run().error
    if error is not None:
        raise error


def _breakdown(parts: Parts, total: float) -> str:
    rest = total - sum(parts.seconds.values())
    ordered = sorted(parts.seconds.items(), key=lambda one: one[1], reverse=True)
    shares = [f"{part} {seconds:.2f}" for part, seconds in ordered if seconds > 0.004 * total]
    return f"of {total:.2f} s: " + ", ".join([*shares, f"rest {rest:.2f}"])


def _traffic(case: Case, federation: Federation) -> Lines:
    """Bytes of one participant against its update in float32. The model that it downloads is not counted."""
    plain = 4 * case.length
    for way, count in (("up", federation.up), ("down", federation.down)):
        yield Line(
            what=f"bytes {way} per participant",
            ours=mean(count.values()) / 1e6,
            floor=plain / 1e6 * BITS / 32 if way == "up" else None,
            unit="MB",
            bar=Bar("ratio", 1.01) if way == "up" and case.length >= 1_000_000 else None,
        )
