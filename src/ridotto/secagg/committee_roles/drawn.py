"""Draw the committee of a session from its helpers, or from the session's own members where it has none.

The beacon is the session's nonce. The coordinator makes it, so it may try many until it likes the committee. That gains
nothing, because t is the number of corrupt members, or corrupt helpers, of *all* who can be drawn: whoever is drawn, no
more of them can have seats. The draw shares the work out; it is not what secrecy rests on.

A device that takes part and has a seat keeps its key and bears a second name there, its own with "/member" behind it,
which no device can be enrolled under. Every signature names what it is about, so one key in two roles signs nothing
that could be taken for something else. Helpers have one role and one name. See docs/decisions/0004-committees.md.
"""

from __future__ import annotations

from functools import lru_cache

from ridotto.core.wire import digest
from ridotto.errors import PlanError
from ridotto.secagg.binding import number
from ridotto.secagg.committee_roles.choice import choose
from ridotto.secagg.committee_roles.roster import SEAT_SUFFIX, Roster, seat_name
from ridotto.secagg.session import CommitteeSession, Member, Session


def device_of(name: str) -> str:
    """Return the name of the device that bears `name`, which may be that of its seat."""
    return name.removesuffix(SEAT_SUFFIX)


def pool_of(session: Session) -> tuple[Member, ...]:
    """Return who can have a seat: the helpers, or all members, under the names that they would have there."""
    if isinstance(session, CommitteeSession) and session.helpers:
        return session.helpers
    return tuple(Member(seat_name(member.name), member.key) for member in session.members)


def corrupt_seats(corrupt: int) -> int:
    """Return t, how many seats may be corrupt where so many members of the session may: all of them, and at least 1."""
    return max(1, corrupt)


@lru_cache(maxsize=256)
def drawn_roster(session: CommitteeSession) -> Roster:
    """Return a session's committee.

    Raises PlanError if there are fewer who can have a seat than seats, or the committee could not agree.
    """
    corrupt = session.helpers_corrupt if session.helpers else corrupt_seats(session.corrupt)
    return choose(pool_of(session), _beacon(session), session.committee, corrupt)


def name_in_seat(session: Session, device: str) -> str:
    """Return the name that a device would have in a seat: helpers have one name only."""
    return device if isinstance(session, CommitteeSession) and session.helpers else seat_name(device)


def seat_of_device(session: Session, device: str) -> str | None:
    """Return the name that a device has in its seat, None if it has none.

    Raises PlanError if the session does not say how many seats there are.
    """
    name = name_in_seat(session, device)
    return name if any(seat.name == name for seat in drawn_roster(require_drawn(session)).members) else None


def require_drawn(session: Session) -> CommitteeSession:
    """Return the session if it says how large its committee is. Raises PlanError if not."""
    if not isinstance(session, CommitteeSession):
        raise PlanError(f'a session with protocol "{session.protocol}" says how many seats its committee has')
    return session


def _beacon(session: CommitteeSession) -> bytes:
    """Return what decides the draw. All sessions of a round have the same helpers, who are to share their work."""
    if not session.helpers:
        return session.nonce
    return digest(b"ridotto/1 helpers\x00" + session.nonce + number(session.shard))
