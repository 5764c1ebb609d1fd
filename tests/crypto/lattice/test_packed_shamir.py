"""Shares of keys: they add, they hide, and wrong ones are found up to half of the surplus."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ridotto.crypto.lattice.decoding import lagrange
from ridotto.crypto.lattice.kahe import generate_key
from ridotto.crypto.lattice.packed_shamir import ShareSum, Sharing, parse_share, recover_key, share_key
from ridotto.crypto.shamir import PRIME, ShareError
from ridotto.errors import LocalProtocolError, PlanError

R96 = Sharing(64, 24, 21)
SMALL = Sharing(7, 2, 2)


def seed(index: int) -> bytes:
    return index.to_bytes(32, "big")


def spoiled(share: bytes, word: int = 0) -> bytes:
    words = np.frombuffer(share, "<u4").copy()
    words[word] = (int(words[word]) + 1) % PRIME
    return words.tobytes()


def replies(sharing: Sharing, count: int, wrong: tuple[int, ...] = (), word: int = 0) -> dict[int, bytes]:
    shares = share_key(generate_key(seed(1)), sharing, seed(2))
    return {p: spoiled(shares[p - 1], word) if p in wrong else shares[p - 1] for p in range(1, count + 1)}


def test_the_sizes_of_the_specified_committee() -> None:
    assert (R96.needed, R96.rows, R96.share_bytes, R96.correctable(64)) == (45, 196, 784, 9)


@pytest.mark.parametrize("sizes", [(3, 0, 1), (3, 1, 0), (3, 2, 2), (1025, 2, 2)])
def test_impossible_committees_are_refused(sizes: tuple[int, int, int]) -> None:
    with pytest.raises(PlanError):
        Sharing(*sizes)


def test_a_small_sharing_by_hand() -> None:
    """Of each row: the polynomial through the secrets at -1, -2 has degree 3, and the shares lie on it."""
    key = generate_key(seed(1))
    words = np.stack([parse_share(share, SMALL) for share in share_key(key, SMALL, seed(2))])
    for row in (0, 1, 2047):
        values = {point: int(words[point - 1, row]) for point in range(1, 8)}
        for target, expected in ((-1, key[2 * row]), (-2, key[2 * row + 1])):
            matrix = lagrange([1, 2, 3, 4], [target % PRIME, 5, 6, 7])
            found = [
                sum(w * values[p] for w, p in zip(weights, (1, 2, 3, 4), strict=True)) % PRIME for weights in matrix
            ]
            assert found == [int(expected) % PRIME, values[5], values[6], values[7]]


@pytest.mark.parametrize("sharing", [R96, SMALL, Sharing(5, 2, 1), Sharing(96, 36, 31), Sharing(2, 1, 1)])
def test_sums_of_shares_share_the_sum_of_the_keys(sharing: Sharing) -> None:
    sums = [ShareSum(sharing) for _ in range(sharing.members)]
    expected = np.zeros(4096, np.int64)
    for index in range(5):
        key = generate_key(seed(index))
        expected += key
        for total, share in zip(sums, share_key(key, sharing, seed(100 + index)), strict=True):
            total.add(share)
    last = range(sharing.members - sharing.needed + 1, sharing.members + 1)
    found, wrong = recover_key({point: sums[point - 1].to_bytes() for point in last}, sharing)
    np.testing.assert_array_equal(found, expected)
    assert wrong == ()


@pytest.mark.parametrize(("count", "wrong"), [(64, 9), (64, 1), (63, 9), (47, 1), (46, 0), (45, 0)])
def test_wrong_replies_up_to_the_bound_are_found(count: int, wrong: int) -> None:
    liars = tuple(range(3, 3 + 5 * wrong, 5))
    assert R96.correctable(count) >= wrong
    key, found = recover_key(replies(R96, count, liars), R96)
    np.testing.assert_array_equal(key, generate_key(seed(1)))
    assert found == liars


@pytest.mark.parametrize("count", [64, 50, 46])
def test_one_wrong_reply_more_is_refused(count: int) -> None:
    liars = tuple(range(1, R96.correctable(count) + 2))
    with pytest.raises(ShareError, match="do not fit"):
        recover_key(replies(R96, count, liars), R96)


@pytest.mark.parametrize("word", [0, 100, 195])
def test_a_lie_in_any_word_is_found(word: int) -> None:
    _, found = recover_key(replies(R96, 64, (5, 64), word), R96)
    assert found == (5, 64)


@given(count=st.integers(4, 7), liars=st.sets(st.integers(1, 7), max_size=3), word=st.integers(0, 2047))
@settings(max_examples=40)
def test_a_small_committee_never_gives_a_wrong_key_within_the_bound(count: int, liars: set[int], word: int) -> None:
    liars = {liar for liar in liars if liar <= count}
    given_replies = replies(SMALL, count, tuple(liars), word)
    if len(liars) <= SMALL.correctable(count):
        key, found = recover_key(given_replies, SMALL)
        np.testing.assert_array_equal(key, generate_key(seed(1)))
        assert found == tuple(sorted(liars))
        return
    try:
        recover_key(given_replies, SMALL)
    except ShareError:
        return


def test_t_shares_say_nothing_about_the_key() -> None:
    """Whatever the key, some random values give the same t shares: the map from random values to shares is onto."""
    matrix = np.array(lagrange([PRIME - 1, PRIME - 2, 8, 9], [1, 2, 3, 4, 5, 6, 7]), object)
    for one in range(7):
        for other in range(one):
            random_part = matrix[[one, other], 2:]
            determinant = (random_part[0, 0] * random_part[1, 1] - random_part[0, 1] * random_part[1, 0]) % PRIME
            assert determinant


def test_shares_of_another_seed_are_others() -> None:
    key = generate_key(seed(1))
    one, other = share_key(key, R96, seed(2)), share_key(key, R96, seed(3))
    assert all(a != b for a, b in zip(one, other, strict=True))
    assert one == share_key(key, R96, seed(2))


def test_malformed_shares_and_too_few_are_refused() -> None:
    good = replies(R96, 45)
    for bad in (b"", bytes(783), bytes(785), b"\xff" * 784):
        with pytest.raises(ShareError):
            ShareSum(R96).add(bad)
        with pytest.raises(ShareError):
            recover_key(good | {1: bad}, R96)
    with pytest.raises(LocalProtocolError, match="44 shares"):
        recover_key(replies(R96, 44), R96)
    with pytest.raises(LocalProtocolError, match="1 to 64"):
        recover_key(good | {65: good[1]}, R96)
    with pytest.raises(LocalProtocolError, match="4096"):
        share_key(np.zeros(5, np.int64), R96, seed(1))


def test_a_word_that_is_no_key_is_refused() -> None:
    """Rows hold 4,116 places, and what is behind the key is zero."""
    with pytest.raises(ShareError, match="do not share a key"):
        recover_key({point: np.full(196, 1, "<u4").tobytes() for point in range(1, 65)}, R96)
