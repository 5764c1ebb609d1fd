"""Draw the committee of a session from the session's own members.

The pool is the roster, the beacon the session's nonce. The coordinator makes both, so it may try many nonces until it
likes the committee. That gains nothing, because t is the number of corrupt members of the *whole* session: whoever is
drawn, no more of them can have seats. The draw shares the work out; it is not what secrecy rests on.

A device that has a seat keeps its key and bears a second name there, its own with "/member" behind it, which no device
can be enrolled under. Every signature names what it is about, so one key in two roles signs nothing that could be taken
for something else. See docs/decisions/0004-committees.md.
"""

from __future__ import annotations

from functools import lru_cache

from ridotto.errors import PlanError
from ridotto.secagg.committee_roles.choice import choose
from ridotto.secagg.committee_roles.roster import SEAT_SUFFIX, Roster, seat_name
from ridotto.secagg.session import CommitteeSession, Member, Session


def device_of(name: str) -> str:
    """Return the name of the device that bears `name`, which may be that of its seat."""
    return name.removesuffix(SEAT_SUFFIX)


def pool_of(session: Session) -> tuple[Member, ...]:
    """Return who can have a seat: all members, under the names that they would have there."""
    return tuple(Member(seat_name(member.name), member.key) for member in session.members)


def corrupt_seats(corrupt: int) -> int:
    """Return t, how many seats may be corrupt where so many members of the session may: all of them, and at least 1."""
    return max(1, corrupt)


@lru_cache(maxsize=256)
def drawn_roster(session: CommitteeSession) -> Roster:
    """Return a session's committee.

    Raises PlanError if the session has fewer members than seats, or the committee could not agree.
    """
    return choose(pool_of(session), session.nonce, session.committee, corrupt_seats(session.corrupt))


def require_drawn(session: Session) -> CommitteeSession:
    """Return the session if it says how large its committee is. Raises PlanError if not."""
    if not isinstance(session, CommitteeSession):
        raise PlanError(f'a session with protocol "{session.protocol}" says how many seats its committee has')
    return session
