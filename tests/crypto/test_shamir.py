"""Enough shares give the secret, fewer give nothing, and bad ones are refused."""

import contextlib
import itertools
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ridotto.core.rng import insecure_seeded_rng
from ridotto.crypto.shamir import PRIME, SHARE_BYTES, ShareError, reconstruct, reconstruct_many, share
from ridotto.errors import LocalProtocolError

SECRET = bytes(range(32))


def words(data: bytes) -> list[int]:
    return [int.from_bytes(data[i : i + 4], "little") for i in range(0, len(data), 4)]


def slow_interpolate(values: Mapping[int, int], at: int) -> int:
    """Lagrange in plain integers: the polynomial through `values`, at a point."""
    result = 0
    for x, y in values.items():
        term = y
        for other in values:
            if other != x:
                term = term * (at - other) * pow(x - other, PRIME - 2, PRIME) % PRIME
        result += term
    return result % PRIME


def slow_reconstruct(shares: Mapping[int, bytes]) -> bytes:
    limbs = [slow_interpolate({x: words(data)[i] for x, data in shares.items()}, 0) for i in range(9)]
    return sum(limb << (30 * i) for i, limb in enumerate(limbs)).to_bytes(32, "little")


def shared(secret: bytes, threshold: int, points: list[int], seed: int = 1) -> dict[int, bytes]:
    return dict(zip(points, share(secret, threshold, points, insecure_seeded_rng(seed)), strict=True))


class Script:
    """An rng that returns what a test wrote down."""

    def __init__(self, *draws: bytes) -> None:
        self.draws = list(draws)

    def bytes(self, length: int) -> bytes:
        draw = self.draws.pop(0)
        if len(draw) != length:
            raise AssertionError(f"{length} bytes drawn, {len(draw)} written down")
        return draw


def test_every_subset_of_threshold_reconstructs() -> None:
    shares = shared(SECRET, 3, [5, 1, 9, PRIME - 1, 2])
    for size in (3, 4, 5):
        for points in itertools.combinations(shares, size):
            assert reconstruct({x: shares[x] for x in points}, 3) == SECRET


@given(
    st.binary(min_size=32, max_size=32),
    st.lists(st.integers(1, PRIME - 1), min_size=2, max_size=12, unique=True),
    st.data(),
)
def test_agrees_with_slow_lagrange(secret: bytes, points: list[int], data: st.DataObject) -> None:
    threshold = data.draw(st.integers(2, len(points)))
    shares = shared(secret, threshold, points)
    chosen = {x: shares[x] for x in sorted(points)[:threshold]}
    assert reconstruct(shares, threshold) == slow_reconstruct(chosen) == secret


@pytest.mark.parametrize("secret", [bytes(32), b"\xff" * 32, b"\x01" + bytes(31), bytes(31) + b"\x80"])
def test_extreme_secrets_survive(secret: bytes) -> None:
    assert reconstruct(shared(secret, 71, list(range(1, 129))), 71) == secret


def test_shares_are_values_of_the_polynomials() -> None:
    # threshold 2: limb 0 is 7 + 3 x, limb 8 is 0 + (p - 1) x, the others are 0.
    coefficients = [3, 0, 0, 0, 0, 0, 0, 0, PRIME - 1]
    rng = Script(b"".join(c.to_bytes(4, "little") for c in coefficients))
    first, second = share((7).to_bytes(32, "little"), 2, [1, 2], rng)
    assert words(first) == [10, 0, 0, 0, 0, 0, 0, 0, PRIME - 1]
    assert words(second) == [13, 0, 0, 0, 0, 0, 0, 0, PRIME - 2]


def test_coefficient_that_equals_p_is_drawn_again() -> None:
    # 0x7fffffff is p: taking it as 0 would make 0 twice as likely as others. The top bit is not used.
    rng = Script(b"\xff" * 4 + b"\x01\0\0\x80" * 8, b"\xff\xff\xff\x7f", b"\x05\0\0\0")
    (first, _) = share(bytes(32), 2, [1, 2], rng)
    assert words(first) == [5, 1, 1, 1, 1, 1, 1, 1, 1]
    assert not rng.draws


def test_fewer_shares_fit_every_secret_equally() -> None:
    # Any threshold - 1 shares and any candidate secret lie on exactly one polynomial of the right degree: two shares
    # of threshold 3 and the candidate fix it. Its coefficients are as likely as the true ones, so nothing is learnt.
    shares = shared(SECRET, 3, [1, 2, 3])
    for candidate in (bytes(32), b"\xff" * 32, bytes(range(1, 33))):
        number = int.from_bytes(candidate, "little")
        forged = b""
        for i in range(9):
            limb = (number >> (30 * i)) & (2**30 - 1)
            known = {0: limb, 1: words(shares[1])[i], 2: words(shares[2])[i]}
            forged += slow_interpolate(known, 3).to_bytes(4, "little")
        assert reconstruct({1: shares[1], 2: shares[2], 3: forged}, 3) == candidate


def test_shares_of_one_holder_are_uniform() -> None:
    # Share limb of a fixed secret, 4,000 rngs, 16 cells of the field: chi-square with 15 degrees of freedom. Fixed
    # inputs, so it fails never or always; at random it would exceed 57 with probability 1e-6.
    counts = [0] * 16
    for seed in range(4000):
        counts[words(shared(SECRET, 2, [1, 2], seed)[1])[0] >> 27] += 1
    assert sum((count - 250) ** 2 / 250 for count in counts) < 57


def test_uses_the_lowest_points_only() -> None:
    shares = shared(SECRET, 2, [4, 2, 3]) | {9: b"not looked at"}
    assert reconstruct(shares, 2) == SECRET


def test_batch_equals_one_by_one() -> None:
    secrets = [bytes([i]) * 32 for i in range(5)]
    batch = [shared(secret, 3, [1, 4, 6, 8], seed) for seed, secret in enumerate(secrets)]
    assert reconstruct_many(batch, 3) == secrets
    assert reconstruct_many([], 3) == []


def test_sharing_is_repeatable() -> None:
    assert shared(SECRET, 3, [1, 2, 3]) == shared(SECRET, 3, [1, 2, 3])
    assert shared(SECRET, 3, [1, 2, 3]) != shared(SECRET, 3, [1, 2, 3], seed=2)
    assert {len(data) for data in shared(SECRET, 3, [1, 2, 3]).values()} == {SHARE_BYTES}


def test_wrong_share_is_never_taken_for_the_secret() -> None:
    shares = shared(SECRET, 2, [1, 2])
    shares[2] = bytes([shares[2][0] ^ 1]) + shares[2][1:]
    with contextlib.suppress(ShareError):
        assert reconstruct(shares, 2) != SECRET


@pytest.mark.parametrize(
    ("threshold", "points", "why"),
    [
        (1, [1, 2], "threshold"),
        (0, [1, 2], "threshold"),
        (3, [1, 2], "can't reach"),
        (2, [1, 1], "same point"),
        (2, [0, 1], "point lies"),
        (2, [1, PRIME], "point lies"),
        (2, [-1, 1], "point lies"),
    ],
)
def test_refuses_to_share(threshold: int, points: list[int], why: str) -> None:
    with pytest.raises(LocalProtocolError, match=why):
        share(SECRET, threshold, points, insecure_seeded_rng(1))


def test_refuses_secret_of_other_length() -> None:
    with pytest.raises(LocalProtocolError, match="32 bytes, not 31"):
        share(bytes(31), 2, [1, 2], insecure_seeded_rng(1))


def test_refuses_too_few_shares_and_impossible_points() -> None:
    shares = shared(SECRET, 2, [1, 2])
    with pytest.raises(LocalProtocolError, match="fewer than the threshold"):
        reconstruct({1: shares[1]}, 2)
    with pytest.raises(LocalProtocolError, match="threshold"):
        reconstruct(shares, 1)
    with pytest.raises(LocalProtocolError, match="point lies"):
        reconstruct({0: shares[1], 2: shares[2]}, 2)
    with pytest.raises(LocalProtocolError, match="same points"):
        reconstruct_many([shares, shared(SECRET, 2, [1, 3])], 2)


@pytest.mark.parametrize("bad", [b"", bytes(35), bytes(37), b"\xff\xff\xff\x7f" + bytes(32), b"\xff" * 36])
def test_refuses_malformed_share_and_names_its_holder(bad: bytes) -> None:
    good = shared(SECRET, 2, [1, 2])
    with pytest.raises(ShareError, match="point 2") as caught:
        reconstruct_many([good, good | {2: bad}], 2)
    assert (caught.value.index, caught.value.point) == (1, 2)


@pytest.mark.parametrize("limb", [(0, 1 << 30), (8, 1 << 16), (8, PRIME - 1)])
def test_refuses_shares_of_no_secret(limb: tuple[int, int]) -> None:
    # Constant polynomials: every holder has the same share, and it is the "secret".
    values = [0] * 9
    values[limb[0]] = limb[1]
    data = b"".join(value.to_bytes(4, "little") for value in values)
    with pytest.raises(ShareError, match="do not belong"):
        reconstruct({1: data, 2: data}, 2)


@pytest.mark.fuzz
@given(
    st.dictionaries(st.integers(1, PRIME - 1), st.binary(max_size=40) | st.binary(min_size=36, max_size=36), min_size=2)
)
def test_only_share_errors_leave_reconstruct(shares: dict[int, bytes]) -> None:
    with contextlib.suppress(ShareError):
        assert len(reconstruct(shares, 2)) == 32
