"""Keys bind what they should, known answers hold, and whatever was touched is refused."""

import hmac

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from ridotto.core.rng import insecure_seeded_rng
from ridotto.crypto.seal import (
    ExchangeKey,
    IdentityKey,
    KeyExchangeError,
    SealError,
    SignatureError,
    open_sealed,
    seal,
    verify,
)
from ridotto.errors import LocalProtocolError

SID = bytes(range(32))

# RFC 8032, section 7.1, test 1.
ED25519_PRIVATE = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
ED25519_PUBLIC = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")
ED25519_SIGNATURE = bytes.fromhex(
    "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"
)

# RFC 7748, section 6.1.
ALICE_PUBLIC = bytes.fromhex("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a")
BOB_PRIVATE = bytes.fromhex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb")
BOB_PUBLIC = bytes.fromhex("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f")
SHARED_SECRET = bytes.fromhex("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742")

# Every point of low order on Curve25519 and its twist, with the two non-canonical spellings of 0 and 1.
LOW_ORDER = [
    "00" * 32,
    "01" + "00" * 31,
    "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
    "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
    "ec" + "ff" * 30 + "7f",
    "ed" + "ff" * 30 + "7f",
    "ee" + "ff" * 30 + "7f",
]


def identity(seed: int = 1) -> IdentityKey:
    return IdentityKey.generate(insecure_seeded_rng(seed))


def exchange(seed: int = 1) -> ExchangeKey:
    return ExchangeKey.generate(insecure_seeded_rng(seed))


def test_identity_is_ed25519_of_rfc_8032() -> None:
    key = IdentityKey.from_bytes(ED25519_PRIVATE)
    assert key.public == ED25519_PUBLIC
    assert key._key.sign(b"") == ED25519_SIGNATURE


def test_signature_covers_domain_context_and_message() -> None:
    signature = identity().sign("key book", b"hello")
    Ed25519PublicKey.from_public_bytes(identity().public).verify(signature, b"ridotto/1 key book\0hello")


@given(st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1), st.binary())
def test_own_signature_verifies(context: str, message: bytes) -> None:
    verify(identity().public, context, message, identity().sign(context, message))


def test_refuses_signature_of_anything_else() -> None:
    key = identity()
    signature = key.sign("receipt", b"message")
    for bit in (0, 100, 300, 511):
        changed = (int.from_bytes(signature, "little") ^ (1 << bit)).to_bytes(64, "little")
        with pytest.raises(SignatureError):
            verify(key.public, "receipt", b"message", changed)
    with pytest.raises(SignatureError, match="for 'key book'"):
        verify(key.public, "key book", b"message", signature)
    with pytest.raises(SignatureError):
        verify(key.public, "receipt", b"Message", signature)
    with pytest.raises(SignatureError):
        verify(identity(2).public, "receipt", b"message", signature)


@pytest.mark.parametrize("public", [b"", bytes(31), bytes(33), b"\xff" * 32])
@pytest.mark.parametrize("signature", [b"", bytes(63), bytes(64), bytes(65), b"\xff" * 64])
def test_refuses_malformed_key_or_signature(public: bytes, signature: bytes) -> None:
    with pytest.raises(SignatureError):
        verify(public, "receipt", b"", signature)
    with pytest.raises(SignatureError):
        verify(identity().public, "receipt", b"", signature)


def low_order_keys() -> list[bytes]:
    """Return every way to write a point P of Ed25519 with 8 P = 0, found by arithmetic and not from a list."""
    p = 2**255 - 19
    d = -121665 * pow(121666, -1, p) % p

    def add(one: tuple[int, int], other: tuple[int, int]) -> tuple[int, int]:
        (a, b), (e, f) = one, other
        product = d * a * b * e * f
        return (a * f + b * e) * pow(1 + product, -1, p) % p, (b * f + a * e) * pow(1 - product, -1, p) % p

    def x_of(y: int) -> int:
        square = (y * y - 1) * pow(d * y * y + 1, -1, p) % p
        root = pow(square, (p + 3) // 8, p)
        return root if root * root % p == square else root * pow(2, (p - 1) // 4, p) % p

    # Any point times the order of the prime subgroup has an order that divides 8; about one in two has 8 itself.
    order = 2**252 + 27742317777372353535851937790883648493
    found: set[tuple[int, int]] = set()
    for y in range(2, 40):
        x = x_of(y)
        if x * x * (d * y * y + 1) % p != (y * y - 1) % p:
            continue
        point, total = (x, y), (0, 1)
        for bit in bin(order)[2:]:
            total = add(total, total)
            total = add(total, point) if bit == "1" else total
        found.add(total)
    points = {(0, 1)}
    for one in found:
        points |= {add(one, other) for other in points}
    for _ in range(3):
        points |= {add(one, other) for one in points for other in points}
    assert len(points) == 8
    ways = {y for _, y in points} | {y + p for _, y in points if y + p < 2**255}
    return [(y | sign << 255).to_bytes(32, "little") for y in sorted(ways) for sign in (0, 1)]


@pytest.mark.parametrize("public", low_order_keys(), ids=bytes.hex)
def test_refuses_identities_under_which_anybody_can_sign(public: bytes) -> None:
    """With R the identity and s = 0 the equation holds for one message in eight, or for every one."""
    for lie in (b"\x01" + bytes(63), public + bytes(32), bytes(64)):
        for message in range(16):
            with pytest.raises(SignatureError):
                verify(public, "receipt", bytes([message]), lie)


def test_every_key_of_low_order_is_in_the_list() -> None:
    assert len(low_order_keys()) == 14


@pytest.mark.parametrize("word", ["", "a\0b"])
def test_refuses_ambiguous_words(word: str) -> None:
    with pytest.raises(LocalProtocolError, match="context"):
        identity().sign(word, b"")
    with pytest.raises(LocalProtocolError, match="context"):
        verify(identity().public, word, b"", bytes(64))
    with pytest.raises(LocalProtocolError, match="label"):
        exchange().agree(exchange(2).public, SID, word, b"")


def test_agreement_is_x25519_of_rfc_7748_then_hkdf() -> None:
    bob = ExchangeKey.from_bytes(BOB_PRIVATE)
    assert bob.public == BOB_PUBLIC
    extracted = hmac.digest(SID, SHARED_SECRET, "sha256")
    expected = hmac.digest(extracted, b"box\0info\x01", "sha256")
    assert bob.agree(ALICE_PUBLIC, SID, "box", b"info") == expected
    assert bob.agree(ALICE_PUBLIC, SID, "box", b"info", 16) == expected[:16]


def test_both_sides_agree_and_nobody_else() -> None:
    a, b, c = exchange(1), exchange(2), exchange(3)
    key = a.agree(b.public, SID, "mask", b"ab")
    assert key == b.agree(a.public, SID, "mask", b"ab")
    others = [
        a.agree(b.public, SID[::-1], "mask", b"ab"),
        a.agree(b.public, SID, "box", b"ab"),
        a.agree(b.public, SID, "mask", b"ba"),
        a.agree(b.public, SID, "maska", b"b"),
        c.agree(b.public, SID, "mask", b"ab"),
    ]
    assert len({key, *others}) == 6


def test_a_second_secret_goes_before_the_first_one_into_hkdf() -> None:
    """RFC 5869 by hand, over the shared secret of RFC 7748."""
    bob, second = ExchangeKey.from_bytes(BOB_PRIVATE), bytes(range(32))
    extracted = hmac.digest(SID, second + SHARED_SECRET, "sha256")
    expected = hmac.digest(extracted, b"parcel\0info\x01", "sha256")
    assert bob.agree(ALICE_PUBLIC, SID, "parcel", b"info", second=second) == expected
    assert bob.agree(ALICE_PUBLIC, SID, "parcel", b"info") != expected


@pytest.mark.parametrize("length", [1, 31, 33, 64])
def test_refuses_a_second_secret_of_other_length(length: int) -> None:
    with pytest.raises(LocalProtocolError, match=f"32 bytes, not {length}"):
        exchange().agree(exchange(2).public, SID, "parcel", b"", second=bytes(length))


def test_a_second_secret_does_not_save_a_key_of_low_order() -> None:
    for point in LOW_ORDER:
        with pytest.raises(KeyExchangeError, match="no shared secret"):
            exchange().agree(bytes.fromhex(point), SID, "parcel", b"", second=bytes(32))


@pytest.mark.parametrize("point", LOW_ORDER)
def test_refuses_public_key_of_low_order(point: str) -> None:
    with pytest.raises(KeyExchangeError, match="no shared secret"):
        exchange().agree(bytes.fromhex(point), SID, "mask", b"")


@pytest.mark.parametrize("length", [0, 31, 33])
def test_refuses_keys_of_other_length(length: int) -> None:
    with pytest.raises(KeyExchangeError):
        exchange().agree(bytes(length), SID, "mask", b"")
    with pytest.raises(LocalProtocolError, match=f"32 bytes, not {length}"):
        ExchangeKey.from_bytes(bytes(length))
    with pytest.raises(LocalProtocolError, match=f"32 bytes, not {length}"):
        IdentityKey.from_bytes(bytes(length))


def test_refuses_agreement_outside_a_session() -> None:
    with pytest.raises(LocalProtocolError, match="sid is empty"):
        exchange().agree(exchange(2).public, b"", "mask", b"")


@given(st.sampled_from([16, 32]), st.binary(), st.binary())
def test_what_is_sealed_opens(length: int, plaintext: bytes, associated: bytes) -> None:
    key = insecure_seeded_rng(1).bytes(length)
    sealed = seal(key, plaintext, associated)
    assert len(sealed) == len(plaintext) + 16
    assert open_sealed(key, sealed, associated) == plaintext


def test_seal_keeps_its_known_answer() -> None:
    # The GCM specification of McGrew and Viega, test case 2: zero key, zero nonce, one block of zeros.
    expected = "0388dace60b6a392f328c2b971b2fe78ab6e47d42cec13bdf53a67b21257bddf"
    assert seal(bytes(16), bytes(16), b"").hex() == expected


def test_refuses_to_open_what_was_touched() -> None:
    key, sealed = bytes(16), seal(bytes(16), b"share", b"from a to b")
    for i in range(len(sealed)):
        with pytest.raises(SealError):
            open_sealed(key, sealed[:i] + bytes([sealed[i] ^ 1]) + sealed[i + 1 :], b"from a to b")
        with pytest.raises(SealError):
            open_sealed(key, sealed[:i], b"from a to b")
    with pytest.raises(SealError):
        open_sealed(key, sealed, b"from b to a")
    with pytest.raises(SealError):
        open_sealed(b"\x01" * 16, sealed, b"from a to b")


@pytest.mark.parametrize("length", [0, 15, 24, 33])
def test_refuses_sealing_key_of_other_length(length: int) -> None:
    with pytest.raises(LocalProtocolError, match="16 or 32"):
        seal(bytes(length), b"", b"")
    with pytest.raises(LocalProtocolError, match="16 or 32"):
        open_sealed(bytes(length), bytes(16), b"")


@pytest.mark.parametrize("kind", [IdentityKey, ExchangeKey])
def test_keys_survive_bytes_and_hide_their_secret(kind: type[IdentityKey] | type[ExchangeKey]) -> None:
    key = kind.generate(insecure_seeded_rng(3))
    assert key.to_bytes() == insecure_seeded_rng(3).bytes(32)
    assert kind.from_bytes(key.to_bytes()).public == key.public
    assert repr(key) == f"{kind.__name__}({key.public.hex()[:8]}...)"
