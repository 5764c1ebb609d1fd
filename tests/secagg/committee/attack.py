"""What attacks on `committee` are made of: a network that lies in one place, and machines brought to a point."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
from msgspec.structs import replace

from ridotto.core.machine import COORDINATOR, Envelope, Finish
from ridotto.core.wire import digest
from ridotto.secagg.committee import CommitteeMember, CommitteeSetup
from ridotto.secagg.committee.binding import (
    CONTRIBUTION_CONTEXT,
    RELEASE_CONTEXT,
    contribution_statement,
    release_statement,
)
from ridotto.secagg.committee_roles.evidence import MemberFaults
from ridotto.secagg.committee_roles.keys import book_root
from tests.secagg.committee.world import World, identity, make_setup


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


def resigned(setup: CommitteeSetup, envelope: Envelope, **fields: object) -> Envelope:
    """Change a masked vector's message and sign it anew, as its sender can."""
    message = replace(envelope.message, **fields)
    place = [one.name for one in setup.session.members].index(envelope.sender)
    statement = contribution_statement(
        setup.context, message.book, place, message.public, message.digest, message.commitments
    )
    signature = identity(envelope.sender).sign(CONTRIBUTION_CONTEXT, statement)
    return dataclasses.replace(envelope, message=replace(message, signature=signature))


def flipped(masks: bytes) -> bytes:
    return bytes([masks[0] ^ 1]) + masks[1:]


def other_masks(world: World, change: Callable[[bytes], bytes] = flipped) -> Callable[[Envelope], Envelope]:
    """Return the lie of a corrupt member: other masks than its slot's, well-formed and signed."""

    def lie(envelope: Envelope) -> Envelope:
        setup, message, masks = world.setup, envelope.message, change(bytes(envelope.attachment))
        book = book_root(setup.context, world.said("MemberBook")[0].message)
        statement = release_statement(setup.context, book, message.root, digest(masks))
        signature = identity(envelope.sender).sign(RELEASE_CONTEXT, statement)
        lied = replace(message, digest=digest(masks), signature=signature)
        return dataclasses.replace(envelope, message=lied, attachment=masks)

    return lie


def transcript(setup: CommitteeSetup) -> World:
    world = World(setup)
    world.run()
    return world


def at_acknowledgement(world: World, names: list[str]) -> dict[str, CommitteeMember]:
    """Bring members to the point where they wait for the set."""
    machines = {}
    for name in names:
        machine = world.member(name)
        machine.start(0.0)
        machine.receive(COORDINATOR, next(one.message for one in world.said("MemberBook") if one.to == name), 0.0)
        machine.receive(COORDINATOR, next(one.message for one in world.said("SeedParcels") if one.to == name), 0.0)
        machines[name] = machine
    return machines


HONEST = transcript(make_setup())
"""An honest session: two slots of three, one corrupt."""
