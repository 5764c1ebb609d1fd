"""The coordinator's half of `committee`: it collects, delivers, and takes off the masks of the agreed set."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ridotto.core.machine import SELF, Do, Effect, Finish, Publish, Send, Wake
from ridotto.core.wire import Message
from ridotto.crypto.seal import ExchangeKey, verify
from ridotto.errors import LocalProtocolError, PeerProtocolError, ProtocolError, RoundFailedError
from ridotto.secagg.committee.binding import (
    CONTRIBUTION_CONTEXT,
    RELEASE_CONTEXT,
    contribution_statement,
    release_statement,
)
from ridotto.secagg.committee.messages import MaskedVector, MaskSum, SeedParcel, SeedParcels
from ridotto.secagg.committee.replicas import agreed_masks, settle_slots, short_slot
from ridotto.secagg.committee.setup import CommitteeFailure, CommitteeSetup
from ridotto.secagg.committee.tasks import Keep, Unmask
from ridotto.secagg.committee_roles.agreement import Equivocation, ack_statement, check_ack, set_root
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
from ridotto.secagg.committee_roles.steps import Heard, Steps
from ridotto.secagg.committee_roles.tasks import Settle
from ridotto.secagg.session import FailureCode, SessionResult, Timeouts
from ridotto.secagg.tasks import Fold, Opened

STEPS: tuple[type[Message], ...] = (MemberKey, MaskedVector, Checked, Ack, MaskSum)
"""What is sent to the coordinator, in order: masked vectors by participants, all else by members."""

PROBE = ExchangeKey.from_bytes(bytes(range(32)))
"""Any key at all: agreeing with it shows whether a public key is of low order. It protects nothing."""


@dataclass(frozen=True, slots=True)
class Disagreement:
    """Prove that two replicas of a slot released different sums for one set: each bears its member's signature."""

    context: bytes
    book: bytes
    slot: int
    first: tuple[str, MaskSum]
    second: tuple[str, MaskSum]


class CommitteeCoordinator:
    """Collect one kind of message after another; go on when everyone expected has answered, or when time is up.

    `Publish`es `Progress` whenever that changes; `Equivocation`, `Disagreement` and `MemberFaults` where there are any;
    `Evidence` once the sum is opened. Ends with a `SessionResult`, and an error where no sum was opened. Masked vectors
    are waited for `timeouts.first_s`, all else `phase_s`.
    """

    def __init__(self, setup: CommitteeSetup, timeouts: Timeouts) -> None:
        self._setup = setup
        self._timeouts = timeouts
        self._steps = Steps(setup.session, setup.roster, setup.sid, STEPS, MaskedVector)
        self._digests: dict[int, bytes] = {}
        self._shown: set[bytes] = set()
        self._acks: dict[int, Ack] = {}
        self._released: dict[int, MaskSum] = {}
        self._book = MemberBook(setup.sid, ())
        self._book_root = self._root = b""
        self._deadline = 0.0

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
        if isinstance(message, Opened) and sender == SELF:
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
            context = self._setup.context
            statement = ack_statement(context, self._book_root, message.root)
            check_ack(self._setup.roster, seat, statement, message.signature, name)
            return [Publish(Equivocation(name, context, self._book_root, first, message))]
        raise PeerProtocolError(name, f"sent a second, different {type(message).__name__}")

    def _check(self, name: str, index: int, message: Message) -> None:
        """Refuse what does not hold in a message that came at its time."""
        setup = self._setup
        match message:
            case MemberKey():
                self._check_member_key(name, index, message)
            case MaskedVector():
                self._check_vector(name, index, message)
            case Checked() if not (
                strictly_sorted(message.bad, len(self._steps.names)) and set(message.bad) <= set(self._digests)
            ):
                raise PeerProtocolError(name, "it complains about participants whose parcels it was not sent")
            case Ack():
                if message.root != self._root:
                    raise PeerProtocolError(name, "it acknowledged another set")
                statement = ack_statement(setup.context, self._book_root, self._root)
                check_ack(setup.roster, index, statement, message.signature, name)
            case MaskSum():
                self._check_masks(name, index, message)

    def _check_member_key(self, name: str, seat: int, message: MemberKey) -> None:
        check_key(self._setup.roster, self._setup.context, MemberEntry(seat, message.public, message.signature), name)
        self._probe(name, message.public)
        if any(isinstance(kept, MemberKey) and kept.public == message.public for kept in self._steps.kept.values()):
            raise PeerProtocolError(name, "its key is another member's")

    def _probe(self, name: str, public: bytes) -> None:
        try:
            PROBE.agree(public, self._setup.context, "probe", b"")
        except ProtocolError as error:
            raise PeerProtocolError(name, "its key is unusable") from error

    def _check_vector(self, name: str, participant: int, message: MaskedVector) -> None:
        setup = self._setup
        # Sizes first: nothing of a wrong size is looked at, or given memory.
        if message.size != setup.size:
            raise PeerProtocolError(name, f"its vector has {message.size} bytes, expected {setup.size}")
        if len(message.parcels) != len(self._book.entries) or len(message.commitments) != setup.count:
            raise PeerProtocolError(name, f"it did not seal {len(self._book.entries)} seeds of {setup.count} slots")
        if message.book != self._book_root:
            raise PeerProtocolError(name, "it was shown another book of members")
        self._probe(name, message.public)
        if message.digest in self._shown:
            raise PeerProtocolError(name, "its vector is somebody else's")
        statement = contribution_statement(
            setup.context, message.book, participant, message.public, message.digest, message.commitments
        )
        try:
            verify(setup.session.members[participant].key, CONTRIBUTION_CONTEXT, statement, message.signature)
        except ProtocolError as error:
            raise PeerProtocolError(name, "its vector bears no valid signature") from error

    def _check_masks(self, name: str, seat: int, message: MaskSum) -> None:
        setup = self._setup
        if message.size != setup.size:
            raise PeerProtocolError(name, f"its masks have {message.size} bytes, expected {setup.size}")
        if message.root != self._root:
            raise PeerProtocolError(name, "it released for another set")
        statement = release_statement(setup.context, self._book_root, self._root, message.digest)
        try:
            verify(setup.roster.members[seat].key, RELEASE_CONTEXT, statement, message.signature)
        except ProtocolError as error:
            raise PeerProtocolError(name, "its masks bear no valid signature") from error

    def _take(self, name: str, index: int, message: Message) -> list[Effect]:
        """Keep what a later step needs of a message that was accepted, and have its vector put away."""
        sid = self._setup.sid
        match message:
            case Ack():
                self._acks[index] = message
            case MaskedVector():
                self._digests[index] = message.digest
                self._shown.add(message.digest)
                return [Do(Fold(sid, name, message.digest))]
            case MaskSum():
                known = {release.digest for release in self._released.values()}
                self._released[index] = message
                return [] if message.digest in known else [Do(Keep(sid, message.digest))]
        return []

    def _advance_when_complete(self, now: float) -> list[Effect]:
        return self._advance(now) if self._steps.complete else []

    def _advance(self, now: float) -> list[Effect]:
        """Close the current step: fail if too few answered, else begin the next one."""
        kind, answered = self._steps.kind, self._steps.close()
        begin = (self._show_book, self._deliver, self._settle, self._show_acks, self._unmask)[self._steps.step]
        try:
            self._require(kind, answered)
            effects = begin(answered)
        except RoundFailedError as error:
            return self._end(error)
        if self._steps.kind is None:
            return effects
        waits = self._timeouts.first_s if self._steps.kind is MaskedVector else self._timeouts.phase_s
        self._deadline = now + waits
        effects += [Wake(self._deadline), self._progress()]
        # Everybody who was expected may have left before.
        return [*effects, *self._advance_when_complete(now)] if not self._steps.expected else effects

    def _require(self, kind: type[Message] | None, answered: list[int]) -> None:
        """Raise RoundFailedError if too few have sent a kind of message."""
        setup, found, what = self._setup, len(answered), kind.__name__ if kind else ""
        if kind is MaskedVector:
            if found < setup.session.minimum:
                reason = f"{found} sent {what}, {setup.session.minimum} are needed"
                raise RoundFailedError(FailureCode.TOO_FEW, reason)
            return
        slot = short_slot(setup, answered, released=kind is MaskSum)
        if slot is not None:
            blame = tuple(self._steps.seats[seat] for seat in sorted(self._steps.faults))
            raise RoundFailedError(CommitteeFailure.SLOT_LOST, f"too few replicas of slot {slot} sent {what}", blame)

    def _show_book(self, seats: list[int]) -> list[Effect]:
        keys = [(seat, self._steps.kept[seat]) for seat in seats]
        entries = [MemberEntry(seat, key.public, key.signature) for seat, key in keys if isinstance(key, MemberKey)]
        self._book = MemberBook(self._setup.sid, tuple(entries))
        self._book_root = book_root(self._setup.context, self._book)
        self._steps.begin(set(range(len(self._steps.names))) - set(self._steps.lost))
        participants = [self._steps.names[index] for index in sorted(self._steps.expected)]
        return self._send_all([*(self._steps.seats[seat] for seat in seats), *participants], self._book)

    def _deliver(self, participants: list[int]) -> list[Effect]:
        kept = [(index, self._steps.kept[index]) for index in participants]
        vectors = [(index, one) for index, one in kept if isinstance(one, MaskedVector)]
        effects: list[Effect] = []
        for place, entry in enumerate(self._book.entries):
            parcels = tuple(
                SeedParcel(index, one.digest, one.public, one.commitments, one.signature, one.parcels[place])
                for index, one in vectors
            )
            effects.append(Send(self._steps.seats[entry.seat], SeedParcels(self._setup.sid, parcels)))
        self._steps.begin({entry.seat for entry in self._book.entries})
        return effects

    def _settle(self, seats: list[int]) -> list[Effect]:
        """Decide who is in the sum, and have the others' vectors taken out of it."""
        setup, steps = self._setup, self._steps
        complaints = {seat: kept.bad for seat in seats if isinstance(kept := steps.kept[seat], Checked)}
        verdict = settle_slots(setup, complaints)
        removed = tuple((steps.names[index], self._digests.pop(index)) for index in sorted(verdict.dropped))
        for index in verdict.dropped:
            certain = "its seeds do not open" if index in verdict.at_fault else "a member could not open its seed"
            steps.lost[index] = certain
        for seat in verdict.aside:
            steps.faults[seat] = f"complained about {len(complaints[seat])} participants"
        if len(self._digests) < setup.session.minimum:
            reason = f"{len(self._digests)} contributions are left, {setup.session.minimum} are needed"
            blame = tuple(steps.names[index] for index in sorted(verdict.at_fault))
            raise RoundFailedError(FailureCode.TOO_FEW, reason, blame)
        self._root = set_root(self._digests)
        steps.begin(set(seats) - verdict.aside)
        members = [steps.seats[seat] for seat in sorted(steps.expected)]
        return [
            Do(Settle(setup.sid, removed)),
            *self._send_all(members, Included(setup.sid, tuple(sorted(self._digests)))),
        ]

    def _show_acks(self, seats: list[int]) -> list[Effect]:
        votes = tuple(SeatVote(seat, self._acks[seat].signature) for seat in seats)
        self._steps.begin(seats)
        return self._send_all([self._steps.seats[seat] for seat in seats], Acks(self._setup.sid, votes))

    def _unmask(self, seats: list[int]) -> list[Effect]:
        """Find what every slot agrees on, and have it taken off the sum."""
        published = [Publish(proof) for proof in self._disagreements()]
        released = {seat: self._released[seat].digest for seat in seats}
        try:
            masks, wrong = agreed_masks(self._setup, released)
        except RoundFailedError as error:
            return [*published, *self._end(error)]
        for seat in wrong:
            self._steps.faults[seat] = "released other masks than its slot's majority"
        self._steps.begin(())
        return [*published, Do(Unmask(self._setup.sid, masks))]

    def _disagreements(self) -> Iterable[Disagreement]:
        """Yield one proof per release that differs from the first of its slot."""
        for slot, replicas in enumerate(self._setup.replicas):
            found = [(self._steps.seats[seat], self._released[seat]) for seat in replicas if seat in self._released]
            for other in found[1:]:
                if other[1].digest != found[0][1].digest:
                    yield Disagreement(self._setup.context, self._book_root, slot, found[0], other)

    def _send_all(self, names: Iterable[str], message: Message) -> list[Effect]:
        return [Send(name, message) for name in names]

    def _finish(self, opened: Opened) -> list[Effect]:
        if self._steps.step != len(STEPS) or opened.sid != self._setup.sid:
            raise LocalProtocolError("a sum was opened that nobody asked for")
        if opened.count != len(self._digests) or not opened.zero:
            reason = "the sum's check lanes are wrong: somebody's vector or masks were not what the protocol asks for"
            return self._end(RoundFailedError(FailureCode.CHECK_LANE, reason))
        return [Publish(self._evidence()), *self._end(None)]

    def _evidence(self) -> Evidence:
        setup = self._setup
        acks = tuple(SeatVote(seat, ack.signature) for seat, ack in sorted(self._acks.items()))
        releases = tuple(SignedRelease(seat, one.digest, one.signature) for seat, one in sorted(self._released.items()))
        return Evidence("committee", setup.sid, setup.layout, self._book_root, dict(self._digests), acks, releases)

    def _end(self, error: RoundFailedError | None) -> list[Effect]:
        self._steps.stop()
        faults = tuple((self._steps.seats[seat], why) for seat, why in sorted(self._steps.faults.items()))
        published: list[Effect] = [Publish(MemberFaults(self._setup.sid, faults))] if faults else []
        return [*published, Finish(self._result(), error)]

    def _result(self) -> SessionResult:
        names = self._steps.names
        included = tuple(names[index] for index in sorted(self._digests))
        lost = {names[index]: why for index, why in sorted(self._steps.lost.items())}
        return SessionResult(self._setup.sid, included, lost)

    def _progress(self) -> Publish:
        return Publish(self._steps.progress("Open"))
