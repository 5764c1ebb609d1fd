"""What the parties of one secure sum agree on, and how it can end.

A session is one sum among at most a few hundred members. It is self-contained: its id, `sid`, is a hash over
everything in it, the plan and the very model bytes that are trained from included, and every key, seed and
signature of the session binds the sid. Two participants who were shown different models, rosters or plans are in
different sessions, and their masks do not meet (Pasquini et al., "Eluding Secure Aggregation in Federated
Learning via Model Inconsistency", CCS 2022).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

import msgspec

from ridotto.core.machine import COORDINATOR, SELF
from ridotto.core.wire import Bytes32, Count, Message, Name, Part, digest
from ridotto.errors import PeerProtocolError, PlanError
from ridotto.secagg.committee_roles.messages import LARGEST_COMMITTEE
from ridotto.secagg.committee_roles.seals import Seal
from ridotto.secagg.messages import LARGEST_GROUP

SESSION_DOMAIN = b"ridotto/1 session\x00"
"""Separates the hash of a session from every other hash. The version names this set of algorithms:
X25519, Ed25519, HKDF-SHA256, AES-128-GCM, AES-128-CTR, SHA-256."""

Width = Annotated[int, msgspec.Meta(ge=8, le=64)]
"""Bits of one element."""

LARGEST_SIGMA = 2.0**40
"""Noise of a committee at most, in units of an element: what the sampler draws."""


class Member(Part, frozen=True):
    """Name one participant and its long-term identity key (Ed25519, 32 bytes)."""

    name: Name
    key: Bytes32


class Session(Message, frozen=True):
    """Describe one secure sum completely.

    protocol: a name in `protocols.PROTOCOLS`. plan, model: SHA-256 of the plan and of the model file that is
    trained from. nonce: fresh for every attempt. members: sorted by name. length: elements of the summed
    vectors, lanes included. bits: width of an element. minimum: fewest contributions that may be opened.
    corrupt: members that may collude with the coordinator. neighbours, threshold: of the sparse graph;
    both 0 for the complete graph, whose threshold follows from who shows up (`graph.complete_threshold`).
    attempt: at a round, counted over the federation; drivers take part in each once, so in each session once.
    """

    protocol: Name
    plan: Bytes32
    model: Bytes32
    nonce: Bytes32
    round: Count
    shard: Count
    members: Annotated[tuple[Member, ...], msgspec.Meta(min_length=1, max_length=LARGEST_GROUP)]
    length: Annotated[int, msgspec.Meta(ge=1, le=2**40)]
    bits: Width
    minimum: Annotated[int, msgspec.Meta(ge=1, le=LARGEST_GROUP)]
    corrupt: Annotated[int, msgspec.Meta(ge=0, le=LARGEST_GROUP)] = 0
    neighbours: Annotated[int, msgspec.Meta(ge=0, le=LARGEST_GROUP)] = 0
    threshold: Annotated[int, msgspec.Meta(ge=0, le=LARGEST_GROUP)] = 0
    attempt: Count = 0

    def __post_init__(self) -> None:
        names = [member.name for member in self.members]
        if names != sorted(set(names)) or COORDINATOR in names or SELF in names:
            raise PlanError("the members of a session are sorted by name, each once, and none has a reserved name")
        if len({member.key for member in self.members}) != len(names):
            raise PlanError("two members of a session share one identity key")
        if not self.corrupt < self.minimum <= len(names):
            raise PlanError(
                f"a session of {len(names)} with {self.corrupt} corrupt can't have a minimum of {self.minimum}: "
                "it needs corrupt < minimum <= members"
            )
        degree, threshold = self.neighbours, self.threshold
        if (degree or threshold) and (degree % 2 or not degree < 2 * threshold <= 2 * degree):
            raise PlanError(
                "a sparse graph has an even number of neighbours, and a threshold above half of it and at most all, "
                f"not {degree} and {threshold}"
            )


class CommitteeSession(Session, frozen=True):
    """Describe a secure sum with a committee.

    committee: seats. tail: the last so many elements of a vector are not negative (check lanes and values). helpers:
    who can have the seats, sorted by name; nobody for a committee that is drawn from the session's own members.
    helpers_corrupt: of all helpers, how many may collude with the coordinator and each other. sigma: deviation of the
    noise that the committee adds, in units of an element; 0 for none. seal: what keys of parcels for the committee are
    derived from. Who has the seats follows from members, helpers and nonce: `committee_roles.drawn`.
    """

    committee: Annotated[int, msgspec.Meta(ge=2, le=LARGEST_COMMITTEE)] = 2
    tail: Annotated[int, msgspec.Meta(ge=0, le=2**40)] = 0
    helpers: Annotated[tuple[Member, ...], msgspec.Meta(max_length=LARGEST_COMMITTEE)] = ()
    helpers_corrupt: Annotated[int, msgspec.Meta(ge=0, lt=LARGEST_COMMITTEE)] = 0
    sigma: Annotated[float, msgspec.Meta(ge=0, le=LARGEST_SIGMA)] = 0.0
    seal: Seal = "x25519"

    def __post_init__(self) -> None:
        super().__post_init__()
        # Zero with a sign would be the same noise and another session.
        if not math.isfinite(self.sigma) or math.copysign(1.0, self.sigma) < 0:
            raise PlanError(f"the noise of a committee is a number from 0 up, not {self.sigma}")
        if self.tail > self.length:
            raise PlanError(f"a tail of {self.tail} is longer than the vectors, which have {self.length}")
        names = [helper.name for helper in self.helpers]
        if names != sorted(set(names)) or COORDINATOR in names or SELF in names:
            raise PlanError("the helpers of a session are sorted by name, each once, and none has a reserved name")
        everybody = (*self.members, *self.helpers)
        if min(len({one.name for one in everybody}), len({one.key for one in everybody})) < len(everybody):
            raise PlanError("a helper has a name and a key of its own, and is not among the session's members")
        if bool(names) != bool(self.helpers_corrupt) or self.helpers_corrupt >= max(1, len(names)):
            raise PlanError(f"{self.helpers_corrupt} of {len(names)} helpers can't be corrupt")


def session_id(session: Session) -> bytes:
    """Return the sid: SHA-256 over the session's encoding, 32 bytes."""
    return digest(SESSION_DOMAIN + msgspec.msgpack.encode(session))


def index_of(session: Session, name: str) -> int:
    """Return a member's position in the roster.

    Raises PeerProtocolError if there is no such member.
    """
    for index, member in enumerate(session.members):
        if member.name == name:
            return index
    raise PeerProtocolError(name, "is not a member of this session")


class FailureCode(StrEnum):
    """Say in one stable word why a sum was not opened."""

    TOO_FEW = "TOO_FEW"
    """Fewer answered than the minimum or the threshold asks for."""

    BAD_SHARES = "BAD_SHARES"
    """Somebody's shares do not reconstruct to what it committed to; it is blamed by name."""

    CHECK_LANE = "CHECK_LANE"
    """The opened sum's check lanes are wrong: somebody's mask or vector was not what the protocol asks for."""


@dataclass(frozen=True, slots=True)
class SessionResult:
    """Tell who is in an opened sum and who was lost on the way.

    included: names, in roster order. lost: name -> where and why.
    """

    sid: bytes
    included: tuple[str, ...]
    lost: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Say how long the coordinator waits, in seconds.

    first_s: for the first message, so for the local training too. phase_s: for each message after it.
    """

    first_s: float
    phase_s: float

    def __post_init__(self) -> None:
        if not (self.first_s > 0 and self.phase_s > 0):
            raise PlanError(f"timeouts are positive, not {self.first_s} s and {self.phase_s} s")


@dataclass(frozen=True, slots=True)
class Progress:
    """Show how far one session is: for whoever watches, never for the protocol.

    step: the kind of message that is collected. answered: how many have sent it. waiting: who has not.
    """

    round: int
    shard: int
    step: str
    answered: int
    waiting: tuple[str, ...]
