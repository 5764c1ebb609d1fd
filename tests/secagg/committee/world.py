"""A bench for `committee`."""

from __future__ import annotations

from dataclasses import dataclass, field

from ridotto.core.machine import COORDINATOR, SELF, Buffer, Effect, Send
from ridotto.core.wire import Message
from ridotto.secagg.committee import CommitteeCoordinator, CommitteeMember, CommitteeParticipant, CommitteeSetup
from ridotto.secagg.committee.masks import AddNoise, MaskedSum, sum_masks
from ridotto.secagg.committee.messages import MASK_MESSAGES
from ridotto.secagg.committee.setup import deal
from ridotto.secagg.committee.tasks import Keep, SumMasks, Unmask
from ridotto.secagg.committee_roles.choice import choose
from ridotto.secagg.committee_roles.seals import Seal
from ridotto.secagg.session import Timeouts
from tests.secagg.committee_roles.world import (
    SeatedWorld,
    identity,
    lanes_in,
    make_pool,
    make_session,
    make_vector,
)


def make_setup(
    count: int = 5,
    *,
    slots: int = 2,
    replicas: int = 3,
    corrupt: int = 1,
    sigma: float = 0.0,
    beacon: bytes = b"b" * 32,
    seal: Seal = "x25519",
    **changes: object,
) -> CommitteeSetup:
    session = make_session("committee", count, **changes)
    roster = choose(make_pool(slots * replicas), beacon, slots * replicas, corrupt)
    return CommitteeSetup(session, roster, deal(roster, slots), lanes_in(session).size, sigma, seal)


@dataclass
class World(SeatedWorld):
    """Run one session."""

    noise: AddNoise | None = None
    kept: list[Keep] = field(default_factory=list)

    messages = MASK_MESSAGES
    delivery = "SeedParcels"

    def make_sum(self) -> MaskedSum:
        return MaskedSum(self.setup.session.length, self.setup.session.bits, self.read_lanes)

    def coordinator(self) -> CommitteeCoordinator:
        return CommitteeCoordinator(self.setup, Timeouts(100, 10))

    def participant(self, index: int, setup: CommitteeSetup | None = None) -> CommitteeParticipant:
        setup = setup or self.setup
        name = setup.session.members[index].name
        vector, pool = make_vector(setup, index), setup.roster.members
        return CommitteeParticipant(setup, name, identity(name), vector, self.rng(name), pool, setup.slots)

    def member(self, name: str, setup: CommitteeSetup | None = None) -> CommitteeMember:
        return CommitteeMember(setup or self.setup, name, identity(name), self.rng(name))

    def replica(self, slot: int, place: int = 0) -> str:
        """Name a member of a slot."""
        return self.setup.roster.members[self.setup.replicas[slot][place]].name

    def perform(self, task: object, attachment: Buffer | None) -> Message | None:
        match task:
            case SumMasks():
                return sum_masks(task, self.noise)
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
