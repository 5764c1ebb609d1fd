"""A bench for protocols with a committee: real machines, an independent adder, and a network that tests may attack."""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache
from typing import Any, ClassVar

import numpy as np

from ridotto.core.fixedpoint import container
from ridotto.core.machine import COORDINATOR, Buffer, Envelope, Finish, Machine, Router
from ridotto.core.rng import Rng, insecure_seeded_rng
from ridotto.core.wire import Codec, Message
from ridotto.crypto.seal import IdentityKey
from ridotto.secagg.committee_roles.seals import encapsulate_all
from ridotto.secagg.committee_roles.setup import SeatedSetup
from ridotto.secagg.committee_roles.tasks import Encapsulate, Encapsulated, Settle
from ridotto.secagg.lanes import Lanes
from ridotto.secagg.session import Member, Session
from ridotto.secagg.tasks import Fold

ENTRIES = 5
Tamper = Callable[[Envelope], Iterable[Envelope]]


@cache
def identity(name: str) -> IdentityKey:
    return IdentityKey.generate(insecure_seeded_rng(zlib.crc32(name.encode())))


def member(name: str) -> Member:
    return Member(name, identity(name).public)


def make_pool(count: int) -> tuple[Member, ...]:
    return tuple(member(f"m{index:03}") for index in range(count))


def make_session(protocol: str, count: int, **changes: object) -> Session:
    settings: dict[str, Any] = {
        "protocol": protocol,
        "plan": b"p" * 32,
        "model": b"m" * 32,
        "nonce": b"n" * 32,
        "round": 1,
        "attempt": 2,
        "shard": 0,
        "members": tuple(member(f"p{index:03}") for index in range(count)),
        "bits": 32,
        "minimum": 3,
    } | changes
    return Session(**({"length": ENTRIES + Lanes(settings["bits"], count, (1000,)).size} | settings))


def lanes_in(session: Session) -> Lanes:
    return Lanes(session.bits, len(session.members), (1000,))


def lanes_of(setup: SeatedSetup) -> Lanes:
    return lanes_in(setup.session)


def make_vector(setup: SeatedSetup, index: int) -> np.ndarray:
    """Give participant `index` the entries index+1, -2(index+1), 3(index+1)... and the weight 10(index+1)."""
    bits, lanes = setup.session.bits, lanes_of(setup)
    entries = setup.session.length - lanes.size
    values = (index + 1) * np.arange(1, entries + 1) * np.where(np.arange(entries) % 2, -1, 1)
    words = (values.astype(np.int64).astype(np.uint64) & np.uint64(2**bits - 1)).astype(container(bits))
    return np.concatenate([words, lanes.write([10 * (index + 1)])])


@dataclass
class SeatedWorld(ABC):
    """Run one session. `tamper` sees and changes every envelope; `swap` replaces machines; `gone` never speak."""

    setup: Any
    tamper: Tamper = lambda envelope: [envelope]
    seed: int = 1
    sent: list[Envelope] = field(default_factory=list)
    swap: dict[str, Machine] = field(default_factory=dict)
    gone: tuple[str, ...] = ()
    settled: list[Settle] = field(default_factory=list)
    drawn: dict[str, Encapsulated] = field(default_factory=dict)

    messages: ClassVar[tuple[type[Message], ...]]
    delivery: ClassVar[str]
    """The message that brings members their parcels."""

    def __post_init__(self) -> None:
        self.codec = Codec(*self.messages, attachment_limit=1 << 20)
        self.sum = self.make_sum()

    @abstractmethod
    def make_sum(self) -> Any:
        """Return what folds, settles and opens the sum."""

    @abstractmethod
    def coordinator(self) -> Machine:
        """Return the coordinator."""

    @abstractmethod
    def participant(self, index: int, setup: Any = None) -> Any:
        """Return a participant, of this session unless another is given."""

    @abstractmethod
    def member(self, name: str, setup: Any = None) -> Any:
        """Return a committee member, likewise."""

    @abstractmethod
    def perform(self, task: object, attachment: Buffer | None) -> Message | None:
        """Carry out a task of this protocol alone."""

    def rng(self, name: str) -> Rng:
        return insecure_seeded_rng(self.seed).child(name)

    def run(self) -> Finish:
        session, roster = self.setup.session, self.setup.roster
        machines: dict[str, Machine] = {one.name: self.participant(i) for i, one in enumerate(session.members)}
        machines |= {one.name: self.member(one.name) for one in roster.members}
        machines |= self.swap
        machines = {name: machine for name, machine in machines.items() if name not in self.gone}
        machines[COORDINATOR] = self.coordinator()
        self.router = Router(machines, self._perform, self._link)
        self.finished = self.router.run()
        return self.finished[COORDINATOR]

    @property
    def refused(self) -> dict[str, str]:
        """Who was refused, by anybody, and why (the last reason)."""
        return {refusal.peer: refusal.why for _, refusal in self.router.refusals}

    def said(self, kind: str) -> list[Envelope]:
        return [envelope for envelope in self.sent if type(envelope.message).__name__ == kind]

    def total(self, names: Iterable[str]) -> np.ndarray:
        """Compute what the sum over `names` must be, without any protocol."""
        places = {one.name: i for i, one in enumerate(self.setup.session.members)}
        bits = self.setup.session.bits
        rows = [make_vector(self.setup, places[name]).astype(np.uint64) for name in names]
        return (sum(rows, np.zeros(1, np.uint64)) & np.uint64(2**bits - 1)).astype(container(bits))

    def opened(self) -> np.ndarray | None:
        return self.sum.opened

    def read_lanes(self, vector: np.ndarray) -> tuple[int, bool]:
        lanes = lanes_of(self.setup)
        read = lanes.read(vector[-lanes.size :])
        return read.count, read.zero

    def _link(self, envelope: Envelope) -> Iterable[Envelope]:
        self.sent.append(envelope)
        for delivered in self.tamper(envelope):
            # Everything crosses the real wire, so a test can't send what a socket could not.
            frame = self.codec.encode(delivered.message, delivered.attachment)
            message, attachment = self.codec.decode(frame, delivered.sender)
            yield Envelope(delivered.sender, delivered.to, message, attachment, delivered.at)

    def _perform(self, owner: str, task: object, attachment: Buffer | None) -> Message | None:
        match task:
            case Fold(_, sender, _) if attachment is not None:
                self.sum.fold(sender, attachment)
                return None
            case Settle():
                self.settled.append(task)
                self.sum.settle(task)
                return None
            case Encapsulate():
                return self.drawn.setdefault(owner, encapsulate_all(task))
        return self.perform(task, attachment)
