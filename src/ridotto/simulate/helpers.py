"""Helpers of a simulated round: who serves on its committees, and what that asks of the participants.

A simulation's helpers are its own: they are honest, and always there. What a participant says and hears where helpers
serve is one message each way, whatever the protocol.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ridotto.core.fixedpoint import IntVector
from ridotto.core.rng import SEED_BYTES, SecretRng
from ridotto.core.vector import Layout
from ridotto.errors import ConfigError
from ridotto.rounds.ciphers import shape_of
from ridotto.rounds.noise import add_committee_noise, committee_sigma
from ridotto.rounds.pipeline import Pipeline
from ridotto.rounds.plan import Committee, Oneshot, Plan
from ridotto.rounds.protocol_settings import seal_of
from ridotto.secagg.committee.messages import MaskedVector
from ridotto.secagg.committee_roles.messages import MemberBook, MemberEntry
from ridotto.secagg.committee_roles.seals import overhead_bytes, public_bytes
from ridotto.secagg.oneshot.messages import Contribution
from ridotto.simulate.clients import Clients
from ridotto.simulate.message_sizes import Counts, header_bytes, packed_bytes

if TYPE_CHECKING:
    from ridotto.simulate.costs import UnitCosts
    from ridotto.simulate.courses import Course

_HASH, _SIGNATURE = bytes(32), bytes(64)


def helper_names(plan: Plan) -> tuple[str, ...]:
    """Return the helpers of a simulation: as many as have room on a committee, none where the plan asks for none."""
    width = len(str(max(0, plan.most_helpers - 1)))
    return tuple(f"helper-{place:0{width}}" for place in range(plan.most_helpers))


def with_own_helpers(plan: Plan, clients: Clients) -> Plan:
    """Return the plan that is simulated: whoever it names as helpers, a simulation has not got their keys.

    Raises ConfigError if a client is called like one of the simulation's own.
    """
    plan = plan.with_helpers({})
    helpers = set(helper_names(plan))
    taken = next((name for name in clients.names if name in helpers), None) if helpers else None
    if taken is not None:
        raise ConfigError(f"a client is called {taken}, as one of the helpers that this plan's committees need")
    return plan


def book_bytes(plan: Plan) -> int:
    """Return the size of what participants are told of a committee of helpers: their keys."""
    seats, public = plan.seats(plan.largest_session), bytes(public_bytes(seal_of(plan)))
    return header_bytes(MemberBook(_HASH, tuple(MemberEntry(seat, public, _SIGNATURE) for seat in range(seats))))


def contribution_bytes(plan: Plan, size: int | Layout) -> int:
    """Return the size of a participant's one message, its vector included."""
    seats = plan.seats(plan.largest_session)
    match plan.protocol:
        case Committee() as protocol:
            packed = packed_bytes(plan, size)
            parcels = (bytes(SEED_BYTES + overhead_bytes(protocol.seal)),) * seats
            commitments = (_HASH,) * protocol.slots
            masked = MaskedVector(_HASH, packed, _HASH, _HASH, _HASH, commitments, _SIGNATURE, parcels)
            return header_bytes(masked) + packed
        case Oneshot() as protocol:
            cipher = shape_of(Pipeline(plan, size)).size
            share = bytes(protocol.sharing(plan.largest_session, seats).share_bytes + overhead_bytes(protocol.seal))
            return header_bytes(Contribution(_HASH, cipher, _HASH, _HASH, _HASH, _SIGNATURE, (share,) * seats)) + cipher
        case _:
            raise ConfigError(f"{plan.protocol_name} has no helpers")


def served_traffic(plan: Plan, course: Course, announce: Counts, size: int | Layout, closed: int) -> tuple[int, int]:
    """Return bytes up and down of all participants together. closed: bytes of the message that ends a round."""
    up = int(course.answered[0].sum()) * contribution_bytes(plan, size)
    down = np.sum(course.told * (announce + book_bytes(plan))) + np.sum(course.heard_end) * closed
    return up, int(down)


def served_cpu(plan: Plan, course: Course, size: int | Layout, traffic: int, units: UnitCosts) -> tuple[float, float]:
    """Return CPU seconds of the coordinator and of all participants. traffic: bytes of both ways."""
    length, seats = Pipeline(plan, size).length, plan.seats(plan.largest_session)
    vectors, told = int(course.answered[0].sum()), int(course.told.sum())
    packed = packed_bytes(plan, size)
    if isinstance(plan.protocol, Oneshot):
        coefficients = shape_of(Pipeline(plan, size)).coefficients
        packed = shape_of(Pipeline(plan, size)).size
        fold, make = units.fold_cipher_s * coefficients, units.key_s + units.encrypt_s * coefficients
        opening = units.open_cipher_s * coefficients
    else:
        masks = 1 + (0 if plan.helpers is None else plan.helpers.corrupt)
        # Subtracting a slot's masks costs what folding a vector does.
        fold, opening = 0.5 * units.fold_s * length, 0.5 * units.fold_s * length * masks
        make = fold + masks * (units.mask_start_s + units.mask_s * length)
    wire = units.wire_s * (traffic - vectors * packed) + units.copy_s * vectors * packed
    opened = int(np.count_nonzero(~course.failed))
    coordinator = wire + vectors * (fold + units.hash_s * packed + units.verify_s + units.agree_s) + opened * opening
    coordinator += units.sign_s * len(course.size) + 4 * units.verify_s * seats * opened
    if opened:
        coordinator += units.apply_s * length
    participants = wire + told * (units.verify_s * (1 + seats) + units.encode_s * length)
    sealing = units.agree_s + units.seal_s + units.encapsulate_s * (seal_of(plan) == "hybrid")
    participants += vectors * (make + 2 * units.hash_s * packed + units.sign_s + sealing * seats)
    return coordinator, participants


def add_slot_noise(pipeline: Pipeline, total: IntVector, sessions: int, rng: SecretRng) -> None:
    """Add the noise of all slots of so many sessions to their sum, in place; nothing where no committee adds any.

    The machines draw it from secrets of the protocol, which a modelled sum has not got: as much, and not the same.
    """
    plan = pipeline.plan
    sigma = committee_sigma(pipeline.noise, plan.dp)
    if not sigma or plan.helpers is None:
        return
    for session in range(sessions):
        for slot in range(plan.helpers.corrupt + 1):
            add_committee_noise(total[: pipeline.entries], sigma, rng.child(session, slot).bytes(SEED_BYTES))
