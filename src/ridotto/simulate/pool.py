"""The pool engine: one worker in each of several processes on this machine.

    parent                                   worker (one process, one thread)
    model, job                   ->          shared memory, and one small message
                                             take the next clients from a shared counter, until none is left
    partial sums                 <-          shared memory, and one small message

Nothing crosses a process boundary for a client but its number. Whoever is free takes the next clients, so slow ones do
not hold the others up; sums are exact, so it does not matter who took which.

Where processes can be forked, workers inherit trainer and data and start in milliseconds. Elsewhere, and for trainers
that say `fork_safe = False` (JAX runs threads that a fork would cut off), they are started anew, and trainer and data
are sent once, the arrays through shared memory.

A worker that dies takes its partial sum with it. Then all are started again and the job is done once more, with the
same bits. A client at whose training a worker died twice is named; `job.drop` leaves it out.
"""

from __future__ import annotations

import multiprocessing
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from time import monotonic
from typing import Any, cast

import numpy as np

from ridotto.core.rng import SecretRng
from ridotto.errors import DataError, RidottoError
from ridotto.learn.trainer import Trainer
from ridotto.rounds.plan import Plan
from ridotto.rounds.totals import merge
from ridotto.simulate.clients import Clients
from ridotto.simulate.job import Answer, Job, Update, blame, from_elsewhere
from ridotto.simulate.pool_worker import (
    FAILURE,
    READY,
    Finished,
    Packed,
    Setup,
    Shared,
    Work,
    start_method,
    start_worker,
)

DEATHS_PER_CLIENT = 2
"""A client at whose training so many workers died is the cause of it."""

DEATHS_PER_JOB = 5
"""So many deaths at different clients are nobody's fault but the machine's: it has too little memory, say."""

START_S = 60.0
"""How long processes may take to start: importing torch from a cold disk takes a good part of it."""

EMPTY = np.empty(0, np.float32)


class WorkersDiedError(RidottoError):
    """Report that processes of a pool were killed, again and again."""


class PoolEngine:
    """Train in `workers` processes. batch: clients that one worker trains at once.

    Raises ConfigError if trainer or clients can't be sent to other processes.
    """

    def __init__(
        self, trainer: Trainer, clients: Clients, plan: Plan, rng: SecretRng, workers: int, batch: int = 1
    ) -> None:
        self._setup = Setup(trainer, clients, plan, rng, batch)
        self._algorithm = plan.algorithm.build()
        self._workers = workers
        self._use(start_method(trainer))
        self._processes: list[tuple[BaseProcess, Connection]] = []
        try:
            self._start()
        except BaseException:  # Ctrl-C, too, must not leave processes behind
            self._stop()
            raise

    @property
    def description(self) -> str:
        """Say what works here."""
        batch = f", {self._setup.batch} clients at once" if self._setup.batch > 1 else ""
        return f"pool of {self._workers} processes{batch}"

    def sum(self, job: Job) -> Answer:
        """Train everybody and add their encoded updates up. Raises as `Engine.sum` says, or WorkersDiedError."""
        dropped: dict[int, str] = {}
        deaths: Counter[int] = Counter()
        while True:
            try:
                self._order(job, Work(_light(job)))
                finished = [answer for answer in self._answers() if isinstance(answer, Finished)]
                break
            except _DiedError as death:
                job = self._after(death, job, deaths, dropped)
        totals = self._shared.array("totals")
        for partial in totals[1:]:
            merge(totals[0], partial)
        for answer in finished:
            dropped.update(answer.dropped)
        place_of = {int(position): place for place, position in enumerate(job.positions)} if len(self._kept) else {}
        kept = {position: self._kept[place_of[position]].copy() for answer in finished for position in answer.kept}
        train_s = sum(answer.train_s for answer in finished) / self._workers
        return Answer(totals[0], dropped, kept, train_s, sum(answer.sparse_bytes for answer in finished))

    def updates(self, job: Job) -> Callable[[int], Update]:
        """Train everybody now, and return a function that hands the updates out. Raises WorkersDiedError."""
        deaths: Counter[int] = Counter()
        blamed: dict[int, str] = {}
        left = replace(job, drop=True)
        while True:
            try:
                self._order(left, Work(_light(left), updates=True))
                told: dict[int, Any] = dict(answer for answer in self._answers() if isinstance(answer, tuple))
                break
            except _DiedError as death:
                left = self._after(death, left, deaths, blamed)
        ready = {int(left.positions[place]): answer for place, answer in told.items()}

        def update(place: int) -> Update:
            position = int(job.positions[place])
            if position in blamed:
                raise blame(DataError(blamed[position]), self._setup.clients.names[position], job.number)
            found = ready.pop(position)
            if isinstance(found, tuple):
                raise from_elsewhere(*found)
            trained: Update = found
            return trained

        return update

    def done(self) -> int:
        """Return how many clients of the present job are done."""
        return int(self._shared.array("done").sum())

    def close(self) -> None:
        """End the processes."""
        self._stop()

    def _start(self) -> None:
        state = self._algorithm.begin(np.zeros(self._setup.trainer.layout.length, np.float32))
        self._shared = Shared(self._context, self._workers, self._setup, state)
        self._kept = self._shared.array("kept")
        for number in range(self._workers):
            self._processes.append(start_worker(self._context, self._parcel, self._shared, number))
        if not self._ready():
            self._stop()
            if self._method == "spawn":
                raise WorkersDiedError(
                    f"worker processes did not start within {START_S:g} s, or died before; what they printed may say "
                    'why. A script must be a file, with `if __name__ == "__main__":` before what it runs'
                )
            # A library whose threads a fork has cut off may keep the child waiting for a lock for ever.
            self._use("spawn")
            self._start()

    def _ready(self) -> bool:
        """Wait until every process can work; tell whether that has come to be."""
        until = monotonic() + START_S
        for _, pipe in self._processes:
            try:
                if not pipe.poll(max(0.0, until - monotonic())) or pipe.recv() != READY:
                    return False
            except (EOFError, ConnectionError):
                return False
        return True

    def _use(self, method: str) -> None:
        self._method = method
        self._context = cast(Any, multiprocessing.get_context(method))
        self._parcel = self._setup if method == "fork" else Packed.of(self._setup, self._context)

    def _stop(self) -> None:
        for process, pipe in self._processes:
            pipe.close()
            process.terminate()
        for process, _ in self._processes:
            process.join()
            process.close()
        self._processes.clear()

    def _order(self, job: Job, work: Work) -> None:
        """Put a job's vectors into shared memory and tell every worker."""
        self._shared.array("model")[...] = job.model
        for name, vector in self._shared.state().items():
            vector[...] = job.state[name]
        if len(self._kept):
            for place, position in enumerate(job.positions):
                self._kept[place] = job.kept.get(int(position), 0.0)
        self._shared.array("done")[...] = 0
        self._shared.array("training")[...] = -1
        self._shared.next.value = 0
        for _, pipe in self._processes:
            try:
                pipe.send(work)
            except (BrokenPipeError, ConnectionError):
                continue  # it is dead, and `_answers` will find out how

    def _answers(self) -> Iterator[Any]:
        """Yield what the workers say, until all have finished; raise the first error once all are at rest."""
        waiting: dict[Connection, int] = {pipe: number for number, (_, pipe) in enumerate(self._processes)}
        failure: Exception | None = None
        while waiting:
            for pipe in wait(list(waiting)):
                try:
                    answer = cast(Connection, pipe).recv()
                except (EOFError, ConnectionError) as error:
                    raise self._death(waiting[cast(Connection, pipe)]) from error
                if isinstance(answer, tuple) and answer[0] == FAILURE:
                    failure = failure or from_elsewhere(*answer[1:])
                    # Nobody needs to begin with another client.
                    self._shared.next.value = np.iinfo(np.int64).max // 2
                else:
                    yield answer
                    if not isinstance(answer, Finished):
                        continue
                del waiting[cast(Connection, pipe)]
        if failure is not None:
            raise failure

    def _death(self, number: int) -> _DiedError:
        process, _ = self._processes[number]
        process.join()
        return _DiedError(number, process.exitcode, int(self._shared.array("training")[number]))

    def _after(self, death: _DiedError, job: Job, deaths: Counter[int], dropped: dict[int, str]) -> Job:
        """Start all workers anew; return the job that is left to do, or raise who or what is to blame."""
        self._stop()
        self._start()
        deaths[death.position] += 1
        names = self._setup.clients.names
        if death.position >= 0 and deaths[death.position] >= DEATHS_PER_CLIENT:
            error = DataError(f"its training killed the process that worked on it, twice ({death.how})")
            if not job.drop:
                raise blame(error, names[death.position], job.number)
            dropped[death.position] = str(error)
            left = job.positions != death.position
            turns, scales = (None if of_each is None else of_each[left] for of_each in (job.turns, job.scales))
            return replace(job, positions=job.positions[left], ranks=job.ranks[left], turns=turns, scales=scales)
        if deaths.total() >= DEATHS_PER_JOB:
            raise WorkersDiedError(
                f"round {job.number}: {deaths.total()} worker processes died ({death.how}), the last of them "
                f"{f'training {names[death.position]}' if death.position >= 0 else 'between clients'}; "
                "is there enough memory? Fewer workers need less"
            )
        return job


class _DiedError(Exception):
    """Tell that a worker died: which, how, and at whose training (-1: nobody's)."""

    def __init__(self, number: int, exitcode: int | None, position: int) -> None:
        self.position = position
        self.how = f"signal {-exitcode}" if exitcode is not None and exitcode < 0 else f"exit code {exitcode}"
        super().__init__(f"worker {number} died: {self.how}")


def _light(job: Job) -> Job:
    """Return the job without what lies in shared memory."""
    return replace(job, model=EMPTY, state={}, kept={})
