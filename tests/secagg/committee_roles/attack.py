"""What attacks on protocols with a committee are made of: a network that lies in one place, or says anything."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st
from msgspec.structs import replace

from ridotto.core.machine import COORDINATOR, Envelope, Finish
from ridotto.errors import PeerProtocolError
from ridotto.secagg.committee_roles.evidence import MemberFaults
from ridotto.secagg.committee_roles.messages import Checked
from tests.secagg.committee_roles.world import SeatedWorld, Tamper


def kind_of(envelope: Envelope) -> str:
    return type(envelope.message).__name__


def changed(envelope: Envelope, **fields: object) -> Envelope:
    return dataclasses.replace(envelope, message=replace(envelope.message, **fields))


def lying(kind: str, lie: Callable[[Envelope], Envelope], sender: tuple[str, ...] = (), to: tuple[str, ...] = ()):
    """Return a network in which one kind of message, from or to somebody, is changed."""

    def tamper(envelope: Envelope) -> list[Envelope]:
        meant = (not sender or envelope.sender in sender) and (not to or envelope.to in to)
        return [lie(envelope)] if kind_of(envelope) == kind and meant else [envelope]

    return tamper


def silent(kind: str, *names: str) -> Callable[[Envelope], list[Envelope]]:
    """Return a network in which one kind of message of these gets lost."""
    return lambda envelope: [] if kind_of(envelope) == kind and envelope.sender in names else [envelope]


def assert_exact(world: SeatedWorld, finish: Finish, included: tuple[str, ...] | None = None) -> None:
    assert finish.error is None
    if included is not None:
        assert finish.result.included == included
    np.testing.assert_array_equal(world.opened(), world.total(finish.result.included))


def faults_of(world: SeatedWorld) -> dict[str, str]:
    return dict(
        fault for record in world.router.published if isinstance(record, MemberFaults) for fault in record.faults
    )


def reasons(world: SeatedWorld) -> list[tuple[str, str]]:
    """Return who refused something, and why."""
    return [(name, refusal.why) for name, refusal in world.router.refusals]


def at_acknowledgement(world: SeatedWorld, names: list[str]) -> dict[str, Any]:
    """Bring members to the point where they wait for the set."""
    machines = {}
    for name in names:
        machine = world.member(name)
        machine.start(0.0)
        machine.receive(COORDINATOR, next(one.message for one in world.said("MemberBook") if one.to == name), 0.0)
        machine.receive(COORDINATOR, next(one.message for one in world.said(world.delivery) if one.to == name), 0.0)
        machines[name] = machine
    return machines


def change_one_byte(make: Callable[[Tamper], SeatedWorld], which: int, place: int, flip: int) -> None:
    """Change one byte of one frame: nothing but a PeerProtocolError leaves `receive`, and no wrong sum is opened."""
    seen = 0

    def tamper(envelope: Envelope) -> list[Envelope]:
        nonlocal seen
        seen += 1
        if seen - 1 != which:
            return [envelope]
        frame = bytearray(world.codec.encode(envelope.message, envelope.attachment))
        frame[place % len(frame)] ^= flip
        try:
            message, attachment = world.codec.decode(frame, envelope.sender)
        except PeerProtocolError:
            return []
        return [dataclasses.replace(envelope, message=message, attachment=attachment)]

    world = make(tamper)
    finish = world.run()
    if finish.error is None:
        assert_exact(world, finish)


def say_anything(world: SeatedWorld, data: st.DataObject) -> None:
    """Say messages of an honest session in any order, as anybody, to a coordinator, a member and a participant."""
    names = [COORDINATOR, *(one.name for one in (*world.setup.session.members, *world.setup.roster.members)), "nobody"]
    machines = [world.coordinator(), world.member("m000"), world.participant(0)]
    for machine in machines:
        machine.start(0.0)
    picks = data.draw(st.lists(st.tuples(st.integers(0, len(world.sent) - 1), st.sampled_from(names)), max_size=12))
    blamed = {"nobody"}
    for place, sender in picks:
        for machine in machines:
            try:
                machine.receive(sender, world.sent[place].message, 0.0)
            except PeerProtocolError as refusal:
                blamed.add(refusal.peer)
    assert blamed <= {*names}


def say_out_of_place(world: SeatedWorld, release: Envelope) -> None:
    """Say messages of an honest session where they have no place; each is refused by its sender's name."""
    machine = world.coordinator()
    machine.start(0.0)
    with pytest.raises(PeerProtocolError, match="too early"):
        machine.receive(release.sender, release.message, 0.0)
    with pytest.raises(PeerProtocolError, match=f"takes no {world.delivery}"):
        machine.receive("m000", world.said(world.delivery)[0].message, 0.0)
    with pytest.raises(PeerProtocolError, match="no committee member"):
        machine.receive("p000", Checked(world.setup.sid, ()), 0.0)
    for other in (world.member("m000"), world.participant(0)):
        with pytest.raises(PeerProtocolError, match="only the coordinator"):
            other.receive("p001", release.message, 0.0)
        with pytest.raises(PeerProtocolError, match="came where MemberBook belongs"):
            other.receive(COORDINATOR, release.message, 0.0)
