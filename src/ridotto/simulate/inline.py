"""The inline engine: one round after another, in this process and in virtual time.

What runs is what runs over a network: the round machines of `rounds`, the secure sum of the plan, the vault. Only the
driver differs. Messages are function calls, nothing is encoded but to be measured, one trainer trains every client in
turn, and time is what the faults say: a round without delays takes no virtual time at all.

All randomness comes from the simulation's seed by name (`rng.child("train", round, client)` and so on), and sums are
exact, so no draw depends on who came before: the same seed gives the same bits whatever the order or the engine.

Everybody's keys follow from the seed, which is in the script. A simulation exercises the protocols and protects nobody.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from ridotto.core.machine import COORDINATOR, Buffer, Envelope, Link, Machine, Router
from ridotto.core.rng import SEED_BYTES, SecretRng
from ridotto.core.wire import Attached, Codec, Message
from ridotto.crypto.seal import IdentityKey
from ridotto.errors import DataError, LocalProtocolError
from ridotto.learn.trainer import LocalResult, Trainer
from ridotto.rounds.messages import Apply, Train, Trained, messages_of_all
from ridotto.rounds.plan import Plan, Risk
from ridotto.rounds.policy import Policy
from ridotto.rounds.record import RoundRecord
from ridotto.rounds.round import Attempt, CoordinatorRound, ParticipantRound
from ridotto.rounds.vault import Vault
from ridotto.secagg.protocols import PROTOCOLS
from ridotto.secagg.session import Member
from ridotto.secagg.tasks import Fold, Open
from ridotto.simulate.clients import Clients, Cohort
from ridotto.simulate.faults import Fault, FaultyNetwork

ANYTHING = Policy(protocols=tuple(PROTOCOLS), min_participants=1, min_corrupt=0.0, i_know=tuple(Risk))
"""The policy of every simulated data holder: what a plan may do was decided when it was built."""


@dataclass(frozen=True)
class Outcome:
    """Tell how one round went.

    record: in virtual seconds. refused: name -> why, of those whose messages the coordinator refused. bytes_up,
    bytes_down: what the members of the cohort sent and received, together, the model included. train_s: wall seconds
    of local training. sum_s: of everything else, so of encoding, the secure sum and the step of the model.
    """

    record: RoundRecord
    refused: Mapping[str, str]
    bytes_up: int
    bytes_down: int
    train_s: float
    sum_s: float


class InlineEngine:
    """Run rounds in this process. The model and the strategy's state live in `vault` and go from round to round.

    rng: all randomness of the simulation. faults: as `read_faults` returned them.
    Raises DataError if the trainer's initial parameters do not fit its layout or are not finite.
    """

    def __init__(
        self, trainer: Trainer, clients: Clients, plan: Plan, rng: SecretRng, faults: Sequence[Fault] = ()
    ) -> None:
        self.vault = Vault(plan, trainer.layout, trainer.initial())
        self._trainer = trainer
        self._clients = clients
        self._plan = plan
        self._rng = rng
        self._faults = faults
        self._coordinator = IdentityKey.generate(rng.child("coordinator"))
        self._identities: dict[int, IdentityKey] = {}
        self._now = 0.0

    def run(self, number: int, cohort: Cohort) -> Outcome:
        """Run round `number` with these clients; a round that fails leaves the model as it was.

        Raises DataError, naming client and round, if a client has no examples or its training gives no usable update.
        Whatever else a trainer raises comes through as it is, with a note that names client and round.
        """
        started = perf_counter()
        members = {self._clients.names[position]: position for position in cohort}
        work = _Work(self.vault, self._trainer, self._clients, self._rng, number, members)
        network = FaultyNetwork(self._faults, number, members, self._rng.child("faults", number))
        meter = _Meter(network)
        router = Router(self._machines(number, members), work.perform, meter)
        router.now = self._now
        finished = router.run()
        self.vault.forget()
        _require_usable_updates(number, {name: finished[name].error for name in members if name in finished})
        record: RoundRecord = finished[COORDINATOR].result
        self._now = record.finished
        return Outcome(
            record=record,
            refused={refusal.peer: refusal.why for at, refusal in router.refusals if at == COORDINATOR},
            bytes_up=meter.up,
            bytes_down=meter.down + work.downloaded,
            train_s=work.train_s,
            sum_s=perf_counter() - started - work.train_s,
        )

    def _machines(self, number: int, members: Mapping[str, int]) -> dict[str, Machine]:
        attempt = Attempt(
            plan=self._plan,
            number=number,
            attempt=number,
            model=self.vault.model_digest,
            parameters=self.vault.layout.length,
            nonce=self._rng.child("nonce", number).bytes(SEED_BYTES),
            members=tuple(Member(name, self._identity(position).public) for name, position in members.items()),
        )
        machines: dict[str, Machine] = {COORDINATOR: CoordinatorRound(attempt, self._coordinator)}
        for name, position in members.items():
            rng = self._rng.child("participant", number, position)
            identity = self._identity(position)
            machines[name] = ParticipantRound(name, identity, ANYTHING, self._coordinator.public, rng)
        return machines

    def _identity(self, position: int) -> IdentityKey:
        """Return a client's identity, which lasts as long as the simulation, made when it is first asked for."""
        if position not in self._identities:
            self._identities[position] = IdentityKey.generate(self._rng.child("identity", position))
        return self._identities[position]


class _Work:
    """Carry out the tasks of one round's machines: training for the participants, the vault's for the coordinator."""

    def __init__(
        self,
        vault: Vault,
        trainer: Trainer,
        clients: Clients,
        rng: SecretRng,
        number: int,
        members: Mapping[str, int],
    ) -> None:
        self.train_s = 0.0
        self.downloaded = 0
        self._vault = vault
        self._trainer = trainer
        self._clients = clients
        self._rng = rng
        self._number = number
        self._members = members

    def perform(self, name: str, task: Any, attachment: Buffer | None) -> Message | None:
        """Do what the machine called `name` asks for."""
        match task:
            case Train():
                return self._train(name)
            case Fold(sid) if attachment is not None:
                self._vault.fold(sid, attachment)
                return None
            case Open() | Apply():
                return self._vault.perform(task)
            case _:
                raise LocalProtocolError(f"{type(task).__name__} is no task of a round")

    def _train(self, name: str) -> Trained:
        started = perf_counter()
        result = self._trained(name)
        update = result.vector - self._vault.model
        self.downloaded += len(self._vault.model_bytes)
        self.train_s += perf_counter() - started
        return Trained(update, result.examples, result.metrics)

    def _trained(self, name: str) -> LocalResult:
        position = self._members[name]
        rng = self._rng.child("train", self._number, position)
        try:
            result = self._trainer.train(self._vault.model, self._clients.data[position], rng)
            self._vault.layout.check(result.vector)
        except DataError as error:
            raise _unusable(name, self._number, error) from error
        except Exception as error:
            error.add_note(f"This happened while {name} was training in round {self._number}.")
            raise
        return result


class _Meter:
    """Count the bytes that a link delivers, as they would lie in HTTP bodies; HTTP's own headers are left out."""

    def __init__(self, link: Link) -> None:
        self.up = 0
        self.down = 0
        self._link = link
        self._codec = Codec(*messages_of_all())

    def __call__(self, envelope: Envelope) -> Iterable[Envelope]:
        delivered = list(self._link(envelope))
        for copy in delivered:
            message = copy.message
            size = len(self._codec.header(message)) + (message.size if isinstance(message, Attached) else 0)
            if copy.to == COORDINATOR:
                self.up += size
            else:
                self.down += size
        return delivered


def _require_usable_updates(number: int, errors: Mapping[str, Exception | None]) -> None:
    """Raise what a participant's machine found wrong with its own update.

    Over a network it declines, and the round goes on; in a simulation the data are the user's own, and a client that
    quietly never takes part would spoil the experiment.
    """
    for name, error in errors.items():
        if isinstance(error, DataError):
            raise _unusable(name, number, error) from error


def _unusable(name: str, number: int, error: DataError) -> DataError:
    return DataError(f"{name}, round {number}: {error}")
