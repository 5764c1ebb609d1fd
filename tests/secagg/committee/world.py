"""A bench for `committee`: real machines, an independent adder, and a network that tests may attack."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from ridotto.core.fixedpoint import container
from ridotto.core.machine import COORDINATOR, SELF, Buffer, Effect, Envelope, Finish, Machine, Router, Send
from ridotto.core.rng import insecure_seeded_rng
from ridotto.core.wire import Codec, Message
from ridotto.secagg.committee import CommitteeCoordinator, CommitteeMember, CommitteeParticipant, CommitteeSetup
from ridotto.secagg.committee.masks import AddNoise, MaskedSum, sum_masks
from ridotto.secagg.committee.messages import MASK_MESSAGES
from ridotto.secagg.committee.setup import deal
from ridotto.secagg.committee.tasks import Keep, SumMasks, Unmask
from ridotto.secagg.committee_roles.choice import choose
from ridotto.secagg.committee_roles.tasks import Settle
from ridotto.secagg.lanes import Lanes
from ridotto.secagg.session import Session, Timeouts
from ridotto.secagg.tasks import Fold
from tests.secagg.oneshot.world import ENTRIES, Tamper, identity, make_pool, member


def make_setup(
    count: int = 5,
    *,
    slots: int = 2,
    replicas: int = 3,
    corrupt: int = 1,
    sigma: float = 0.0,
    beacon: bytes = b"b" * 32,
    **changes: object,
) -> CommitteeSetup:
    settings: dict[str, object] = {
        "protocol": "committee",
        "plan": b"p" * 32,
        "model": b"m" * 32,
        "nonce": b"n" * 32,
        "round": 1,
        "shard": 0,
        "members": tuple(member(f"p{index:03}") for index in range(count)),
        "bits": 32,
        "minimum": 3,
    } | changes
    lanes = Lanes(int(str(settings["bits"])), count, (1000,))
    session = Session(**({"length": ENTRIES + lanes.size} | settings))  # type: ignore[arg-type]
    roster = choose(make_pool(slots * replicas), beacon, slots * replicas, corrupt)
    return CommitteeSetup(session, roster, deal(roster, slots), lanes.size, sigma)


def lanes_of(setup: CommitteeSetup) -> Lanes:
    return Lanes(setup.session.bits, len(setup.session.members), (1000,))


def make_vector(setup: CommitteeSetup, index: int) -> np.ndarray:
    """Give participant `index` the entries index+1, -2(index+1), 3(index+1)... and the weight 10(index+1)."""
    bits, lanes = setup.session.bits, lanes_of(setup)
    entries = setup.session.length - lanes.size
    values = (index + 1) * np.arange(1, entries + 1) * np.where(np.arange(entries) % 2, -1, 1)
    words = (values.astype(np.int64).astype(np.uint64) & np.uint64(2**bits - 1)).astype(container(bits))
    return np.concatenate([words, lanes.write([10 * (index + 1)])])


@dataclass
class World:
    """Run one session. `tamper` sees and changes every envelope; `swap` replaces machines; `gone` never speak."""

    setup: CommitteeSetup
    tamper: Tamper = lambda envelope: [envelope]
    seed: int = 1
    noise: AddNoise | None = None
    sent: list[Envelope] = field(default_factory=list)
    swap: dict[str, Machine] = field(default_factory=dict)
    gone: tuple[str, ...] = ()
    settled: list[Settle] = field(default_factory=list)
    kept: list[Keep] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.codec = Codec(*MASK_MESSAGES, attachment_limit=1 << 20)
        self.sum = MaskedSum(self.setup.session.length, self.setup.session.bits, self._read_lanes)

    def participant(self, index: int, setup: CommitteeSetup | None = None) -> CommitteeParticipant:
        setup = setup or self.setup
        name = setup.session.members[index].name
        rng = insecure_seeded_rng(self.seed).child(name)
        return CommitteeParticipant(
            setup, name, identity(name), make_vector(setup, index), rng, setup.roster.members, setup.slots
        )

    def member(self, name: str, setup: CommitteeSetup | None = None) -> CommitteeMember:
        return CommitteeMember(setup or self.setup, name, identity(name), insecure_seeded_rng(self.seed).child(name))

    def run(self) -> Finish:
        session, roster = self.setup.session, self.setup.roster
        machines: dict[str, Machine] = {one.name: self.participant(i) for i, one in enumerate(session.members)}
        machines |= {one.name: self.member(one.name) for one in roster.members}
        machines |= self.swap
        machines = {name: machine for name, machine in machines.items() if name not in self.gone}
        machines[COORDINATOR] = CommitteeCoordinator(self.setup, Timeouts(100, 10))
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

    def replica(self, slot: int, place: int = 0) -> str:
        """Name a member of a slot."""
        return self.setup.roster.members[self.setup.replicas[slot][place]].name

    def _read_lanes(self, vector: np.ndarray) -> tuple[int, bool]:
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
            case SumMasks():
                return sum_masks(task, self.noise)
            case Fold(_, sender, _) if attachment is not None:
                return self.sum.fold(sender, attachment)
            case Settle():
                self.settled.append(task)
                return self.sum.settle(task)
            case Keep() if attachment is not None:
                self.kept.append(task)
                return self.sum.keep(task, attachment)
            case Unmask():
                return self.sum.unmask(task)
        raise AssertionError(f"unknown task {task}")


def release(machine: CommitteeMember, acks: Message) -> Send:
    """Show a member its acknowledgements, carry out its task, and return what it releases."""
    task = machine.receive(COORDINATOR, acks, 0.0)[0].task
    effects: list[Effect] = machine.receive(SELF, sum_masks(task), 0.0)
    return effects[0]
