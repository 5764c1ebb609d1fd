"""The committee member's half of `oneshot`."""

from __future__ import annotations

from functools import lru_cache

from ridotto.core.machine import COORDINATOR, Effect, Finish, Send
from ridotto.core.rng import Rng
from ridotto.core.wire import Message
from ridotto.crypto.lattice.packed_shamir import ShareSum, parse_share
from ridotto.crypto.seal import SEAL_OVERHEAD_BYTES, ExchangeKey, IdentityKey, open_sealed, verify
from ridotto.errors import PeerProtocolError, ProtocolError
from ridotto.secagg.committee_roles.agreement import ack_statement, check_acks, set_root, sign_ack
from ridotto.secagg.committee_roles.keys import book_root, check_book, signed_key
from ridotto.secagg.committee_roles.messages import Acks, Checked, Included, MemberBook
from ridotto.secagg.committee_roles.roster import seat_of, strictly_sorted
from ridotto.secagg.oneshot.binding import (
    CONTRIBUTION_CONTEXT,
    PARCEL_KEY_BYTES,
    PARCEL_LABEL,
    RELEASE_CONTEXT,
    contribution_statement,
    parcel_info,
    release_statement,
)
from ridotto.secagg.oneshot.messages import Parcel, Parcels, Release
from ridotto.secagg.oneshot.setup import OneshotSetup

SIGNATURES_KEPT = 2048
"""Twice the participants of a shard; about 1 MB."""


class OneshotMember:
    """Hold one share of every key, and release the sum of those that are in the one agreed set, once.

    setup: as agreed on outside. rng: secret, fresh for every session: from the operating system, never restored. The
    key lives in this machine only. A driver must not store it: a member that dies has lost its seat for this session,
    and one that was restored could release twice. Every refusal leaves the machine as it was.
    """

    def __init__(self, setup: OneshotSetup, me: str, identity: IdentityKey, rng: Rng) -> None:
        self._setup = setup
        self._seat = seat_of(setup.roster, me)
        self._identity = identity
        self._exchange: ExchangeKey | None = ExchangeKey.generate(rng)
        self._next: type[Message] | None = MemberBook
        self._book = b""
        self._root = b""
        self._digests: dict[int, bytes] = {}
        self._shares: dict[int, bytes] = {}
        self._sum = b""

    def start(self, now: float) -> list[Effect]:
        """Advertise a signed key."""
        if self._exchange is None:
            return []
        setup = self._setup
        return [
            Send(COORDINATOR, signed_key(self._identity, setup.sid, setup.context, self._seat, self._exchange.public))
        ]

    def receive(self, sender: str, message: Message, now: float) -> list[Effect]:
        """Take the coordinator's next message; each comes once and in order.

        Raises PeerProtocolError if it is out of order, of another session, or anything in it does not hold.
        """
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
            case Parcels():
                return self._open_parcels(message)
            case Included():
                return self._acknowledge(message)
            case Acks():
                return self._release(message)
            case _:
                raise _refuse(f"{type(message).__name__} has no place here")

    def expire(self, now: float) -> list[Effect]:
        """Do nothing: the coordinator keeps the time."""
        return []

    def _take_book(self, message: MemberBook) -> list[Effect]:
        check_book(self._setup.roster, self._setup.context, message, self._setup.needed)
        own = [entry for entry in message.entries if entry.seat == self._seat]
        if not own or self._exchange is None or own[0].public != self._exchange.public:
            raise _refuse("its book does not show my key")
        self._book = book_root(self._setup.context, message)
        self._next = Parcels
        return []

    def _open_parcels(self, message: Parcels) -> list[Effect]:
        """Check every contribution's signature, and keep the shares that open."""
        participants = [parcel.participant for parcel in message.parcels]
        if not strictly_sorted(participants, len(self._setup.session.members)):
            raise _refuse("its parcels are not sorted by participant")
        self._check_minimum(len(participants), "parcels")
        if len({parcel.digest for parcel in message.parcels}) != len(participants):
            raise _refuse("it delivered one ciphertext of two participants")
        for parcel in message.parcels:
            self._check_signature(parcel)
        bad = []
        for parcel in message.parcels:
            share = self._open(parcel)
            if share is None:
                bad.append(parcel.participant)
            else:
                self._shares[parcel.participant], self._digests[parcel.participant] = share, parcel.digest
        # What one session's key was for is done: from here on nothing of it can be opened again.
        self._exchange = None
        self._next = Included
        return [Send(COORDINATOR, Checked(self._setup.sid, tuple(bad)))]

    def _check_signature(self, parcel: Parcel) -> None:
        member = self._setup.session.members[parcel.participant]
        statement = contribution_statement(
            self._setup.context, self._book, parcel.participant, parcel.public, parcel.digest
        )
        try:
            _verify(member.key, statement, parcel.signature)
        except ProtocolError as error:
            # The coordinator has checked it before, so this is its doing and not the participant's.
            raise _refuse(f"the contribution of {member.name} bears no valid signature") from error

    def _open(self, parcel: Parcel) -> bytes | None:
        """Return a parcel's share, or None if it does not open or holds none."""
        sharing, exchange = self._setup.sharing, self._exchange
        if exchange is None or len(parcel.sealed) != sharing.share_bytes + SEAL_OVERHEAD_BYTES:
            return None
        info = parcel_info(self._book, parcel.participant, self._seat)
        try:
            key = exchange.agree(parcel.public, self._setup.context, PARCEL_LABEL, info, PARCEL_KEY_BYTES)
            share = open_sealed(key, parcel.sealed, parcel.digest)
            parse_share(share, sharing)
        except ProtocolError:
            return None
        return share

    def _acknowledge(self, message: Included) -> list[Effect]:
        """Sign the set: the only one in this session."""
        participants = message.participants
        if not strictly_sorted(participants, len(self._setup.session.members)):
            raise _refuse("its set is not a sorted list of participants")
        self._check_minimum(len(participants), "contributions in its set")
        if not set(participants) <= set(self._shares):
            raise _refuse("its set names participants whose shares I don't hold")
        self._root = set_root({participant: self._digests[participant] for participant in participants})
        total = ShareSum(self._setup.sharing)
        for participant in participants:
            total.add(self._shares[participant])
        self._sum, self._shares, self._digests = total.to_bytes(), {}, {}
        self._next = Acks
        setup = self._setup
        return [Send(COORDINATOR, sign_ack(self._identity, setup.sid, setup.context, self._book, self._root))]

    def _release(self, message: Acks) -> list[Effect]:
        """See that a quorum acknowledged the same set; then release the sum of its shares, and forget it."""
        check_acks(self._setup.roster, message, ack_statement(self._setup.context, self._book, self._root))
        statement = release_statement(self._setup.context, self._book, self._root, self._sum)
        release = Release(self._setup.sid, self._root, self._sum, self._identity.sign(RELEASE_CONTEXT, statement))
        self._sum, self._next = b"", None
        return [Send(COORDINATOR, release), Finish()]

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
