"""The coordinator's half of `pairwise`: it collects, delivers and at the end removes what did not cancel."""

from __future__ import annotations

import msgspec

from ridotto.core.machine import SELF, Do, Effect, Finish, Publish, Send, Wake
from ridotto.core.packing import packed_size
from ridotto.core.wire import Message, digest
from ridotto.crypto.seal import ExchangeKey, verify
from ridotto.errors import LocalProtocolError, PeerProtocolError, ProtocolError, RoundFailedError
from ridotto.secagg.binding import CONSISTENCY_CONTEXT, KEYS_CONTEXT, keys_statement, survivors_statement
from ridotto.secagg.messages import (
    COMMITMENTS_BYTES,
    Box,
    Consistency,
    Delivery,
    Evidence,
    KeyBook,
    KeyEntry,
    Masked,
    PublicKeys,
    SealedShares,
    Survivors,
    Unmask,
    Vote,
)
from ridotto.secagg.pairwise.group import form_group
from ridotto.secagg.pairwise.opening import Opening, commitments_at
from ridotto.secagg.session import FailureCode, Progress, Session, SessionResult, Timeouts, session_id
from ridotto.secagg.tasks import Fold, Open, Opened

STEPS: tuple[type[Message], ...] = (PublicKeys, SealedShares, Masked, Consistency, Unmask)
"""What participants send, in order. The coordinator is always collecting one of these."""

PROBE = ExchangeKey.from_bytes(bytes(range(32)))
"""Any key at all: agreeing with it shows whether a public key is of low order. It protects nothing."""


class PairwiseCoordinator:
    """Collect one kind of message after another; go on when everyone expected has answered, or when time is up.

    `Publish`es (step name, answered, expected) whenever that changes. Ends with a `SessionResult`, and an error
    where no sum was opened.
    """

    def __init__(self, session: Session, timeouts: Timeouts) -> None:
        self._session = session
        self._timeouts = timeouts
        self._sid = session_id(session)
        self._size = packed_size(session.length, session.bits)
        self._names = [member.name for member in session.members]
        self._index = {name: index for index, name in enumerate(self._names)}
        # What was answered, by step and member, is remembered by its hash. The messages themselves go as soon as they
        # were passed on, so that memory does not grow with every box and share of everybody.
        self._answers: tuple[dict[int, bytes], ...] = tuple({} for _ in STEPS)
        self._keys: dict[int, PublicKeys] = {}
        self._shares: dict[int, SealedShares] = {}
        self._votes: dict[int, Consistency] = {}
        self._step = 0
        self._expected = set(self._index.values())
        self._lost: dict[int, str] = {}
        self._shown: set[bytes] = set()
        self._included: tuple[int, ...] = ()
        self._deadline = 0.0

    def start(self, now: float) -> list[Effect]:
        """Wait for keys."""
        self._deadline = now + self._timeouts.first_s
        return [Wake(self._deadline), self._progress()]

    def receive(self, sender: str, message: Message, now: float) -> list[Effect]:
        """Take one message of a member, or the lanes of the opened sum from SELF.

        The same message again is answered with silence, so that sending again is always safe.
        Raises PeerProtocolError if the sender is no member or was lost, the message is early, late, a second and
        different one, of another session, or anything in it does not hold.
        """
        if isinstance(message, Opened) and sender == SELF:
            return self._finish(message)
        member = self._member(sender)
        if type(message) not in STEPS:
            raise PeerProtocolError(sender, f"a participant does not send {type(message).__name__}")
        said = digest(msgspec.msgpack.encode(message))
        if self._is_repeated(member, type(message), said):
            return []
        self._check(member, message)
        self._keep(member, message)
        self._answers[self._step][member] = said
        fold: list[Effect] = []
        if isinstance(message, Masked):
            fold = [Do(Fold(self._sid, sender, message.digest))]
        return [*fold, self._progress(), *self._advance_when_complete(now)]

    def expire(self, now: float) -> list[Effect]:
        """Go on without those who did not answer in time."""
        return self._advance(now) if self._step < len(STEPS) and now >= self._deadline else []

    def leave(self, name: str, why: str, now: float) -> list[Effect]:
        """Stop waiting for a member that said it will not answer, and remember why."""
        member = self._member(name)
        if self._step >= len(STEPS) or member not in self._expected or member in self._answers[self._step]:
            return []
        self._expected.discard(member)
        self._lost[member] = why
        return [self._progress(), *self._advance_when_complete(now)]

    def _is_repeated(self, member: int, kind: type[Message], said: bytes) -> bool:
        """Tell a repetition from a first message; refuse what is out of its time."""
        name, step = self._names[member], STEPS.index(kind)
        earlier = self._answers[step].get(member)
        if earlier is not None and earlier != said:
            raise PeerProtocolError(name, f"sent a second, different {kind.__name__}")
        if earlier is not None:
            return True
        if step > self._step:
            raise PeerProtocolError(name, f"its {kind.__name__} came too early")
        if step < self._step or member not in self._expected:
            raise PeerProtocolError(name, f"its {kind.__name__} came too late")
        return False

    def _member(self, name: str) -> int:
        if name not in self._index:
            raise PeerProtocolError(name, "is not a member of this session")
        return self._index[name]

    def _check(self, member: int, message: Message) -> None:
        """Refuse what does not hold in a message that came at its time."""
        name = self._names[member]
        if getattr(message, "sid", None) != self._sid:
            raise PeerProtocolError(name, f"its {type(message).__name__} belongs to another session")
        match message:
            case PublicKeys():
                self._check_keys(name, member, message)
            case SealedShares():
                self._check_shares(name, member, message)
            case Masked() if message.size != self._size:
                raise PeerProtocolError(name, f"its vector has {message.size} bytes, expected {self._size}")
            case Consistency():
                statement = survivors_statement(self._sid, self._group.book, self._included)
                self._verify(member, CONSISTENCY_CONTEXT, statement, message.signature, "survivor list")
            case Unmask():
                self._opening.take(member, message)

    def _keep(self, member: int, message: Message) -> None:
        """Keep what a later step needs of a message that was accepted."""
        match message:
            case PublicKeys():
                self._keys[member] = message
                self._shown |= {message.exchange, message.mask}
            case SealedShares():
                self._shares[member] = message
            case Consistency():
                self._votes[member] = message

    def _check_keys(self, name: str, member: int, message: PublicKeys) -> None:
        statement = keys_statement(self._sid, member, message.exchange, message.mask)
        self._verify(member, KEYS_CONTEXT, statement, message.signature, "keys")
        publics = {message.exchange, message.mask}
        try:
            for public in publics:
                PROBE.agree(public, self._sid, "probe", b"")
        except ProtocolError as error:
            # A low-order key would make everyone else's key agreement fail, and with it the session.
            raise PeerProtocolError(name, "its keys are unusable") from error
        if len(publics) < 2 or publics & self._shown:
            raise PeerProtocolError(name, "its keys are somebody else's, or twice the same")

    def _check_shares(self, name: str, member: int, message: SealedShares) -> None:
        if message.book != self._group.book:
            raise PeerProtocolError(name, "it was shown another key book")
        holders, boxes = self._group.holders[member], self._group.neighbours(member)
        if len(message.boxes) != len(boxes) or len(message.commitments) != COMMITMENTS_BYTES * len(holders):
            raise PeerProtocolError(name, f"it shared with {len(message.boxes)}, expected {len(boxes)}")

    def _verify(self, member: int, context: str, statement: bytes, signature: bytes, what: str) -> None:
        try:
            verify(self._session.members[member].key, context, statement, signature)
        except ProtocolError as error:
            raise PeerProtocolError(self._names[member], f"its {what} has no valid signature") from error

    def _advance_when_complete(self, now: float) -> list[Effect]:
        complete = self._expected <= set(self._answers[self._step])
        return self._advance(now) if complete else []

    def _advance(self, now: float) -> list[Effect]:
        """Close the current step: fail if too few answered, else begin the next one."""
        kind, answered = STEPS[self._step], set(self._answers[self._step])
        for member in self._expected - answered:
            self._lost.setdefault(member, f"sent no {kind.__name__}")
        enough = self._required(kind)
        if len(answered) < enough:
            reason = f"{len(answered)} sent {kind.__name__}, {enough} are needed"
            return self._fail(FailureCode.TOO_FEW, reason)
        begin = (self._show_keys, self._deliver, self._name_survivors, self._show_votes, self._open)[self._step]
        self._step += 1
        self._expected = answered
        self._deadline = now + self._timeouts.phase_s
        effects = begin(sorted(answered))
        return effects if self._step >= len(STEPS) else [*effects, Wake(self._deadline), self._progress()]

    def _required(self, kind: type[Message]) -> int:
        """Return how many must answer a step: the minimum until the list is signed, the threshold for its shares."""
        if kind is PublicKeys:
            return self._session.minimum
        if kind is Unmask:
            return self._group.threshold
        return max(self._session.minimum, self._group.threshold)

    def _show_keys(self, members: list[int]) -> list[Effect]:
        entries = tuple(
            KeyEntry(m, self._keys[m].exchange, self._keys[m].mask, self._keys[m].signature) for m in members
        )
        self._group = form_group(self._session, self._sid, entries)
        self._keys.clear()
        return self._send_all(members, KeyBook(self._sid, entries))

    def _deliver(self, members: list[int]) -> list[Effect]:
        boxes: dict[int, list[Box]] = {member: [] for member in members}
        for owner in members:
            message = self._shares[owner]
            places = {holder: place for place, holder in enumerate(self._group.holders[owner])}
            for sealed, holder in zip(message.boxes, self._group.neighbours(owner), strict=True):
                if holder in boxes:
                    seed_share, mask_share = commitments_at(message, places[holder])
                    boxes[holder].append(Box(owner, sealed, seed_share, mask_share))
            self._shares[owner] = msgspec.structs.replace(message, boxes=())
        return [Send(self._names[member], Delivery(self._sid, tuple(boxes[member]))) for member in members]

    def _name_survivors(self, members: list[int]) -> list[Effect]:
        self._included = tuple(members)
        return self._send_all(members, Survivors(self._sid, self._included))

    def _show_votes(self, members: list[int]) -> list[Effect]:
        self._opening = Opening(
            self._names, self._session.corrupt, self._sid, self._group, self._shares, self._included
        )
        votes = tuple(Vote(member, self._votes[member].signature) for member in members)
        self._votes.clear()
        return self._send_all(members, Evidence(self._sid, votes))

    def _open(self, members: list[int]) -> list[Effect]:
        try:
            return [Do(Open(self._sid, self._opening.masks()))]
        except RoundFailedError as error:
            return [Finish(self._result(), error)]

    def _send_all(self, members: list[int], message: Message) -> list[Effect]:
        return [Send(self._names[member], message) for member in members]

    def _finish(self, opened: Opened) -> list[Effect]:
        if self._step != len(STEPS) or opened.sid != self._sid:
            raise LocalProtocolError("a sum was opened that nobody asked for")
        self._step += 1
        if opened.count != len(self._included) or not opened.zero:
            reason = "the sum's check lanes are wrong: somebody's mask or vector was not what the protocol asks for"
            return [Finish(self._result(), RoundFailedError(FailureCode.CHECK_LANE, reason))]
        return [Finish(self._result())]

    def _fail(self, code: FailureCode, reason: str) -> list[Effect]:
        self._step = len(STEPS) + 1
        return [Finish(self._result(), RoundFailedError(code, reason))]

    def _result(self) -> SessionResult:
        included = tuple(self._names[member] for member in self._included)
        return SessionResult(self._sid, included, {self._names[m]: why for m, why in sorted(self._lost.items())})

    def _progress(self) -> Publish:
        kind = STEPS[self._step].__name__ if self._step < len(STEPS) else "Open"
        answered: dict[int, bytes] = self._answers[self._step] if self._step < len(STEPS) else {}
        waiting = tuple(self._names[m] for m in sorted(self._expected - set(answered)))
        return Publish(Progress(self._session.round, self._session.shard, kind, len(answered), waiting))
