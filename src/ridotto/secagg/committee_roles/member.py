"""A committee member: it holds one secret of every participant, and releases once, for the one agreed set.

    MemberBook   it looks for its own key                                MemberKey goes before
    parcels      it checks who sent them, and keeps what opens        -> Checked
    Included     it signs the set, the only one in this session       -> Ack
    Acks         it sees that enough others acknowledged the same     -> a release, and forgets everything

What is sealed in parcels, how many are enough and what is released is the protocol's: `committee` and `oneshot` say so.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import lru_cache
from typing import ClassVar, Generic, Protocol, TypeVar

from ridotto.core.machine import COORDINATOR, Effect, Send
from ridotto.core.rng import Rng
from ridotto.core.wire import Message
from ridotto.crypto.seal import IdentityKey, verify
from ridotto.errors import PeerProtocolError, ProtocolError
from ridotto.secagg.committee_roles.agreement import ack_statement, set_root, sign_ack
from ridotto.secagg.committee_roles.binding import parcel_info
from ridotto.secagg.committee_roles.keys import book_root, check_book, signed_key
from ridotto.secagg.committee_roles.messages import Acks, Checked, Included, MemberBook
from ridotto.secagg.committee_roles.roster import seat_of, strictly_sorted
from ridotto.secagg.committee_roles.seals import MemberSecret, Purpose, overhead_bytes
from ridotto.secagg.committee_roles.setup import SeatedSetup

SIGNATURES_KEPT = 2048
"""Twice the participants of a shard; about 1 MB."""


class SealedParcel(Protocol):
    """Carry one participant's secret to one member, with what was signed about it."""

    @property
    def participant(self) -> int:
        """Return whose it is."""

    @property
    def digest(self) -> bytes:
        """Return the SHA-256 of the vector that the participant sent."""

    @property
    def contribution(self) -> bytes:
        """Return what stands for its contribution in the set."""

    @property
    def public(self) -> bytes:
        """Return the key with which it was sealed."""

    @property
    def signature(self) -> bytes:
        """Return the participant's signature."""

    @property
    def sealed(self) -> bytes:
        """Return the secret, sealed."""


ParcelT = TypeVar("ParcelT", bound=SealedParcel)
"""The parcels of a protocol."""


class SeatedMember(ABC, Generic[ParcelT]):
    """Hold one secret of every participant, and release what they come to over the one agreed set, once.

    setup: as agreed on outside. secret_bytes: how long a secret is. rng: secret, fresh for every session: from the
    operating system, never restored. The key lives in this machine only. A driver must not store it: a member that
    dies has lost its seat for this session, and one that was restored could release twice. Every refusal leaves the
    machine as it was.
    """

    delivery: ClassVar[type[Message]]
    """The message that brings the parcels."""
    signed: ClassVar[str]
    """Context of participants' signatures."""
    label: ClassVar[str]
    """Label under which a parcel's key is agreed."""
    vector: ClassVar[str]
    held: ClassVar[str]
    """What participants contribute and what is in their parcels, as refusals call it."""

    def __init__(self, setup: SeatedSetup, me: str, identity: IdentityKey, rng: Rng, secret_bytes: int) -> None:
        self._seated = setup
        self._seat = seat_of(setup.roster, me)
        self._identity = identity
        self._keys: MemberSecret | None = MemberSecret(setup.seal, rng)
        self._sealed_bytes = secret_bytes + overhead_bytes(setup.seal)
        self._next: type[Message] | None = MemberBook
        self._book = b""
        self._root = b""
        self._digests: dict[int, bytes] = {}
        self._secrets: dict[int, bytes] = {}

    @abstractmethod
    def _parcels(self, message: Message) -> Sequence[ParcelT]:
        """Return the parcels of a delivery."""

    @abstractmethod
    def _statement(self, parcel: ParcelT) -> bytes:
        """Return what the participant signed about a parcel. Raises PeerProtocolError if it can't have."""

    @abstractmethod
    def _check_secret(self, parcel: ParcelT, secret: bytes) -> None:
        """Raise ProtocolError if what was sealed in a parcel is not usable."""

    @abstractmethod
    def _check_acks(self, message: Acks, statement: bytes) -> None:
        """Return if enough of the committee signed this statement. Raises PeerProtocolError if not."""

    @abstractmethod
    def _release(self) -> list[Effect]:
        """Release what the secrets of the set come to, and forget them."""

    def _check_members(self, book: MemberBook) -> None:
        """Refuse a book that does not do for this protocol."""

    def _fix(self) -> None:
        """Do with the secrets of the set what can be done before others have acknowledged it."""

    def start(self, now: float) -> list[Effect]:
        """Advertise a signed key."""
        if self._keys is None:
            return []
        setup = self._seated
        return [Send(COORDINATOR, signed_key(self._identity, setup.sid, setup.context, self._seat, self._keys.public))]

    def receive(self, sender: str, message: Message, now: float) -> list[Effect]:
        """Take the coordinator's next message; each comes once and in order.

        Raises PeerProtocolError if it is out of order, of another session, or anything in it does not hold.
        """
        if sender != COORDINATOR:
            raise PeerProtocolError(sender, "only the coordinator speaks to a committee member")
        if type(message) is not self._next:
            expected = self._next.__name__ if self._next else "nothing more"
            raise _refuse(f"{type(message).__name__} came where {expected} belongs")
        if getattr(message, "sid", None) != self._seated.sid:
            raise _refuse(f"its {type(message).__name__} belongs to another session")
        match message:
            case MemberBook():
                return self._take_book(message)
            case Included():
                return self._acknowledge(message)
            case Acks():
                self._check_acks(message, ack_statement(self._seated.context, self._book, self._root))
                return self._release()
            case _ if isinstance(message, self.delivery):
                return self._open_parcels(self._parcels(message))
        raise _refuse(f"{type(message).__name__} has no place here")

    def expire(self, now: float) -> list[Effect]:
        """Do nothing: the coordinator keeps the time."""
        return []

    def _take_book(self, message: MemberBook) -> list[Effect]:
        setup = self._seated
        check_book(setup, message)
        self._check_members(message)
        own = [entry for entry in message.entries if entry.seat == self._seat]
        if not own or self._keys is None or own[0].public != self._keys.public:
            raise _refuse("its book does not show my key")
        self._book = book_root(setup.context, message)
        self._next = self.delivery
        return []

    def _open_parcels(self, parcels: Sequence[ParcelT]) -> list[Effect]:
        """Check every contribution's signature, and keep the secrets that open."""
        participants = [parcel.participant for parcel in parcels]
        if not strictly_sorted(participants, len(self._seated.session.members)):
            raise _refuse("its parcels are not sorted by participant")
        self._check_minimum(len(participants), "parcels")
        if len({parcel.digest for parcel in parcels}) != len(participants):
            raise _refuse(f"it delivered one {self.vector} of two participants")
        for parcel in parcels:
            self._check_signature(parcel)
        bad = []
        for parcel in parcels:
            secret = self._open(parcel)
            if secret is None:
                bad.append(parcel.participant)
            else:
                self._secrets[parcel.participant], self._digests[parcel.participant] = secret, parcel.contribution
        # What one session's key was for is done: from here on nothing of it can be opened again.
        self._keys = None
        self._next = Included
        return [Send(COORDINATOR, Checked(self._seated.sid, tuple(bad)))]

    def _check_signature(self, parcel: ParcelT) -> None:
        member, statement = self._seated.session.members[parcel.participant], self._statement(parcel)
        try:
            _verify(member.key, self.signed, statement, parcel.signature)
        except ProtocolError as error:
            # The coordinator has checked it before, so this is its doing and not the participant's.
            raise _refuse(f"the contribution of {member.name} bears no valid signature") from error

    def _open(self, parcel: ParcelT) -> bytes | None:
        """Return a parcel's secret, or None if it does not open or holds none."""
        if self._keys is None or len(parcel.sealed) != self._sealed_bytes:
            return None
        info = parcel_info(self._book, parcel.participant, self._seat)
        try:
            purpose = Purpose(self._seated.context, self.label, info, parcel.public)
            secret = self._keys.open(purpose, parcel.sealed, parcel.digest)
            self._check_secret(parcel, secret)
        except ProtocolError:
            return None
        return secret

    def _acknowledge(self, message: Included) -> list[Effect]:
        """Sign the set: the only one in this session."""
        setup, participants = self._seated, message.participants
        if not strictly_sorted(participants, len(setup.session.members)):
            raise _refuse("its set is not a sorted list of participants")
        self._check_minimum(len(participants), "contributions in its set")
        if not set(participants) <= set(self._secrets):
            raise _refuse(f"its set names participants whose {self.held} I don't hold")
        self._root = set_root({participant: self._digests[participant] for participant in participants})
        self._secrets, self._digests = {participant: self._secrets[participant] for participant in participants}, {}
        self._fix()
        self._next = Acks
        return [Send(COORDINATOR, sign_ack(self._identity, setup.sid, setup.context, self._book, self._root))]

    def _check_minimum(self, found: int, what: str) -> None:
        if found < self._seated.session.minimum:
            raise _refuse(f"{found} {what}, the minimum is {self._seated.session.minimum}")


# A simulation has a whole committee in one process, whose members all verify the same signatures, one member after the
# other. Only public things are remembered, and only what did verify.
@lru_cache(maxsize=SIGNATURES_KEPT)
def _verify(key: bytes, context: str, statement: bytes, signature: bytes) -> None:
    verify(key, context, statement, signature)


def forget_checks() -> None:
    """Verify every signature anew from here on: for whoever measures what it costs."""
    _verify.cache_clear()


def _refuse(why: str) -> PeerProtocolError:
    return PeerProtocolError(COORDINATOR, why)
