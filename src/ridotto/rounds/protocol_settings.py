"""The settings of protocols that keep a sum secret with a committee: parts of a plan, as those in `rounds.settings`."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

import msgspec

from ridotto.core.machine import COORDINATOR, SELF
from ridotto.core.wire import HEADER_LIMIT, NAME_PATTERN
from ridotto.crypto.lattice.packed_shamir import Sharing
from ridotto.crypto.prg import SEED_BYTES
from ridotto.crypto.seal import SIGNATURE_BYTES
from ridotto.errors import PlanError
from ridotto.rounds.compression import quantizer
from ridotto.rounds.settings import Settings, make_floats, refuse_huge
from ridotto.secagg.committee_roles.drawn import corrupt_seats
from ridotto.secagg.committee_roles.messages import LARGEST_COMMITTEE
from ridotto.secagg.committee_roles.seals import SEALS, Seal, overhead_bytes
from ridotto.secagg.oneshot.drawn import pack_of
from ridotto.secagg.oneshot.setup import LEAST_HONEST
from ridotto.secagg.session import Member

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

PREFIX_BYTES = 5
"""What MessagePack puts before a parcel at most."""

DIGEST_BYTES = 32

_KEY = re.compile(r"[0-9a-f]{64}")


class Helpers(Settings, frozen=True, kw_only=True):
    """Let committees be made of helpers, who serve and do not train: organisations, or devices that are always there.

    corrupt: t, how many of all helpers may collude with each other and the coordinator. keys: name -> identity key
    (hex) of everybody who can serve: a coordinator needs them, a simulation makes helpers of its own.
    """

    corrupt: int = 1
    keys: dict[str, str] = msgspec.field(default_factory=dict)

    def __post_init__(self) -> None:
        refuse_huge(msgspec.structs.asdict(self))
        if not 1 <= self.corrupt < LARGEST_COMMITTEE:
            raise PlanError(f"corrupt helpers are 1 to {LARGEST_COMMITTEE - 1}, not {self.corrupt}")
        if len(self.keys) > LARGEST_COMMITTEE:
            raise PlanError(f"a plan names at most {LARGEST_COMMITTEE} helpers, not {len(self.keys)}")
        for name, key in self.keys.items():
            if NAME_PATTERN.fullmatch(name) is None or name in (COORDINATOR, SELF):
                raise PlanError(f"{name!r} can't name a helper: 1 to 64 letters, digits and . _ @ -")
            if _KEY.fullmatch(key) is None:
                raise PlanError(f"the identity key of helper {name} is not 64 lower-case hex digits")
        if len(set(self.keys.values())) < len(self.keys):
            raise PlanError("two helpers have one identity key")
        # One plan has one encoding, however its author sorted the names.
        msgspec.structs.force_setattr(self, "keys", dict(sorted(self.keys.items())))

    def named(self, helper: Member) -> bool:
        """Tell whether somebody can serve; anybody can where nobody is named."""
        return not self.keys or self.keys.get(helper.name) == helper.key.hex()


class Oneshot(Settings, frozen=True, kw_only=True, tag_field="name", tag="oneshot"):
    """Encrypt every update, in one message, under a key that a committee holds shares of.

    corrupt: fraction of a session's participants that may collude with the coordinator, wherever they sit; a number of
    them is rounded up. committee: seats of a session, drawn from its participants, or from `helpers`; all of them have
    one where they are fewer. helpers: None for a committee of participants. shard_size: participants of one session at
    most. pack: entries per coefficient and bits of their sum, "3x28", "4x21" (a quarter less to upload) or "2x42"; it
    sets the plan's `bits`. seal: "x25519", or "hybrid", which seals shares under X25519 and ML-KEM-768 together.
    """

    corrupt: float = 0.05
    committee: int = 128
    helpers: Helpers | None = None
    shard_size: int = LARGEST_SHARD
    pack: str = "3x28"
    seal: Seal = "x25519"

    def __post_init__(self) -> None:
        _check_seated(self)
        if not SMALLEST_COMMITTEE <= self.committee <= LARGEST_COMMITTEE:
            raise PlanError(f"a committee has {SMALLEST_COMMITTEE} to {LARGEST_COMMITTEE} seats, not {self.committee}")
        if self.pack not in PACKINGS:
            raise PlanError(f"pack is one of {', '.join(PACKINGS)}, not {self.pack!r}")

    @property
    def bits(self) -> int:
        """Return the bits of an element, which the packing decides."""
        return PACKINGS[self.pack]

    @property
    def full(self) -> int:
        """Return how many helpers a committee is made of at most."""
        return self.committee

    def seats(self, members: int, helpers: int = 0) -> int:
        """Return C, the seats of a session with so many members, and so many helpers if they serve.

        Raises PlanError if so many seats could not agree without the corrupt ones.
        """
        return self.sharing(members, helpers).members

    def sharing(self, members: int, helpers: int = 0) -> Sharing:
        """Return how keys are shared in such a session: C, t and rho. Raises PlanError as `seats`."""
        if self.helpers is None:
            seats, corrupt = min(self.committee, members), corrupt_seats(corrupt_of(self, members))
            who = f"corrupt = {self.corrupt:g} of {members}, who may all have seats"
        else:
            seats, corrupt, who = min(self.committee, helpers), self.helpers.corrupt, "the corrupt helpers"
        needed = corrupt + pack_of(seats, corrupt)
        if needed > seats:
            raise PlanError(
                f"a committee of C = {seats} in which t = {corrupt} may be corrupt ({who}) opens a sum with t + rho = "
                f"{needed} members, where t + 2 rho > C; there are fewer: take a larger committee, more helpers, a "
                "smaller shard_size or a smaller corrupt"
            )
        return Sharing(seats, corrupt, needed - corrupt)

    def spare(self, members: int, helpers: int = 0) -> int:
        """Return how many of a session's seats may fall silent."""
        sharing = self.sharing(members, helpers)
        return sharing.members - sharing.needed


class Committee(Settings, frozen=True, kw_only=True, tag_field="name", tag="committee"):
    """Mask every update, in one message, with masks that helpers in slots take off the sum again.

    corrupt: fraction of a session's participants that may collude with the coordinator; a number of them is rounded up.
    helpers: who serves. There is one slot more than helpers may be corrupt, so one slot has none of those. replicas:
    helpers of a slot, who do the same: while most of them are there the slot is. shard_size: participants of one
    session at most. seal: "x25519", or "hybrid", which seals seeds under X25519 and ML-KEM-768 together.
    """

    corrupt: float = 0.05
    helpers: Helpers = Helpers()
    replicas: int = 3
    shard_size: int = LARGEST_SHARD
    seal: Seal = "x25519"

    def __post_init__(self) -> None:
        _check_seated(self)
        if not 1 <= self.replicas <= LARGEST_COMMITTEE or self.full > LARGEST_COMMITTEE:
            raise PlanError(
                f"{self.slots} slots of {self.replicas} helpers each: a committee has at most {LARGEST_COMMITTEE} "
                "seats, and every slot one"
            )

    @property
    def slots(self) -> int:
        """Return J, the number of masks on every vector."""
        return self.helpers.corrupt + 1

    @property
    def full(self) -> int:
        """Return how many helpers a committee is made of at most."""
        return self.slots * self.replicas

    def seats(self, members: int, helpers: int = 0) -> int:
        """Return the seats of a session with so many helpers.

        Raises PlanError if they do not fill the slots.
        """
        if helpers < self.slots:
            raise PlanError(
                f"{self.helpers.corrupt} corrupt helpers make {self.slots} slots, each with a helper of its own; there "
                f"are {helpers}"
            )
        return min(self.full, helpers)

    def spare(self, members: int, helpers: int = 0) -> int:
        """Return how many of a session's seats may fall silent, wherever they are."""
        least = self.seats(members, helpers) // self.slots
        return least - (least // 2 + 1)


Seated = Oneshot | Committee
"""Protocols with a committee."""


def seal_of(plan: Plan) -> Seal:
    """Return what keys of parcels are derived from; where there is no committee, there are no parcels."""
    return plan.protocol.seal if isinstance(plan.protocol, Seated) else "x25519"


def corrupt_of(protocol: Seated, members: int) -> int:
    """Return how many of a session's members may be corrupt."""
    return math.ceil(protocol.corrupt * members - 1e-9)


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


def parcels_bytes(plan: Plan) -> int:
    """Return how long the lists of sealed parcels in a contribution can be; 0 for protocols without."""
    if not isinstance(plan.protocol, Seated):
        return 0
    return plan.seats(plan.largest_session) * _parcel_bytes(plan, plan.protocol) + _commitments_bytes(plan.protocol)


def delivery_bytes(plan: Plan, protocol: Seated) -> int:
    """Return how long the parcels of a whole session are at most that one member is sent in one message."""
    of_one = _parcel_bytes(plan, protocol) + _commitments_bytes(protocol)
    return plan.largest_session * (of_one + 2 * (DIGEST_BYTES + PREFIX_BYTES) + SIGNATURE_BYTES + 3 * PREFIX_BYTES)


def _parcel_bytes(plan: Plan, protocol: Seated) -> int:
    secret = SEED_BYTES
    if isinstance(protocol, Oneshot):
        secret = protocol.sharing(plan.largest_session, plan.most_helpers).share_bytes
    return secret + overhead_bytes(protocol.seal) + PREFIX_BYTES


def _commitments_bytes(protocol: Seated) -> int:
    return protocol.slots * (DIGEST_BYTES + PREFIX_BYTES) if isinstance(protocol, Committee) else 0


def check_seated(plan: Plan, protocol: Seated) -> None:
    """Refuse what can't work with a committee. Raises PlanError."""
    if isinstance(protocol, Oneshot) and quantizer(plan.compress) is not None:
        raise PlanError(
            "Quantize lets a sum wrap round its ring once in a long while, and with oneshot a wrapped sum would change "
            'its neighbour as well: leave Quantize out; pack = "4x21" makes updates small in its place'
        )
    largest = plan.largest_session
    corrupt = plan.corrupt_of(largest)
    if plan.least < corrupt + LEAST_HONEST:
        raise PlanError(
            f"a sum of {plan.least} contributions, {corrupt} of which may be corrupt (of {largest}), can hold fewer "
            f"than {LEAST_HONEST} honest ones: {plan.protocol_name} needs minimum >= corrupt + {LEAST_HONEST} = "
            f"{corrupt + LEAST_HONEST}"
        )
    for members in {max(plan.least, SMALLEST_COMMITTEE), plan.smallest_session, largest}:
        protocol.seats(members, plan.most_helpers)
    if delivery_bytes(plan, protocol) > HEADER_LIMIT:
        raise PlanError(
            f"a member of the committee would be sent up to {delivery_bytes(plan, protocol)} bytes of parcels, and a "
            f"message has at most {HEADER_LIMIT}: take a smaller shard_size, or fewer corrupt helpers"
        )


def _check_seated(protocol: Seated) -> None:
    """Refuse numbers that no protocol with a committee has. Raises PlanError."""
    refuse_huge({name: number for name, number in msgspec.structs.asdict(protocol).items() if name != "helpers"})
    if protocol.seal not in SEALS:
        raise PlanError(f"seal is one of {', '.join(SEALS)}, not {protocol.seal!r}")
    make_floats(protocol, "corrupt")
    if not 0 <= protocol.corrupt < 0.5:
        raise PlanError(f"corrupt is a fraction from 0 to below 0.5, not {protocol.corrupt}")
    if not SMALLEST_COMMITTEE <= protocol.shard_size <= LARGEST_SHARD:
        raise PlanError(f"shard_size is {SMALLEST_COMMITTEE} to {LARGEST_SHARD}, not {protocol.shard_size}")
