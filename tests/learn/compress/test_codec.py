from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ridotto.core.vector import Field, Layout
from ridotto.errors import DataError, LocalProtocolError, PlanError
from ridotto.learn.compress.codec import Codec, Shared, chain, error_feedback, flip
from ridotto.learn.compress.count_sketch import count_sketch
from ridotto.learn.compress.low_rank import low_rank
from ridotto.learn.compress.rotate import rotate
from ridotto.learn.compress.sample import sample
from ridotto.learn.compress.sparse import ternary, top_k
from tests.learn.compress.helpers import LIMIT, decoded, normal, own, shared, spiky, vector, worst_z

LENGTH = 600
LAYOUT = Layout((Field("weight", (20, 25), "float32"), Field("bias", (100,), "float32")))


def all_codecs() -> list[Codec]:
    """List every codec, and chains of them: what is added here has to pass everything below."""
    single = [
        rotate(),
        sample(0.25),
        sample(0.25, scaled=False),
        count_sketch(rows=3, columns=100),
        count_sketch(rows=3, columns=100, median=True),
        low_rank(2, LAYOUT),
        low_rank(2, LAYOUT, scaled=False),
        top_k(fraction=0.1),
        ternary(),
    ]
    chains = [
        chain([]),
        chain([rotate(), sample(0.25)]),
        chain([sample(0.5), top_k(fraction=0.1)]),
        error_feedback(top_k(fraction=0.1)),
        error_feedback(chain([rotate(), sample(0.25, scaled=False)])),
    ]
    return [*single, *chains]


each = pytest.mark.parametrize("one", all_codecs(), ids=lambda one: one.name)


@each
def test_gives_vectors_of_the_lengths_it_says(one: Codec) -> None:
    encoded = one.encode(normal(LENGTH), shared(), own()).vector
    assert encoded.shape == (one.length(LENGTH),)
    assert encoded.dtype == np.float32
    back = one.decode(encoded, LENGTH, shared())
    assert back.shape == (LENGTH,)
    assert back.dtype == np.float32


@each
def test_gives_the_same_bits_for_the_same_seeds(one: Codec) -> None:
    first, second = (one.encode(normal(LENGTH), shared(), own()).vector for _ in range(2))
    assert first.tobytes() == second.tobytes()


@each
def test_leaves_its_input_alone(one: Codec) -> None:
    update, mean = normal(LENGTH), normal(one.length(LENGTH))
    update.flags.writeable = mean.flags.writeable = False
    one.encode(update, shared(), own())
    one.decode(mean, LENGTH, shared())


@each
def test_reads_vectors_that_are_not_contiguous(one: Codec) -> None:
    wide = normal(2 * LENGTH)
    found = one.encode(wide[::2], shared(), own()).vector
    assert found.tobytes() == one.encode(wide[::2].copy(), shared(), own()).vector.tobytes()


# A median of sums is not the sum of the medians; its encodings add up all the same, as the next test shows.
@pytest.mark.parametrize(
    "one", [one for one in all_codecs() if one.linear and "median" not in one.name], ids=lambda one: one.name
)
def test_the_sum_decodes_to_the_sum_of_the_decodings(one: Codec) -> None:
    encodings = [one.encode(normal(LENGTH, seed), shared(), own(seed)).vector for seed in range(5)]
    together = one.decode(np.sum(encodings, axis=0), LENGTH, shared())
    apart = np.sum([one.decode(encoding, LENGTH, shared()) for encoding in encodings], axis=0)
    np.testing.assert_allclose(together, apart, atol=1e-4 * np.abs(apart).max())


@pytest.mark.parametrize(
    "one", [one for one in all_codecs() if one.linear and not (one.final or one.stateful)], ids=lambda one: one.name
)
def test_encoding_is_linear_where_nothing_is_rounded(one: Codec) -> None:
    first, second = normal(LENGTH, 1), spiky(LENGTH, 2)
    apart = one.encode(first, shared(), own()).vector + one.encode(second, shared(), own()).vector
    together = one.encode(first + second, shared(), own()).vector
    np.testing.assert_allclose(together, apart, atol=2e-5 * np.abs(apart).max())


@pytest.mark.parametrize("one", [one for one in all_codecs() if one.unbiased], ids=lambda one: one.name)
def test_is_unbiased(one: Codec) -> None:
    # 400 decodings of 600 entries: 2.4e5 elements.
    assert worst_z(one, np.clip(spiky(LENGTH) / 20, -4, 4), trials=400) < LIMIT


@pytest.mark.slow
@pytest.mark.parametrize("one", [one for one in all_codecs() if one.unbiased], ids=lambda one: one.name)
def test_is_unbiased_over_ten_million_elements(one: Codec) -> None:
    assert worst_z(one, np.clip(spiky(LENGTH) / 20, -4, 4), trials=17_000) < LIMIT


@pytest.mark.parametrize(
    "one",
    [sample(0.25, scaled=False), top_k(fraction=0.1), sample(0.5, scaled=False)],
    ids=lambda one: one.name,
)
def test_the_bias_of_a_biased_one_is_seen(one: Codec) -> None:
    assert worst_z(one, spiky(LENGTH), trials=400) > 20


@each
@given(seed=st.integers(0, 1000), clip=st.floats(1e-3, 1e3), spread=st.integers(0, 2))
@settings(max_examples=20, deadline=None)
def test_no_encoding_is_longer_than_its_sensitivity(one: Codec, seed: int, clip: float, spread: int) -> None:
    update = (normal, spiky, lambda length, at: np.eye(1, length, at % length, dtype=np.float32)[0])[spread](
        LENGTH, seed
    )
    update = (update * (0.999999 * clip / np.linalg.norm(update.astype(np.float64)))).astype(np.float32)
    encoded = one.encode(update, shared(seed), own(seed)).vector
    assert np.linalg.norm(encoded.astype(np.float64)) <= one.sensitivity(clip, LENGTH) * (1 + 1e-6)


@each
@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
def test_refuses_what_is_not_finite(one: Codec, wrong: float) -> None:
    update = normal(LENGTH)
    update[7] = wrong
    with pytest.raises(DataError, match="1 of 600 elements that are NaN or infinite"):
        one.encode(update, shared(), own())


@each
def test_refuses_empty_vectors_wrong_shapes_and_dtypes(one: Codec) -> None:
    with pytest.raises(PlanError, match="nothing to compress"):
        one.encode(np.zeros(0, np.float32), shared(), own())
    with pytest.raises(DataError, match="float64"):
        one.encode(np.zeros(LENGTH), shared(), own())
    with pytest.raises(DataError, match=r"\(2, 300\)"):
        one.encode(np.zeros((2, 300), np.float32), shared(), own())
    with pytest.raises(DataError, match=r"become float32 of shape"):
        one.decode(np.zeros(one.length(LENGTH) + 1, np.float32), LENGTH, shared())
    with pytest.raises(PlanError, match="clip must be a number above 0"):
        one.sensitivity(0.0, LENGTH)


def test_a_chain_encodes_forward_and_decodes_in_reverse() -> None:
    update, links = normal(LENGTH), [rotate(), sample(0.5)]
    public, both = shared(), chain(links)
    by_hand = update
    for place, link in enumerate(links):
        by_hand = link.encode(by_hand, public.child(place), own()).vector
    assert both.encode(update, public, own()).vector.tobytes() == by_hand.tobytes()
    back = links[0].decode(links[1].decode(by_hand, LENGTH, public.child(1)), LENGTH, public.child(0))
    assert both.decode(by_hand, LENGTH, public).tobytes() == back.tobytes()


def test_an_empty_chain_changes_nothing() -> None:
    update = normal(10)
    assert chain([]).encode(update, shared(), own()).vector.tobytes() == update.tobytes()
    assert chain([]).sensitivity(2.0, 10) == 2.0


def test_links_of_a_chain_have_streams_of_their_own() -> None:
    twice = chain([sample(0.5), sample(0.5)])
    assert len(twice.encode(normal(1000), shared(), own()).vector) == 250
    assert shared().child(0) != shared().child(1) != shared()


def test_a_chain_keeps_what_its_weakest_link_promises() -> None:
    assert chain([rotate(), sample(0.5)]).unbiased
    assert not chain([rotate(), sample(0.5, scaled=False)]).unbiased
    assert not chain([rotate(), ternary()]).linear
    assert chain([sample(0.5), ternary()]).final


def test_refuses_chains_that_make_no_sense() -> None:
    with pytest.raises(PlanError, match="ternary comes last in a chain; sample follows it"):
        chain([ternary(), sample(0.5)])
    with pytest.raises(PlanError, match="feed back the error of the whole chain"):
        chain([rotate(), error_feedback(sample(0.5, scaled=False))])


def test_error_feedback_keeps_what_was_lost_and_sends_it_later() -> None:
    one = error_feedback(top_k(fraction=0.25))
    first = one.encode(vector(4.0, 3.0, 1.0, 1.0), shared(), own())
    assert first.vector.tolist() == [4, 0, 0, 0]
    assert first.state is not None
    assert first.state.tolist() == [0, 3, 1, 1]
    second = one.encode(vector(1.0, 1.0, 1.0, 1.0), shared(), own(), first.state)
    assert second.vector.tolist() == [0, 4, 0, 0]
    assert second.state is not None
    assert second.state.tolist() == [1, 0, 2, 2]


def test_error_feedback_loses_nothing_in_the_long_run() -> None:
    one, update, total, state = error_feedback(sample(0.25, scaled=False)), normal(100), np.zeros(100, np.float32), None
    for seed in range(200):
        encoded, state = one.encode(update, shared(seed), own(), state)
        total = total + one.decode(encoded, 100, shared(seed))
    assert state is not None
    np.testing.assert_allclose(total + state, 200 * update, rtol=1e-3)
    assert np.abs(state).max() < 50 * np.abs(update).max()


def test_error_feedback_refuses_what_would_diverge_and_promises_no_sensitivity() -> None:
    with pytest.raises(PlanError, match="unbiased, so it lengthens vectors"):
        error_feedback(sample(0.5))
    one = error_feedback(sample(0.5, scaled=False))
    assert one.sensitivity(1.0, 10) == math.inf
    with pytest.raises(PlanError, match="feeds its error back already"):
        error_feedback(one)
    with pytest.raises(DataError, match=r"the state has shape \(3,\)"):
        one.encode(normal(10), shared(), own(), np.zeros(3, np.float32))


def test_shared_streams_are_even_and_named() -> None:
    words = shared().words("a", 100_000)
    assert words.tobytes() != shared().words("b", 100_000).tobytes()
    assert words[:10].tobytes() == shared().words("a", 10).tobytes()
    # 100,000 signs: the number of negative ones is within 5.5 standard deviations (158).
    signs = shared().signs("a", 100_000)
    assert abs(np.count_nonzero(signs) - 50_000) < LIMIT * 158.2
    assert set(signs.tolist()) == {0, 1 << 31}
    with pytest.raises(LocalProtocolError, match="32 bytes"):
        Shared(b"short")


def test_flip_negates_under_sign_bits() -> None:
    signs = np.array([0, 1 << 31, 1 << 31], np.uint32)
    assert flip(vector(1.0, 2.0, -3.0), signs).tolist() == [1, -2, 3]


def test_a_decoding_is_what_the_helper_says() -> None:
    assert decoded(chain([]), vector(1.0, 2.0), seed=1).tolist() == [1, 2]
