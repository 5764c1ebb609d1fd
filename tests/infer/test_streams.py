"""What the dealer writes is what the parties read, in the same order."""

from __future__ import annotations

import numpy as np
import pytest

from ridotto.core.rng import insecure_seeded_rng
from ridotto.errors import PeerProtocolError
from ridotto.infer.streams import LARGE, Dealing, Material, Stream, Walk
from tests.infer.two_parties import SESSION, deal

SECRET = np.arange(5, dtype=np.uint64)


def test_random_and_shared_secrets() -> None:
    dealing = Dealing(insecure_seeded_rng(1), SESSION)
    r, bits = dealing.random(3), dealing.random_bits(2)
    dealing.share(SECRET)
    dealing.share_bits(SECRET)
    dealing.publish(SECRET)
    said = dealing.messages()
    zero = Material(dealing.seeds[0], SESSION, said[0], first=True)
    one = Material(dealing.seeds[1], SESSION, said[1], first=False)
    np.testing.assert_array_equal(zero.random(3) + one.random(3), r)
    np.testing.assert_array_equal(zero.random(2) ^ one.random(2), bits)
    np.testing.assert_array_equal(zero.share(5) + one.share(5), SECRET)
    np.testing.assert_array_equal(zero.share(5) ^ one.share(5), SECRET)
    np.testing.assert_array_equal(zero.published(5), SECRET)
    np.testing.assert_array_equal(one.published(5), SECRET)
    assert zero.walk.digest() == one.walk.digest() == dealing.walk.digest()
    one.close()


@pytest.mark.parametrize("other", [[(b"r", 3)], [(b"r", 2), (b"r", 3)], [(b"r", 3), (b"s", 2)], [(b"r", 5)]])
def test_another_walk_has_another_digest(other: list[tuple[bytes, int]]) -> None:
    walk, stray = Walk(), Walk()
    walk.add(b"r", 3)
    walk.add(b"r", 2)
    for step in other:
        stray.add(*step)
    assert walk.digest() != stray.digest()


def test_small_requests_read_one_stream() -> None:
    whole = Stream(b"k" * 32, SESSION, "label").words(20_000)
    parts = Stream(b"k" * 32, SESSION, "label")
    pieces = [parts.words(size) for size in (1, 4095, 2, 0, 10_000, 5_902)]
    np.testing.assert_array_equal(np.concatenate(pieces), whole)
    assert (Stream(b"k" * 32, SESSION, "other").words(8) != whole[:8]).all()


def test_large_requests_have_streams_of_their_own() -> None:
    stream = Stream(b"k" * 32, SESSION, "label")
    small, first, second, more = stream.words(8), stream.words(LARGE), stream.words(LARGE + 1), stream.words(8)
    np.testing.assert_array_equal(first[:9], Stream(b"k" * 32, SESSION, "label 1").words(9))
    np.testing.assert_array_equal(second[:9], Stream(b"k" * 32, SESSION, "label 2").words(9))
    np.testing.assert_array_equal(np.concatenate([small, more]), Stream(b"k" * 32, SESSION, "label").words(16))


def test_a_dealer_that_sends_too_little_or_too_much_is_named() -> None:
    _, one = deal(insecure_seeded_rng(2), lambda dealing: dealing.share(SECRET))
    with pytest.raises(PeerProtocolError, match="dealer: 5 words of material are left, 6 are needed"):
        one.share(6)
    with pytest.raises(PeerProtocolError, match="dealer: 5 words of material are too many"):
        one.close()
