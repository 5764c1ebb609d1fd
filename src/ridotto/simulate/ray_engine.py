"""The ray engine: one actor for each of several processors of a cluster. The only module that imports Ray.

    driver                                   actor (one process, one thread)
    trainer, clients, plan       ->          object store, once
    model, job                   ->          object store, once a round
    a piece: a range of places   ->          trains its clients
    who was dropped and why      <-          a few bytes a piece
    partial sum                  <-          once a round

Pieces go to whoever is free, so slow machines do not hold the others up; sums are exact, so it does not matter who
trained which. (On machines of one kind, that is: processors of different kinds may round differently in training.)

An actor that is lost takes its partial sum with it. A fresh one takes its place, and every piece that was in that sum
is handed out again. The sums of the others stay. So nothing is lost, nothing is counted twice, and the bits are the
same. The piece at which an actor was lost is handed out in ever smaller parts: a client that stands alone when yet
another actor is lost is named, and `job.drop` leaves it out.
"""

from __future__ import annotations

import heapq
import logging
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Any

import numpy as np

from ridotto.core.fixedpoint import IntVector, container
from ridotto.core.rng import SecretRng
from ridotto.core.vector import Vector
from ridotto.errors import ConfigError, DataError, MissingExtraError
from ridotto.learn.trainer import Trainer
from ridotto.rounds.plan import Plan
from ridotto.rounds.totals import merge
from ridotto.simulate.clients import Clients
from ridotto.simulate.job import Answer, Job, Update, blame, from_elsewhere, reason, with_traceback
from ridotto.simulate.pieces import Piece, cut
from ridotto.simulate.pool import DEATHS_PER_CLIENT, DEATHS_PER_JOB, WorkersDiedError
from ridotto.simulate.pool_worker import Setup
from ridotto.simulate.ray_worker import RayWorker, Report, Sent
from ridotto.simulate.worker import pipeline_of

try:
    import ray
    from ray import cloudpickle
    from ray.exceptions import RayError, RayTaskError
except ModuleNotFoundError as missing:
    raise MissingExtraError("ray", "ray") from missing

Ref = Any
"""A `ray.ObjectRef`: where an answer will be. Ray is Any to the type checker, installed or not."""

START_S = 120.0
"""Wall seconds to wait for actors to start: a cold node that reads its libraries over a network takes a minute."""

KILLERS_PER_JOB = 3
"""Where so many clients would have to be named, it is not their fault but the machine's: it has too little memory."""


class RayEngine:
    """Train in `workers` actors of the Ray cluster that the user has connected to, else of one on this machine.

    batch: clients that one actor trains at once. startup_s: wall seconds until all actors could train.
    Raises ConfigError if trainer or clients can't be sent, the cluster is too small, or an actor does not start.
    """

    def __init__(
        self, trainer: Trainer, clients: Clients, plan: Plan, rng: SecretRng, workers: int, batch: int = 1
    ) -> None:
        begun = perf_counter()
        self._total: IntVector = np.zeros(pipeline_of(plan, trainer).length, container(plan.bits))
        self._names = clients.names
        self._batch = batch
        self._orders = 0
        self._done = 0
        self._crew = _Crew(Setup(trainer, clients, plan, rng, batch), workers)
        self.startup_s = perf_counter() - begun

    @property
    def description(self) -> str:
        """Say what works here."""
        batch = f", {self._batch} clients at once" if self._batch > 1 else ""
        return f"ray, {len(self._crew.members)} actors{batch}"

    def sum(self, job: Job) -> Answer:
        """Train everybody and add their encoded updates up. Raises as `Engine.sum` says, or WorkersDiedError."""
        work = self._order(job, updates=False)
        self._total[...] = 0
        kept: dict[int, Vector] = {}
        train_s, sent = 0.0, 0
        # An actor that is lost before it has handed its sum in leaves pieces to be done again.
        while work.queue:
            for _, report in self._hand_out(work):
                work.dropped.update(report.dropped)
                kept.update(report.kept)
            seconds, bytes_ = self._collect(work)
            train_s, sent = train_s + seconds, sent + bytes_
        return Answer(self._total, work.dropped, kept, train_s / len(self._crew.members), sent)

    def updates(self, job: Job) -> Callable[[int], Update]:
        """Train everybody now, and return a function that hands the updates out. Raises WorkersDiedError."""
        work = self._order(job, updates=True)
        found: dict[int, Update | Sent] = {}
        for piece, report in self._hand_out(work):
            found.update(enumerate(report.updates, piece.begin))

        def update(place: int) -> Update:
            if place in work.killers:
                raise work.killers[place]
            trained = found.pop(place)
            if isinstance(trained, tuple):
                raise from_elsewhere(*trained)
            return trained

        return update

    def done(self) -> int:
        """Return how many clients of the present job are done."""
        return self._done

    def close(self) -> None:
        """End the actors, and Ray if it was started here."""
        self._crew.close()

    def _order(self, job: Job, *, updates: bool) -> _Work:
        """Place a job where the actors find it, cut into pieces."""
        self._orders += 1
        self._done = 0
        for member in self._crew.members:
            member.begun, member.trained = False, []
        pieces = cut(len(job), self._batch, len(self._crew.members))
        return _Work(self._orders, job, ray.put(replace(job, kept={})), updates, pieces)

    def _hand_out(self, work: _Work) -> Iterator[tuple[Piece, Report]]:
        """Keep every actor busy until no piece is left, and yield what they report.

        Pieces are handed out in order, and after a failure only those before it are done: what is raised in the end
        is the first failure of the job, the same one as with any other engine.
        """
        busy: dict[Ref, tuple[_Member, Piece | None]] = {}
        for member in self._crew.members:
            self._occupy(member, work, busy)
        while work.queue or any(piece is not None for _, piece in busy.values()):
            # Training may take for ever, starting may not.
            starting = all(piece is None for _, piece in busy.values())
            finished, _ = ray.wait(list(busy), num_returns=1, timeout=START_S if starting else None)
            if not finished:
                raise WorkersDiedError(f"round {work.job.number}: lost all actors, and none started in {START_S:.0f} s")
            member, piece = busy.pop(finished[0])
            try:
                report = ray.get(finished[0])
            except RayTaskError:
                raise  # a bug, or an answer that can't be sent: nobody was lost
            except RayError as error:
                self._occupy(self._lost(member, piece, work, error), work, busy)
                continue
            if piece is None:
                _accept(report)
                member.ready = True
            elif report.failure:
                work.fail(piece, report.failure)
            else:
                member.trained.append(piece)
                self._done += len(piece)
                yield piece, report
            self._occupy(member, work, busy)
        if work.failure is not None:
            raise from_elsewhere(*work.failure[1])

    def _occupy(self, member: _Member, work: _Work, busy: dict[Ref, tuple[_Member, Piece | None]]) -> None:
        """Give a free actor the next piece; wait for one that is still starting."""
        if not member.ready:
            busy[member.preparing] = member, None
        elif work.queue:
            if not member.begun:
                member.actor.begin.remote(work.order, work.placed)
                member.begun = True
            piece = heapq.heappop(work.queue)
            busy[member.actor.train.remote(work.order, piece, work.kept(piece), work.updates)] = member, piece

    def _collect(self, work: _Work) -> tuple[float, int]:
        """Add the partial sums up; return the wall seconds of training in them, and `sparse_bytes` of an `Answer`.

        Lost ones are put back to be done.
        """
        owing = [member for member in self._crew.members if member.trained]
        sums = [member.actor.collect.remote(work.order) for member in owing]
        train_s, sent = 0.0, 0
        for member, ref in zip(owing, sums, strict=True):
            try:
                total, seconds, bytes_ = ray.get(ref)
            except RayTaskError:
                raise
            except RayError as error:
                self._lost(member, None, work, error)
                continue
            merge(self._total, total)
            train_s, sent = train_s + seconds, sent + bytes_
            member.begun, member.trained = False, []
        return train_s, sent

    def _lost(self, member: _Member, piece: Piece | None, work: _Work, error: RayError) -> _Member:
        """Put back what an actor took with it, and return a fresh one. piece: what it was training.

        Raises DataError if a client is to blame and not to be dropped, WorkersDiedError if too many were lost.
        """
        fresh = self._crew.replace(member)
        work.losses += 1
        if not work.updates:
            work.put_back(member.trained)
            self._done -= sum(map(len, member.trained))
        if piece is not None and len(piece) == 1 and piece.losses + 1 >= DEATHS_PER_CLIENT:
            self._name(piece.begin, work, error)
        elif piece is not None:
            work.put_back(piece.after_loss(self._batch))
        if work.losses >= DEATHS_PER_JOB or len(work.killers) >= KILLERS_PER_JOB:
            raise WorkersDiedError(
                f"round {work.job.number}: Ray actors were lost again and again, the last of them "
                f"{f'training {self._who(piece, work)}' if piece else 'between clients'}; "
                "is there enough memory? Fewer workers need less"
            ) from error
        return fresh

    def _name(self, place: int, work: _Work, error: RayError) -> None:
        """Blame losses on a client; raise, or drop it."""
        killer = DataError("its training killed the Ray actor that worked on it, again and again")
        killer.__cause__ = error
        position = int(work.job.positions[place])
        if not work.updates and not work.job.drop:
            raise blame(killer, self._names[position], work.job.number)
        work.killers[place] = blame(killer, self._names[position], work.job.number)
        work.dropped[position] = reason(killer)
        self._done += 1
        # These losses are explained; those to come may have another cause.
        work.losses = 0

    def _who(self, piece: Piece, work: _Work) -> str:
        first, last = (self._names[int(work.job.positions[place])] for place in (piece.begin, piece.end - 1))
        return first if first == last else f"clients from {first} to {last}"


@dataclass
class _Work:
    """Hold one job under way. placed: the job in the object store, without what clients kept. queue: a heap."""

    order: int
    job: Job
    placed: Ref
    updates: bool
    queue: list[Piece]
    losses: int = 0
    failure: tuple[Piece, Sent] | None = None
    dropped: dict[int, str] = field(default_factory=dict)
    killers: dict[int, Exception] = field(default_factory=dict)

    def kept(self, piece: Piece) -> dict[int, Vector]:
        """Return what the clients of a piece kept from their last round."""
        if not self.job.kept:
            return {}
        positions = self.job.positions[piece.begin : piece.end].tolist()
        return {position: self.job.kept[position] for position in positions if position in self.job.kept}

    def put_back(self, pieces: list[Piece]) -> None:
        """Queue pieces that are to be done once more; after a failure, only those that could have failed before it."""
        self.queue += [piece for piece in pieces if self.failure is None or piece < self.failure[0]]
        heapq.heapify(self.queue)

    def fail(self, piece: Piece, failure: Sent) -> None:
        """Note a failure; the first one of the job counts, whenever it is reported."""
        if self.failure is None or piece < self.failure[0]:
            self.failure = piece, failure
            queued, self.queue = self.queue, []
            self.put_back(queued)


@dataclass
class _Member:
    """Hold an actor as the driver sees it.

    preparing: answered once it can train. begun: it works on the present order. trained: pieces that are in its sum.
    """

    actor: Any
    preparing: Ref
    ready: bool = False
    begun: bool = False
    trained: list[Piece] = field(default_factory=list)


class _Crew:
    """Start, replace and end the actors. Raises ConfigError as `RayEngine` says."""

    def __init__(self, setup: Setup, workers: int) -> None:
        self.members: list[_Member] = []
        self._owner = not ray.is_initialized()
        if self._owner:
            _start_ray(workers)
        try:
            self._options = _slot(setup.trainer, workers)
            self._setup = _place(setup)
            self.members = [self._start() for _ in range(workers)]
            self._wait()
        except BaseException:
            self.close()
            raise

    def replace(self, member: _Member) -> _Member:
        """Start a fresh actor in the place of a lost one."""
        # It may only be out of reach. Then it must not come back with a sum that was given up.
        ray.kill(member.actor)
        fresh = self._start()
        self.members[self.members.index(member)] = fresh
        return fresh

    def close(self) -> None:
        """End the actors, and Ray if it was started here."""
        if ray.is_initialized():
            for member in self.members:
                ray.kill(member.actor)
            if self._owner:
                ray.shutdown()
        self.members, self._setup, self._owner = [], None, False

    def _start(self) -> _Member:
        actor = ray.remote(RayWorker).options(**self._options).remote(_pack)
        return _Member(actor, actor.prepare.remote(self._setup))

    def _wait(self) -> None:
        """Wait until every actor has started."""
        preparing = [member.preparing for member in self.members]
        started, late = ray.wait(preparing, num_returns=len(preparing), timeout=START_S)
        for one in started:
            try:
                _accept(ray.get(one))
            except RayError as error:
                raise ConfigError(f"a Ray actor could not start: {error}") from error
        if late:
            free = ray.available_resources().get("CPU", 0)
            raise ConfigError(
                f"{len(late)} of {len(preparing)} Ray actors did not start within {START_S:.0f} s; "
                f"{free:.0f} processors of the cluster are free"
            )
        for member in self.members:
            member.ready = True


def _pack(error: Exception) -> Sent:
    """Return an error with its traceback, ready for the way to the driver."""
    return with_traceback(error, cloudpickle.dumps, cloudpickle.loads)


def _accept(failure: Sent | None) -> None:
    """Take what `RayWorker.prepare` answered. Raises what went wrong there."""
    if failure is not None:
        raise from_elsewhere(*failure)


def _start_ray(workers: int) -> None:
    """Start Ray on this machine, quietly: no dashboard, and no copies of what actors print."""
    with warnings.catch_warnings():
        # Ray tells everybody of a change for actors without GPUs on machines with some; it makes no difference here.
        warnings.filterwarnings("ignore", message=".*RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", category=FutureWarning)
        # "local": the environment never decides where data go. Who means a cluster connects to it.
        ray.init(
            address="local", num_cpus=workers, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR
        )


def _slot(trainer: Trainer, workers: int) -> dict[str, Any]:
    """Return what an actor asks of the cluster: a processor, and a share of a GPU if the trainer works on one."""
    found = ray.cluster_resources()
    if found.get("CPU", 0) < workers:
        raise ConfigError(
            f"{workers} Ray actors need {workers} processors, and the cluster has {found.get('CPU', 0):.0f}; "
            "take fewer workers, or start its other nodes first"
        )
    slot = {"num_cpus": 1.0, "max_restarts": 0}
    if getattr(trainer, "uses_gpu", False) and found.get("GPU", 0) > 0:
        # Ray gives several GPUs or a fraction of one; an actor uses one. Rounded down, so that all find a place.
        slot["num_gpus"] = min(1.0, int(1e4 * found["GPU"] / workers) / 1e4)
    return slot


def _place(setup: Setup) -> Ref:
    """Put trainer and clients into the object store, where the actors of a node share one copy of their arrays."""
    try:
        return ray.put(setup)
    except Exception as error:
        # Ray looks for what can't be sent by asking for every property, ours too. What went wrong first is the cause.
        first: BaseException = error
        while first.__context__ is not None:
            first = first.__context__
        raise ConfigError(f"trainer and clients can't be sent to other processes: {first}") from error
