"""Keys of parcels: both ends derive the same, everything that carries them is bound, nothing wrong opens."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from ridotto.core.rng import insecure_seeded_rng
from ridotto.crypto.kem import DecapsulationKey
from ridotto.crypto.seal import ExchangeKey, KeyExchangeError, SealError
from ridotto.errors import ProtocolError
from ridotto.secagg.committee_roles.messages import MemberBook, MemberEntry
from ridotto.secagg.committee_roles.seals import (
    SEALS,
    MemberSecret,
    ParcelSeal,
    Purpose,
    Seal,
    check_public,
    encapsulate_all,
    overhead_bytes,
    parcel_seal,
    public_bytes,
    task_for,
)
from ridotto.secagg.committee_roles.tasks import Encapsulate, Encapsulated, Encapsulation

EXCHANGE = ExchangeKey(bytes([1]) * 32)
PURPOSE = Purpose(b"c" * 32, "parcel", b"book, who, whom", EXCHANGE.public)
BOTH = pytest.mark.parametrize("kind", SEALS)


def member(kind: Seal, seed: int = 1) -> MemberSecret:
    return MemberSecret(kind, insecure_seeded_rng(seed))


def drawn_for(one: MemberSecret) -> Encapsulation:
    task = Encapsulate(b"s" * 32, b"r" * 32, (one.public[:1184],))
    return encapsulate_all(task).drawn[0]


def sealed(kind: Seal, one: MemberSecret, purpose: Purpose = PURPOSE) -> tuple[ParcelSeal, bytes]:
    second = drawn_for(one) if kind == "hybrid" else None
    made = parcel_seal(EXCHANGE, one.public, purpose, second)
    return made, made.seal(b"secret", b"about it")


@BOTH
def test_a_member_opens_what_was_sealed_for_it(kind: Seal) -> None:
    one = member(kind)
    _, parcel = sealed(kind, one)
    assert (len(one.public), len(parcel)) == (public_bytes(kind), len(b"secret") + overhead_bytes(kind))
    assert one.open(PURPOSE, parcel, b"about it") == b"secret"


def test_the_sizes() -> None:
    assert [public_bytes(kind) for kind in SEALS] == [32, 1216]
    assert [overhead_bytes(kind) for kind in SEALS] == [16, 1104]


def test_the_hybrid_key_is_hkdf_over_both_secrets_and_all_that_carried_them() -> None:
    """RFC 5869 by hand; a member's keys are its randomness, X25519 first."""
    rng = insecure_seeded_rng(1)
    exchange, kem = ExchangeKey(rng.bytes(32)), DecapsulationKey(rng.bytes(64))
    one = member("hybrid")
    assert one.public == kem.public + exchange.public
    made, parcel = sealed("hybrid", one)
    assert parcel[:1088] == made.ciphertext
    # X25519's own secret, taken out of an agreement: HKDF-Extract is HMAC, so it is put in by hand instead.
    own = X25519PrivateKey.from_private_bytes(bytes([1]) * 32)
    shared = own.exchange(X25519PublicKey.from_public_bytes(one.public[1184:]))
    extracted = hmac.digest(PURPOSE.context, kem.decapsulate(made.ciphertext) + shared, "sha256")
    info = b"parcel\0" + PURPOSE.info + EXCHANGE.public + hashlib.sha256(made.ciphertext).digest()
    assert made.key == hmac.digest(extracted, info + b"\1", "sha256")[:16]


@BOTH
@pytest.mark.parametrize(
    "changes",
    [{"context": b"d" * 32}, {"label": "other"}, {"info": b""}, {"public": ExchangeKey(bytes([2]) * 32).public}],
)
def test_what_was_sealed_for_another_purpose_does_not_open(kind: Seal, changes: dict[str, object]) -> None:
    one = member(kind)
    _, parcel = sealed(kind, one)
    with pytest.raises(SealError):
        one.open(replace(PURPOSE, **changes), parcel, b"about it")


@BOTH
def test_what_was_touched_or_sealed_for_another_does_not_open(kind: Seal) -> None:
    one, other = member(kind), member(kind, 2)
    _, parcel = sealed(kind, one)
    for place in (0, len(parcel) // 2, len(parcel) - 1):
        touched = parcel[:place] + bytes([parcel[place] ^ 1]) + parcel[place + 1 :]
        with pytest.raises(SealError):
            one.open(PURPOSE, touched, b"about it")
    with pytest.raises(SealError):
        other.open(PURPOSE, parcel, b"about it")
    with pytest.raises(SealError):
        one.open(PURPOSE, parcel, b"about something else")


@BOTH
def test_parcels_of_any_length_are_refused_and_nothing_else(kind: Seal) -> None:
    one = member(kind)
    for length in (0, 1, 16, 1087, 1088, 1089, 2000):
        with pytest.raises(ProtocolError):
            one.open(PURPOSE, bytes(length), b"")


@pytest.mark.parametrize("half", ["x25519", "ml-kem"])
def test_one_broken_half_opens_nothing(half: str) -> None:
    """Who knows one of a member's two private keys, and all that was sent, has another key than the parcel's."""
    rng = insecure_seeded_rng(1)
    exchange, kem = ExchangeKey(rng.bytes(32)), DecapsulationKey(rng.bytes(64))
    made, parcel = sealed("hybrid", member("hybrid"))
    info = PURPOSE.info + EXCHANGE.public + hashlib.sha256(made.ciphertext).digest()
    known = exchange if half == "x25519" else ExchangeKey(bytes([9]) * 32)
    second = bytes(32) if half == "x25519" else kem.decapsulate(parcel[:1088])
    guessed = known.agree(EXCHANGE.public, PURPOSE.context, PURPOSE.label, info, 16, second)
    assert guessed != made.key
    right = exchange.agree(EXCHANGE.public, PURPOSE.context, PURPOSE.label, info, 16, kem.decapsulate(parcel[:1088]))
    assert right == made.key


@pytest.mark.parametrize(
    ("kind", "public", "why"),
    [
        ("x25519", bytes(33), "a key for x25519 has 32 bytes, not 33"),
        ("x25519", member("hybrid").public, "a key for x25519 has 32 bytes, not 1216"),
        ("hybrid", bytes(32), "a key for hybrid has 1216 bytes, not 32"),
        ("hybrid", b"\xff" * 1216, "none of ML-KEM-768"),
    ],
)
def test_keys_of_another_kind_are_refused(kind: Seal, public: bytes, why: str) -> None:
    with pytest.raises(KeyExchangeError, match=why):
        check_public(kind, public)


def test_a_good_ml_kem_part_does_not_save_an_x25519_part_of_low_order() -> None:
    public = member("hybrid").public[:1184] + b"\x01" + bytes(31)
    check_public("hybrid", public)
    with pytest.raises(KeyExchangeError, match="no shared secret"):
        parcel_seal(EXCHANGE, public, PURPOSE, drawn_for(member("hybrid")))


def test_a_participant_asks_for_every_member_of_its_book() -> None:
    members = [member("hybrid", seed) for seed in (1, 2)]
    book = MemberBook(b"s" * 32, tuple(MemberEntry(i, one.public, bytes(64)) for i, one in enumerate(members)))
    task = task_for(book, b"r" * 32)
    assert task == Encapsulate(b"s" * 32, b"r" * 32, tuple(one.public[:1184] for one in members))
    answer = encapsulate_all(task)
    assert (answer.sid, answer.book, len(answer.drawn)) == (task.sid, task.book, 2)


def test_nothing_shows_a_secret() -> None:
    one = member("hybrid")
    second = drawn_for(one)
    made = parcel_seal(EXCHANGE, one.public, PURPOSE, second)
    shown = "".join(map(repr, (one, second, made, Encapsulated(b"s" * 32, b"r" * 32, (second,)))))
    for secret in (second.secret, made.key):
        assert repr(secret)[2:-1] not in shown
        assert secret.hex() not in shown
