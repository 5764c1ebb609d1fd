"""Numbers in the ring: encoding, head-room, shares."""

from __future__ import annotations

import numpy as np
import pytest

from ridotto.core.rng import insecure_seeded_rng
from ridotto.errors import DataError, PlanError
from ridotto.infer.fixed import Fixed, expand, share


def test_encodes_and_decodes() -> None:
    fixed = Fixed(14, 33)
    words = fixed.encode([1.0, -1.0, 0.5, 2.0**-14], "input")
    assert words.tolist() == [2**14, 2**64 - 2**14, 2**13, 1]
    assert fixed.decode(words).tolist() == [1.0, -1.0, 0.5, 2.0**-14]
    assert fixed.encode([1.0], "bias", 2).tolist() == [2**28]


@pytest.mark.parametrize("value", [2.0**17, -(2.0**17), 1e300, float("inf"), float("nan")])
def test_refuses_what_does_not_fit(value: float) -> None:
    with pytest.raises(DataError, match="pixels: a number of magnitude"):
        Fixed(14, 33).encode([value], "pixels")


@pytest.mark.parametrize(("f", "k"), [(3, 33), (21, 33), (14, 32), (14, 5), (14, 37), (14, 13), (20, 21)])
def test_refuses_encodings_that_leave_no_room(f: int, k: int) -> None:
    with pytest.raises(PlanError):
        Fixed(f, k)


def test_shares_add_up_and_depend_on_the_session() -> None:
    secret = np.arange(6, dtype=np.uint64).reshape(2, 3)
    seed, other = share(secret, insecure_seeded_rng(1), b"session", "input")
    np.testing.assert_array_equal(expand(seed, b"session", "input", (2, 3)) + other, secret)
    assert (expand(seed, b"another", "input", (2, 3)) + other != secret).all()
