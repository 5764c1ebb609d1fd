"""What attacks on `oneshot` are made of: a network that lies in one place, and machines brought to a point."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
from msgspec.structs import replace

from ridotto.core.machine import COORDINATOR, Envelope, Finish
from ridotto.secagg.committee_roles.evidence import MemberFaults
from ridotto.secagg.oneshot import OneshotSetup
from ridotto.secagg.oneshot.binding import CONTRIBUTION_CONTEXT, contribution_statement
from tests.secagg.oneshot.world import World, identity, make_setup

SMALL = {"committee": 3, "corrupt": 1, "pack": 1}


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


def assert_exact(world: World, finish: Finish, included: tuple[str, ...] | None = None) -> None:
    assert finish.error is None
    if included is not None:
        assert finish.result.included == included
    np.testing.assert_array_equal(world.opened(), world.total(finish.result.included))


def faults_of(world: World) -> dict[str, str]:
    return dict(
        fault for record in world.router.published if isinstance(record, MemberFaults) for fault in record.faults
    )


def reasons(world: World) -> list[tuple[str, str]]:
    """Return who refused something, and why."""
    return [(name, refusal.why) for name, refusal in world.router.refusals]


def resigned(setup: OneshotSetup, envelope: Envelope, **fields: object) -> Envelope:
    """Change a contribution and sign it anew, as its sender can."""
    message = replace(envelope.message, **fields)
    place = [one.name for one in setup.session.members].index(envelope.sender)
    statement = contribution_statement(setup.context, message.book, place, message.public, message.digest)
    signature = identity(envelope.sender).sign(CONTRIBUTION_CONTEXT, statement)
    return dataclasses.replace(envelope, message=replace(message, signature=signature))


def transcript(setup: OneshotSetup) -> World:
    world = World(setup)
    world.run()
    return world


def at_acknowledgement(world: World, names: list[str]) -> dict[str, object]:
    """Bring members to the point where they wait for the set."""
    machines = {}
    for name in names:
        machine = world.member(name)
        machine.start(0.0)
        machine.receive(COORDINATOR, next(one.message for one in world.said("MemberBook") if one.to == name), 0.0)
        machine.receive(COORDINATOR, next(one.message for one in world.said("Parcels") if one.to == name), 0.0)
        machines[name] = machine
    return machines


HONEST = transcript(make_setup(committee=5, corrupt=2, pack=1))
"""An honest session of a committee of five, two corrupt."""
