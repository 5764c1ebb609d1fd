"""The settings of protocols that keep a sum secret with a committee: parts of a plan, as those in `rounds.settings`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec

from ridotto.crypto.lattice.packed_shamir import Sharing
from ridotto.errors import PlanError
from ridotto.rounds.compression import quantizer
from ridotto.rounds.settings import Settings, make_floats, refuse_huge
from ridotto.secagg.committee_roles.drawn import corrupt_seats
from ridotto.secagg.committee_roles.messages import LARGEST_COMMITTEE
from ridotto.secagg.oneshot.drawn import pack_of
from ridotto.secagg.oneshot.setup import LEAST_HONEST

if TYPE_CHECKING:
    from ridotto.rounds.plan import Plan

LARGEST_SHARD = 1024
"""Members of one session with a committee: its members handle one parcel of each, and more than 1,248 contributions
would leave fewer bits for messages."""

SMALLEST_COMMITTEE = 3

PACKINGS = {"4x21": 21, "3x28": 28, "2x42": 42}
"""Entries in one coefficient of 84 bits, by the bits that a sum of them has."""

DEFAULT_BITS = 32
"""The plan's own default, which a packing replaces."""


class Oneshot(Settings, frozen=True, kw_only=True, tag_field="name", tag="oneshot"):
    """Encrypt every update, in one message, under a key that a committee holds shares of.

    corrupt: fraction of a session's participants that may collude with the coordinator, wherever they sit; a number of
    them is rounded up. committee: seats of a session, drawn from its participants; all of them have one where they are
    fewer. shard_size: participants of one session at most. pack: entries per coefficient and bits of their sum, "3x28",
    "4x21" (a quarter less to upload) or "2x42"; it sets the plan's `bits`.
    """

    corrupt: float = 0.05
    committee: int = 128
    shard_size: int = LARGEST_SHARD
    pack: str = "3x28"

    def __post_init__(self) -> None:
        refuse_huge(msgspec.structs.asdict(self))
        make_floats(self, "corrupt")
        if not 0 <= self.corrupt < 0.5:
            raise PlanError(f"corrupt is a fraction from 0 to below 0.5, not {self.corrupt}")
        if not SMALLEST_COMMITTEE <= self.committee <= LARGEST_COMMITTEE:
            raise PlanError(f"a committee has {SMALLEST_COMMITTEE} to {LARGEST_COMMITTEE} seats, not {self.committee}")
        if not SMALLEST_COMMITTEE <= self.shard_size <= LARGEST_SHARD:
            raise PlanError(f"shard_size is {SMALLEST_COMMITTEE} to {LARGEST_SHARD}, not {self.shard_size}")
        if self.pack not in PACKINGS:
            raise PlanError(f"pack is one of {', '.join(PACKINGS)}, not {self.pack!r}")

    @property
    def bits(self) -> int:
        """Return the bits of an element, which the packing decides."""
        return PACKINGS[self.pack]

    def corrupt_of(self, members: int) -> int:
        """Return how many of a session's members may be corrupt."""
        return math.ceil(self.corrupt * members - 1e-9)

    def seats(self, members: int) -> int:
        """Return C, the seats of a session with so many members.

        Raises PlanError if so many seats could not agree without the corrupt ones.
        """
        return self.sharing(members).members

    def sharing(self, members: int) -> Sharing:
        """Return how keys are shared in a session with so many members: C, t and rho. Raises PlanError as `seats`."""
        seats, corrupt = min(self.committee, members), corrupt_seats(self.corrupt_of(members))
        needed = corrupt + pack_of(seats, corrupt)
        if needed > seats:
            raise PlanError(
                f"a committee of C = {seats} in which t = {corrupt} may be corrupt (corrupt = {self.corrupt:g} of "
                f"{members}, who may all have seats) opens a sum with t + rho = {needed} members, where t + 2 rho > C; "
                "there are fewer: take a larger committee, a smaller shard_size or a smaller corrupt"
            )
        return Sharing(seats, corrupt, needed - corrupt)

    def spare(self, members: int) -> int:
        """Return how many of a session's seats may fall silent."""
        sharing = self.sharing(members)
        return sharing.members - sharing.needed


def packed_bits(protocol: Oneshot, bits: int) -> int:
    """Return the bits of a plan with this protocol, whose `bits` are as given.

    Raises PlanError if somebody asked for others than the packing's.
    """
    if bits not in (DEFAULT_BITS, protocol.bits):
        raise PlanError(
            f'the plan has bits = {bits}, and pack = "{protocol.pack}" means sums of {protocol.bits} bits: leave bits '
            f"out, or take another of {', '.join(PACKINGS)}"
        )
    return protocol.bits


def check_oneshot(plan: Plan, protocol: Oneshot) -> None:
    """Refuse what can't work with `oneshot`. Raises PlanError."""
    if quantizer(plan.compress) is not None:
        raise PlanError(
            "Quantize lets a sum wrap round its ring once in a long while, and with oneshot a wrapped sum would change "
            'its neighbour as well: leave Quantize out; pack = "4x21" makes updates small in its place'
        )
    largest = plan.largest_session
    corrupt = plan.corrupt_of(largest)
    if plan.least < corrupt + LEAST_HONEST:
        raise PlanError(
            f"a sum of {plan.least} contributions, {corrupt} of which may be corrupt (of {largest}), can hold fewer "
            f"than {LEAST_HONEST} honest ones: oneshot needs minimum >= corrupt + {LEAST_HONEST} = "
            f"{corrupt + LEAST_HONEST}"
        )
    for members in {max(plan.least, SMALLEST_COMMITTEE), plan.smallest_session, largest}:
        protocol.seats(members)
