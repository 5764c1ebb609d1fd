"""A round with the real protocol: the machines of `rounds` and the secure sum of the plan, in this process.

What runs is what runs over a network; only the driver differs. Messages are function calls, nothing is encoded but to
be measured, an engine trains, and time is what the faults say: a round without delays takes no virtual time at all.

Everybody's keys follow from the seed, which is in the script. A simulation exercises the protocols and protects nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from time import perf_counter
from typing import Any

import numpy as np

from ridotto.core.machine import COORDINATOR, Buffer, Envelope, Link, Machine, Router
from ridotto.core.rng import SecretRng
from ridotto.core.vector import Vector
from ridotto.core.wire import Attached, Codec, Message
from ridotto.crypto.seal import IdentityKey
from ridotto.errors import DataError, LocalProtocolError, RoundFailedError
from ridotto.rounds.dice import RankedDice
from ridotto.rounds.helping import HelperRound
from ridotto.rounds.messages import Apply, Discard, Merge, NotTrained, Train, Trained, messages_of_all
from ridotto.rounds.noise import add_committee_noise
from ridotto.rounds.plan import Risk
from ridotto.rounds.policy import Policy
from ridotto.rounds.protocol_settings import seal_of
from ridotto.rounds.record import RoundRecord
from ridotto.rounds.round import Attempt, CoordinatorRound, ParticipantRound
from ridotto.rounds.vault import Vault
from ridotto.secagg.committee.masks import sum_masks
from ridotto.secagg.committee.tasks import Keep, SumMasks, Unmask
from ridotto.secagg.committee_roles.seals import encapsulate_all, require_seal
from ridotto.secagg.committee_roles.tasks import Encapsulate, Settle
from ridotto.secagg.oneshot.tasks import OpenCiphers
from ridotto.secagg.protocols import PROTOCOLS
from ridotto.secagg.session import Member
from ridotto.secagg.tasks import Fold, Open
from ridotto.simulate.clients import Clients, Cohort
from ridotto.simulate.direct import direct_record
from ridotto.simulate.downloads import Downloads
from ridotto.simulate.faults import ANNOUNCE, Fault, FaultyNetwork
from ridotto.simulate.helpers import helper_names
from ridotto.simulate.job import Engine, Job, Update, blame, reason, round_job, round_nonce
from ridotto.simulate.outcome import Outcome, no_round
from ridotto.simulate.worker import dither_stream, noise_words

ANYTHING = Policy(protocols=tuple(PROTOCOLS), min_participants=1, min_corrupt=0.0, i_know=tuple(Risk))
"""The policy of every simulated data holder: what a plan may do was decided when it was built."""


class MachineRounds:
    """Run rounds with the real protocol. The model lives in `vault` and goes from round to round.

    engine: trains. rng: all randomness of the simulation. faults: as `read_faults` returned them. kept: position ->
    what clients keep between rounds; written to. drop: a client whose training fails declines, as it would over a
    network; otherwise its error ends the simulation.
    Raises ConfigError if the plan has seals for which something is not installed.
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
    ) -> None:
        require_seal(seal_of(vault.first_plan))
        self.now = 0.0
        self._vault = vault
        self._engine = engine
        self._clients = clients
        self._rng = rng
        self._faults = faults
        self._kept = kept
        self._drop = drop
        self._downloads = Downloads(vault, len(clients))
        self._coordinator = IdentityKey.generate(rng.child("coordinator"))
        self._identities: dict[int, IdentityKey] = {}
        self._helpers = {
            name: IdentityKey.generate(rng.child("helper", name)) for name in helper_names(vault.first_plan)
        }

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

        Raises DataError, naming client and round, if training gives no usable update and clients are not to be
        dropped. Whatever else a trainer raises comes through as it is, with a note that names client and round.
        """
        started, before = perf_counter(), self._vault.model_digest.hex()
        members = {self._clients.names[position]: int(position) for position in cohort}
        network = FaultyNetwork(self._faults, number, members, self._rng.child("faults", number))
        job = self._job(number, members, network)
        work = _Work(self._vault, self._engine, self._downloads, job, members, self._drop)
        meter = _Meter(network, members)
        try:
            machines = self._machines(number, members)
        except RoundFailedError as error:
            # Too few for one session, as a Poisson draw may be.
            nothing = direct_record(
                self._vault, self._vault.plan, number, before, (self.now, self.now), None, str(error)
            )
            return no_round(nothing, "machines", len(members))
        router = Router(machines, work.perform, meter)
        router.now = self.now
        finished = router.run()
        self._vault.forget()
        errors = {name: finished[name].error for name in members if name in finished}
        if self._drop:
            work.dropped.update({name: str(error) for name, error in errors.items() if isinstance(error, DataError)})
        else:
            _require_usable_updates(number, errors)
        record: RoundRecord = finished[COORDINATOR].result
        self.now = record.finished
        self._keep(record, work.kept)
        return Outcome(
            record=record,
            secure_sum="machines",
            asked=len(members),
            lost={name: record.lost[name] for name in members if name in record.lost},
            refused={refusal.peer: refusal.why for at, refusal in router.refusals if at == COORDINATOR},
            dropped=work.dropped,
            excluded=record.excluded,
            bytes_up=meter.up,
            bytes_down=meter.down + work.downloaded,
            train_s=work.train_s,
            sum_s=perf_counter() - started - work.train_s,
        )

    def _job(self, number: int, members: Mapping[str, int], network: FaultyNetwork) -> Job:
        """Say who trains: everybody who will hear of the round."""
        ranks = [rank for rank, name in enumerate(members) if not network.leaves(name, ANNOUNCE)]
        cohort = np.fromiter(members.values(), np.int64, len(members))
        return round_job(
            self._vault,
            number,
            cohort,
            np.array(ranks, np.int64),
            self._kept,
            self._drop,
            round_nonce(self._rng, number),
        )

    def _keep(self, record: RoundRecord, kept: Mapping[str, tuple[int, Vector]]) -> None:
        """Take the new state of the clients that are in the sum: to the server, the others have not trained."""
        if record.failure:
            return
        for session in record.sessions:
            if not session.failure and not session.excluded:
                self._kept.update(kept[name] for name in session.included if name in kept)

    def _machines(self, number: int, members: Mapping[str, int]) -> dict[str, Machine]:
        plan, pipeline = self._vault.plan, self._vault.pipeline
        layout = pipeline.encoding.layout
        attempt = Attempt(
            plan=plan,
            number=number,
            attempt=number,
            model=self._vault.model_digest,
            parameters=pipeline.parameters,
            nonce=round_nonce(self._rng, number),
            members=tuple(Member(name, self._identity(position).public) for name, position in members.items()),
            shapes=() if layout is None else tuple(field.shape for field in layout.fields),
            helpers=tuple(Member(name, key.public) for name, key in self._helpers.items()),
        )
        machines: dict[str, Machine] = {COORDINATOR: CoordinatorRound(attempt, self._coordinator)}
        for name, key in self._helpers.items():
            own = self._rng.child("helping", number, name)
            machines[name] = HelperRound(name, key, ANYTHING, self._coordinator.public, own)
        stream = dither_stream(self._rng, number)
        for rank, (name, position) in enumerate(members.items()):
            rng = self._rng.child("participant", number, position)
            identity, dice = self._identity(position), RankedDice(stream, rank, pipeline.dice)
            words = noise_words(self._rng, number, position) if pipeline.noise else None
            machines[name] = ParticipantRound(
                name,
                identity,
                ANYTHING,
                self._coordinator.public,
                rng,
                dice,
                words,
                layout=layout,
                serving=rng.child("seat"),
            )
        return machines

    def _identity(self, position: int) -> IdentityKey:
        """Return a client's identity, which lasts as long as the simulation, made when it is first asked for."""
        if position not in self._identities:
            self._identities[position] = IdentityKey.generate(self._rng.child("identity", position))
        return self._identities[position]


class _Work:
    """Carry out the tasks of one round's machines: training for the participants, the vault's for the coordinator."""

    def __init__(
        self, vault: Vault, engine: Engine, downloads: Downloads, job: Job, members: Mapping[str, int], drop: bool
    ) -> None:
        self._downloads = downloads
        self.train_s = 0.0
        self.downloaded = 0
        self.dropped: dict[str, str] = {}
        self.kept: dict[str, tuple[int, Vector]] = {}
        self._vault = vault
        self._engine = engine
        self._job = job
        self._members = members
        self._places = {int(position): place for place, position in enumerate(job.positions)}
        self._updates: Callable[[int], Update] | None = None
        self._drop = drop

    def perform(self, name: str, task: Any, attachment: Buffer | None) -> Message | None:
        """Do what the machine called `name` asks for."""
        match task:
            case Train():
                return self._train(name)
            case Fold(sid, sender) if attachment is not None:
                self._vault.fold(sid, attachment, sender)
                return None
            case Settle():
                self._vault.settle(task)
                return None
            case Merge() | Discard():
                self._vault.close(task)
                return None
            case Encapsulate():
                # Not from the seed, as the library draws it; no sum, size or record depends on it.
                return encapsulate_all(task)
            case SumMasks():
                return sum_masks(task, add_committee_noise)
            case Keep() if attachment is not None:
                self._vault.keep(task, attachment)
                return None
            case Open() | OpenCiphers() | Unmask() | Apply():
                return self._vault.perform(task)
            case _:
                raise LocalProtocolError(f"{type(task).__name__} is no task of a round")

    def _train(self, name: str) -> Trained | NotTrained:
        started = perf_counter()
        self.downloaded += self._downloads.fetch(np.array([self._members[name]]))
        if self._updates is None:
            # What goes wrong here is no client's fault, and drops nobody.
            self._updates = self._engine.updates(self._job)
        try:
            update = self._updates(self._places[self._members[name]])
        except Exception as error:
            if not self._drop:
                raise
            self.dropped[name] = reason(error)
            return NotTrained(self.dropped[name])
        finally:
            self.train_s += perf_counter() - started
        if update.kept is not None:
            self.kept[name] = self._members[name], update.kept
        return Trained(update.vector, update.examples, update.metrics)


class _Meter:
    """Count the bytes that a link delivers from and to clients, as they would lie in HTTP bodies, without its headers.

    clients: names; others, as helpers, have bytes of their own.
    """

    def __init__(self, link: Link, clients: Container[str]) -> None:
        self._clients = clients
        self.up = 0
        self.down = 0
        self._link = link
        self._codec = Codec(*messages_of_all())

    def __call__(self, envelope: Envelope) -> Iterable[Envelope]:
        delivered = list(self._link(envelope))
        for copy in delivered:
            message = copy.message
            size = len(self._codec.header(message)) + (message.size if isinstance(message, Attached) else 0)
            if copy.to in self._clients:
                self.down += size
            elif copy.sender in self._clients:
                self.up += size
        return delivered


def _require_usable_updates(number: int, errors: Mapping[str, Exception | None]) -> None:
    """Raise what a participant's machine found wrong with its own update.

    Over a network it declines, and the round goes on; in a simulation the data are the user's own, and a client that
    quietly never takes part would spoil the experiment.
    """
    for name, error in errors.items():
        if isinstance(error, DataError):
            raise blame(error, name, number) from error
