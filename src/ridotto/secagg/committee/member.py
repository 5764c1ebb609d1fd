"""The committee member's half of `committee`: a replica of one slot."""

from __future__ import annotations

from functools import lru_cache

from ridotto.core.machine import COORDINATOR, SELF, Do, Effect, Finish, Send
from ridotto.core.rng import Rng
from ridotto.core.wire import Message, digest
from ridotto.crypto.seal import ExchangeKey, IdentityKey, open_sealed, verify
from ridotto.errors import LocalProtocolError, PeerProtocolError, ProtocolError
from ridotto.secagg.committee.binding import (
    CONTRIBUTION_CONTEXT,
    PARCEL_KEY_BYTES,
    PARCEL_LABEL,
    RELEASE_CONTEXT,
    commit_seed,
    contribution_statement,
    noise_seed,
    parcel_info,
    release_statement,
)
from ridotto.secagg.committee.messages import MaskSum, SeedParcel, SeedParcels
from ridotto.secagg.committee.replicas import check_replicas, check_slot_acks
from ridotto.secagg.committee.setup import CommitteeSetup
from ridotto.secagg.committee.tasks import SlotNoise, SumMasks, Summed
from ridotto.secagg.committee_roles.agreement import ack_statement, set_root, sign_ack
from ridotto.secagg.committee_roles.keys import book_root, check_book, signed_key
from ridotto.secagg.committee_roles.messages import Acks, Checked, Included, MemberBook
from ridotto.secagg.committee_roles.roster import seat_of, strictly_sorted

SIGNATURES_KEPT = 2048
"""Twice the participants of a shard; about 1 MB."""


class CommitteeMember:
    """Hold the seeds of one slot, and release the sum of the masks of the one agreed set, once.

    setup: as agreed on outside. rng: secret, fresh for every session: from the operating system, never restored. The
    key lives in this machine only. A driver must not store it: a member that dies has lost its seat for this session,
    and one that was restored could release twice. Every refusal leaves the machine as it was.
    """

    def __init__(self, setup: CommitteeSetup, me: str, identity: IdentityKey, rng: Rng) -> None:
        self._setup = setup
        self._seat = seat_of(setup.roster, me)
        self._slot = setup.slots[self._seat]
        self._identity = identity
        self._exchange: ExchangeKey | None = ExchangeKey.generate(rng)
        self._next: type[Message] | None = MemberBook
        self._book = b""
        self._root = b""
        self._digests: dict[int, bytes] = {}
        self._seeds: dict[int, bytes] = {}

    def start(self, now: float) -> list[Effect]:
        """Advertise a signed key."""
        if self._exchange is None:
            return []
        setup = self._setup
        return [
            Send(COORDINATOR, signed_key(self._identity, setup.sid, setup.context, self._seat, self._exchange.public))
        ]

    def receive(self, sender: str, message: Message, now: float) -> list[Effect]:
        """Take the coordinator's next message, or the sum of masks from SELF; each comes once and in order.

        Raises PeerProtocolError if it is out of order, of another session, or anything in it does not hold.
        """
        if isinstance(message, Summed) and sender == SELF:
            return self._release(message)
        if sender != COORDINATOR:
            raise PeerProtocolError(sender, "only the coordinator speaks to a committee member")
        if type(message) is not self._next:
            expected = self._next.__name__ if self._next else "nothing more"
            raise _refuse(f"{type(message).__name__} came where {expected} belongs")
        if getattr(message, "sid", None) != self._setup.sid:
            raise _refuse(f"its {type(message).__name__} belongs to another session")
        match message:
            case MemberBook():
                return self._take_book(message)
            case SeedParcels():
                return self._open_parcels(message)
            case Included():
                return self._acknowledge(message)
            case Acks():
                return self._add_up(message)
            case _:
                raise _refuse(f"{type(message).__name__} has no place here")

    def expire(self, now: float) -> list[Effect]:
        """Do nothing: the coordinator keeps the time."""
        return []

    def _take_book(self, message: MemberBook) -> list[Effect]:
        check_book(self._setup.roster, self._setup.context, message, self._setup.needed)
        check_replicas(self._setup, message)
        own = [entry for entry in message.entries if entry.seat == self._seat]
        if not own or self._exchange is None or own[0].public != self._exchange.public:
            raise _refuse("its book does not show my key")
        self._book = book_root(self._setup.context, message)
        self._next = SeedParcels
        return []

    def _open_parcels(self, message: SeedParcels) -> list[Effect]:
        """Check every contribution's signature, and keep the seeds that open and are those that were committed to."""
        participants = [parcel.participant for parcel in message.parcels]
        if not strictly_sorted(participants, len(self._setup.session.members)):
            raise _refuse("its parcels are not sorted by participant")
        self._check_minimum(len(participants), "parcels")
        if len({parcel.digest for parcel in message.parcels}) != len(participants):
            raise _refuse("it delivered one vector of two participants")
        for parcel in message.parcels:
            self._check_signature(parcel)
        bad = []
        for parcel in message.parcels:
            seed = self._open(parcel)
            if seed is None:
                bad.append(parcel.participant)
            else:
                self._seeds[parcel.participant], self._digests[parcel.participant] = seed, parcel.digest
        # What one session's key was for is done: from here on nothing of it can be opened again.
        self._exchange = None
        self._next = Included
        return [Send(COORDINATOR, Checked(self._setup.sid, tuple(bad)))]

    def _check_signature(self, parcel: SeedParcel) -> None:
        member = self._setup.session.members[parcel.participant]
        if len(parcel.commitments) != self._setup.count:
            raise _refuse(f"the contribution of {member.name} has not one commitment per slot")
        statement = contribution_statement(
            self._setup.context, self._book, parcel.participant, parcel.public, parcel.digest, parcel.commitments
        )
        try:
            _verify(member.key, statement, parcel.signature)
        except ProtocolError as error:
            # The coordinator has checked it before, so this is its doing and not the participant's.
            raise _refuse(f"the contribution of {member.name} bears no valid signature") from error

    def _open(self, parcel: SeedParcel) -> bytes | None:
        """Return a parcel's seed, or None if it does not open or is not the one that was committed to."""
        if self._exchange is None:
            return None
        info = parcel_info(self._book, parcel.participant, self._seat)
        context = self._setup.context
        try:
            key = self._exchange.agree(parcel.public, context, PARCEL_LABEL, info, PARCEL_KEY_BYTES)
            seed = open_sealed(key, parcel.sealed, parcel.digest)
        except ProtocolError:
            return None
        committed = commit_seed(context, parcel.participant, self._slot, seed)
        return seed if committed == parcel.commitments[self._slot] else None

    def _acknowledge(self, message: Included) -> list[Effect]:
        """Sign the set: the only one in this session."""
        participants = message.participants
        if not strictly_sorted(participants, len(self._setup.session.members)):
            raise _refuse("its set is not a sorted list of participants")
        self._check_minimum(len(participants), "contributions in its set")
        if not set(participants) <= set(self._seeds):
            raise _refuse("its set names participants whose seeds I don't hold")
        self._root = set_root({participant: self._digests[participant] for participant in participants})
        self._seeds, self._digests = {participant: self._seeds[participant] for participant in participants}, {}
        self._next = Acks
        setup = self._setup
        return [Send(COORDINATOR, sign_ack(self._identity, setup.sid, setup.context, self._book, self._root))]

    def _add_up(self, message: Acks) -> list[Effect]:
        """See that a majority of this slot acknowledged the same set; then have its masks added up."""
        setup, session = self._setup, self._setup.session
        statement = ack_statement(setup.context, self._book, self._root)
        check_slot_acks(setup, self._slot, message, statement)
        seeds = tuple(self._seeds[participant] for participant in sorted(self._seeds))
        noise = None
        if setup.sigma:
            seed = noise_seed(setup.context, self._slot, self._root, seeds)
            noise = SlotNoise(seed, setup.slot_sigma, session.length - setup.tail)
        self._seeds, self._next = {}, Summed
        return [Do(SumMasks(setup.sid, setup.context, seeds, session.length, session.bits, noise))]

    def _release(self, summed: Summed) -> list[Effect]:
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

    def _check_minimum(self, found: int, what: str) -> None:
        if found < self._setup.session.minimum:
            raise _refuse(f"{found} {what}, the minimum is {self._setup.session.minimum}")


# A simulation has a whole committee in one process, whose members all verify the same signatures, one member after the
# other. Only public things are remembered, and only what did verify.
@lru_cache(maxsize=SIGNATURES_KEPT)
def _verify(key: bytes, statement: bytes, signature: bytes) -> None:
    verify(key, CONTRIBUTION_CONTEXT, statement, signature)


def forget_checks() -> None:
    """Verify every signature anew from here on: for whoever measures what it costs."""
    _verify.cache_clear()


def _refuse(why: str) -> PeerProtocolError:
    return PeerProtocolError(COORDINATOR, why)
