"""What attacks on `committee` are made of: a network that lies in one place, and machines brought to a point."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from msgspec.structs import replace

from ridotto.core.machine import Envelope
from ridotto.core.wire import digest
from ridotto.secagg.committee import CommitteeSetup
from ridotto.secagg.committee.binding import (
    CONTRIBUTION_CONTEXT,
    RELEASE_CONTEXT,
    contribution_statement,
    release_statement,
)
from ridotto.secagg.committee_roles.keys import book_root
from tests.secagg.committee.world import World, make_setup
from tests.secagg.committee_roles.world import identity


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


HONEST = transcript(make_setup())
"""An honest session: two slots of three, one corrupt."""
