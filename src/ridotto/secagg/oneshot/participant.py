"""The participant's half of `oneshot`: one message, and nothing to remember."""

from __future__ import annotations

from collections.abc import Sequence

from ridotto.core.fixedpoint import IntVector
from ridotto.core.machine import COORDINATOR, Send
from ridotto.core.rng import SEED_BYTES, Rng, SecretRng
from ridotto.core.wire import digest
from ridotto.crypto.lattice.kahe import encrypt, generate_key
from ridotto.crypto.lattice.loops import LOOPS, Loops
from ridotto.crypto.lattice.packed_shamir import share_key
from ridotto.crypto.lattice.samplers import public_elements
from ridotto.crypto.seal import ExchangeKey, IdentityKey
from ridotto.secagg.committee_roles.messages import MemberBook
from ridotto.secagg.committee_roles.participant import Drawn, SeatedParticipant
from ridotto.secagg.oneshot.binding import CONTRIBUTION_CONTEXT, PARCEL_LABEL, contribution_statement
from ridotto.secagg.oneshot.messages import Contribution
from ridotto.secagg.oneshot.setup import OneshotSetup
from ridotto.secagg.session import Member


class OneshotParticipant(SeatedParticipant):
    """Encrypt one vector, share its key among the committee, and be done.

    vector: not changed. What else it needs and raises: see `SeatedParticipant`.
    """

    protocol = "oneshot"
    label = PARCEL_LABEL

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
        super().__init__(setup, me, identity, vector, rng, pool)
        self._setup = setup
        self._loops = loops

    def _check_members(self, book: MemberBook) -> None:
        """Take any book that is long enough."""

    def _contribute(self, book: MemberBook, root: bytes, vector: IntVector, rng: SecretRng, drawn: Drawn) -> Send:
        setup = self._setup
        seed, share_seed, exchange = rng.bytes(SEED_BYTES), rng.bytes(SEED_BYTES), ExchangeKey.generate(rng)
        seals = self._seals(exchange, book, root, drawn)
        key, public = generate_key(seed), public_elements(setup.context, setup.shape.elements)
        ciphertext = encrypt(vector, key, seed, public, setup.shape, self._loops)
        fingerprint = digest(ciphertext)
        shares = share_key(key, setup.sharing, share_seed)
        statement = contribution_statement(setup.context, root, self._me, exchange.public, fingerprint)
        message = Contribution(
            digest=fingerprint,
            size=len(ciphertext),
            sid=setup.sid,
            book=root,
            public=exchange.public,
            signature=self._identity.sign(CONTRIBUTION_CONTEXT, statement),
            parcels=tuple(
                one.seal(shares[entry.seat], fingerprint) for one, entry in zip(seals, book.entries, strict=True)
            ),
        )
        return Send(COORDINATOR, message, ciphertext)
