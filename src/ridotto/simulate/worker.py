"""One worker: trains clients one after the other, or a chunk of them at once, and adds their updates up.

Every engine is made of these. A worker has one trainer, one sum and scratch memory for one chunk; training a client
allocates nothing else of the size of the model, whatever the number of clients.
"""

from __future__ import annotations

from collections.abc import Mapping
from time import perf_counter
from typing import cast

import numpy as np
from numpy.typing import NDArray

from ridotto.core.fixedpoint import IntVector
from ridotto.core.rng import SEED_BYTES, Rng, SecretRng
from ridotto.core.vector import Layout, Vector
from ridotto.crypto.prg import DitherStream
from ridotto.errors import DataError
from ridotto.learn.algorithms import require_trainer
from ridotto.learn.trainer import (
    BatchDataError,
    BatchResult,
    BatchTrainer,
    Correction,
    LocalResult,
    SteerableTrainer,
    Trainer,
)
from ridotto.privacy.noise.words import Words
from ridotto.rounds.accumulate import Accumulator
from ridotto.rounds.compression import leaves_zeros
from ridotto.rounds.dice import RankedDice, stride
from ridotto.rounds.pipeline import Pipeline
from ridotto.rounds.plan import Plan
from ridotto.simulate.clients import Clients
from ridotto.simulate.job import Job, Update, blame, reason
from ridotto.simulate.message_sizes import sparse_bytes


def dither_stream(rng: SecretRng, number: int) -> DitherStream:
    """Return the rounding bits of a round; rank r takes its words from r * stride on."""
    return DitherStream(rng.child("dither", number).bytes(SEED_BYTES))


def noise_words(rng: SecretRng, number: int, position: int) -> Words:
    """Return the words of a client's noise in a round: they follow from the seed, so a simulation hides nothing."""
    return Words(rng.child("noise", number, position).bytes(SEED_BYTES))


def pipeline_of(plan: Plan, trainer: Trainer) -> Pipeline:
    """Return what a plan makes of a trainer's updates."""
    sums = plan.algorithm.build().sums
    return Pipeline(plan, trainer.layout if sums == 1 else sums * trainer.layout.length)


class Worker:
    """Train clients and sum their updates.

    rng: all randomness of the simulation. batch: clients that are trained at once; above 1 for a `BatchTrainer` only.
    total: memory for the sum, shape (pipeline.length,), or None for own memory.
    Raises ConfigError if the plan's algorithm asks for another kind of trainer.
    """

    def __init__(
        self,
        trainer: Trainer,
        clients: Clients,
        plan: Plan,
        rng: SecretRng,
        batch: int = 1,
        total: IntVector | None = None,
    ) -> None:
        self.batch = batch
        self.train_s = 0.0
        self.dropped: dict[int, str] = {}
        self.kept: dict[int, Vector] = {}
        self.sparse_bytes = 0
        self.done = 0
        self.training = -1
        """Position of the client at work, or of the first of its chunk: who was it when a process died?"""
        self._trainer = trainer
        self._clients = clients
        self._rng = rng
        self._algorithm = plan.algorithm.build()
        self._rate = require_trainer(self._algorithm, trainer)
        self._pipeline = pipeline_of(plan, trainer)
        self._stride = stride(self._pipeline.dice)
        self._sparse = leaves_zeros(plan.compress)
        self._sum = Accumulator(self._pipeline, total, layout=self._layout)
        self._row = np.empty((1, self._pipeline.parameters), np.float32)

    @property
    def _layout(self) -> Layout | None:
        """Return the names of what is summed, for errors."""
        return self._trainer.layout if self._algorithm.sums == 1 else None

    @property
    def total(self) -> IntVector:
        """Return the sum so far; the worker's memory."""
        return self._sum.total

    def begin(self, job: Job) -> None:
        """Forget the job before and take this one."""
        self._job = job
        if job.clip != self._pipeline.plan.clip_norm and job.clip is not None:
            self._pipeline = pipeline_of(self._pipeline.plan.clipped_at(job.clip), self._trainer)
            self._sum = Accumulator(self._pipeline, self._sum.total, layout=self._layout)
        self._dither = dither_stream(self._rng, job.number)
        self._sum.total[...] = 0
        self.train_s, self.sparse_bytes, self.done, self.training = 0.0, 0, 0, -1
        self.dropped, self.kept = {}, {}

    def train(self, begin: int, end: int) -> None:
        """Train the clients at the places from `begin` to `end` of the job, and add their updates to the sum.

        With batches, whole chunks: the caller cuts at multiples of `batch`.
        Raises as `Engine.sum` says.
        """
        for first in range(begin, end, self.batch):
            last = min(first + self.batch, end)
            self.training = int(self._job.positions[first])
            if self.batch == 1 or not self._train_chunk(first, last):
                for place in range(first, last):
                    self._train_one(place)
            self.done += last - first
        self.training = -1

    def updates(self, begin: int, end: int) -> list[Update | Exception]:
        """Train the clients at these places, one chunk at most, and return their updates instead of adding them up.

        In the place of a client whose training failed stands its error, blamed on it.
        """
        if self.batch > 1:
            try:
                return self._chunk_updates(begin, end)
            except Exception:  # noqa: S110 - one client of the chunk failed; alone each says for itself whether it was it
                pass
        return [self._update_or_error(place) for place in range(begin, end)]

    def _train_one(self, place: int) -> None:
        position = int(self._job.positions[place])
        self.training = position
        try:
            update = self._update(position, self._trained(place))
            self._scale(update.vector, place)
            metrics = {name: np.array([value]) for name, value in update.metrics.items()}
            self._add(place, update.vector[None], np.array([update.examples]), metrics)
        except Exception as error:
            self._failed(position, error)
            return
        if update.kept is not None:
            self.kept[position] = update.kept

    def _train_chunk(self, begin: int, end: int) -> bool:
        """Train a chunk at once; tell whether that worked. If not, nothing was added."""
        job = self._job
        try:
            result = self._trained_many(begin, end)
            vectors, metrics, kept = self._reported_many(begin, result)
            for row, place in enumerate(range(begin, end)):
                self._scale(vectors[row], place)
            if job.drop and not self._summable(vectors, result.examples, metrics):
                # What a block has added before it meets such a client could not be taken back.
                return False
            self._add(begin, vectors, result.examples, metrics)
        except Exception as error:
            if not job.drop and isinstance(error, BatchDataError):
                self._failed(int(job.positions[begin + error.place]), self._better(begin + error.place, error))
            # One by one, the client that fails is found, and its error is its own.
            return False
        self.kept.update(kept)
        return True

    def _summable(
        self, vectors: NDArray[np.float32], examples: NDArray[np.int64], metrics: Mapping[str, NDArray[np.float64]]
    ) -> bool:
        """Tell whether every client of a chunk gave what `Accumulator.add` takes."""
        asked = [metrics.get(name) for name in self._pipeline.plan.metrics]
        measured = all(values is not None and bool(np.isfinite(values).all()) for values in asked)
        return measured and bool((examples > 0).all() and np.isfinite(vectors).all())

    def _better(self, place: int, error: DataError) -> DataError:
        """Return the error of a client of a batch as it is when it trains alone: that one names the parameter."""
        try:
            self._trained(place)
        except DataError as own:
            return own
        return error

    def _add(
        self,
        begin: int,
        vectors: NDArray[np.float32],
        examples: NDArray[np.int64],
        metrics: Mapping[str, NDArray[np.float64]],
    ) -> None:
        """Encode the updates of the clients from place `begin` on into the sum.

        After a BatchDataError the sum is of no use, or (where updates are encoded one by one) as it was before.
        """
        if self._pipeline.plain:
            self._sum.add(vectors, examples, metrics, self._words(begin, begin + len(vectors)))
            return
        job = self._job
        added, sent = np.zeros_like(self._sum.total), 0
        for row, vector in enumerate(vectors):
            place = begin + row
            dice = RankedDice(self._dither, int(job.ranks[place]), self._pipeline.dice)
            words = noise_words(self._rng, job.number, int(job.positions[place])) if self._pipeline.noise else None
            own = {name: float(values[row]) for name, values in metrics.items()}
            try:
                encoded = self._pipeline.encode(vector, int(examples[row]), own, dice, self._layout, words, job.seed)
                np.add(added, encoded, out=added)
                if self._sparse:
                    sent += sparse_bytes(encoded, self._pipeline.plan.bits)
            except DataError as error:
                raise BatchDataError(str(error), row) from error
        np.add(self._sum.total, added, out=self._sum.total)
        self.sparse_bytes += sent

    def _trained_many(self, begin: int, end: int) -> BatchResult:
        """Train a chunk at once. Its vectors are scratch memory of the trainer."""
        started = perf_counter()
        positions = [int(position) for position in self._job.positions[begin:end]]
        rngs = [self._training_rng(place) for place in range(begin, end)]
        given = None
        if self._algorithm.steerable:
            given = [self._correction(position) or Correction() for position in positions]
        trainer = cast(BatchTrainer, self._trainer)
        result = trainer.train_many(self._job.model, self._clients.take(positions), rngs, given)
        self.train_s += perf_counter() - started
        return result

    def _reported_many(
        self, begin: int, result: BatchResult
    ) -> tuple[NDArray[np.float32], Mapping[str, NDArray[np.float64]], dict[int, Vector]]:
        """Return what is summed of a chunk, one row a client, its metrics, and what the clients keep."""
        if self._algorithm.plain:
            np.subtract(result.vectors, self._job.model, out=result.vectors)
            lost = {}
            if self._pipeline.plan.feeds_back:
                for row, position in enumerate(self._job.positions[begin : begin + len(result.vectors)].tolist()):
                    result.vectors[row], lost[position] = self._fed_back(position, result.vectors[row])
            return result.vectors, result.metrics, lost
        positions = [int(position) for position in self._job.positions[begin : begin + len(result.vectors)]]
        updates = [self._reported(position, _row(result, row)) for row, position in enumerate(positions)]
        metrics = {name: np.array([update.metrics[name] for update in updates]) for name in updates[0].metrics}
        kept = {
            position: update.kept
            for position, update in zip(positions, updates, strict=True)
            if update.kept is not None
        }
        return np.stack([update.vector for update in updates]), metrics, kept

    def _chunk_updates(self, begin: int, end: int) -> list[Update | Exception]:
        result = self._trained_many(begin, end)
        vectors, metrics, kept = self._reported_many(begin, result)
        if not self._summable(vectors, result.examples, metrics):
            # As where chunks are summed: the others must not have other bits because of one.
            raise DataError("a client of the chunk gave nothing that can be summed")
        self.done += end - begin
        return [
            Update(
                vectors[row].copy(),
                int(result.examples[row]),
                {name: float(values[row]) for name, values in metrics.items()},
                kept.get(int(self._job.positions[begin + row])),
            )
            for row in range(end - begin)
        ]

    def _update_or_error(self, place: int) -> Update | Exception:
        position = int(self._job.positions[place])
        self.training = position
        try:
            update = self._update(position, self._trained(place))
        except Exception as error:
            return blame(error, self._clients.names[position], self._job.number)
        finally:
            self.done += 1
        # The row is scratch, and the next client's update goes there.
        return Update(update.vector.copy(), update.examples, update.metrics, update.kept)

    def _trained(self, place: int) -> LocalResult:
        """Train one client."""
        job, started = self._job, perf_counter()
        position = int(job.positions[place])
        rng = self._training_rng(place)
        correction = self._correction(position)
        data = self._clients.data[position]
        if correction is None:
            result = self._trainer.train(job.model, data, rng)
        else:
            result = cast(SteerableTrainer, self._trainer).train(job.model, data, rng, correction)
        self._trainer.layout.check(result.vector)
        self.train_s += perf_counter() - started
        return result

    def _update(self, position: int, result: LocalResult) -> Update:
        """Return what is summed of a result. The vector may be scratch memory, valid until the next call."""
        if self._algorithm.plain:
            np.subtract(result.vector, self._job.model, out=self._row[0])
            lost = None
            if self._pipeline.plan.feeds_back:
                self._row[0], lost = self._fed_back(position, self._row[0])
            return Update(self._row[0], result.examples, result.metrics, lost)
        return self._reported(position, result)

    def _fed_back(self, position: int, vector: Vector) -> tuple[Vector, Vector]:
        """Return the update with what compression lost of the client's last one, and what it will lose now."""
        return self._pipeline.feed_back(vector, self._job.kept.get(position), self._job.seed, self._layout)

    def _training_rng(self, place: int) -> Rng:
        job, position = self._job, int(self._job.positions[place])
        if job.turns is None:
            return _LazyRng(self._rng, ("train", job.number, position))
        return _LazyRng(self._rng, ("train", "turn", int(job.turns[place]), position))

    def _correction(self, position: int) -> Correction | None:
        return self._algorithm.steer(self._job.state, self._job.kept.get(position))

    def _reported(self, position: int, result: LocalResult) -> Update:
        """Let the algorithm say what is summed of a result and what the client keeps."""
        job = self._job
        report = self._algorithm.report(job.state, job.kept.get(position), job.model, result, self._rate)
        return Update(report.vector, result.examples, {**result.metrics, **report.metrics}, report.client_state)

    def _scale(self, vector: Vector, place: int) -> None:
        if self._job.scales is not None:
            np.multiply(vector, np.float32(self._job.scales[place]), out=vector)

    def _words(self, begin: int, end: int) -> NDArray[np.uint32]:
        """Return the rounding bits of the clients at these places, uint32, shape (clients, stride)."""
        ranks = self._job.ranks[begin:end]
        first, count = int(ranks[0]), end - begin
        if int(ranks[-1]) - first == count - 1:
            return self._dither.words(first * self._stride, count * self._stride).reshape(count, self._stride)
        return np.stack([self._dither.words(int(rank) * self._stride, self._stride) for rank in ranks])

    def _failed(self, position: int, error: Exception) -> None:
        """Drop a client or raise, as the job says."""
        if not self._job.drop:
            raise blame(error, self._clients.names[position], self._job.number)
        self.dropped[position] = reason(error)


class _LazyRng:
    """Be a child of `rng` that is derived when somebody draws: who trains in one step has no order to draw."""

    __slots__ = ("_child", "_labels", "_rng")

    def __init__(self, rng: SecretRng, labels: tuple[str | int, ...]) -> None:
        self._rng = rng
        self._labels = labels
        self._child: SecretRng | None = None

    def bytes(self, length: int) -> bytes:
        """Return the next `length` bytes."""
        if self._child is None:
            self._child = self._rng.child(*self._labels)
        return self._child.bytes(length)


def _row(result: BatchResult, row: int) -> LocalResult:
    metrics = {name: float(values[row]) for name, values in result.metrics.items()}
    return LocalResult(result.vectors[row], int(result.examples[row]), metrics, int(result.steps[row]))
