"""Asynchronous rounds: a step of the model whenever enough updates have come in (FedBuff).

A round of the history is one step. Its updates come from clients that were started at different times, on different
versions of the model; a version is kept until nobody trains on it any more.

Source: Nguyen et al., "Federated Learning with Buffered Asynchronous Aggregation", AISTATS 2022, algorithm 1. The paper
counts everybody alike: that is `max_examples=1` in the plan; otherwise updates are also weighted by their examples.
"""

from __future__ import annotations

from collections.abc import Container
from time import perf_counter

import msgspec
import numpy as np

from ridotto.core.fixedpoint import container
from ridotto.core.rng import SecretRng, numpy_generator
from ridotto.core.vector import Vector
from ridotto.core.wire import sentence
from ridotto.errors import ConfigError, DataError, RoundFailedError
from ridotto.rounds.messages import Applied
from ridotto.rounds.totals import merge
from ridotto.rounds.vault import Vault
from ridotto.simulate.clients import Clients, Cohort
from ridotto.simulate.direct import NAMED_AT_MOST, direct_record
from ridotto.simulate.job import Engine, Job
from ridotto.simulate.outcome import Outcome, no_round
from ridotto.simulate.pace import Buffered, BufferedClock, BufferedStep, ClockState, Start
from ridotto.simulate.timing import Timing

TRIES = 100
"""Clients that are asked whether they are there before a free place stays free."""


class Memory(msgspec.Struct, frozen=True):
    """Hold what an asynchronous simulation remembers beside the model: the clock, and the versions still in use."""

    clock: ClockState
    models: dict[int, bytes]


class BufferedRounds:
    """Run steps of an asynchronous simulation. drop: go on without a client whose training fails.

    Raises ConfigError for an algorithm whose clients receive more than the model: a version of that is not kept.
    """

    def __init__(
        self, vault: Vault, engine: Engine, clients: Clients, rng: SecretRng, timing: Timing, drop: bool
    ) -> None:
        if vault.algorithm_state or vault.algorithm.stateful:
            raise ConfigError(f"{vault.algorithm.name} needs rounds that everybody begins with the same vectors")
        if vault.plan.compress or vault.plan.robust is not None:
            raise ConfigError(
                "an asynchronous simulation mixes rounds, and what participants share to compress or group updates is "
                "one round's: leave compress and robust out of the plan, or take another pace"
            )
        if vault.plan.download_bits is not None:
            raise ConfigError("an asynchronous simulation sends whole models: leave download_bits out of the plan")
        if not isinstance(timing.pace, Buffered):
            raise ConfigError(f"a buffered simulation needs the pace Buffered, not {type(timing.pace).__name__}")
        self._vault = vault
        self._engine = engine
        self._clients = clients
        self._rng = rng
        self._timing = timing
        self._drop = drop
        self._pace = timing.pace
        self._clock = BufferedClock(timing.pace)
        self._models: dict[int, Vector] = {0: vault.model}
        self._message_bytes = vault.pipeline.length * vault.plan.bits / 8

    @property
    def now(self) -> float:
        """Return the virtual time."""
        return self._clock.now_s

    @property
    def memory(self) -> bytes:
        """Return what a checkpoint must hold beside the model."""
        models = {version: model.astype("<f4", copy=False).tobytes() for version, model in self._models.items()}
        return msgspec.msgpack.encode(Memory(self._clock.state(), models))

    def recall(self, now: float, memory: bytes) -> None:
        """Go on from a checkpoint. Raises ConfigError for one of a simulation in rounds."""
        if not memory:
            raise ConfigError("a simulation can't be resumed with another pace: it had rounds, now it is asynchronous")
        found = msgspec.msgpack.decode(memory, type=Memory)
        self._clock = BufferedClock(self._pace, found.clock)
        self._models = {v: np.frombuffer(data, "<f4").astype(np.float32) for v, data in found.models.items()}

    def run(self, number: int, cohort: Cohort) -> Outcome:
        """Run until the buffer is full, and make a step of the model. cohort: not used; the clock starts clients.

        If the buffer is never full the step fails, and what was in it is lost. Raises as `Engine.sum` says.
        """
        started, begun_s = perf_counter(), self.now
        before, plan = self._vault.model_digest.hex(), self._vault.plan
        try:
            step = self._clock.next(self._start)
        except RoundFailedError as error:
            record = direct_record(self._vault, plan, number, before, (begun_s, self.now), None, str(error))
            return no_round(record, "modelled", 0)
        total, dropped, train_s = self._summed(number, step)
        applied, failure = self._applied(total, number)
        self._models[step.version + 1] = self._vault.model
        for version in [version for version in self._models if version < self._clock.oldest]:
            del self._models[version]
        names, asked = self._clients.names, len(step.positions) + len(step.dropped) + len(step.stale)
        return Outcome(
            record=direct_record(self._vault, plan, number, before, (step.started_s, step.at_s), applied, failure),
            secure_sum="modelled",
            asked=asked,
            lost={names[int(position)]: "left" for position in step.dropped[:NAMED_AT_MOST]}
            | {names[int(position)]: "came too late" for position in step.stale[:NAMED_AT_MOST]},
            refused={},
            dropped={names[position]: why for position, why in sorted(dropped.items())},
            bytes_up=round(self._message_bytes * (len(step.positions) + len(step.stale))),
            bytes_down=len(self._vault.model_bytes) * asked,
            train_s=train_s,
            sum_s=perf_counter() - started - train_s,
            modelled={"staleness": float(np.mean(step.version - step.versions))},
        )

    def _summed(self, number: int, step: BufferedStep) -> tuple[np.ndarray, dict[int, str], float]:
        """Train everybody in the buffer, version by version, and return the sum."""
        total = np.zeros(self._vault.pipeline.length, container(self._vault.plan.bits))
        dropped: dict[int, str] = {}
        train_s = 0.0
        for version in np.unique(step.versions):
            places = np.flatnonzero(step.versions == version)
            answer = self._engine.sum(
                Job(
                    number=number,
                    model=self._models[int(version)],
                    positions=step.positions[places],
                    ranks=places,
                    turns=step.ordinals[places],
                    scales=step.scales[places],
                    clip=self._vault.plan.clip_norm,
                    drop=self._drop,
                )
            )
            merge(total, answer.total)
            dropped.update(answer.dropped)
            train_s += answer.train_s
        return total, dropped, train_s

    def _applied(self, total: np.ndarray, number: int) -> tuple[Applied | None, str]:
        # Not by names: a fast client may be in a buffer twice, and fail once.
        count = self._vault.pipeline.read_lanes(total).count
        if count < self._vault.plan.least:
            return None, f"TOO_FEW: {count} updates are left in the buffer, {self._vault.plan.least} are needed"
        try:
            return self._vault.apply_totals({b"": total}, number, b""), ""
        except DataError as error:
            return None, sentence(error)

    def _start(self, now_s: float, ordinal: int, busy: Container[int]) -> Start | None:
        """Choose uniformly among clients that are there and do not train yet."""
        generator = numpy_generator(self._rng.child("start", ordinal))
        fleet, rng = self._timing.fleet, self._rng
        drawn = generator.integers(len(self._clients), size=TRIES)
        there = fleet.available(drawn, now_s, rng)
        for position in drawn[there]:
            if int(position) not in busy:
                place = np.array([position])
                seconds = self._timing.durations(place, float(len(self._vault.model_bytes)), self._message_bytes)[0]
                left = bool(fleet.leaves(place, ordinal, rng)[0])
                return Start(int(position), float(seconds), left)
        return None
