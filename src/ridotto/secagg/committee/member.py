"""The committee member's half of `committee`: a replica of one slot."""

from __future__ import annotations

from collections.abc import Sequence

from ridotto.core.machine import COORDINATOR, SELF, Do, Effect, Finish, Send
from ridotto.core.rng import Rng
from ridotto.core.wire import Message, digest
from ridotto.crypto.prg import SEED_BYTES
from ridotto.crypto.seal import IdentityKey
from ridotto.errors import LocalProtocolError, PeerProtocolError, ProtocolError
from ridotto.secagg.committee.binding import (
    CONTRIBUTION_CONTEXT,
    PARCEL_LABEL,
    RELEASE_CONTEXT,
    commit_seed,
    contribution_statement,
    noise_seed,
    release_statement,
)
from ridotto.secagg.committee.messages import MaskSum, SeedParcel, SeedParcels
from ridotto.secagg.committee.replicas import check_replicas, check_slot_acks
from ridotto.secagg.committee.setup import CommitteeSetup
from ridotto.secagg.committee.tasks import SlotNoise, SumMasks, Summed
from ridotto.secagg.committee_roles.member import SeatedMember
from ridotto.secagg.committee_roles.messages import Acks, MemberBook


class CommitteeMember(SeatedMember[SeedParcel]):
    """Hold the seeds of one slot, and release the sum of the masks of the one agreed set, once.

    See `SeatedMember`, above all for what becomes of its key.
    """

    delivery = SeedParcels
    signed = CONTRIBUTION_CONTEXT
    label = PARCEL_LABEL
    vector = "vector"
    held = "seeds"

    def __init__(self, setup: CommitteeSetup, me: str, identity: IdentityKey, rng: Rng) -> None:
        super().__init__(setup, me, identity, rng, SEED_BYTES)
        self._setup = setup
        self._slot = setup.slots[self._seat]

    def receive(self, sender: str, message: Message, now: float) -> list[Effect]:
        """Take the coordinator's next message, or the sum of masks from SELF; see `SeatedMember.receive`."""
        if isinstance(message, Summed) and sender == SELF:
            return self._send_sum(message)
        return super().receive(sender, message, now)

    def _check_members(self, book: MemberBook) -> None:
        check_replicas(self._setup, book)

    def _parcels(self, message: Message) -> Sequence[SeedParcel]:
        return message.parcels if isinstance(message, SeedParcels) else ()

    def _statement(self, parcel: SeedParcel) -> bytes:
        setup = self._setup
        if len(parcel.commitments) != setup.count:
            name = setup.session.members[parcel.participant].name
            raise PeerProtocolError(COORDINATOR, f"the contribution of {name} has not one commitment per slot")
        return contribution_statement(
            setup.context, self._book, parcel.participant, parcel.public, parcel.digest, parcel.commitments
        )

    def _check_secret(self, parcel: SeedParcel, secret: bytes) -> None:
        committed = commit_seed(self._setup.context, parcel.participant, self._slot, secret)
        if committed != parcel.commitments[self._slot]:
            raise ProtocolError("its seed is not the one that was committed to")

    def _check_acks(self, message: Acks, statement: bytes) -> None:
        check_slot_acks(self._setup, self._slot, message, statement)

    def _release(self) -> list[Effect]:
        """Have the masks of this slot added up."""
        setup, session = self._setup, self._setup.session
        seeds = tuple(self._secrets[participant] for participant in sorted(self._secrets))
        noise = None
        if setup.sigma:
            seed = noise_seed(setup.context, self._slot, self._root, seeds)
            noise = SlotNoise(seed, setup.slot_sigma, session.length - setup.tail)
        self._secrets, self._next = {}, Summed
        return [Do(SumMasks(setup.sid, setup.context, seeds, session.length, session.bits, noise))]

    def _send_sum(self, summed: Summed) -> list[Effect]:
        """Sign and send the sum of the masks, and forget everything."""
        setup = self._setup
        if self._next is not Summed or summed.sid != setup.sid or len(summed.packed) != setup.size:
            raise LocalProtocolError("masks were added up that nobody asked for")
        self._next = None
        fingerprint = digest(summed.packed)
        statement = release_statement(setup.context, self._book, self._root, fingerprint)
        signature = self._identity.sign(RELEASE_CONTEXT, statement)
        message = MaskSum(digest=fingerprint, size=setup.size, sid=setup.sid, root=self._root, signature=signature)
        return [Send(COORDINATOR, message, summed.packed), Finish()]
