"""`committee` with seats for some of the session's own members."""

from __future__ import annotations

import numpy as np
import pytest

from ridotto.core.machine import COORDINATOR, Machine
from ridotto.core.rng import insecure_seeded_rng
from ridotto.errors import PlanError
from ridotto.secagg.committee.drawn import drawn_coordinator, drawn_member, drawn_participant, setup_of
from ridotto.secagg.session import CommitteeSession, Session, Timeouts
from tests.secagg.committee.world import World, make_setup
from tests.secagg.committee_roles.world import identity, lanes_of, make_vector


def drawn_session(seats: int, corrupt: int, minimum: int = 5) -> CommitteeSession:
    setup = make_setup(9)
    values = {name: getattr(setup.session, name) for name in Session.__struct_fields__}
    values |= {"minimum": minimum, "corrupt": corrupt}
    return CommitteeSession(**values, committee=seats, tail=lanes_of(setup).size)


class Drawn(World):
    """A world whose devices have two roles."""

    def participant(self, index: int, setup: object = None) -> Machine:
        name = self.setup.session.members[index].name
        rng = insecure_seeded_rng(self.seed).child(name)
        return drawn_participant(self.setup.session, name, identity(name), make_vector(self.setup, index), rng)

    def member(self, name: str, setup: object = None) -> Machine:
        device = name.removesuffix("/member")
        rng = insecure_seeded_rng(self.seed).child(name)
        machine = drawn_member(self.setup.session, device, identity(device), rng)
        assert machine is not None
        return machine


@pytest.mark.parametrize(("seats", "corrupt"), [(4, 0), (6, 1), (9, 2)])
def test_a_session_can_be_its_own_committee(seats: int, corrupt: int) -> None:
    world = Drawn(setup_of(drawn_session(seats, corrupt)))
    finish = world.run()
    assert finish.error is None
    assert len(finish.result.included) == 9
    np.testing.assert_array_equal(world.opened(), world.total(finish.result.included))
    assert world.setup.count == max(1, corrupt) + 1
    assert len(world.said("MaskSum")) == seats
    assert isinstance(drawn_coordinator(world.setup.session, Timeouts(1, 1)).start(0.0), list)
    assert COORDINATOR in world.finished


def test_who_has_no_seat_has_no_member() -> None:
    session = drawn_session(4, 1)
    found = [drawn_member(session, one.name, identity(one.name), insecure_seeded_rng(1)) for one in session.members]
    assert sum(one is not None for one in found) == 4


def test_a_committee_that_can_not_be_drawn_is_refused() -> None:
    with pytest.raises(PlanError):
        setup_of(drawn_session(4, 4, 7))
    with pytest.raises(PlanError, match="how many seats"):
        setup_of(make_setup().session)
