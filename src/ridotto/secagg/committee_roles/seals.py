"""Derive the keys of parcels: from X25519 alone, or from X25519 and ML-KEM-768 together.

    seal        a member's public key                           a parcel
    x25519      X25519, 32 bytes                                the sealed secret
    hybrid      ML-KEM-768 || X25519, 1,184 + 32 bytes          an ML-KEM ciphertext of 1,088 bytes || the sealed secret

Under "hybrid" a parcel stays sealed while either of the two holds: who records the traffic today gains nothing by
breaking X25519 later. docs/decisions/0007-hybrid-seals.md says why, and why the participant's driver encapsulates.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, final

from ridotto.core.rng import Rng
from ridotto.core.wire import digest
from ridotto.crypto.kem import (
    KEM_CIPHERTEXT_BYTES,
    KEM_PUBLIC_BYTES,
    DecapsulationKey,
    check_encapsulation_key,
    encapsulate,
    require_kem,
)
from ridotto.crypto.seal import KEY_BYTES, SEAL_OVERHEAD_BYTES, ExchangeKey, KeyExchangeError, open_sealed, seal
from ridotto.secagg.committee_roles.binding import PARCEL_KEY_BYTES
from ridotto.secagg.committee_roles.messages import MemberBook
from ridotto.secagg.committee_roles.tasks import Encapsulate, Encapsulated, Encapsulation

Seal = Literal["x25519", "hybrid"]
"""What keys of parcels are derived from."""

SEALS: tuple[Seal, ...] = ("x25519", "hybrid")


def public_bytes(kind: Seal) -> int:
    """Return the size of a member's public key."""
    return KEY_BYTES + (KEM_PUBLIC_BYTES if kind == "hybrid" else 0)


def overhead_bytes(kind: Seal) -> int:
    """Return how much longer a parcel is than the secret in it."""
    return SEAL_OVERHEAD_BYTES + (KEM_CIPHERTEXT_BYTES if kind == "hybrid" else 0)


def require_seal(kind: Seal) -> None:
    """Return if what this takes is installed. Raises ConfigError, which says what to install, if not."""
    if kind == "hybrid":
        require_kem()


@dataclass(frozen=True)
class Purpose:
    """Say what a parcel's key is for.

    context: of the session. label: of the protocol. info: who seals for whom, under which book. public: the X25519 key
    that the participant made for it.
    """

    context: bytes
    label: str
    info: bytes
    public: bytes


@final
class MemberSecret:
    """Hold what a member opens its parcels with: its private keys of one session."""

    __slots__ = ("_exchange", "_kem", "public")

    public: bytes
    """What the member signs and shows."""

    def __init__(self, kind: Seal, rng: Rng) -> None:
        self._exchange = ExchangeKey.generate(rng)
        self._kem = DecapsulationKey.generate(rng) if kind == "hybrid" else None
        self.public = (self._kem.public if self._kem else b"") + self._exchange.public

    def __repr__(self) -> str:
        return f"MemberSecret({self.public.hex()[:8]}...)"

    def open(self, purpose: Purpose, parcel: bytes, associated: bytes) -> bytes:
        """Return the secret in a parcel of the right size.

        Raises ProtocolError if it does not open: ML-KEM gives some secret for every ciphertext, so a wrong one is seen
        here only by the seal that does not fit.
        """
        if self._kem is None:
            return open_sealed(_derive(self._exchange, purpose.public, purpose), parcel, associated)
        ciphertext, sealed = parcel[:KEM_CIPHERTEXT_BYTES], parcel[KEM_CIPHERTEXT_BYTES:]
        second = Encapsulation(self._kem.decapsulate(ciphertext), ciphertext)
        return open_sealed(_derive(self._exchange, purpose.public, purpose, second), sealed, associated)


@dataclass(frozen=True)
class ParcelSeal:
    """Seal one parcel: one secret, once. ciphertext: goes before it; empty without ML-KEM."""

    key: bytes = field(repr=False)
    ciphertext: bytes = b""

    def seal(self, secret: bytes, associated: bytes) -> bytes:
        """Return the parcel."""
        return self.ciphertext + seal(self.key, secret, associated)


def parcel_seal(exchange: ExchangeKey, public: bytes, purpose: Purpose, second: Encapsulation | None) -> ParcelSeal:
    """Return what a participant seals a parcel with. public: the member's. second: what was encapsulated for it.

    Raises ProtocolError if the member's key is unusable.
    """
    key = _derive(exchange, public[-KEY_BYTES:], purpose, second)
    return ParcelSeal(key, second.ciphertext if second else b"")


def check_public(kind: Seal, public: bytes) -> None:
    """Return if a member's public key has its size, and an ML-KEM part for which something can be encapsulated.

    Raises KeyExchangeError if not. Whether the X25519 part gives a secret shows when it is agreed with.
    """
    if len(public) != public_bytes(kind):
        raise KeyExchangeError(f"a key for {kind} has {public_bytes(kind)} bytes, not {len(public)}")
    if kind == "hybrid":
        check_encapsulation_key(public[:KEM_PUBLIC_BYTES])


def task_for(book: MemberBook, root: bytes) -> Encapsulate:
    """Return what a participant asks its driver for when it has checked this book."""
    return Encapsulate(book.sid, root, tuple(entry.public[:KEM_PUBLIC_BYTES] for entry in book.entries))


def encapsulate_all(task: Encapsulate) -> Encapsulated:
    """Carry out a participant's task: 20 microseconds for each member. The machine has checked the keys."""
    return Encapsulated(task.sid, task.book, tuple(Encapsulation(*encapsulate(public)) for public in task.publics))


def _derive(own: ExchangeKey, peer: bytes, purpose: Purpose, second: Encapsulation | None = None) -> bytes:
    """Return a parcel's key, from one end or the other. With a second secret, everything that carried it is in `info`.

    HKDF-SHA256(ML-KEM's secret || X25519's, salt=context, info=label || 00 || info || public || SHA-256(ciphertext)).
    """
    if second is None:
        return own.agree(peer, purpose.context, purpose.label, purpose.info, PARCEL_KEY_BYTES)
    info = purpose.info + purpose.public + digest(second.ciphertext)
    return own.agree(peer, purpose.context, purpose.label, info, PARCEL_KEY_BYTES, second.secret)
