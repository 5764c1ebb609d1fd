"""`oneshot` with the helpers of a session, or with some of its own members as well, as its committee."""

from __future__ import annotations

from functools import lru_cache

from ridotto.core.fixedpoint import IntVector
from ridotto.core.rng import Rng
from ridotto.crypto.seal import IdentityKey
from ridotto.secagg.committee_roles.drawn import drawn_roster, pool_of, require_drawn, seat_of_device
from ridotto.secagg.oneshot.coordinator import OneshotCoordinator
from ridotto.secagg.oneshot.member import OneshotMember
from ridotto.secagg.oneshot.participant import OneshotParticipant
from ridotto.secagg.oneshot.setup import OneshotSetup
from ridotto.secagg.session import CommitteeSession, Session, Timeouts


def pack_of(committee: int, corrupt: int) -> int:
    """Return rho, secrets per polynomial: the least with t + 2 rho > C.

    So few honest members can't open two sets: two openings take 2 rho of the C - t. And t + rho, the releases that open
    a sum, are then as many as must acknowledge its set, so that neither number asks for more members than the other.
    """
    return (committee - corrupt) // 2 + 1


@lru_cache(maxsize=256)
def _setup_of(session: CommitteeSession) -> OneshotSetup:
    roster = drawn_roster(session)
    return OneshotSetup(session, roster, pack_of(len(roster.members), roster.corrupt), session.tail, session.seal)


def setup_of(session: Session) -> OneshotSetup:
    """Return the setup of a session whose committee is drawn from its helpers or members.

    Raises PlanError if the session does not say how many seats there are, or they are too few or too many.
    """
    return _setup_of(require_drawn(session))


def drawn_participant(
    session: Session, me: str, identity: IdentityKey, vector: IntVector, rng: Rng
) -> OneshotParticipant:
    """Return a participant's machine."""
    return OneshotParticipant(setup_of(session), me, identity, vector, rng, pool_of(session))


def drawn_coordinator(session: Session, timeouts: Timeouts) -> OneshotCoordinator:
    """Return the coordinator's machine."""
    return OneshotCoordinator(setup_of(session), timeouts)


def drawn_member(session: Session, me: str, identity: IdentityKey, rng: Rng) -> OneshotMember | None:
    """Return the machine of a device's seat, None if it has none. rng: secret, never restored."""
    name = seat_of_device(session, me)
    return None if name is None else OneshotMember(setup_of(session), name, identity, rng)
