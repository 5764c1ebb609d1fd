"""A round whose secure sum is modelled: the engine's sum is taken as it is, and what a protocol would cost is computed.

Updates are encoded with the same rounding bits as in the real protocol, and sums are exact, so the model is the same,
bit for bit. Who is lost, which rounds fail and what crosses the network come from `costs`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from ridotto.core.rng import SecretRng
from ridotto.core.vector import Vector
from ridotto.core.wire import sentence
from ridotto.errors import ConfigError, DataError, PlanError, RoundFailedError
from ridotto.rounds.compression import leaves_zeros
from ridotto.rounds.messages import Applied
from ridotto.rounds.plan import Plan
from ridotto.rounds.record import RoundRecord
from ridotto.rounds.vault import Vault
from ridotto.simulate.clients import Clients, Cohort
from ridotto.simulate.costs import ModelledRound, modelled_round
from ridotto.simulate.downloads import Downloads
from ridotto.simulate.faults import ANNOUNCE, FIRST, DropOut, Fault, FaultyNetwork, RandomDropOuts, sent_in
from ridotto.simulate.helpers import add_slot_noise
from ridotto.simulate.job import Engine, round_nonce
from ridotto.simulate.message_sizes import vector_bytes
from ridotto.simulate.outcome import Outcome
from ridotto.simulate.pace import Closing
from ridotto.simulate.sums import RoundSums, Sums, name_of_sum
from ridotto.simulate.timing import Timing

NAMED_AT_MOST = 1_000
"""Clients that are listed by name in one round's line, of those who left; more would fill the memory with names."""


class DirectRounds:
    """Run rounds whose secure sum is modelled. Arguments are those of `MachineRounds`, and devices with a pace.

    Raises ConfigError for faults that need the real machines: garbage, duplicates and delays.
    """

    def __init__(
        self,
        vault: Vault,
        engine: Engine,
        clients: Clients,
        rng: SecretRng,
        faults: Sequence[Fault],
        kept: dict[int, Vector],
        drop: bool,
        timing: Timing | None = None,
    ) -> None:
        for fault in faults:
            if not isinstance(fault, DropOut | RandomDropOuts):
                raise ConfigError(
                    f'{type(fault).__name__} needs the real protocol: take secure_sum="machines"; '
                    "a modelled secure sum knows clients that leave, and nothing else that goes wrong"
                )
        self.now = 0.0
        self._vault = vault
        self._engine = engine
        self._clients = clients
        self._rng = rng
        self._faults = faults
        self._kept = kept
        self._drop = drop
        self._timing = timing
        self._downloads = Downloads(vault, len(clients))
        self._sums = RoundSums(vault, engine, clients, rng, kept, drop)
        self._undisturbed = lru_cache(maxsize=4)(self._model)

    @property
    def memory(self) -> bytes:
        """Return what a checkpoint must hold beside the model: who holds which one."""
        return self._downloads.memory

    def recall(self, now: float, memory: bytes) -> None:
        """Go on from a checkpoint. Raises ConfigError for one of an asynchronous simulation."""
        self._downloads.recall(memory)
        self.now = now

    def run(self, number: int, cohort: Cohort) -> Outcome:
        """Run round `number` with these clients; a round that fails leaves the model as it was.

        Raises as `Engine.sum` says.
        """
        started = perf_counter()
        positions, begun = np.asarray(cohort, np.int64), self.now
        closing: Closing | None = None
        if self._timing is not None:
            positions, begun = self._timing.gather(number, self.now)
        gone = self._departures(number, positions)
        if self._timing is not None:
            closing = self._closing(self._timing, number, positions)
            # Who does not report, or too late, is in nobody's sum: as if it had left before its first message.
            first = FIRST[self._vault.plan.protocol_name]
            gone = {int(rank): first for rank in np.flatnonzero(~closing.included)} | gone
        before = self._vault.model_digest.hex()
        modelled, answer, failure = self._summed(number, positions, gone, closing.failure if closing else "")
        downloaded = self._downloads.fetch(positions[modelled.told]) if modelled else 0
        applied = None
        plan = self._vault.plan
        if answer is not None and not failure:
            self._add_slot_noise(answer, number, len(positions), modelled)
            applied, failure = self._applied(answer, number, positions)
        train_s = answer.train_s if answer is not None else 0.0
        # In the order of the cohort, whoever reported first.
        dropped = dict(sorted(answer.dropped.items())) if answer is not None else {}
        names = self._clients.names
        self.now = begun + (closing.ended_s if closing else modelled.waited_s if modelled else 0.0)
        lost = modelled.lost if modelled and len(gone) else {}
        return Outcome(
            record=direct_record(self._vault, plan, number, before, (begun, self.now), applied, failure),
            secure_sum="modelled",
            asked=len(positions),
            lost={names[int(positions[rank])]: why for rank, why in list(lost.items())[:NAMED_AT_MOST]},
            refused={},
            dropped={names[position]: why for position, why in list(dropped.items())[:NAMED_AT_MOST]},
            excluded=self._excluded(number, positions, applied),
            bytes_up=self._bytes_up(modelled, answer) if modelled else 0,
            bytes_down=modelled.bytes_down + downloaded if modelled else 0,
            train_s=train_s,
            sum_s=perf_counter() - started - train_s,
            modelled={} if modelled is None else _columns(modelled, len(positions)),
        )

    def _departures(self, number: int, positions: NDArray[np.int64]) -> dict[int, str]:
        """Return rank -> the message before which a client leaves."""
        if not self._faults:
            return {}
        names = {self._clients.names[int(position)]: rank for rank, position in enumerate(positions)}
        network = FaultyNetwork(self._faults, number, names, self._rng.child("faults", number))
        kinds = (ANNOUNCE, *sent_in(self._vault.plan))
        return {names[name]: kind for name, kind in network.departures(kinds).items()}

    def _summed(
        self, number: int, positions: NDArray[np.int64], gone: Mapping[int, str], closed: str
    ) -> tuple[ModelledRound | None, Sums | None, str]:
        """Return what the protocol would have done, the sum of whom it would have included, and why it failed.

        A client that is dropped may take its session with it, and then the sum must be taken anew without them. If that
        fails, the answer still says who was dropped; its sum is of no use.
        """
        leaving = dict(gone)
        dropped: dict[int, str] = {}
        ranks_of: dict[int, int] = {}
        last: Sums | None = None
        train_s = 0.0
        while True:
            try:
                modelled = self._modelled(number, positions, leaving)
            except (RoundFailedError, PlanError) as error:
                return None, last, str(error)
            if modelled.failure or closed:
                return modelled, last, modelled.failure or f"TOO_FEW: {closed}"
            ranks = np.flatnonzero(modelled.included)
            answer = self._sums.of(number, positions, ranks)
            train_s += answer.train_s
            last = replace(answer, dropped=dropped, train_s=train_s)
            if not answer.dropped:
                return modelled, last, ""
            ranks_of = ranks_of or {int(position): rank for rank, position in enumerate(positions)}
            dropped.update(answer.dropped)
            leaving.update({ranks_of[position]: ANNOUNCE for position in answer.dropped})
            again = self._modelled(number, positions, leaving)
            if not again.failure and again.count == len(ranks) - len(answer.dropped):
                return again, last, ""

    def _bytes_up(self, modelled: ModelledRound, answer: Sums | None) -> int:
        """Return what the members sent: where zeros are left out, with the sizes of the vectors that are in the sum.

        Of a round that fails nobody is in a sum, and what may be said beforehand has to do.
        """
        plan = self._vault.plan
        if answer is None or modelled.failure or not leaves_zeros(plan.compress):
            return modelled.bytes_up
        return modelled.bytes_up + answer.sparse_bytes - answer.count * vector_bytes(plan, self._vault.pipeline.size)

    def _closing(self, timing: Timing, number: int, positions: NDArray[np.int64]) -> Closing:
        """Decide when the round closes: what a member sends and receives is what it would if nobody left."""
        undisturbed = self._modelled(number, positions, {})
        members, models = len(positions), self._downloads.sizes(positions).astype(np.float64)
        down, up = undisturbed.bytes_down / members, undisturbed.bytes_up / members
        return timing.close(number, positions, models + np.float64(down), up)

    def _excluded(self, number: int, positions: NDArray[np.int64], applied: Applied | None) -> dict[str, str]:
        """Return whose sums a robust rule left out, and why."""
        if applied is None or not applied.excluded:
            return {}
        names, session = self._clients.names, self._sums.sessions(number, positions)
        out = np.flatnonzero(self._left_out(number, positions, applied))
        return {names[int(positions[rank])]: applied.excluded[name_of_sum(int(session[rank]))] for rank in out}

    def _left_out(self, number: int, positions: NDArray[np.int64], applied: Applied) -> NDArray[np.bool_]:
        """Tell, by rank, who was in a sum that a robust rule left out."""
        if not applied.excluded:
            return np.zeros(len(positions), np.bool_)
        session = self._sums.sessions(number, positions)
        return np.array([name_of_sum(int(own)) in applied.excluded for own in session])

    def _modelled(self, number: int, positions: NDArray[np.int64], gone: Mapping[int, str]) -> ModelledRound:
        members = len(positions)
        if not gone:
            # Of the number, only its length on the wire matters.
            return self._undisturbed(members, 1 << max(6, number.bit_length() - 1))
        place = self._sums.places(number, positions)
        modelled = self._model(members, number, {int(place[rank]): kind for rank, kind in gone.items()})
        of_rank = {name: getattr(modelled, name)[place] for name in ("included", "lost_before", "told")}
        return replace(modelled, **of_rank)

    def _model(self, members: int, number: int, gone: Mapping[int, str] | None = None) -> ModelledRound:
        names = self._clients.names
        seed = int.from_bytes(self._rng.child("graph", number).bytes(8), "little")
        size = self._vault.pipeline.size
        return modelled_round(
            self._vault.plan, size, members, gone or {}, number=number, name_bytes=len(names[0]), seed=seed
        )

    def _add_slot_noise(self, answer: Sums, number: int, members: int, modelled: ModelledRound | None) -> None:
        """Add what the committees of the sessions that were opened would have."""
        plan, pipeline = self._vault.plan, self._vault.pipeline
        failed = 0 if modelled is None else len(modelled.session_failures)
        opened = plan.sessions_of(members) - failed if plan.robust is None else 1
        for place, total in enumerate(answer.totals.values()):
            add_slot_noise(pipeline, total, opened, self._rng.child("slots", number, place))

    def _applied(self, answer: Sums, number: int, positions: NDArray[np.int64]) -> tuple[Applied | None, str]:
        """Make the next model; tell why there is none."""
        try:
            applied = self._vault.apply_totals(answer.totals, number, round_nonce(self._rng, number))
        except DataError as error:
            return None, sentence(error)
        # As in the real protocol: to the server, whoever is in a sum that was left out has not trained.
        out = {int(positions[rank]) for rank in np.flatnonzero(self._left_out(number, positions, applied))}
        self._kept.update({position: kept for position, kept in answer.kept.items() if position not in out})
        return applied, ""


def direct_record(
    vault: Vault,
    plan: Plan,
    number: int,
    before: str,
    times: tuple[float, float],
    applied: Applied | None,
    failure: str,
) -> RoundRecord:
    """Make the record of a round without sessions.

    plan: of that round; the vault may have the next one's. before: the model's digest, hex. times: virtual, start and
    end.
    """
    return RoundRecord(
        round=number,
        attempt=number,
        plan=plan.fingerprint().hex(),
        protocol=plan.protocol_name,
        model_before=before,
        model=applied.model.hex() if applied else before,
        started=times[0],
        finished=times[1],
        sessions=(),
        participants=applied.participants if applied else 0,
        examples=applied.examples if applied else 0,
        saturated=applied.saturated if applied else 0,
        metrics=dict(applied.metrics) if applied else {},
        clip=plan.clip_norm,
        clipped=applied.clipped if applied else None,
        failure=failure,
    )


def _columns(modelled: ModelledRound, members: int) -> dict[str, float]:
    return {
        "modelled_participant_cpu_s": modelled.participant_cpu_s / members,
        "modelled_coordinator_cpu_s": modelled.coordinator_cpu_s,
    }
