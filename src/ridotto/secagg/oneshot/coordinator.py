"""The coordinator's half of `oneshot`: it collects, delivers, and opens what the committee agrees on."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from ridotto.core.machine import Do, Effect
from ridotto.core.wire import Message, digest
from ridotto.crypto.lattice.packed_shamir import parse_share
from ridotto.crypto.seal import verify
from ridotto.errors import PeerProtocolError, ProtocolError, RoundFailedError
from ridotto.secagg.committee_roles.complaints import Verdict, settle
from ridotto.secagg.committee_roles.coordinator import SeatedCoordinator
from ridotto.secagg.committee_roles.evidence import SignedRelease
from ridotto.secagg.committee_roles.seals import overhead_bytes
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
from ridotto.secagg.session import Timeouts
from ridotto.secagg.tasks import Opened


class OneshotCoordinator(SeatedCoordinator):
    """Collect ciphertexts and shares of their keys, and open their sum with the sum of the keys.

    Keeps the sealed shares of all participants until the members have them: 51 kB each for a committee of 64, 121 kB
    where they are sealed under ML-KEM as well.
    """

    protocol = "oneshot"
    spoken = Contribution
    released = Release
    opened = Decrypted
    unsealed = ("its parcels do not open", "a member could not open its parcel")
    wrong_lanes = "the sum's check lanes are wrong: somebody's vector was not what the protocol asks for"

    def __init__(self, setup: OneshotSetup, timeouts: Timeouts) -> None:
        super().__init__(setup, timeouts)
        self._setup = setup
        self._signed: tuple[SignedRelease, ...] = ()

    def _check_own(self, name: str, index: int, message: Message) -> None:
        match message:
            case Contribution():
                self._check_contribution(name, index, message)
            case Release():
                self._check_release(name, index, message)

    def _check_contribution(self, name: str, participant: int, message: Contribution) -> None:
        setup = self._setup
        # Sizes first: nothing of a wrong size is looked at, or given memory.
        if message.size != setup.shape.size:
            raise PeerProtocolError(name, f"its ciphertext has {message.size} bytes, expected {setup.shape.size}")
        size = setup.sharing.share_bytes + overhead_bytes(setup.seal)
        if len(message.parcels) != len(self._book.entries) or any(len(sealed) != size for sealed in message.parcels):
            raise PeerProtocolError(name, f"it did not seal {len(self._book.entries)} parcels of {size} bytes")
        self._check_new(name, message.book, message.public, message.digest, "ciphertext")
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

    def _require_seats(self, kind: type[Message] | None, seats: list[int]) -> None:
        needed = self._setup.sharing.needed if kind is Release else self._setup.needed
        if len(seats) < needed:
            what = kind.__name__ if kind else ""
            reason = f"{len(seats)} sent {what}, {needed} are needed"
            raise RoundFailedError(OneshotFailure.COMMITTEE_SHORT, reason, self._faulty())

    def _parcels(self, participants: list[int], place: int) -> Parcels:
        contributions = [(index, self._steps.kept[index]) for index in participants]
        parcels = tuple(
            Parcel(index, one.digest, one.public, one.signature, one.parcels[place])
            for index, one in contributions
            if isinstance(one, Contribution)
        )
        return Parcels(self._setup.sid, parcels)

    def _verdict(self, complaints: Mapping[int, Collection[int]]) -> Verdict:
        return settle(complaints, self._setup.roster.corrupt, self._setup.needed)

    def _open(self, seats: list[int]) -> list[Effect]:
        releases = [(seat, kept) for seat in seats if isinstance(kept := self._steps.kept[seat], Release)]
        shares = {seat: release.share for seat, release in releases}
        self._signed = tuple(SignedRelease(seat, digest(one.share), one.signature) for seat, one in releases)
        key, wrong = recover(self._setup, shares, len(self._digests))
        for seat in wrong:
            self._steps.faults[seat] = "its release does not fit the others'"
        self._steps.begin(())
        return [Do(OpenCiphers(self._setup.sid, key, len(self._digests), self._setup.context))]

    def _releases(self) -> tuple[SignedRelease, ...]:
        return self._signed

    def _anomaly(self, opened: Opened) -> RoundFailedError | None:
        if isinstance(opened, Decrypted) and opened.sound:
            return None
        reason = "the sum's noise is not that of its contributions: a key or a ciphertext is not what it should be"
        return RoundFailedError(OneshotFailure.NOISE_ANOMALY, reason)
