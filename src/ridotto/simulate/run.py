"""A simulation under way: round after round, what became of each, and where it can be resumed."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, perf_counter
from typing import TYPE_CHECKING, Any, Protocol

from ridotto.core.vector import Vector
from ridotto.errors import DataError, StorageError
from ridotto.learn.strategy import State
from ridotto.learn.trainer import Trainer
from ridotto.privacy.event import Repeated
from ridotto.rounds.private import PrivacyAccount
from ridotto.rounds.record import RoundRecord
from ridotto.rounds.vault import Vault
from ridotto.simulate.checkpoint import FORMAT, Checkpoint, as_bytes, layout_digest
from ridotto.simulate.clients import Clients, Cohort
from ridotto.simulate.job import Engine
from ridotto.simulate.outcome import Outcome
from ridotto.simulate.result import (
    UNLIMITED,
    Result,
    SimulationFailedError,
    SimulationInterruptedError,
    history_table,
    row,
)
from ridotto.simulate.silence import Silence
from ridotto.simulate.table import Row

if TYPE_CHECKING:
    from ridotto.simulate.progress import RoundProgress

CHECKPOINT_EVERY_S = 30.0
"""Seconds of work that a kill can cost at most, apart from the round that is under way."""


class Driver(Protocol):
    """Run rounds, with the real protocol or a model of it."""

    @property
    def now(self) -> float:
        """Return the virtual time."""

    @property
    def memory(self) -> bytes:
        """Return what a checkpoint must hold beside the model."""

    def recall(self, now: float, memory: bytes) -> None:
        """Go on from a checkpoint."""

    def run(self, number: int, cohort: Cohort) -> Outcome:
        """Run one round."""


@dataclass(frozen=True)
class _State:
    """Hold everything after a round. Taken whole, by one assignment: Ctrl-C comes between any two lines.

    rounds: that were run. failures: failed ones in a row. kept, spent: as in a `Checkpoint`; memory: its `pace`. The
    vectors are replaced, never written into, so references do.
    """

    rounds: int
    failures: int
    model: Vector
    state: State
    kept: Mapping[int, Vector]
    now: float
    memory: bytes
    spent: tuple[Repeated, ...]


class Run:
    """Hold a simulation under way.

    driver: runs rounds. folder: where checkpoints go, or None. before: what is being resumed, or None. privacy: the
    account of a plan with differential privacy, or None.
    """

    def __init__(
        self,
        driver: Driver,
        engine: Engine,
        vault: Vault,
        kept: dict[int, Vector],
        trainer: Trainer,
        clients: Clients,
        seed: int,
        test: Any,
        folder: Path | None,
        before: Checkpoint | None,
        privacy: PrivacyAccount | None = None,
    ) -> None:
        self._privacy = privacy
        self._stopped = ""
        self.rows: list[Row] = list(before.rows) if before else []
        self._records: list[RoundRecord] = list(before.records) if before else []
        if before is not None:
            driver.recall(before.now, before.pace)
        self._driver = driver
        self._engine = engine
        self._vault = vault
        self._kept = kept
        self._trainer = trainer
        self._clients = clients
        self._seed = seed
        self._test = test
        self._folder = folder
        self._saved_at = monotonic()
        self._asked = 0
        self._watcher: RoundProgress | Silence = Silence()
        self._then = self._state(before.failures if before else 0)

    def progress(self, progress: RoundProgress | bool, rounds: int) -> AbstractContextManager[RoundProgress | Silence]:
        """Return what shows the rounds: the caller's own, a bar on standard error if that is a terminal, or nothing."""
        if not isinstance(progress, bool):
            self._watcher = progress
        elif progress and sys.stderr is not None and sys.stderr.isatty():
            from ridotto.simulate.progress import RoundProgress

            self._watcher = RoundProgress.on_standard_error(rounds, len(self.rows))
        self._watcher.watch(lambda: self._engine.done() / max(1, self._asked), len(self.rows))
        return self._watcher

    def step(self, number: int, cohort: Cohort, *, evaluate: bool) -> None:
        """Run one round, write its line of the history, and a checkpoint when one is due."""
        # Where the time of day decides who is asked, the plan says how many.
        self._asked = len(cohort) or self._vault.plan.cohort
        outcome = self._driver.run(number, cohort)
        started = perf_counter()
        tested: Mapping[str, float] = {}
        if evaluate and self._test is not None:
            tested = self._evaluate(number)
        self._asked = 0
        self._take(outcome, row(outcome, tested, perf_counter() - started, self._spent(), self._vault.layout.length))
        if self._folder is not None and monotonic() - self._saved_at > CHECKPOINT_EVERY_S:
            self._checkpoint().write(self._folder)
            self._saved_at = monotonic()

    @contextmanager
    def guard(self) -> Iterator[None]:
        """Keep the rounds that are done, wherever between them or in one it ends: by Ctrl-C or by an error.

        Raises SimulationInterruptedError on Ctrl-C; the round under way is then lost, and nothing before it.
        """
        try:
            yield
        except KeyboardInterrupt:
            result = self.result() if self._then.rounds else None
            if self._folder is not None and result is not None:
                result.save(self._folder)
            # Where in a round it was says nothing to whoever pressed Ctrl-C.
            raise SimulationInterruptedError(result, self._folder) from None
        except SimulationFailedError:
            raise
        except Exception as error:
            self._rescue(error)
            raise

    def _evaluate(self, number: int) -> Mapping[str, float]:
        """Test the model. What goes wrong says that it was on the test data."""
        try:
            found = self._trainer.evaluate(self._vault.model, self._test)
            # NumPy's numbers, or a tensor's, could not be saved.
            return {name: float(value) for name, value in found.items()}
        except DataError as error:
            raise DataError(f"the test data, after round {number}: {error}") from error
        except Exception as error:
            error.add_note(f"This happened on the test data, after round {number}.")
            raise

    def _rescue(self, error: Exception) -> None:
        """Keep what was done before a round that ends with an error, and say where."""
        rounds = self._then.rounds
        if self._folder is None or not rounds:
            return
        with suppress(StorageError):  # It would hide the error that matters.
            self._checkpoint().write(self._folder)
            error.add_note(f"The {rounds} rounds before are kept: to go on, resume from {self._folder}.")

    def stop_if_spent(self) -> bool:
        """Say whether the privacy budget has no room for a further round, which then must not begin."""
        if self._privacy is None or self._privacy.fits():
            return False
        self._stopped = self._privacy.why_stopped()
        self._watcher.note(f"stopped: {self._stopped}")
        return True

    def last_affordable(self) -> bool:
        """Say whether the privacy budget has room for one more round, and not for two."""
        return self._privacy is not None and not self._privacy.fits(2)

    def _spent(self) -> Mapping[str, float]:
        """Charge the round that has just been run, whatever became of it, and return its columns of the history."""
        privacy = self._privacy
        if privacy is None:
            return UNLIMITED
        privacy.charge()
        left = privacy.left
        return {"epsilon": privacy.cost.epsilon, **({} if left is None else {"epsilon_left": left})}

    def stop_if_hopeless(self, max_failures: int) -> None:
        """Give up, with what was done so far, after too many failures in a row."""
        failures = self._then.failures
        if failures < max_failures:
            return
        records = self._records[-failures:]
        reasons = "; ".join(f"round {record.round}: {record.failure}" for record in records)
        blame = tuple(dict.fromkeys(name for record in records for name in record.blamed))
        raise SimulationFailedError(f"{failures} rounds failed in a row: {reasons}", blame, self.end())

    def end(self) -> Result:
        """Return what was done, and save it where a folder was given."""
        result = self.result()
        if self._folder is not None:
            result.save(self._folder)
        return result

    def result(self) -> Result:
        """Return what was done until the last round that ended."""
        vault, then = self._vault, self._then
        rows = self.rows[: then.rounds]
        return Result(
            plan=vault.first_plan,
            seed=self._seed,
            layout=vault.layout,
            vector=then.model.copy(),
            records=tuple(self._records[: then.rounds]),
            table=history_table(rows),
            lost=tuple(int(line["asked"] - line["participants"]) for line in rows),
            engine=self._engine.description,
            checkpoint=self._checkpoint(),
            privacy=None if self._privacy is None else self._privacy.statement(),
            stopped=self._stopped,
        )

    def _take(self, outcome: Outcome, line: Row) -> None:
        self._records.append(outcome.record)
        self.rows.append(line)
        self._then = self._state(self._then.failures + 1 if outcome.record.failure else 0)
        self._watcher.show(line)

    def _state(self, failures: int) -> _State:
        """Return the state after the round that has ended."""
        return _State(
            rounds=len(self.rows),
            failures=failures,
            model=self._vault.model,
            state=self._vault.state,
            kept=dict(self._kept),
            now=self._driver.now,
            memory=self._driver.memory,
            spent=() if self._privacy is None else self._privacy.spent,
        )

    def _checkpoint(self) -> Checkpoint:
        vault, then = self._vault, self._then
        return Checkpoint(
            format=FORMAT,
            plan=vault.first_plan.encode(),
            seed=self._seed,
            clients=len(self._clients),
            layout=layout_digest(vault.layout),
            model=then.model.astype("<f4", copy=False).tobytes(),
            state=as_bytes(then.state),
            kept=as_bytes(then.kept),
            now=then.now,
            failures=then.failures,
            rows=[dict(line) for line in self.rows[: then.rounds]],
            records=tuple(self._records[: then.rounds]),
            pace=then.memory,
            spent=then.spent,
        )
