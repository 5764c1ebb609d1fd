"""The noise that a coordinator remembers: banded noise needs that of the rounds before (`privacy.noise.banded`).

It lies among the arrays of `Vault.state`, so checkpoints hold it and a resumed training goes on with it. State is
float32 there, which holds whole numbers of 24 bits; so every row lies as its upper and its lower half. It is as secret
as the exact sums: whoever has it takes the noise off.

A round that fails shows nothing, and still has its place: its noise is drawn before the next round's, or participants
that are far enough apart in rounds would not be in the noise.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ridotto.errors import LocalProtocolError
from ridotto.learn.strategy import State
from ridotto.privacy.noise.banded import BandedNoise
from ridotto.privacy.noise.words import Words

PREFIX = "noise."
"""Before the names of these arrays in `Vault.state`."""

ROUNDS = PREFIX + "rounds"
"""How many rounds have had noise, shape (1,)."""

HALF_BITS = 24
LARGEST = 1 << (2 * HALF_BITS - 1)
"""Of 48 bits, with a sign. Noise is below 2^36 but with a probability that is no concern."""

WordsOf = Callable[[int], Words]
"""A round's number, from 1 -> secret words for its noise, never the same twice."""


def next_noise(
    noise: BandedNoise, state: State, number: int, words: WordsOf, count: int
) -> tuple[NDArray[np.int64], State]:
    """Return the noise of round `number`, int64, shape (count,), and what is to be remembered from then on.

    Raises LocalProtocolError for a round that had its noise already: twice the same would be none.
    """
    kept = {name: array for name, array in state.items() if name.startswith(PREFIX)}
    done = int(kept[ROUNDS][0]) if ROUNDS in kept else 0
    if number <= done:
        raise LocalProtocolError(f"round {number} had its noise, and {done} rounds have; it is never drawn again")
    reach, row = noise.bands - 1, np.zeros(count, np.int64)
    for place in range(done, number):
        past = [_joined(kept[_name(place - back, reach)]) for back in range(1, min(place, reach) + 1)]
        row = noise.row(place, past, words(place + 1), count)
        if reach:
            kept[_name(place, reach)] = _halves(row)
    kept[ROUNDS] = np.array([number], np.float32)
    return row, kept


def _name(place: int, reach: int) -> str:
    return f"{PREFIX}{place % reach}"


def _halves(row: NDArray[np.int64]) -> NDArray[np.float32]:
    if np.abs(row).max(initial=0) >= LARGEST:
        raise LocalProtocolError("noise is larger than any that was asked for")
    return np.concatenate([row >> HALF_BITS, row & ((1 << HALF_BITS) - 1)]).astype(np.float32)


def _joined(halves: NDArray[np.floating]) -> NDArray[np.int64]:
    upper, lower = np.split(halves.astype(np.int64), 2)
    joined: NDArray[np.int64] = (upper << HALF_BITS) + lower
    return joined
