"""A participant of a session with a committee: one message, and nothing to remember.

What it says is the protocol's, `committee` or `oneshot`; when, to whom and with which secrets is the same.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from ridotto.core.fixedpoint import IntVector
from ridotto.core.machine import COORDINATOR, Effect, Finish, Send
from ridotto.core.rng import SEED_BYTES, Rng, SecretRng
from ridotto.core.wire import Message
from ridotto.crypto.lattice.kahe import bound_seed
from ridotto.crypto.seal import ExchangeKey, IdentityKey
from ridotto.errors import LocalProtocolError, PeerProtocolError, ProtocolError
from ridotto.secagg.committee_roles.binding import PARCEL_KEY_BYTES, parcel_info
from ridotto.secagg.committee_roles.choice import check_choice
from ridotto.secagg.committee_roles.keys import book_root, check_book
from ridotto.secagg.committee_roles.messages import MemberBook, MemberEntry
from ridotto.secagg.committee_roles.setup import SeatedSetup
from ridotto.secagg.session import Member, index_of


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

    @abstractmethod
    def _contribute(self, book: MemberBook, root: bytes, vector: IntVector, rng: SecretRng) -> Send:
        """Return the one message, or refuse a book that does not do. root: of the book. rng: for all its secrets."""

    def start(self, now: float) -> list[Effect]:
        """Wait for the members' keys."""
        return []

    def receive(self, sender: str, message: Message, now: float) -> list[Effect]:
        """Take the book of members, and answer it with everything there is to say.

        Raises PeerProtocolError if it is another message, of another session, or anything in it does not hold.
        """
        if sender != COORDINATOR:
            raise PeerProtocolError(sender, "only the coordinator speaks to a participant")
        if not isinstance(message, MemberBook):
            raise _refuse(f"{type(message).__name__} came where MemberBook belongs")
        setup, vector = self._seated, self._vector
        if message.sid != setup.sid:
            raise _refuse("its MemberBook belongs to another session")
        if vector is None:
            raise _refuse("its MemberBook came a second time")
        check_book(setup.roster, setup.context, message, setup.needed)
        root = book_root(setup.context, message)
        send = self._contribute(message, root, vector, self._secrets(root, vector))
        self._vector, self._seed = None, b""
        return [send, Finish()]

    def expire(self, now: float) -> list[Effect]:
        """Do nothing: the coordinator keeps the time."""
        return []

    def _secrets(self, root: bytes, vector: IntVector) -> SecretRng:
        """Return what all secrets of the message are drawn from.

        Two vectors under one key or mask would reveal their difference, and what was sealed for two committees could be
        opened by the corrupt of both. So all secrets depend on the vector and on the book: a participant that is built
        again from its seed repeats itself, or has other secrets.
        """
        source = SecretRng(self._seed).child(self.protocol, self._seated.context.hex(), root.hex())
        return SecretRng(bound_seed(source.bytes(SEED_BYTES), vector))

    def _key(self, exchange: ExchangeKey, root: bytes, entry: MemberEntry) -> bytes:
        """Return the key under which a member's parcel is sealed."""
        info = parcel_info(root, self._me, entry.seat)
        try:
            return exchange.agree(entry.public, self._seated.context, self.label, info, PARCEL_KEY_BYTES)
        except ProtocolError as error:
            name = self._seated.roster.members[entry.seat].name
            raise _refuse(f"its book has an unusable key of {name}") from error


def _refuse(why: str) -> PeerProtocolError:
    return PeerProtocolError(COORDINATOR, why)
