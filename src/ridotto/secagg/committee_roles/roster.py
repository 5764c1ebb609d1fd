"""Who is on a committee, and how many of it must agree."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import msgspec

from ridotto.core.machine import COORDINATOR, SELF
from ridotto.core.wire import Bytes32, Part
from ridotto.errors import PeerProtocolError, PlanError
from ridotto.secagg.committee_roles.messages import LARGEST_COMMITTEE
from ridotto.secagg.session import Member, Session

SEAT_SUFFIX = "/member"
"""Behind the name of a device that has a seat. No device is enrolled under a name with a slash (`core.wire.Name`)."""


class Roster(Part, frozen=True):
    """Name a committee.

    members: sorted by name; a member's seat is its place. corrupt: t, how many may collude with each other and the
    coordinator. pool, beacon: what they were chosen by (`choice`).
    """

    members: Annotated[tuple[Member, ...], msgspec.Meta(min_length=2, max_length=LARGEST_COMMITTEE)]
    corrupt: Annotated[int, msgspec.Meta(ge=1, lt=LARGEST_COMMITTEE)]
    pool: Bytes32
    beacon: Bytes32

    def __post_init__(self) -> None:
        names = [member.name for member in self.members]
        if names != sorted(set(names)) or COORDINATOR in names or SELF in names:
            raise PlanError("a committee is sorted by name, each once, and none has a reserved name")
        if len({member.key for member in self.members}) != len(names):
            raise PlanError("two members of a committee share one identity key")
        if self.quorum > len(names):
            raise PlanError(f"a committee of {len(names)} can't agree if {self.corrupt} of it are corrupt")

    @property
    def quorum(self) -> int:
        """Return how many must acknowledge one set before anybody releases: more than (C + t) / 2.

        Every honest member acknowledges one set per session. Two sets with a quorum each would share more than t
        members, so an honest one: there are no two.
        """
        return (len(self.members) + self.corrupt) // 2 + 1


def check_apart(session: Session, roster: Roster) -> None:
    """Refuse a committee that shares a name or a key with the session's participants.

    A device that serves in both roles has `seat_name` of its own name there, and may have the same key: signatures of
    the two roles are about different things and say so. A key under two other names would be two devices, or a lie.
    Raises PlanError.
    """
    names = {member.name for member in session.members} & {member.name for member in roster.members}
    owners = {member.key: member.name for member in session.members}
    keys = [seat for seat in roster.members if seat.key in owners and seat.name != seat_name(owners[seat.key])]
    if names or keys:
        raise PlanError(f"{len(names or keys)} are participants and committee members under one name or key")


def seat_name(name: str) -> str:
    """Return the name that a device has in its seat."""
    return name + SEAT_SUFFIX


def seat_of(roster: Roster, name: str) -> int:
    """Return a member's seat. Raises PeerProtocolError if there is no such member."""
    for seat, member in enumerate(roster.members):
        if member.name == name:
            return seat
    raise PeerProtocolError(name, "is not a member of this committee")


def strictly_sorted(numbers: Iterable[int], below: int) -> bool:
    """Tell whether numbers ascend, each once, and are all below a bound (and not negative)."""
    found = list(numbers)
    return found == sorted(set(found)) and all(0 <= number < below for number in found)
