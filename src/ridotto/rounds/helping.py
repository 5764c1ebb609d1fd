"""The helper's half of a round: it has a seat on the committees of one or more sessions, and trains nothing.

    coordinator                          helper
    Announce: plan, session          ->
                                         check signature, plan and session against the own policy
                                    <-   Decline, or its seat's key
         ...  the secure sum, as a member of its committee  ...
    Closed                           ->

Nothing of a helper is ever restored: the keys of its seats live in this machine, and one that is killed has lost its
seats for the round.
"""

from __future__ import annotations

from ridotto.core.machine import COORDINATOR, SELF, Effect, Finish, Machine, Send
from ridotto.core.rng import Rng
from ridotto.core.wire import Message, sentence
from ridotto.crypto.seal import IdentityKey
from ridotto.errors import ConsentError, LocalProtocolError, PeerProtocolError, PlanError
from ridotto.rounds.announced import check_announced
from ridotto.rounds.messages import Announce, Closed, Decline
from ridotto.rounds.policy import Policy
from ridotto.rounds.seats import without_finish
from ridotto.secagg.committee.tasks import Summed
from ridotto.secagg.committee_roles.drawn import seat_of_device
from ridotto.secagg.protocols import sum_protocol
from ridotto.secagg.session import CommitteeSession, Member, Session, session_id

LONGEST_VECTOR = 2**28
"""Elements of a session's vectors that a helper takes by default: 1 GiB of them at 32 bits."""


class HelperRound:
    """Serve in one attempt at a round.

    Finishes when the coordinator has closed all sessions that were announced, with an error if the policy refused one.

    me: own name. policy: what a session must be like. coordinator: the identity key (32 bytes) that must have signed.
    rng: secret, from the operating system in a service, and never restored. longest: vectors of more elements are
    declined, because their masks would have to be added up in memory. The driver carries out `SumMasks`.
    """

    def __init__(
        self,
        me: str,
        identity: IdentityKey,
        policy: Policy,
        coordinator: bytes,
        rng: Rng,
        longest: int = LONGEST_VECTOR,
    ) -> None:
        self._longest = longest
        self._me = me
        self._identity = identity
        self._policy = policy
        self._coordinator = coordinator
        self._rng = rng
        self._seats: dict[bytes, Machine | None] = {}
        self._refusal: ConsentError | None = None
        self._closed: set[bytes] = set()

    def start(self, now: float) -> list[Effect]:
        """Wait for announcements."""
        return []

    def receive(self, sender: str, message: Message, now: float) -> list[Effect]:
        """Take the coordinator's next message, or a sum of masks from SELF.

        Raises PeerProtocolError if the coordinator's message does not hold.
        """
        if sender == SELF:
            return self._summed(message, now)
        if sender != COORDINATOR:
            raise PeerProtocolError(sender, "only the coordinator speaks to a helper")
        if isinstance(message, Announce):
            return self._consider(message, now)
        sid = getattr(message, "sid", None)
        if sid not in self._seats:
            raise _refuse(f"{type(message).__name__} is for a session that was not announced, or is closed")
        if isinstance(message, Closed):
            del self._seats[sid]
            self._closed.add(sid)
            return [] if self._seats else [Finish(message, self._refusal)]
        seat = self._seats[sid]
        if seat is None:
            raise _refuse(f"{type(message).__name__} is for a session that I declined")
        return without_finish(seat.receive(sender, message, now))

    def expire(self, now: float) -> list[Effect]:
        """Do nothing: the coordinator keeps the time."""
        return []

    def _consider(self, announce: Announce, now: float) -> list[Effect]:
        """Check what is announced; consent means to take the seat."""
        session = announce.session
        sid = session_id(session)
        if sid in self._seats or sid in self._closed:
            raise _refuse("it announced one session twice")
        check_announced(announce, sid, self._coordinator, None)
        self._check_mine(session)
        try:
            self._policy.check_session(announce.plan, session)
            if session.length > self._longest:
                raise ConsentError(
                    f"this helper adds up masks of {self._longest} elements at most; the session has {session.length}"
                )
        except ConsentError as error:
            self._seats[sid], self._refusal = None, error
            return [Send(COORDINATOR, Decline(sid, sentence(error)))]
        try:
            seat = sum_protocol(session.protocol).member(session, self._me, self._identity, self._rng)
        except PlanError as error:
            raise _cant_be(error) from error
        self._seats[sid] = seat
        return [] if seat is None else without_finish(seat.start(now))

    def _check_mine(self, session: Session) -> None:
        helpers = session.helpers if isinstance(session, CommitteeSession) else ()
        if Member(self._me, self._identity.public) not in helpers:
            raise _refuse("the session's helpers do not have me with my key")
        try:
            seated = seat_of_device(session, self._me) is not None
        except PlanError as error:
            raise _cant_be(error) from error
        if not seated:
            raise _refuse("it announced a session in which I have no seat")

    def _summed(self, message: Message, now: float) -> list[Effect]:
        if not isinstance(message, Summed):
            raise LocalProtocolError(f"{type(message).__name__} is not the result of a task of a helper")
        seat = self._seats.get(message.sid)
        # A round that was closed meanwhile needs it no more.
        return [] if seat is None else without_finish(seat.receive(SELF, message, now))


def _cant_be(error: PlanError) -> PeerProtocolError:
    return _refuse(f"it announced a session that can't be: {error}")


def _refuse(why: str) -> PeerProtocolError:
    return PeerProtocolError(COORDINATOR, why)
