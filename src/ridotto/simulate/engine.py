"""`ridotto.simulate`: many participants in one process, with the protocols of a real federation.

import ridotto

result = ridotto.simulate(trainer, clients, rounds=20, seed=1, test=(x_test, y_test))
result.history, result.model, result.plot(), result.save("run-1")
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from ridotto.core.rng import SecretRng, insecure_seeded_rng
from ridotto.errors import ConfigError, DataError
from ridotto.learn.trainer import Trainer
from ridotto.rounds.plan import Plan
from ridotto.simulate.clients import ClientId, Clients, Cohort, check_cohort, read_schedule
from ridotto.simulate.faults import Fault, read_faults
from ridotto.simulate.inline import InlineEngine, Outcome
from ridotto.simulate.result import Result, SimulationFailedError, history_table, row
from ridotto.simulate.table import Row

DEFAULT_COHORT = 10
"""Participants of a round where no plan says otherwise, as in the first experiments with FedAvg (McMahan et al.)."""

ACCURACY_BOUND, METRIC_BOUND = 1.0, 100.0
"""Bounds of metrics where no plan names them: an accuracy is a fraction, and a loss above 100 is of no interest. The
resolution of a masked metric is its bound / 2^19."""


def simulate(
    trainer: Trainer,
    clients: Sequence[Any] | Mapping[str, Any],
    plan: Plan | None = None,
    *,
    rounds: int,
    seed: int,
    test: Any = None,
    test_every: int = 1,
    schedule: Sequence[Sequence[ClientId]] | None = None,
    faults: Sequence[Fault] = (),
    names: Sequence[str] | None = None,
    max_failures: int = 3,
    on_round: Callable[[Row], None] | None = None,
) -> Result:
    """Train one model over many clients' data in this process, round by round, with the plan's secure sum.

    clients: data sets as the trainer reads them, in a sequence or by name; names: for a sequence. plan: `default_plan`
    makes one if there is none. rounds: attempts, failed ones included. seed: decides everything that is random; the
    same arguments give the same bits. test: data on which the model is evaluated after every `test_every`-th round
    and the last. schedule: a row of clients for each round, by name or position; without it every round draws
    `plan.cohort` clients uniformly. faults: see `ridotto.simulate.faults`. max_failures: so many failed rounds in a
    row end the simulation. on_round: called after each round with its line of the history.

    Raises PlanError or ConfigError before anything is trained, if the arguments do not fit together; DataError, naming
    client and round, for data that can't be trained on; SimulationFailedError, which holds the `result` so far, when
    too many rounds failed. What else a trainer raises comes through with a note that names client and round.

    >>> import numpy as np
    >>> x = np.eye(10, dtype=np.float32)
    >>> from ridotto.learn.numpy_trainer import NumpyTrainer
    >>> result = simulate(NumpyTrainer((10, 10), seed=1), [(x, np.arange(10))] * 6, rounds=2, seed=1)
    >>> result.table["participants"]
    [6, 6]
    """
    _check_numbers(rounds=rounds, test_every=test_every, max_failures=max_failures)
    if not isinstance(seed, int) or isinstance(seed, bool):
        raise ConfigError(f"the seed is an integer, not {seed!r}")
    rng = insecure_seeded_rng(seed)
    known = Clients.of(clients, names)
    plan = default_plan(trainer, known, rng) if plan is None else plan
    cohorts = _cohorts(known, plan, rounds, rng, schedule)
    engine = InlineEngine(trainer, known, plan, rng, read_faults(faults, known, plan))
    run = _Run(engine, trainer, plan, seed, test, [], [])
    for number, cohort in enumerate(cohorts, 1):
        run.step(number, cohort, evaluate=number % test_every == 0 or number == rounds)
        if on_round is not None:
            on_round(run.rows[-1])
        run.stop_if_hopeless(max_failures)
    return run.result()


def default_plan(trainer: Trainer, clients: Clients, rng: SecretRng) -> Plan:
    """Return the plan of a simulation that was given none: ten clients a round (all, if fewer), masked pairwise.

    Every metric that training reports becomes part of the sum. Which ones these are shows one trial training of the
    first client, whose result is thrown away.
    Raises PlanError where so few clients can't hide anyone: that takes a plan that says so.
    """
    try:
        trial = trainer.train(trainer.initial(), clients.data[0], rng.child("trial"))
    except DataError as error:
        raise DataError(f"{clients.names[0]}: {error}") from error
    bounds = {name: ACCURACY_BOUND if name == "accuracy" else METRIC_BOUND for name in trial.metrics}
    return Plan(cohort=min(len(clients), DEFAULT_COHORT), metrics=bounds)


@dataclass
class _Run:
    """Hold a simulation under way."""

    engine: InlineEngine
    trainer: Trainer
    plan: Plan
    seed: int
    test: Any
    outcomes: list[Outcome]
    rows: list[Row]
    failures: int = 0

    def step(self, number: int, cohort: Cohort, *, evaluate: bool) -> None:
        """Run one round and write its line of the history."""
        outcome = self.engine.run(number, cohort)
        started = perf_counter()
        tested: Mapping[str, float] = {}
        if evaluate and self.test is not None:
            tested = self.trainer.evaluate(self.engine.vault.model, self.test)
        self.outcomes.append(outcome)
        self.rows.append(row(outcome, tested, len(cohort), perf_counter() - started))
        self.failures = self.failures + 1 if outcome.record.failure else 0

    def stop_if_hopeless(self, max_failures: int) -> None:
        """Give up, with what was done so far, after too many failures in a row."""
        if self.failures < max_failures:
            return
        records = [outcome.record for outcome in self.outcomes[-self.failures :]]
        reasons = "; ".join(f"round {record.round}: {record.failure}" for record in records)
        blame = tuple(dict.fromkeys(name for record in records for name in record.blamed))
        raise SimulationFailedError(f"{self.failures} rounds failed in a row: {reasons}", blame, self.result())

    def result(self) -> Result:
        """Return what was done so far."""
        vault = self.engine.vault
        records = tuple(outcome.record for outcome in self.outcomes)
        return Result(self.plan, self.seed, vault.layout, vault.model.copy(), records, history_table(self.rows))


def _cohorts(
    clients: Clients, plan: Plan, rounds: int, rng: SecretRng, schedule: Sequence[Sequence[ClientId]] | None
) -> Iterator[Cohort]:
    """Return who is asked in which round; checked here and now, drawn when it is needed."""
    if schedule is not None:
        return iter(read_schedule(schedule, clients, plan, rounds))
    check_cohort(clients, plan)
    return (clients.sample(plan.cohort, rng.child("cohort", number)) for number in range(1, rounds + 1))


def _check_numbers(**numbers: int) -> None:
    for name, number in numbers.items():
        if not isinstance(number, int) or number < 1:
            raise ConfigError(f"{name} is a whole number of at least 1, not {number!r}")
