"""The coordinator of a session with a committee: it collects one kind of message after another.

    members        MemberKey     -> the book of their keys, shown to all
    participants   one message   -> parcels, delivered to the members
    members        Checked       -> the set, without those whose parcels do not open
    members        Ack           -> all acknowledgements of its root
    members        a release     -> the sum is opened

What participants send, what is released and how that opens a sum is the protocol's: `committee` and `oneshot` say so.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping
from typing import ClassVar

from ridotto.core.machine import SELF, Do, Effect, Finish, Publish, Send, Wake
from ridotto.core.wire import Attached, Message
from ridotto.crypto.seal import KEY_BYTES, ExchangeKey
from ridotto.errors import LocalProtocolError, PeerProtocolError, ProtocolError, RoundFailedError
from ridotto.secagg.committee_roles.agreement import Equivocation, ack_statement, check_ack, set_root
from ridotto.secagg.committee_roles.complaints import Verdict
from ridotto.secagg.committee_roles.evidence import Evidence, MemberFaults, SignedRelease
from ridotto.secagg.committee_roles.keys import book_root, check_key
from ridotto.secagg.committee_roles.messages import (
    Ack,
    Acks,
    Checked,
    Included,
    MemberBook,
    MemberEntry,
    MemberKey,
    SeatVote,
)
from ridotto.secagg.committee_roles.roster import strictly_sorted
from ridotto.secagg.committee_roles.setup import SeatedSetup
from ridotto.secagg.committee_roles.steps import Heard, Steps
from ridotto.secagg.committee_roles.tasks import Settle
from ridotto.secagg.session import FailureCode, SessionResult, Timeouts
from ridotto.secagg.tasks import Fold, Opened

PROBE = ExchangeKey.from_bytes(bytes(range(32)))
"""Any key at all: agreeing with it shows whether a public key is of low order. It protects nothing."""


class SeatedCoordinator(ABC):
    """Collect one kind of message after another; go on when everyone expected has answered, or when time is up.

    `Publish`es `Progress` whenever that changes, `Equivocation` and `MemberFaults` where there are any, `Evidence` once
    the sum is opened. Ends with a `SessionResult`, and an error where no sum was opened. What participants send is
    waited for `timeouts.first_s`, all else `phase_s`.
    """

    protocol: ClassVar[str]
    spoken: ClassVar[type[Attached]]
    released: ClassVar[type[Message]]
    opened: ClassVar[type[Opened]] = Opened
    unsealed: ClassVar[tuple[str, str]]
    """Why a participant is lost whose parcels do not open: if that is certain, and on one member's word."""
    wrong_lanes: ClassVar[str]

    def __init__(self, setup: SeatedSetup, timeouts: Timeouts) -> None:
        self._seated = setup
        self._timeouts = timeouts
        self._kinds = (MemberKey, self.spoken, Checked, Ack, self.released)
        self._steps = Steps(setup.session, setup.roster, setup.sid, self._kinds, self.spoken)
        self._digests: dict[int, bytes] = {}
        self._shown: set[bytes] = set()
        self._acks: dict[int, Ack] = {}
        self._book = MemberBook(setup.sid, ())
        self._book_root = self._root = b""
        self._deadline = 0.0

    @abstractmethod
    def _check_own(self, name: str, index: int, message: Message) -> None:
        """Refuse a participant's message, or a release, that does not hold."""

    @abstractmethod
    def _require_seats(self, kind: type[Message] | None, seats: list[int]) -> None:
        """Raise RoundFailedError if too few members, or not the right ones, have sent a kind of message."""

    @abstractmethod
    def _parcels(self, participants: list[int], place: int) -> Message:
        """Return what the member at a place in the book is sent of these participants."""

    @abstractmethod
    def _verdict(self, complaints: Mapping[int, Collection[int]]) -> Verdict:
        """Decide about complaints: seat -> participants."""

    @abstractmethod
    def _open(self, seats: list[int]) -> list[Effect]:
        """Have the sum opened with what these members released, or raise RoundFailedError."""

    @abstractmethod
    def _releases(self) -> tuple[SignedRelease, ...]:
        """Return what members signed when they released, by seat."""

    def _keep_release(self, seat: int, message: Message) -> list[Effect]:
        """Keep what a release brings beside its message."""
        return []

    def _anomaly(self, opened: Opened) -> RoundFailedError | None:
        """Return what is wrong with an opened sum, apart from its lanes."""
        return None

    def start(self, now: float) -> list[Effect]:
        """Wait for the members' keys."""
        self._deadline = now + self._timeouts.phase_s
        return [Wake(self._deadline), self._progress()]

    def receive(self, sender: str, message: Message, now: float) -> list[Effect]:
        """Take one message of a participant or member, or the lanes of the opened sum from SELF.

        The same message again is answered with silence, so that sending again is always safe.
        Raises PeerProtocolError if the sender has no part in this session or was lost, the message is early, late, a
        second and different one, of another session, or anything in it does not hold.
        """
        if isinstance(message, self.opened) and sender == SELF:
            return self._finish(message)
        index, heard = self._steps.hear(sender, message)
        if heard is Heard.AGAIN:
            return []
        if heard is Heard.OTHER:
            return self._second(sender, index, message)
        self._check(sender, index, message)
        self._steps.keep(index, message)
        return [*self._take(sender, index, message), self._progress(), *self._advance_when_complete(now)]

    def expire(self, now: float) -> list[Effect]:
        """Go on without those who did not answer in time."""
        return self._advance(now) if self._steps.kind and now >= self._deadline else []

    def leave(self, name: str, why: str, now: float) -> list[Effect]:
        """Stop waiting for a participant or member that said it will not answer, and remember why."""
        return [self._progress(), *self._advance_when_complete(now)] if self._steps.leave(name, why) else []

    def _second(self, name: str, seat: int, message: Message) -> list[Effect]:
        """Refuse a second, different message; two signed sets of one member are a proof, and shown."""
        first = self._acks.get(seat)
        if isinstance(message, Ack) and first is not None and message.root != first.root:
            context = self._seated.context
            statement = ack_statement(context, self._book_root, message.root)
            check_ack(self._seated.roster, seat, statement, message.signature, name)
            return [Publish(Equivocation(name, context, self._book_root, first, message))]
        raise PeerProtocolError(name, f"sent a second, different {type(message).__name__}")

    def _check(self, name: str, index: int, message: Message) -> None:
        """Refuse what does not hold in a message that came at its time."""
        match message:
            case MemberKey():
                self._check_member_key(name, index, message)
            case Checked():
                if not strictly_sorted(message.bad, len(self._steps.names)) or not set(message.bad) <= set(
                    self._digests
                ):
                    raise PeerProtocolError(name, "it complains about participants whose parcels it was not sent")
            case Ack():
                if message.root != self._root:
                    raise PeerProtocolError(name, "it acknowledged another set")
                statement = ack_statement(self._seated.context, self._book_root, self._root)
                check_ack(self._seated.roster, index, statement, message.signature, name)
            case _:
                self._check_own(name, index, message)

    def _check_member_key(self, name: str, seat: int, message: MemberKey) -> None:
        setup = self._seated
        entry = MemberEntry(seat, message.public, message.signature)
        check_key(setup.roster, setup.context, setup.seal, entry, name)
        self._probe(name, message.public[-KEY_BYTES:])
        if any(isinstance(kept, MemberKey) and kept.public == message.public for kept in self._steps.kept.values()):
            raise PeerProtocolError(name, "its key is another member's")

    def _probe(self, name: str, public: bytes) -> None:
        try:
            PROBE.agree(public, self._seated.context, "probe", b"")
        except ProtocolError as error:
            raise PeerProtocolError(name, "its key is unusable") from error

    def _check_new(self, name: str, book: bytes, public: bytes, digest: bytes, what: str) -> None:
        """Refuse what a participant sent for another book, with an unusable key, or copied from another one."""
        if book != self._book_root:
            raise PeerProtocolError(name, "it was shown another book of members")
        self._probe(name, public)
        if digest in self._shown:
            raise PeerProtocolError(name, f"its {what} is somebody else's")

    def _take(self, name: str, index: int, message: Message) -> list[Effect]:
        """Keep what a later step needs of a message that was accepted, and have its vector put away."""
        if isinstance(message, Ack):
            self._acks[index] = message
        if isinstance(message, self.spoken):
            self._digests[index] = message.contribution
            self._shown.add(message.digest)
            return [Do(Fold(self._seated.sid, name, message.contribution))]
        return self._keep_release(index, message)

    def _advance_when_complete(self, now: float) -> list[Effect]:
        return self._advance(now) if self._steps.complete else []

    def _advance(self, now: float) -> list[Effect]:
        """Close the current step: fail if too few answered, else begin the next one."""
        kind, answered = self._steps.kind, self._steps.close()
        begin = (self._show_book, self._deliver, self._settle, self._show_acks, self._open)[self._steps.step]
        try:
            self._require(kind, answered)
            effects = begin(answered)
        except RoundFailedError as error:
            return self._end(error)
        if self._steps.kind is None:
            return effects
        waits = self._timeouts.first_s if self._steps.kind is self.spoken else self._timeouts.phase_s
        self._deadline = now + waits
        effects += [Wake(self._deadline), self._progress()]
        # Everybody who was expected may have left before.
        return [*effects, *self._advance_when_complete(now)] if not self._steps.expected else effects

    def _require(self, kind: type[Message] | None, answered: list[int]) -> None:
        if kind is not self.spoken:
            self._require_seats(kind, answered)
        elif len(answered) < self._seated.session.minimum:
            reason = f"{len(answered)} sent {self.spoken.__name__}, {self._seated.session.minimum} are needed"
            raise RoundFailedError(FailureCode.TOO_FEW, reason)

    def _faulty(self) -> tuple[str, ...]:
        """Return the names of the members that did not do their part, by seat."""
        return tuple(self._steps.seats[seat] for seat in sorted(self._steps.faults))

    def _show_book(self, seats: list[int]) -> list[Effect]:
        keys = [(seat, self._steps.kept[seat]) for seat in seats]
        entries = [MemberEntry(seat, key.public, key.signature) for seat, key in keys if isinstance(key, MemberKey)]
        self._book = MemberBook(self._seated.sid, tuple(entries))
        self._book_root = book_root(self._seated.context, self._book)
        self._steps.begin(set(range(len(self._steps.names))) - set(self._steps.lost))
        participants = [self._steps.names[index] for index in sorted(self._steps.expected)]
        return self._send_all([*(self._steps.seats[seat] for seat in seats), *participants], self._book)

    def _deliver(self, participants: list[int]) -> list[Effect]:
        effects: list[Effect] = [
            Send(self._steps.seats[entry.seat], self._parcels(participants, place))
            for place, entry in enumerate(self._book.entries)
        ]
        self._steps.begin({entry.seat for entry in self._book.entries})
        return effects

    def _settle(self, seats: list[int]) -> list[Effect]:
        """Decide who is in the sum, and have the others' contributions taken out of it."""
        setup, steps = self._seated, self._steps
        complaints = {seat: kept.bad for seat in seats if isinstance(kept := steps.kept[seat], Checked)}
        verdict = self._verdict(complaints)
        removed = tuple((steps.names[index], self._digests.pop(index)) for index in sorted(verdict.dropped))
        for index in verdict.dropped:
            certain, doubtful = self.unsealed
            steps.lost[index] = certain if index in verdict.at_fault else doubtful
        for seat in verdict.aside:
            steps.faults[seat] = f"complained about {len(complaints[seat])} participants"
        if len(self._digests) < setup.session.minimum:
            reason = f"{len(self._digests)} contributions are left, {setup.session.minimum} are needed"
            blame = tuple(steps.names[index] for index in sorted(verdict.at_fault))
            raise RoundFailedError(FailureCode.TOO_FEW, reason, blame)
        self._root = set_root(self._digests)
        steps.begin(set(seats) - verdict.aside)
        members = [steps.seats[seat] for seat in sorted(steps.expected)]
        included = Included(setup.sid, tuple(sorted(self._digests)))
        return [Do(Settle(setup.sid, removed)), *self._send_all(members, included)]

    def _show_acks(self, seats: list[int]) -> list[Effect]:
        votes = tuple(SeatVote(seat, self._acks[seat].signature) for seat in seats)
        self._steps.begin(seats)
        return self._send_all([self._steps.seats[seat] for seat in seats], Acks(self._seated.sid, votes))

    def _send_all(self, names: Iterable[str], message: Message) -> list[Effect]:
        return [Send(name, message) for name in names]

    def _finish(self, opened: Opened) -> list[Effect]:
        if self._steps.step != len(self._kinds) or opened.sid != self._seated.sid:
            raise LocalProtocolError("a sum was opened that nobody asked for")
        anomaly = self._anomaly(opened)
        if anomaly is None and (opened.count != len(self._digests) or not opened.zero):
            anomaly = RoundFailedError(FailureCode.CHECK_LANE, self.wrong_lanes)
        return self._end(anomaly) if anomaly is not None else [Publish(self._evidence()), *self._end(None)]

    def _evidence(self) -> Evidence:
        setup = self._seated
        acks = tuple(SeatVote(seat, ack.signature) for seat, ack in sorted(self._acks.items()))
        digests = dict(self._digests)
        return Evidence(self.protocol, setup.sid, setup.layout, self._book_root, digests, acks, self._releases())

    def _end(self, error: RoundFailedError | None) -> list[Effect]:
        self._steps.stop()
        faults = tuple((self._steps.seats[seat], why) for seat, why in sorted(self._steps.faults.items()))
        published: list[Effect] = [Publish(MemberFaults(self._seated.sid, faults))] if faults else []
        return [*published, Finish(self._result(), error)]

    def _result(self) -> SessionResult:
        names = self._steps.names
        included = tuple(names[index] for index in sorted(self._digests))
        lost = {names[index]: why for index, why in sorted(self._steps.lost.items())}
        return SessionResult(self._seated.sid, included, lost)

    def _progress(self) -> Publish:
        return Publish(self._steps.progress("Open"))
