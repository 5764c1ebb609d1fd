"""The inline engine: one worker, in this process."""

from __future__ import annotations

from collections.abc import Callable

from ridotto.core.rng import SecretRng
from ridotto.learn.trainer import Trainer
from ridotto.rounds.plan import Plan
from ridotto.simulate.clients import Clients
from ridotto.simulate.job import Answer, Job, Update
from ridotto.simulate.worker import Worker


class InlineEngine:
    """Train in this process. batch: clients that are trained at once; more than one makes it the vectorised engine."""

    def __init__(self, trainer: Trainer, clients: Clients, plan: Plan, rng: SecretRng, batch: int = 1) -> None:
        self._worker = Worker(trainer, clients, plan, rng, batch)

    @property
    def description(self) -> str:
        """Say what works here."""
        return "inline" if self._worker.batch == 1 else f"vectorised, {self._worker.batch} clients at once"

    def sum(self, job: Job) -> Answer:
        """Train everybody and add their encoded updates up. Raises as `Engine.sum` says."""
        worker = self._worker
        worker.begin(job)
        worker.train(0, len(job))
        return Answer(worker.total, worker.dropped, worker.kept, worker.train_s, worker.sparse_bytes)

    def updates(self, job: Job) -> Callable[[int], Update]:
        """Return a function that trains the client at a place, with its chunk, when it is asked for."""
        worker = self._worker
        ready: dict[int, Update | Exception] = {}
        worker.begin(job)

        def update(place: int) -> Update:
            if place not in ready:
                begin = place - place % worker.batch
                found = worker.updates(begin, min(begin + worker.batch, len(job)))
                ready.update(enumerate(found, begin))
            trained = ready.pop(place)
            if isinstance(trained, Exception):
                raise trained
            return trained

        return update

    def done(self) -> int:
        """Return how many clients of the present job are done."""
        return self._worker.done

    def close(self) -> None:
        """Do nothing: there is nothing to give back."""
