"""The coordinator's half of `committee`: it collects, delivers, and takes off the masks of the agreed set."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from ridotto.core.machine import Do, Effect, Publish
from ridotto.core.wire import Message
from ridotto.crypto.seal import verify
from ridotto.errors import PeerProtocolError, ProtocolError, RoundFailedError
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
from ridotto.secagg.committee_roles.complaints import Verdict
from ridotto.secagg.committee_roles.coordinator import SeatedCoordinator
from ridotto.secagg.committee_roles.evidence import SignedRelease
from ridotto.secagg.session import Timeouts


@dataclass(frozen=True, slots=True)
class Disagreement:
    """Prove that two replicas of a slot released different sums for one set: each bears its member's signature."""

    context: bytes
    book: bytes
    slot: int
    first: tuple[str, MaskSum]
    second: tuple[str, MaskSum]


class CommitteeCoordinator(SeatedCoordinator):
    """Collect masked vectors, and take off the sum of their masks, which every slot's replicas agree on.

    `Publish`es a `Disagreement` where they do not.
    """

    protocol = "committee"
    spoken = MaskedVector
    released = MaskSum
    unsealed = ("its seeds do not open", "a member could not open its seed")
    wrong_lanes = "the sum's check lanes are wrong: somebody's vector or masks were not what the protocol asks for"

    def __init__(self, setup: CommitteeSetup, timeouts: Timeouts) -> None:
        super().__init__(setup, timeouts)
        self._setup = setup
        self._sums: dict[int, MaskSum] = {}

    def _check_own(self, name: str, index: int, message: Message) -> None:
        match message:
            case MaskedVector():
                self._check_vector(name, index, message)
            case MaskSum():
                self._check_masks(name, index, message)

    def _check_vector(self, name: str, participant: int, message: MaskedVector) -> None:
        setup = self._setup
        # Sizes first: nothing of a wrong size is looked at, or given memory.
        if message.size != setup.size:
            raise PeerProtocolError(name, f"its vector has {message.size} bytes, expected {setup.size}")
        if len(message.parcels) != len(self._book.entries) or len(message.commitments) != setup.count:
            raise PeerProtocolError(name, f"it did not seal {len(self._book.entries)} seeds of {setup.count} slots")
        if any(len(parcel) != setup.parcel_bytes for parcel in message.parcels):
            raise PeerProtocolError(name, f"a parcel of it has not {setup.parcel_bytes} bytes")
        self._check_new(name, message.book, message.public, message.digest, "vector")
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

    def _keep_release(self, seat: int, message: Message) -> list[Effect]:
        """Have a slot's masks put away, once for all replicas that agree."""
        if not isinstance(message, MaskSum):
            return []
        known = {release.digest for release in self._sums.values()}
        self._sums[seat] = message
        return [] if message.digest in known else [Do(Keep(self._setup.sid, message.digest))]

    def _require_seats(self, kind: type[Message] | None, seats: list[int]) -> None:
        slot = short_slot(self._setup, seats, released=kind is MaskSum)
        if slot is not None:
            reason = f"too few replicas of slot {slot} sent {kind.__name__ if kind else ''}"
            raise RoundFailedError(CommitteeFailure.SLOT_LOST, reason, self._faulty())

    def _parcels(self, participants: list[int], place: int) -> SeedParcels:
        vectors = [(index, self._steps.kept[index]) for index in participants]
        parcels = tuple(
            SeedParcel(index, one.digest, one.public, one.commitments, one.signature, one.parcels[place])
            for index, one in vectors
            if isinstance(one, MaskedVector)
        )
        return SeedParcels(self._setup.sid, parcels)

    def _verdict(self, complaints: Mapping[int, Collection[int]]) -> Verdict:
        return settle_slots(self._setup, complaints)

    def _open(self, seats: list[int]) -> list[Effect]:
        """Find what every slot agrees on, and have it taken off the sum."""
        published = [Publish(proof) for proof in self._disagreements()]
        released = {seat: self._sums[seat].digest for seat in seats}
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
            found = [(self._steps.seats[seat], self._sums[seat]) for seat in replicas if seat in self._sums]
            for other in found[1:]:
                if other[1].digest != found[0][1].digest:
                    yield Disagreement(self._setup.context, self._book_root, slot, found[0], other)

    def _releases(self) -> tuple[SignedRelease, ...]:
        return tuple(SignedRelease(seat, one.digest, one.signature) for seat, one in sorted(self._sums.items()))
