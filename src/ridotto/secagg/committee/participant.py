"""The participant's half of `committee`: one message, and nothing to remember."""

from __future__ import annotations

from collections.abc import Sequence

from ridotto.core.fixedpoint import IntVector
from ridotto.core.machine import COORDINATOR, Effect, Finish, Send
from ridotto.core.packing import pack
from ridotto.core.rng import SEED_BYTES, Rng, SecretRng
from ridotto.core.wire import Message, digest
from ridotto.crypto.lattice.kahe import bound_seed
from ridotto.crypto.prg import Mask, add_masks
from ridotto.crypto.seal import ExchangeKey, IdentityKey, seal
from ridotto.errors import LocalProtocolError, PeerProtocolError, ProtocolError
from ridotto.secagg.committee.binding import (
    CONTRIBUTION_CONTEXT,
    MASK_LABEL,
    PARCEL_KEY_BYTES,
    PARCEL_LABEL,
    commit_seed,
    contribution_statement,
    parcel_info,
)
from ridotto.secagg.committee.masks import reduce
from ridotto.secagg.committee.messages import MaskedVector
from ridotto.secagg.committee.replicas import check_replicas
from ridotto.secagg.committee.setup import CommitteeSetup, deal
from ridotto.secagg.committee_roles.choice import check_choice
from ridotto.secagg.committee_roles.keys import book_root, check_book
from ridotto.secagg.committee_roles.messages import MemberBook, MemberEntry
from ridotto.secagg.session import Member, index_of


class CommitteeParticipant:
    """Mask one vector once per slot, seal the seeds for the slots' replicas, and be done.

    setup: its session was checked by the caller against its own policy. pool: everybody who offered to serve, as this
    participant knows it, not as the coordinator shows it; the committee must be the one that the beacon chooses from
    it. slots: as this participant agreed to them, where every slot is one organisation's; None if the beacon deals
    them. vector: elements mod 2^bits, shape (session.length,), overwritten. rng: secret.
    Raises PeerProtocolError, blaming the coordinator, if committee or slots are others.
    """

    def __init__(
        self,
        setup: CommitteeSetup,
        me: str,
        identity: IdentityKey,
        vector: IntVector,
        rng: Rng,
        pool: Sequence[Member],
        slots: tuple[int, ...] | None = None,
    ) -> None:
        if len(vector) != setup.session.length:
            raise LocalProtocolError(f"the vector has {len(vector)} elements, the session {setup.session.length}")
        check_choice(setup.roster, pool)
        if setup.slots != (deal(setup.roster, setup.count) if slots is None else slots):
            raise _refuse("its slots are not those that were agreed on")
        self._setup = setup
        self._me = index_of(setup.session, me)
        self._identity = identity
        self._vector: IntVector | None = vector
        self._seed = rng.bytes(SEED_BYTES)

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
        check_replicas(self._setup, message)
        send = self._contribute(message, vector)
        self._vector, self._seed = None, b""
        return [send, Finish()]

    def expire(self, now: float) -> list[Effect]:
        """Do nothing: the coordinator keeps the time."""
        return []

    def _contribute(self, book: MemberBook, vector: IntVector) -> Send:
        setup, root = self._setup, book_root(self._setup.context, book)
        # Two vectors under one mask would reveal their difference, and seeds that were sealed for two books would be
        # known to the corrupt of both. So all secrets depend on the vector and on the book: a participant that is
        # built again from its seed repeats itself, or has other secrets.
        source = SecretRng(self._seed).child("committee", setup.context.hex(), root.hex())
        rng = SecretRng(bound_seed(source.bytes(SEED_BYTES), vector))
        exchange = ExchangeKey.generate(rng)
        seeds = [rng.bytes(SEED_BYTES) for _ in range(setup.count)]
        # Everything that a book may be refused for comes before the vector is touched.
        keys = [self._key(exchange, root, entry) for entry in book.entries]
        add_masks(vector, [Mask(seed, 1) for seed in seeds], setup.context, MASK_LABEL)
        reduce(vector, setup.session.bits)
        packed = pack(vector, setup.session.bits)
        fingerprint = digest(packed)
        commitments = tuple(commit_seed(setup.context, self._me, slot, seed) for slot, seed in enumerate(seeds))
        statement = contribution_statement(setup.context, root, self._me, exchange.public, fingerprint, commitments)
        message = MaskedVector(
            digest=fingerprint,
            size=len(packed),
            sid=setup.sid,
            book=root,
            public=exchange.public,
            commitments=commitments,
            signature=self._identity.sign(CONTRIBUTION_CONTEXT, statement),
            parcels=tuple(
                seal(key, seeds[setup.slots[entry.seat]], fingerprint)
                for key, entry in zip(keys, book.entries, strict=True)
            ),
        )
        return Send(COORDINATOR, message, packed)

    def _key(self, exchange: ExchangeKey, root: bytes, entry: MemberEntry) -> bytes:
        info = parcel_info(root, self._me, entry.seat)
        try:
            return exchange.agree(entry.public, self._setup.context, PARCEL_LABEL, info, PARCEL_KEY_BYTES)
        except ProtocolError as error:
            name = self._setup.roster.members[entry.seat].name
            raise _refuse(f"its book has an unusable key of {name}") from error


def _refuse(why: str) -> PeerProtocolError:
    return PeerProtocolError(COORDINATOR, why)
