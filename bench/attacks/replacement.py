"""Attack 3, behind masks: liars that run code of their own, and replace the model.

`poisoning` has liars that are clipped as everybody is. Behind masks nobody clips a liar: it adds any element of the
ring to the sum of its group, and nobody can look. Here honest participants, groups, sums and server are ridotto's own
(trainer, pipeline, dealing of groups, vault with the plan's rule), and liars write integers of their choice. Masks are
left out: they are gone, to the last bit, from what the server opens, which is where this begins.

Two kinds of liars. *Unclipped*: each multiplies what it learnt such that all of them together replace the mean.
*Within the limit*: they know what the honest members of their group add up to, and make the group's mean what they
want, as long as a sum may be that is not left out. That is more than a liar can know, and the most that it can do.

They lie in every round, or only in the last ones, when there is a model to be replaced and no time to forget.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from typing import Any

import numpy as np

import ridotto
from bench.attacks.malice import Kind, Lie, poisoned
from bench.attacks.poisoning import CLIP, SHARES, Outcome, Task, judged, liars, task_of
from bench.attacks.table import Settings, Table, Value, percent
from ridotto.core.fixedpoint import IntVector, container
from ridotto.core.rng import SEED_BYTES, SecretRng, insecure_seeded_rng
from ridotto.core.vector import Vector
from ridotto.errors import DataError
from ridotto.learn.robust.groups import group_of
from ridotto.rounds.dice import SeededDice
from ridotto.rounds.pipeline import Pipeline
from ridotto.rounds.vault import Vault

LATE = 2
"""Rounds at the end in which liars lie that waited."""

LEAST = 3
"""Contributions behind an opened sum: an update hides among two others."""

MARGIN = 1e-3
"""How far within the limit careful liars stay: rounding must not give them away."""

FACTOR = 1.2
"""A norm filter leaves out groups whose mean is so much longer than the median group's."""

CAREFUL = {"relative_norm_filter": FACTOR, "multi_krum": 0.8}
"""How long liars make a mean, over that of the median group without liars: just what passes the filter; and what has
closer company than honest groups have among each other, which is what Krum looks at. Else as long as the clip."""

KINDS = (Kind.BACKDOOR, Kind.REVERSE)

SOURCE = "Bagdasaryan et al., AISTATS 2020; Blanchard et al., NeurIPS 2017"


class Way(StrEnum):
    UNCLIPPED = "unclipped"
    WITHIN = "within the limit"


@dataclass(frozen=True)
class Defence:
    """ways: what liars do against it. Where nothing is checked there is no limit to stay within."""

    name: str
    plan: Callable[[int], ridotto.Plan]
    ways: tuple[Way, ...] = (Way.UNCLIPPED, Way.WITHIN)


def masked(cohort: int, *, clip: float | None = CLIP, robust: Any = None) -> ridotto.Plan:
    """Return a plan with masks. robust: opens the sums of groups, and decides what counts."""
    protocol = ridotto.Pairwise(corrupt=0.0)
    return ridotto.Plan(
        cohort=cohort, minimum=LEAST, protocol=protocol, clip=clip, robust=robust, max_examples=1, value_range=64.0
    )


DEFENCES = (
    Defence("one sum, no clip", partial(masked, clip=None), (Way.UNCLIPPED,)),
    Defence("one sum, clip", masked, (Way.UNCLIPPED,)),
    Defence("25 groups, norm bound", partial(masked, robust=ridotto.NormBound(groups=25))),
    Defence("33 groups, norm bound", partial(masked, robust=ridotto.NormBound(groups=33))),
    Defence("33 groups, median", partial(masked, robust=ridotto.BucketedMedian(groups=33))),
    Defence("33 groups, Multi-Krum", partial(masked, robust=ridotto.Robust("multi_krum", {"attackers": 10}, 33))),
    Defence(
        "33 groups, norm filter", partial(masked, robust=ridotto.Robust("relative_norm_filter", {"factor": FACTOR}, 33))
    ),
)


@dataclass(frozen=True)
class Attack:
    """who: places of the liars."""

    who: tuple[int, ...]
    lie: Lie
    way: Way


@dataclass
class Course:
    """Hold what became of some rounds. left_out: share of the groups, for each round that made a model."""

    left_out: list[float] = field(default_factory=list)
    failed: int = 0
    outcome: Outcome | None = None


class Federation:
    """Train behind masks, round after round, with liars or without. model: to start from, or the trainer's own."""

    def __init__(self, task: Task, plan: ridotto.Plan, model: Vector | None = None) -> None:
        start = task.trainer.initial() if model is None else model
        self._task = task
        self._plan = plan
        self._names = [f"participant-{place}" for place in range(len(task.clients))]
        self._pipeline = Pipeline(plan, task.trainer.layout)
        self.vault = Vault(plan, task.trainer.layout, start)

    def run(self, numbers: Iterable[int], attack: Attack | None = None) -> Course:
        """Run the rounds of these numbers. Where one fails, the model stays."""
        course = Course()
        for number in numbers:
            rng = insecure_seeded_rng(self._task.seed).child("round", number)
            try:
                totals = self._totals(self._learnt(attack, rng), attack, rng)
                applied = self.vault.apply_totals(totals, number, rng.child("attempt").bytes(SEED_BYTES))
                course.left_out.append(len(applied.excluded) / len(totals))
            except DataError:
                course.failed += 1
        course.outcome = judged(self._task, self.vault.model)
        return course

    def _learnt(self, attack: Attack | None, rng: SecretRng) -> np.ndarray:
        """Return everybody's update, float32, shape (n, d); a liar's not multiplied yet."""
        data = list(self._task.clients)
        lying = () if attack is None else attack.who
        if attack is not None and attack.lie.kind is Kind.BACKDOOR:
            for place in lying:
                data[place] = poisoned(*data[place], self._task.brightest)
        rngs = [rng.child("train", place) for place in range(len(data))]
        # A model that liars destroyed may overflow: then participants refuse to go on, and the round fails.
        with np.errstate(over="ignore", invalid="ignore"):
            updates = self._task.trainer.train_many(self.vault.model, data, rngs).vectors - self.vault.model
        if attack is not None and attack.lie.kind is Kind.REVERSE:
            updates[list(lying)] *= -1
        return updates

    def _totals(self, updates: np.ndarray, attack: Attack | None, rng: SecretRng) -> dict[bytes, IntVector]:
        """Return what the server opens: the sum of every group, dealt anew in each round."""
        groups = self._plan.sessions_of(len(updates))
        dealt = group_of(self._names, rng.child("groups").bytes(SEED_BYTES), groups)
        members: list[list[int]] = [[] for _ in range(groups)]
        for place, name in enumerate(self._names):
            members[dealt[name]].append(place)
        lying = set() if attack is None else set(attack.who)
        totals = [self._honest_total(updates, group, lying, rng) for group in members]
        if attack is not None:
            clean = [total for total, group in zip(totals, members, strict=True) if lying.isdisjoint(group)]
            length = self._longest(clean)
            for total, group in zip(totals, members, strict=True):
                if liars_there := [place for place in group if place in lying]:
                    self._lie(total, updates[liars_there], len(group), attack, length)
        return {number.to_bytes(2, "big"): total for number, total in enumerate(totals)}

    def _honest_total(
        self, updates: np.ndarray, group: Sequence[int], lying: Collection[int], rng: SecretRng
    ) -> IntVector:
        total = np.zeros(self._pipeline.length, container(self._plan.bits))
        for place in group:
            # A liar writes into the lanes what an honest participant writes there: it wants to be counted.
            update = np.zeros_like(updates[place]) if place in lying else updates[place]
            total += self._pipeline.encode(update, 1, {}, SeededDice(rng.child("round up", place)))
        return total

    def _lie(self, total: IntVector, learnt: np.ndarray, size: int, attack: Attack, length: float) -> None:
        """Add what the liars of a group add. learnt: shape (liars, d). length: of the longest mean that passes."""
        together = learnt.sum(axis=0, dtype=np.float64)
        entries = total[: self._pipeline.entries]
        if attack.way is Way.UNCLIPPED:
            entries += self._integers(attack.lie.scale * together)
        else:
            # What the liars add is this less what the honest members add up to.
            entries[:] = self._integers(size * length * direction(together))

    def _longest(self, clean: Sequence[IntVector]) -> float:
        """Return how long the mean of a group may be, as liars know who know the sums of groups without liars."""
        rule = self._plan.robust.build().name if self._plan.robust is not None else ""
        length = CLIP
        if rule in CAREFUL and clean:
            norms = [float(np.linalg.norm(self._pipeline.decode(total).mean)) for total in clean]
            length = min(length, CAREFUL[rule] * float(np.median(norms)))
        return length * (1 - MARGIN)

    def _integers(self, vector: np.ndarray) -> IntVector:
        """Return a vector in units of the ring, which nobody clips. vector: float64, shape (d,)."""
        highest = float((1 << (self._plan.bits - 1)) - 1)
        units = np.clip(np.rint(vector / self._pipeline.encoding.fixed.resolution), -highest, highest)
        return units.astype(np.int64).astype(container(self._plan.bits))


def direction(vector: np.ndarray) -> np.ndarray:
    """Return a vector of length 1."""
    length = float(np.linalg.norm(vector))
    result: np.ndarray = vector / max(length, np.finfo(np.float64).tiny)
    return result


@dataclass(frozen=True)
class Clean:
    """Hold what a plan does if nobody lies. before: the model before the last rounds."""

    outcome: Outcome
    before: Vector


def honest(task: Task, plan: ridotto.Plan) -> Clean:
    federation = Federation(task, plan)
    first = federation.run(range(1, task.rounds - LATE + 1))
    before = federation.vault.model.copy()
    last = federation.run(range(task.rounds - LATE + 1, task.rounds + 1))
    if last.outcome is None or first.failed or last.failed:
        raise DataError(f"{first.failed + last.failed} rounds failed, and nobody lies")
    return Clean(last.outcome, before)


def attacked(task: Task, plan: ridotto.Plan, attack: Attack, clean: Clean, *, late: bool) -> Course:
    """Let the liars lie in all rounds, or in the last ones."""
    first = task.rounds - LATE + 1 if late else 1
    return Federation(task, plan, clean.before if late else None).run(range(first, task.rounds + 1), attack)


def run(settings: Settings) -> list[Table]:
    task = task_of(settings)
    plans = {defence.name: defence.plan(len(task.clients)) for defence in DEFENCES}
    clean = {name: honest(task, plan) for name, plan in plans.items()}
    shares = SHARES[:1] if settings.quick else SHARES
    return [replaced(task, plans, clean, share, late=late) for share in shares for late in (False, True)]


def replaced(task: Task, plans: dict[str, ridotto.Plan], clean: dict[str, Clean], share: float, *, late: bool) -> Table:
    """Try every lie against every defence."""
    who, rows = tuple(liars(task, share)), []
    when = f"in the last {LATE} rounds" if late else "in every round"
    for defence in DEFENCES:
        plan, before = plans[defence.name], clean[defence.name]
        for way in defence.ways:
            lies = {kind: Attack(who, Lie(kind, 1 / share), way) for kind in KINDS}
            found = [attacked(task, plan, lies[kind], before, late=late) for kind in KINDS]
            rows.append((f"{defence.name}: {way}", percent(before.outcome.accuracy), *cells(found, plan)))
            print(f"  {share:.0%} replace {when}: {rows[-1][0]}", flush=True)
    columns = (
        "defence: liars",
        "nobody lies: accuracy",
        "backdoor: accuracy",
        "backdoor works",
        "reversed: accuracy",
        "groups left out",
        "rounds failed",
    )
    name = f"poisoning-replacement-{share:.0%}".rstrip("%") + ("-late" if late else "")
    title = f"Model replacement by {share:.0%} of the participants, {when}"
    return Table(name, title, SOURCE, columns, tuple(rows), notes(task, plans, clean))


def cells(found: list[Course], plan: ridotto.Plan) -> list[Value]:
    """Return a row: what two lies reach, and what became of the groups and rounds of both."""
    backdoor, reverse = (course.outcome for course in found)
    if backdoor is None or reverse is None:
        raise DataError("a course of no rounds has no outcome")
    left_out = [share for course in found for share in course.left_out]
    rounds = sum(len(course.left_out) + course.failed for course in found)
    return [
        percent(backdoor.accuracy),
        percent(backdoor.backdoor),
        percent(reverse.accuracy),
        percent(float(np.mean(left_out))) if left_out and plan.robust is not None else None,
        f"{sum(course.failed for course in found)} of {rounds}",
    ]


def notes(task: Task, plans: dict[str, ridotto.Plan], clean: dict[str, Clean]) -> tuple[str, ...]:
    without = percent(max(found.outcome.backdoor for found in clean.values()))
    return (
        f"{len(task.clients)} clients, {len(task.clients[0][1])} digits each, {task.trainer.layout.length:,} "
        f"parameters, {task.rounds} rounds; clip {CLIP:g}. One seed. If nobody lies, {without} of images with the "
        "square at most are taken for 0. Rounds are of both attacks together. Groups left out: of rounds that made a "
        "model; failed rounds keep the old one.",
        *(f"{name}: {plan.protection()}" for name, plan in plans.items() if plan.robust is not None),
    )
