"""What attacks on `oneshot` are made of: a network that lies in one place, and machines brought to a point."""

from __future__ import annotations

import dataclasses

from msgspec.structs import replace

from ridotto.core.machine import Envelope
from ridotto.secagg.oneshot import OneshotSetup
from ridotto.secagg.oneshot.binding import CONTRIBUTION_CONTEXT, contribution_statement
from tests.secagg.committee_roles.world import identity
from tests.secagg.oneshot.world import World, make_setup

SMALL = {"committee": 3, "corrupt": 1, "pack": 1}


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


HONEST = transcript(make_setup(committee=5, corrupt=2, pack=1))
"""An honest session of a committee of five, two corrupt."""
