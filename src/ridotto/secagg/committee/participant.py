"""The participant's half of `committee`: one message, and nothing to remember."""

from __future__ import annotations

from collections.abc import Sequence

from ridotto.core.fixedpoint import IntVector
from ridotto.core.machine import COORDINATOR, Send
from ridotto.core.packing import pack
from ridotto.core.rng import SEED_BYTES, Rng, SecretRng
from ridotto.core.wire import digest
from ridotto.crypto.prg import Mask, add_masks
from ridotto.crypto.seal import ExchangeKey, IdentityKey
from ridotto.errors import PeerProtocolError
from ridotto.secagg.committee.binding import (
    CONTRIBUTION_CONTEXT,
    MASK_LABEL,
    PARCEL_LABEL,
    commit_seed,
    contribution_statement,
)
from ridotto.secagg.committee.masks import reduce
from ridotto.secagg.committee.messages import MaskedVector
from ridotto.secagg.committee.replicas import check_replicas
from ridotto.secagg.committee.setup import CommitteeSetup, deal
from ridotto.secagg.committee_roles.messages import MemberBook
from ridotto.secagg.committee_roles.participant import Drawn, SeatedParticipant
from ridotto.secagg.session import Member


class CommitteeParticipant(SeatedParticipant):
    """Mask one vector once per slot, seal the seeds for the slots' replicas, and be done.

    slots: as this participant agreed to them, where every slot is one organisation's; None if the beacon deals them.
    vector: overwritten. What else it needs and raises: see `SeatedParticipant`.
    Raises PeerProtocolError, blaming the coordinator, if the slots are others.
    """

    protocol = "committee"
    label = PARCEL_LABEL

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
        super().__init__(setup, me, identity, vector, rng, pool)
        if setup.slots != (deal(setup.roster, setup.count) if slots is None else slots):
            raise PeerProtocolError(COORDINATOR, "its slots are not those that were agreed on")
        self._setup = setup

    def _check_members(self, book: MemberBook) -> None:
        check_replicas(self._setup, book)

    def _contribute(self, book: MemberBook, root: bytes, vector: IntVector, rng: SecretRng, drawn: Drawn) -> Send:
        setup, exchange = self._setup, ExchangeKey.generate(rng)
        seeds = [rng.bytes(SEED_BYTES) for _ in range(setup.count)]
        # Everything that a book may be refused for comes before the vector is touched.
        seals = self._seals(exchange, book, root, drawn)
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
                one.seal(seeds[setup.slots[entry.seat]], fingerprint)
                for one, entry in zip(seals, book.entries, strict=True)
            ),
        )
        return Send(COORDINATOR, message, packed)
