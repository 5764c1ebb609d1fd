"""Throw changed messages of members at the coordinator: properly signed and sealed, so that they get inside."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ridotto.crypto.sodium import seal
from ridotto.errors import PeerProtocolError
from ridotto.secagg.xaynet.machine import Phase
from ridotto.secagg.xaynet.settings import PhaseLimits
from tests.secagg.xaynet.world import World, make_settings

pytestmark = pytest.mark.fuzz
MODEL = [0.5, -0.25, 0.0, 1.0]


@dataclass(frozen=True)
class Edit:
    """Overwrite bytes of the signed part, and cut or lengthen it."""

    place: int
    data: bytes
    size: int

    def apply(self, message: bytearray) -> None:
        place = self.place % (len(message) + 1)
        message[place : place + len(self.data)] = self.data
        if self.size < 0:
            del message[self.size :]
        message += bytes(max(self.size, 0))
        # Most edits end at the length of the message: let some get further.
        if self.place % 2:
            message[64:68] = (len(message) + 64).to_bytes(4, "big")


WORLDS: dict[Phase, World] = {}

EDITS = st.lists(
    st.builds(Edit, st.integers(0, 2000), st.binary(max_size=8), st.sampled_from([0, 0, 0, 0, -1, -200, 1, 100])),
    min_size=1,
    max_size=4,
)


def world_in(phase: Phase) -> World:
    """A round that waits in a phase, whatever is accepted."""
    world = World(
        make_settings(
            updaters=4,
            sum=PhaseLimits(least=1, most=2, min_s=1, max_s=10**6),
            update=PhaseLimits(least=3, most=4, min_s=1, max_s=10**6),
            sum2=PhaseLimits(least=1, most=2, min_s=9, max_s=10**6),
        )
    )
    world.send(world.summers[0].sum_boxes())
    if phase is not Phase.SUM:
        world.effects += world.machine.expire(1)
        world.now = 1
        for one in world.updaters[:3]:
            world.send(one.update_boxes(world.machine.sums or {}, MODEL, 1))
    if phase is Phase.SUM2:
        world.effects += world.machine.expire(2)
    assert world.machine.phase is phase
    return world


@pytest.mark.parametrize("phase", [Phase.SUM, Phase.UPDATE, Phase.SUM2])
@given(edits=EDITS, most_bytes=st.sampled_from([0, 400]))
def test_only_refusals_come_out_of_the_coordinator(phase: Phase, edits: list[Edit], most_bytes: int) -> None:
    world = WORLDS.get(phase)
    # An edit that changes only what may be anything is accepted, and the phase goes on: then begin anew.
    if world is None or world.machine.phase is not phase or world.machine.number != 1:
        world = WORLDS[phase] = world_in(phase)
    machine = world.machine
    sender = {Phase.SUM: world.summers[1], Phase.UPDATE: world.updaters[3], Phase.SUM2: world.summers[0]}[phase]
    sender._most_bytes = most_bytes
    key, sums = sender._key, machine.sums or {}
    boxes = {
        Phase.SUM: sender.sum_boxes,
        Phase.UPDATE: lambda: sender.update_boxes(sums, MODEL, 1),
        Phase.SUM2: lambda: sender.sum2_boxes(machine.seeds_for(sender.public) or {}),
    }[phase]()
    for box in boxes:
        signed = bytearray(machine._key.open(box)[64:])
        for edit in edits:
            edit.apply(signed)
        try:
            machine.receive(seal(key.sign(bytes(signed)) + bytes(signed), machine.parameters.key, world.rng), 1)
        except PeerProtocolError:
            continue
        if machine.number != 1:
            return
