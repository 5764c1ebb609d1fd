"""What the machines of protocols with a committee ask their drivers to do, besides `secagg.tasks.Fold`.

`Settle` is the coordinator's. `Encapsulate` is a participant's, where parcels are sealed under ML-KEM as well:
`seals.encapsulate_all` carries it out.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

import msgspec

from ridotto.core.wire import Bytes32, Message, Part
from ridotto.crypto.kem import KEM_CIPHERTEXT_BYTES
from ridotto.secagg.committee_roles.messages import PER_SEAT


@dataclass(frozen=True, slots=True)
class Settle:
    """Take these contributions out of the sum of session `sid` again; the set is final then.

    removed: names and what stands for their contributions, mostly none. Until here a driver keeps the attachments, on
    disk or in memory; after it, it forgets them.
    """

    sid: bytes
    removed: tuple[tuple[str, bytes], ...]


@dataclass(frozen=True, slots=True)
class Encapsulate:
    """Encapsulate a secret for each of these ML-KEM-768 keys, of the book with this root. Answered with `Encapsulated`.

    What comes out is no function of a seed. A driver whose participant may be killed keeps the answer before it hands
    it to the machine, and hands over the same one again when the machine is built again and asks: so it says the same.
    """

    sid: bytes
    book: bytes
    publics: tuple[bytes, ...] = field(repr=False)


class Encapsulation(Part, frozen=True):
    """Hold one secret, and the ciphertext that carries it to a member."""

    secret: Bytes32
    ciphertext: Annotated[bytes, msgspec.Meta(min_length=KEM_CIPHERTEXT_BYTES, max_length=KEM_CIPHERTEXT_BYTES)]

    def __repr__(self) -> str:
        return f"Encapsulation({self.ciphertext.hex()[:8]}...)"


class Encapsulated(Message, frozen=True):
    """Bring the secrets to the participant's machine, in the order of the book. Never leaves the participant."""

    sid: Bytes32
    book: Bytes32
    drawn: Annotated[tuple[Encapsulation, ...], PER_SEAT]
