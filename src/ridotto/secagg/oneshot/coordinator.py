"""The coordinator's half of `oneshot`: it collects, delivers, and opens what the committee agrees on."""

from __future__ import annotations

from collections.abc import Iterable

from ridotto.core.machine import SELF, Do, Effect, Finish, Publish, Send, Wake
from ridotto.core.wire import Message, digest
from ridotto.crypto.lattice.packed_shamir import parse_share
from ridotto.crypto.seal import SEAL_OVERHEAD_BYTES, ExchangeKey, verify
from ridotto.errors import LocalProtocolError, PeerProtocolError, ProtocolError, RoundFailedError
from ridotto.secagg.committee_roles.agreement import Equivocation, ack_statement, check_ack, set_root
from ridotto.secagg.committee_roles.complaints import settle
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
from ridotto.secagg.oneshot.binding import (
    CONTRIBUTION_CONTEXT,
    RELEASE_CONTEXT,
    contribution_statement,
    release_statement,
)
from ridotto.secagg.oneshot.messages import Contribution, Parcel, Parcels, Release
from ridotto.secagg.oneshot.release import recover
from ridotto.secagg.oneshot.setup import OneshotFailure, OneshotSetup
from ridotto.secagg.oneshot.tasks import Decrypted, OpenCiphers
from ridotto.secagg.session import FailureCode, SessionResult, Timeouts
from ridotto.secagg.tasks import Fold

STEPS: tuple[type[Message], ...] = (MemberKey, Contribution, Checked, Ack, Release)
"""What is sent to the coordinator, in order: contributions by participants, all else by members."""

PROBE = ExchangeKey.from_bytes(bytes(range(32)))
"""Any key at all: agreeing with it shows whether a public key is of low order. It protects nothing."""


class OneshotCoordinator:
    """Collect one kind of message after another; go on when everyone expected has answered, or when time is up.

    `Publish`es `Progress` whenever that changes, `Equivocation` and `MemberFaults` where there are any, `Evidence` once
    the sum is opened. Ends with a `SessionResult`, and an error where no sum was opened. Keeps the sealed shares of all
    participants until the members have them: 51 kB each for a committee of 64. Contributions are waited for
    `timeouts.first_s`, all else `phase_s`.
    """

    def __init__(self, setup: OneshotSetup, timeouts: Timeouts) -> None:
        self._setup = setup
        self._timeouts = timeouts
        self._steps = Steps(setup.session, setup.roster, setup.sid, STEPS, Contribution)
        self._acks: dict[int, Ack] = {}
        self._released: tuple[SignedRelease, ...] = ()
        self._digests: dict[int, bytes] = {}
        self._shown: set[bytes] = set()
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
        if isinstance(message, Decrypted) and sender == SELF:
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
            case Contribution():
                self._check_contribution(name, index, message)
            case Checked() if not (
                strictly_sorted(message.bad, len(self._steps.names)) and set(message.bad) <= set(self._digests)
            ):
                raise PeerProtocolError(name, "it complains about participants whose parcels it was not sent")
            case Ack():
                if message.root != self._root:
                    raise PeerProtocolError(name, "it acknowledged another set")
                statement = ack_statement(setup.context, self._book_root, self._root)
                check_ack(setup.roster, index, statement, message.signature, name)
            case Release():
                self._check_release(name, index, message)

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

    def _check_contribution(self, name: str, participant: int, message: Contribution) -> None:
        setup = self._setup
        # Sizes first: nothing of a wrong size is looked at, or given memory.
        if message.size != setup.shape.size:
            raise PeerProtocolError(name, f"its ciphertext has {message.size} bytes, expected {setup.shape.size}")
        size = setup.sharing.share_bytes + SEAL_OVERHEAD_BYTES
        if len(message.parcels) != len(self._book.entries) or any(len(sealed) != size for sealed in message.parcels):
            raise PeerProtocolError(name, f"it did not seal {len(self._book.entries)} parcels of {size} bytes")
        if message.book != self._book_root:
            raise PeerProtocolError(name, "it was shown another book of members")
        self._probe(name, message.public)
        if message.digest in self._shown:
            raise PeerProtocolError(name, "its ciphertext is somebody else's")
        statement = contribution_statement(setup.context, message.book, participant, message.public, message.digest)
        try:
            verify(setup.session.members[participant].key, CONTRIBUTION_CONTEXT, statement, message.signature)
        except ProtocolError as error:
            raise PeerProtocolError(name, "its contribution bears no valid signature") from error

    def _check_release(self, name: str, seat: int, message: Release) -> None:
        setup = self._setup
        if message.root != self._root:
            raise PeerProtocolError(name, "it released for another set")
        if len(message.share) != setup.sharing.share_bytes:
            raise PeerProtocolError(
                name, f"its release has {len(message.share)} bytes, not {setup.sharing.share_bytes}"
            )
        try:
            parse_share(message.share, setup.sharing)
            statement = release_statement(setup.context, self._book_root, self._root, message.share)
            verify(setup.roster.members[seat].key, RELEASE_CONTEXT, statement, message.signature)
        except ProtocolError as error:
            raise PeerProtocolError(name, f"its release does not hold: {error}") from error

    def _take(self, name: str, index: int, message: Message) -> list[Effect]:
        """Keep what a later step needs of a message that was accepted, and have its ciphertext put away."""
        if isinstance(message, Ack):
            self._acks[index] = message
        if isinstance(message, Contribution):
            self._digests[index] = message.digest
            self._shown.add(message.digest)
            return [Do(Fold(self._setup.sid, name, message.digest))]
        return []

    def _advance_when_complete(self, now: float) -> list[Effect]:
        return self._advance(now) if self._steps.complete else []

    def _advance(self, now: float) -> list[Effect]:
        """Close the current step: fail if too few answered, else begin the next one."""
        kind, answered = self._steps.kind, self._steps.close()
        begin = (self._show_book, self._deliver, self._settle, self._show_acks, self._open)[self._steps.step]
        try:
            self._require(kind, len(answered))
            effects = begin(answered)
        except RoundFailedError as error:
            return self._end(error)
        if self._steps.kind is None:
            return effects
        waits = self._timeouts.first_s if self._steps.kind is Contribution else self._timeouts.phase_s
        self._deadline = now + waits
        effects += [Wake(self._deadline), self._progress()]
        # Everybody who was expected may have left before.
        return [*effects, *self._advance_when_complete(now)] if not self._steps.expected else effects

    def _require(self, kind: type[Message] | None, found: int) -> None:
        """Raise RoundFailedError if too few have sent a kind of message."""
        if kind is Contribution:
            needed, code = self._setup.session.minimum, str(FailureCode.TOO_FEW)
        else:
            needed, code = self._setup.needed, str(OneshotFailure.COMMITTEE_SHORT)
            needed = self._setup.sharing.needed if kind is Release else needed
        if found < needed:
            blame = () if kind is Contribution else tuple(self._steps.seats[one] for one in sorted(self._steps.faults))
            what = kind.__name__ if kind else ""
            raise RoundFailedError(code, f"{found} sent {what}, {needed} are needed", blame)

    def _show_book(self, seats: list[int]) -> list[Effect]:
        entries = []
        for seat in seats:
            key = self._steps.kept[seat]
            if isinstance(key, MemberKey):
                entries.append(MemberEntry(seat, key.public, key.signature))
        self._book = MemberBook(self._setup.sid, tuple(entries))
        self._book_root = book_root(self._setup.context, self._book)
        self._steps.begin(set(range(len(self._steps.names))) - set(self._steps.lost))
        participants = [self._steps.names[index] for index in sorted(self._steps.expected)]
        return self._send_all([*(self._steps.seats[seat] for seat in seats), *participants], self._book)

    def _deliver(self, participants: list[int]) -> list[Effect]:
        effects: list[Effect] = []
        contributions = [(index, self._steps.kept[index]) for index in participants]
        for place, entry in enumerate(self._book.entries):
            parcels = tuple(
                Parcel(index, one.digest, one.public, one.signature, one.parcels[place])
                for index, one in contributions
                if isinstance(one, Contribution)
            )
            effects.append(Send(self._steps.seats[entry.seat], Parcels(self._setup.sid, parcels)))
        self._steps.begin({entry.seat for entry in self._book.entries})
        return effects

    def _settle(self, seats: list[int]) -> list[Effect]:
        """Decide who is in the sum, and have the others' ciphertexts taken out of it."""
        setup = self._setup
        complaints = {seat: kept.bad for seat in seats if isinstance(kept := self._steps.kept[seat], Checked)}
        verdict = settle(complaints, setup.roster.corrupt, setup.needed)
        removed = tuple((self._steps.names[index], self._digests.pop(index)) for index in sorted(verdict.dropped))
        for index in verdict.dropped:
            certain = "its parcels do not open" if index in verdict.at_fault else "a member could not open its parcel"
            self._steps.lost[index] = certain
        for seat in verdict.aside:
            self._steps.faults[seat] = f"complained about {len(complaints[seat])} participants"
        if len(self._digests) < setup.session.minimum:
            reason = f"{len(self._digests)} contributions are left, {setup.session.minimum} are needed"
            blame = tuple(self._steps.names[index] for index in sorted(verdict.at_fault))
            raise RoundFailedError(FailureCode.TOO_FEW, reason, blame)
        self._root = set_root(self._digests)
        self._steps.begin(set(seats) - verdict.aside)
        members = [self._steps.seats[seat] for seat in sorted(self._steps.expected)]
        return [
            Do(Settle(setup.sid, removed)),
            *self._send_all(members, Included(setup.sid, tuple(sorted(self._digests)))),
        ]

    def _show_acks(self, seats: list[int]) -> list[Effect]:
        votes = tuple(SeatVote(seat, self._acks[seat].signature) for seat in seats)
        self._steps.begin(seats)
        return self._send_all([self._steps.seats[seat] for seat in seats], Acks(self._setup.sid, votes))

    def _open(self, seats: list[int]) -> list[Effect]:
        releases = [(seat, kept) for seat in seats if isinstance(kept := self._steps.kept[seat], Release)]
        shares = {seat: release.share for seat, release in releases}
        self._released = tuple(SignedRelease(seat, digest(one.share), one.signature) for seat, one in releases)
        key, wrong = recover(self._setup, shares, len(self._digests))
        for seat in wrong:
            self._steps.faults[seat] = "its release does not fit the others'"
        self._steps.begin(())
        return [Do(OpenCiphers(self._setup.sid, key, len(self._digests), self._setup.context))]

    def _send_all(self, names: Iterable[str], message: Message) -> list[Effect]:
        return [Send(name, message) for name in names]

    def _finish(self, opened: Decrypted) -> list[Effect]:
        if self._steps.step != len(STEPS) or opened.sid != self._setup.sid:
            raise LocalProtocolError("a sum was opened that nobody asked for")
        if not opened.sound:
            reason = "the sum's noise is not that of its contributions: a key or a ciphertext is not what it should be"
            return self._end(RoundFailedError(OneshotFailure.NOISE_ANOMALY, reason))
        if opened.count != len(self._digests) or not opened.zero:
            reason = "the sum's check lanes are wrong: somebody's vector was not what the protocol asks for"
            return self._end(RoundFailedError(FailureCode.CHECK_LANE, reason))
        return [Publish(self._evidence()), *self._end(None)]

    def _evidence(self) -> Evidence:
        setup = self._setup
        acks = tuple(SeatVote(seat, ack.signature) for seat, ack in sorted(self._acks.items()))
        return Evidence("oneshot", setup.sid, setup.layout, self._book_root, dict(self._digests), acks, self._released)

    def _end(self, error: RoundFailedError | None) -> list[Effect]:
        self._steps.stop()
        faults = tuple((self._steps.seats[seat], why) for seat, why in sorted(self._steps.faults.items()))
        published: list[Effect] = [Publish(MemberFaults(self._setup.sid, faults))] if faults else []
        return [*published, Finish(self._result(), error)]

    def _result(self) -> SessionResult:
        included = tuple(self._steps.names[index] for index in sorted(self._digests))
        lost = {self._steps.names[index]: why for index, why in sorted(self._steps.lost.items())}
        return SessionResult(self._setup.sid, included, lost)

    def _progress(self) -> Publish:
        return Publish(self._steps.progress("Open"))
