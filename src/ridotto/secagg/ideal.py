"""`ideal`: a trusted coordinator adds up vectors in clear.

The reference that every other protocol must equal bit for bit, and the declared "no protection" mode: the coordinator
sees every update. Two steps:

    participant -> coordinator   Plain (vector)
    coordinator                  opens the sum when everyone has answered or time is up

A vector that is mostly zeros may travel in the form of `core.sparse_packing`, which is shorter.
"""

from __future__ import annotations

from ridotto.core.fixedpoint import IntVector
from ridotto.core.machine import COORDINATOR, SELF, Do, Effect, Finish, Send, Wake
from ridotto.core.packing import pack, packed_size
from ridotto.core.rng import Rng
from ridotto.core.sparse_packing import pack_shorter
from ridotto.core.wire import Message, digest
from ridotto.crypto.seal import IdentityKey
from ridotto.errors import LocalProtocolError, PeerProtocolError, RoundFailedError
from ridotto.secagg.messages import Plain
from ridotto.secagg.session import FailureCode, Session, SessionResult, Timeouts, index_of, session_id
from ridotto.secagg.tasks import Fold, Open, Opened


class IdealParticipant:
    """Send one vector. Takes what every participant half takes; the key and `rng` are not needed here.

    sparse: leave out zeros where that is shorter. Only for plans that make many: then uploads differ in size.
    """

    def __init__(
        self, session: Session, me: str, identity: IdentityKey, vector: IntVector, rng: Rng, *, sparse: bool = False
    ) -> None:
        index_of(session, me)
        self._sid = session_id(session)
        self._packed = (pack_shorter if sparse else pack)(vector, session.bits)

    def start(self, now: float) -> list[Effect]:
        """Send the vector; nothing remains to be done."""
        message = Plain(digest=digest(self._packed), size=len(self._packed), sid=self._sid)
        return [Send(COORDINATOR, message, self._packed), Finish()]

    def receive(self, sender: str, message: Message, now: float) -> list[Effect]:
        """Refuse everything: nobody has anything to say to an `ideal` participant."""
        raise PeerProtocolError(sender, f"{type(message).__name__} has no place in this protocol")

    def expire(self, now: float) -> list[Effect]:
        """Do nothing."""
        return []


class IdealCoordinator:
    """Add up what comes until everyone has answered or `timeouts.first_s` have passed.

    sparse: vectors may be shorter. Whether one is a sparse form shows only where it is folded.
    """

    def __init__(self, session: Session, timeouts: Timeouts, *, sparse: bool = False) -> None:
        self._sparse = sparse
        self._session = session
        self._timeouts = timeouts
        self._sid = session_id(session)
        self._size = packed_size(session.length, session.bits)
        self._included: dict[str, bytes] = {}
        self._left: dict[str, str] = {}
        self._deadline = 0.0
        self._closed = False

    def start(self, now: float) -> list[Effect]:
        """Begin to wait."""
        self._deadline = now + self._timeouts.first_s
        return [Wake(self._deadline)]

    def receive(self, sender: str, message: Message, now: float) -> list[Effect]:
        """Take a vector, or the lanes of the opened sum from SELF.

        Raises PeerProtocolError if the sender is no member, the session is another, the length is wrong, a vector is
        late, or it differs from one sent before. The same one again is answered with silence.
        """
        match message:
            case Opened() if sender == SELF:
                return self._finish(message)
            case Plain():
                return self._take(sender, message)
            case _:
                raise PeerProtocolError(sender, f"{type(message).__name__} has no place in this protocol")

    def expire(self, now: float) -> list[Effect]:
        """Close when time is up."""
        return self._close() if not self._closed and now >= self._deadline else []

    def leave(self, name: str, why: str, now: float) -> list[Effect]:
        """Stop waiting for a member that said it will not answer, and remember why."""
        index_of(self._session, name)
        if self._closed or name in self._included:
            return []
        self._left[name] = why
        return self._close_when_complete()

    def _close_when_complete(self) -> list[Effect]:
        complete = len(self._included) + len(self._left) == len(self._session.members)
        return self._close() if complete else []

    def _take(self, sender: str, message: Plain) -> list[Effect]:
        index_of(self._session, sender)
        if message.sid != self._sid:
            raise PeerProtocolError(sender, "its vector belongs to another session")
        if sender in self._included:
            if self._included[sender] != message.digest:
                raise PeerProtocolError(sender, "sent a second, different vector")
            return []
        if self._closed:
            raise PeerProtocolError(sender, "its vector came too late")
        if message.size > self._size or (message.size < self._size and not self._sparse):
            most = " at most" if self._sparse else ""
            raise PeerProtocolError(sender, f"its vector has {message.size} bytes, expected {self._size}{most}")
        self._left.pop(sender, None)
        self._included[sender] = message.digest
        fold: list[Effect] = [Do(Fold(self._sid, sender, message.digest))]
        return fold + self._close_when_complete()

    def _close(self) -> list[Effect]:
        self._closed = True
        found, needed = len(self._included), self._session.minimum
        if found < needed:
            reason = f"{found} of {len(self._session.members)} sent a vector, {needed} are needed"
            return [Finish(self._result(), RoundFailedError(FailureCode.TOO_FEW, reason))]
        return [Do(Open(self._sid, ()))]

    def _finish(self, opened: Opened) -> list[Effect]:
        if not self._closed or opened.sid != self._sid:
            raise LocalProtocolError("a sum was opened that nobody asked for")
        if opened.count != len(self._included) or not opened.zero:
            error = RoundFailedError(FailureCode.CHECK_LANE, "the sum's check lanes are wrong: a vector was malformed")
            return [Finish(self._result(), error)]
        return [Finish(self._result())]

    def _result(self) -> SessionResult:
        names = [member.name for member in self._session.members]
        lost = {name: self._left.get(name, "sent no vector") for name in names if name not in self._included}
        return SessionResult(self._sid, tuple(name for name in names if name in self._included), lost)
