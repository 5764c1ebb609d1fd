"""The participant's half of `oneshot`: one message, and nothing to remember."""

from __future__ import annotations

from collections.abc import Sequence

from ridotto.core.fixedpoint import IntVector
from ridotto.core.machine import COORDINATOR, Effect, Finish, Send
from ridotto.core.rng import SEED_BYTES, Rng, SecretRng
from ridotto.core.wire import Message, digest
from ridotto.crypto.lattice.kahe import bound_seed, encrypt, generate_key
from ridotto.crypto.lattice.loops import LOOPS, Loops
from ridotto.crypto.lattice.packed_shamir import share_key
from ridotto.crypto.lattice.samplers import public_elements
from ridotto.crypto.seal import ExchangeKey, IdentityKey, seal
from ridotto.errors import LocalProtocolError, PeerProtocolError, ProtocolError
from ridotto.secagg.committee_roles.choice import check_choice
from ridotto.secagg.committee_roles.keys import book_root, check_book
from ridotto.secagg.committee_roles.messages import MemberBook, MemberEntry
from ridotto.secagg.oneshot.binding import (
    CONTRIBUTION_CONTEXT,
    PARCEL_KEY_BYTES,
    PARCEL_LABEL,
    contribution_statement,
    parcel_info,
)
from ridotto.secagg.oneshot.messages import Contribution
from ridotto.secagg.oneshot.setup import OneshotSetup
from ridotto.secagg.session import Member, index_of


class OneshotParticipant:
    """Encrypt one vector, share its key among the committee, and be done.

    setup: its session was checked by the caller against its own policy. pool: everybody who offered to serve, as this
    participant knows it, not as the coordinator shows it; the committee must be the one that the beacon chooses from
    it. An agreed committee of organisations is its own pool. vector: elements mod 2^bits, shape (session.length,);
    not changed. rng: secret.
    Raises PeerProtocolError, blaming the coordinator, if the committee was not chosen from the pool.
    """

    def __init__(
        self,
        setup: OneshotSetup,
        me: str,
        identity: IdentityKey,
        vector: IntVector,
        rng: Rng,
        pool: Sequence[Member],
        loops: Loops = LOOPS,
    ) -> None:
        if len(vector) != setup.session.length:
            raise LocalProtocolError(f"the vector has {len(vector)} elements, the session {setup.session.length}")
        check_choice(setup.roster, pool)
        self._setup = setup
        self._me = index_of(setup.session, me)
        self._identity = identity
        self._vector: IntVector | None = vector
        self._seed = rng.bytes(SEED_BYTES)
        self._loops = loops

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
        if message.sid != self._setup.sid:
            raise _refuse("its MemberBook belongs to another session")
        vector = self._vector
        if vector is None:
            raise _refuse("its MemberBook came a second time")
        check_book(self._setup.roster, self._setup.context, message, self._setup.needed)
        send = self._contribute(message, vector)
        self._vector, self._seed = None, b""
        return [send, Finish()]

    def expire(self, now: float) -> list[Effect]:
        """Do nothing: the coordinator keeps the time."""
        return []

    def _contribute(self, book: MemberBook, vector: IntVector) -> Send:
        setup, root = self._setup, book_root(self._setup.context, book)
        # Two vectors under one key would reveal their difference, and one vector's key for two committees could be
        # opened by the corrupt of both. So all secrets depend on the vector and on the book: a participant that is
        # built again from its seed repeats itself, or has other secrets.
        source = SecretRng(self._seed).child("oneshot", setup.context.hex(), root.hex())
        rng = SecretRng(bound_seed(source.bytes(SEED_BYTES), vector))
        seed, share_seed, exchange = rng.bytes(SEED_BYTES), rng.bytes(SEED_BYTES), ExchangeKey.generate(rng)
        key, public = generate_key(seed), public_elements(setup.context, setup.shape.elements)
        ciphertext = encrypt(vector, key, seed, public, setup.shape, self._loops)
        fingerprint = digest(ciphertext)
        shares = share_key(key, setup.sharing, share_seed)
        parcels = tuple(self._seal(exchange, root, entry, shares[entry.seat], fingerprint) for entry in book.entries)
        statement = contribution_statement(setup.context, root, self._me, exchange.public, fingerprint)
        message = Contribution(
            digest=fingerprint,
            size=len(ciphertext),
            sid=setup.sid,
            book=root,
            public=exchange.public,
            signature=self._identity.sign(CONTRIBUTION_CONTEXT, statement),
            parcels=parcels,
        )
        return Send(COORDINATOR, message, ciphertext)

    def _seal(self, exchange: ExchangeKey, root: bytes, entry: MemberEntry, share: bytes, fingerprint: bytes) -> bytes:
        info = parcel_info(root, self._me, entry.seat)
        try:
            key = exchange.agree(entry.public, self._setup.context, PARCEL_LABEL, info, PARCEL_KEY_BYTES)
        except ProtocolError as error:
            name = self._setup.roster.members[entry.seat].name
            raise _refuse(f"its book has an unusable key of {name}") from error
        return seal(key, share, fingerprint)


def _refuse(why: str) -> PeerProtocolError:
    return PeerProtocolError(COORDINATOR, why)
