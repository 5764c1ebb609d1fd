"""A participant of a session with a committee: one message, and nothing to remember.

What it says is the protocol's, `committee` or `oneshot`; when, to whom and with which secrets is the same.

    MemberBook      it checks the members' keys
        "hybrid"    it has its driver encapsulate a secret for each  -> Do(Encapsulate)
    Encapsulated                                                     -> its message
        "x25519"                                                     -> its message
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from ridotto.core.fixedpoint import IntVector
from ridotto.core.machine import COORDINATOR, SELF, Do, Effect, Finish, Send
from ridotto.core.rng import SEED_BYTES, Rng, SecretRng
from ridotto.core.wire import Message
from ridotto.crypto.lattice.kahe import bound_seed
from ridotto.crypto.seal import ExchangeKey, IdentityKey
from ridotto.errors import LocalProtocolError, PeerProtocolError, ProtocolError
from ridotto.secagg.committee_roles.binding import parcel_info
from ridotto.secagg.committee_roles.choice import check_choice
from ridotto.secagg.committee_roles.keys import book_root, check_book
from ridotto.secagg.committee_roles.messages import MemberBook, MemberEntry
from ridotto.secagg.committee_roles.seals import ParcelSeal, Purpose, parcel_seal, task_for
from ridotto.secagg.committee_roles.setup import SeatedSetup
from ridotto.secagg.committee_roles.tasks import Encapsulated, Encapsulation
from ridotto.secagg.session import Member, index_of

Drawn = tuple[Encapsulation, ...]
"""What was encapsulated for every member of the book; nothing where parcels are sealed under X25519 alone."""


class SeatedParticipant(ABC):
    """Answer the book of members with one message, and be done.

    setup: its session was checked by the caller against its own policy. pool: everybody who offered to serve, as this
    participant knows it, not as the coordinator shows it; the committee must be the one that the beacon chooses from
    it. An agreed committee of organisations is its own pool. vector: elements mod 2^bits, shape (session.length,).
    rng: secret.
    Raises PeerProtocolError, blaming the coordinator, if the committee was not chosen from the pool.
    """

    protocol: ClassVar[str]
    label: ClassVar[str]
    """Label under which a parcel's key is agreed."""

    def __init__(
        self, setup: SeatedSetup, me: str, identity: IdentityKey, vector: IntVector, rng: Rng, pool: Sequence[Member]
    ) -> None:
        if len(vector) != setup.session.length:
            raise LocalProtocolError(f"the vector has {len(vector)} elements, the session {setup.session.length}")
        check_choice(setup.roster, pool)
        self._seated = setup
        self._me = index_of(setup.session, me)
        self._identity = identity
        self._vector: IntVector | None = vector
        self._seed = rng.bytes(SEED_BYTES)
        self._book: MemberBook | None = None

    @abstractmethod
    def _contribute(self, book: MemberBook, root: bytes, vector: IntVector, rng: SecretRng, drawn: Drawn) -> Send:
        """Return the one message. root: of the book. rng: for all its secrets. drawn: to be handed to `_seals`."""

    @abstractmethod
    def _check_members(self, book: MemberBook) -> None:
        """Refuse a book that does not do for this protocol."""

    def start(self, now: float) -> list[Effect]:
        """Wait for the members' keys."""
        return []

    def receive(self, sender: str, message: Message, now: float) -> list[Effect]:
        """Take the book of members, or what was encapsulated for them from SELF; answer with all there is to say.

        Raises PeerProtocolError if it is another message, of another session, or anything in it does not hold.
        """
        if isinstance(message, Encapsulated) and sender == SELF:
            return self._take_encapsulated(message)
        if sender != COORDINATOR:
            raise PeerProtocolError(sender, "only the coordinator speaks to a participant")
        if not isinstance(message, MemberBook):
            raise _refuse(f"{type(message).__name__} came where MemberBook belongs")
        setup = self._seated
        if message.sid != setup.sid:
            raise _refuse("its MemberBook belongs to another session")
        if self._vector is None or self._book is not None:
            raise _refuse("its MemberBook came a second time")
        check_book(setup, message)
        self._check_members(message)
        if setup.seal == "x25519":
            return self._say(message, self._vector, ())
        self._book = message
        return [Do(task_for(message, book_root(setup.context, message)))]

    def _take_encapsulated(self, message: Encapsulated) -> list[Effect]:
        book, vector, setup = self._book, self._vector, self._seated
        if book is None or vector is None:
            raise LocalProtocolError("secrets were encapsulated that nobody asked for")
        if message.sid != setup.sid or message.book != book_root(setup.context, book):
            raise LocalProtocolError("secrets were encapsulated for another book")
        if len(message.drawn) != len(book.entries):
            raise LocalProtocolError(f"{len(message.drawn)} secrets were encapsulated for {len(book.entries)} members")
        try:
            return self._say(book, vector, message.drawn)
        except PeerProtocolError:
            # A refusal leaves the machine as it was, and it was not waiting before that book.
            self._book = None
            raise

    def _say(self, book: MemberBook, vector: IntVector, drawn: Drawn) -> list[Effect]:
        """Say everything there is to say, and forget it."""
        root = book_root(self._seated.context, book)
        send = self._contribute(book, root, vector, self._secrets(root, vector), drawn)
        self._vector, self._book, self._seed = None, None, b""
        return [send, Finish()]

    def expire(self, now: float) -> list[Effect]:
        """Do nothing: the coordinator keeps the time."""
        return []

    def _secrets(self, root: bytes, vector: IntVector) -> SecretRng:
        """Return what all secrets of the message are drawn from.

        Two vectors under one key or mask would reveal their difference, and what was sealed for two committees could be
        opened by the corrupt of both. So all secrets depend on the vector and on the book: a participant that is built
        again from its seed, and told the same, repeats itself, or has other secrets.
        """
        source = SecretRng(self._seed).child(self.protocol, self._seated.context.hex(), root.hex())
        return SecretRng(bound_seed(source.bytes(SEED_BYTES), vector))

    def _seals(self, exchange: ExchangeKey, book: MemberBook, root: bytes, drawn: Drawn) -> list[ParcelSeal]:
        """Return what the parcels of the members of the book are sealed with, in its order."""
        seconds = drawn or (None,) * len(book.entries)
        return [self._seal(exchange, root, entry, own) for entry, own in zip(book.entries, seconds, strict=True)]

    def _seal(self, exchange: ExchangeKey, root: bytes, entry: MemberEntry, own: Encapsulation | None) -> ParcelSeal:
        info = parcel_info(root, self._me, entry.seat)
        purpose = Purpose(self._seated.context, self.label, info, exchange.public)
        try:
            return parcel_seal(exchange, entry.public, purpose, own)
        except ProtocolError as error:
            name = self._seated.roster.members[entry.seat].name
            raise _refuse(f"its book has an unusable key of {name}") from error


def _refuse(why: str) -> PeerProtocolError:
    return PeerProtocolError(COORDINATOR, why)
