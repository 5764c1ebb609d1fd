"""A bench for `oneshot`."""

from __future__ import annotations

from dataclasses import dataclass

from ridotto.core.machine import Buffer
from ridotto.core.wire import Message
from ridotto.crypto.lattice.loops import LOOPS, Loops
from ridotto.secagg.committee_roles.choice import choose
from ridotto.secagg.committee_roles.seals import Seal
from ridotto.secagg.oneshot import OneshotCoordinator, OneshotMember, OneshotParticipant, OneshotSetup
from ridotto.secagg.oneshot.ciphersum import SessionSum
from ridotto.secagg.oneshot.messages import ONESHOT_MESSAGES
from ridotto.secagg.oneshot.tasks import OpenCiphers
from ridotto.secagg.session import Timeouts
from tests.secagg.committee_roles.world import SeatedWorld, identity, lanes_in, make_pool, make_session, make_vector


def make_setup(
    count: int = 5,
    *,
    committee: int = 7,
    corrupt: int = 2,
    pack: int = 2,
    beacon: bytes = b"b" * 32,
    seal: Seal = "x25519",
    **changes: object,
) -> OneshotSetup:
    session = make_session("oneshot", count, **changes)
    roster = choose(make_pool(committee), beacon, committee, corrupt)
    return OneshotSetup(session, roster, pack, lanes_in(session).size, seal)


@dataclass
class World(SeatedWorld):
    """Run one session."""

    loops: Loops = LOOPS

    messages = ONESHOT_MESSAGES
    delivery = "Parcels"

    def make_sum(self) -> SessionSum:
        return SessionSum(self.setup.shape, self.read_lanes, loops=self.loops)

    def coordinator(self) -> OneshotCoordinator:
        return OneshotCoordinator(self.setup, Timeouts(100, 10))

    def participant(self, index: int, setup: OneshotSetup | None = None) -> OneshotParticipant:
        setup = setup or self.setup
        name = setup.session.members[index].name
        vector, pool = make_vector(setup, index), setup.roster.members
        return OneshotParticipant(setup, name, identity(name), vector, self.rng(name), pool, self.loops)

    def member(self, name: str, setup: OneshotSetup | None = None) -> OneshotMember:
        return OneshotMember(setup or self.setup, name, identity(name), self.rng(name))

    def perform(self, task: object, attachment: Buffer | None) -> Message | None:
        if not isinstance(task, OpenCiphers):
            raise AssertionError(f"unknown task {task}")
        return self.sum.open(task)
