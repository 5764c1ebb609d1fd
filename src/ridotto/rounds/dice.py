"""Where the encoding of an update draws from: a participant's own dice, and what all participants of a round share."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ridotto.core.rng import SEED_BYTES, Rng
from ridotto.crypto.prg import WORDS_PER_BLOCK, DitherStream, dither
from ridotto.errors import LocalProtocolError
from ridotto.learn.compress import Shared

OWN_WORDS = SEED_BYTES // 4
"""Words that a codec may draw for its own rounding: a seed."""


class Dice(Protocol):
    """Decide how the entries of one update are rounded."""

    def words(self, count: int) -> NDArray[np.uint32]:
        """Return the next `count` words, uint32, shape (count,), each uniform and used once."""


class SeededDice:
    """Draw a seed for every call: a participant's own dice. rng: secret."""

    def __init__(self, rng: Rng) -> None:
        self._rng = rng

    def words(self, count: int) -> NDArray[np.uint32]:
        """Return the next `count` words, uint32, shape (count,)."""
        return dither(self._rng.bytes(SEED_BYTES), count)


class RankedDice:
    """Read the words of one rank of a simulated round: they depend on the round's stream and the rank only.

    rank: >= 0, the client's place in the round. count: words of each rank, `Pipeline.dice`. Its words are
    `rank * stride(count)` and those after it.
    """

    def __init__(self, stream: DitherStream, rank: int, count: int) -> None:
        self._stream = stream
        self._next = rank * stride(count)

    def words(self, count: int) -> NDArray[np.uint32]:
        """Return the next `count` words, uint32, shape (count,)."""
        begin, self._next = self._next, self._next + count
        return self._stream.words(begin, count)


def stride(count: int) -> int:
    """Return how many words of a round's stream each rank has: rounded up, so that it begins with a cipher block."""
    return -(-count // WORDS_PER_BLOCK) * WORDS_PER_BLOCK


def shared_by(seed: bytes) -> Shared:
    """Return what all participants of an attempt draw alike. seed: the attempt's nonce.

    Raises LocalProtocolError if there is none.
    """
    if not seed:
        raise LocalProtocolError("a plan that compresses needs the seed that all participants share")
    return Shared(seed)


class NoDice:
    """Stand in where nothing may be drawn."""

    def bytes(self, length: int) -> bytes:
        """Refuse: a codec that draws would lose something else the second time. Raises LocalProtocolError."""
        raise LocalProtocolError("error feedback goes with codecs that draw nothing of their own")


class OwnDice:
    """Let a codec draw its secret rounding from a participant's dice."""

    def __init__(self, dice: Dice) -> None:
        self._dice = dice

    def bytes(self, length: int) -> bytes:
        """Return the next `length` bytes."""
        return self._dice.words(-(-length // 4)).tobytes()[:length]
