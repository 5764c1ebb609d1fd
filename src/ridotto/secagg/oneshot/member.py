"""The committee member's half of `oneshot`."""

from __future__ import annotations

from collections.abc import Sequence

from ridotto.core.machine import COORDINATOR, Effect, Finish, Send
from ridotto.core.rng import Rng
from ridotto.core.wire import Message
from ridotto.crypto.lattice.packed_shamir import ShareSum, parse_share
from ridotto.crypto.seal import IdentityKey
from ridotto.secagg.committee_roles.agreement import check_acks
from ridotto.secagg.committee_roles.member import SeatedMember
from ridotto.secagg.committee_roles.messages import Acks
from ridotto.secagg.oneshot.binding import (
    CONTRIBUTION_CONTEXT,
    PARCEL_LABEL,
    RELEASE_CONTEXT,
    contribution_statement,
    release_statement,
)
from ridotto.secagg.oneshot.messages import Parcel, Parcels, Release
from ridotto.secagg.oneshot.setup import OneshotSetup


class OneshotMember(SeatedMember[Parcel]):
    """Hold one share of every key, and release the sum of those that are in the one agreed set, once.

    See `SeatedMember`, above all for what becomes of its key.
    """

    delivery = Parcels
    signed = CONTRIBUTION_CONTEXT
    label = PARCEL_LABEL
    vector = "ciphertext"
    held = "shares"

    def __init__(self, setup: OneshotSetup, me: str, identity: IdentityKey, rng: Rng) -> None:
        super().__init__(setup, me, identity, rng, setup.sharing.share_bytes)
        self._setup = setup
        self._sum = b""

    def _parcels(self, message: Message) -> Sequence[Parcel]:
        return message.parcels if isinstance(message, Parcels) else ()

    def _statement(self, parcel: Parcel) -> bytes:
        return contribution_statement(self._setup.context, self._book, parcel.participant, parcel.public, parcel.digest)

    def _check_secret(self, parcel: Parcel, secret: bytes) -> None:
        parse_share(secret, self._setup.sharing)

    def _fix(self) -> None:
        total = ShareSum(self._setup.sharing)
        for share in self._secrets.values():
            total.add(share)
        self._sum, self._secrets = total.to_bytes(), {}

    def _check_acks(self, message: Acks, statement: bytes) -> None:
        check_acks(self._setup.roster, message, statement)

    def _release(self) -> list[Effect]:
        statement = release_statement(self._setup.context, self._book, self._root, self._sum)
        release = Release(self._setup.sid, self._root, self._sum, self._identity.sign(RELEASE_CONTEXT, statement))
        self._sum, self._next = b"", None
        return [Send(COORDINATOR, release), Finish()]
