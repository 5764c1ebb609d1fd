"""`committee` with the helpers of a session, or with some of its own members as well, as its committee."""

from __future__ import annotations

from functools import lru_cache

from ridotto.core.fixedpoint import IntVector
from ridotto.core.rng import Rng
from ridotto.crypto.seal import IdentityKey
from ridotto.secagg.committee.coordinator import CommitteeCoordinator
from ridotto.secagg.committee.member import CommitteeMember
from ridotto.secagg.committee.participant import CommitteeParticipant
from ridotto.secagg.committee.setup import CommitteeSetup, deal
from ridotto.secagg.committee_roles.drawn import drawn_roster, pool_of, require_drawn, seat_of_device
from ridotto.secagg.session import CommitteeSession, Session, Timeouts


@lru_cache(maxsize=256)
def _setup_of(session: CommitteeSession) -> CommitteeSetup:
    roster = drawn_roster(session)
    # One slot more than may be corrupt: whoever they are, one slot has none of them. All other seats are replicas.
    return CommitteeSetup(session, roster, deal(roster, roster.corrupt + 1), session.tail, session.sigma, session.seal)


def setup_of(session: Session) -> CommitteeSetup:
    """Return the setup of a session whose committee is drawn from its helpers or members.

    Raises PlanError if the session does not say how many seats there are, or they are too few or too many.
    """
    return _setup_of(require_drawn(session))


def drawn_participant(
    session: Session, me: str, identity: IdentityKey, vector: IntVector, rng: Rng
) -> CommitteeParticipant:
    """Return a participant's machine. vector: overwritten."""
    return CommitteeParticipant(setup_of(session), me, identity, vector, rng, pool_of(session))


def drawn_coordinator(session: Session, timeouts: Timeouts) -> CommitteeCoordinator:
    """Return the coordinator's machine."""
    return CommitteeCoordinator(setup_of(session), timeouts)


def drawn_member(session: Session, me: str, identity: IdentityKey, rng: Rng) -> CommitteeMember | None:
    """Return the machine of a device's seat, None if it has none. rng: secret, never restored."""
    name = seat_of_device(session, me)
    return None if name is None else CommitteeMember(setup_of(session), name, identity, rng)
