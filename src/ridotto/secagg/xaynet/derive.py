"""Derive masks from seeds: the ChaCha20 stream, cut into draws, and draws that are too large thrown away.

    draw         = the next ceil(bits(q) / 8) bytes of the stream, little-endian; whole 32-bit words are consumed
    element      = the first draw that is below q
    unit mask    = one element of the unit's group, drawn first
    vector mask  = `length` elements of the vector's group

In the default configuration a draw is 6 of 8 bytes and 1 in 14 is below q, so an element costs 113 bytes of stream:
the stream is most of the work. Draws are sifted many at a time; with numba (extra `speed`) twice as fast.

Source: xaynet 0.11, `mask/seed.rs` and `crypto/prng.rs`; the consumption of words is that of `rand_chacha` 0.3.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ridotto.crypto.chacha20 import PIECE_BYTES, ChaCha20Stream
from ridotto.errors import LocalProtocolError, MissingExtraError
from ridotto.secagg.xaynet.config import MaskConfig, MaskConfigPair
from ridotto.secagg.xaynet.elements import WORD_BYTES, Elements, add, fits_word, fold_once, from_integers, zeros

CHACHA_WORD_BYTES = 4

KERNELS = "ridotto.secagg.xaynet.kernels"
KERNELS_PAY_DRAWS = 1 << 28
"""Loading the compiled loop takes about as long as it saves on so many draws: some 20 masks of 10^6 elements."""


@dataclass(eq=False)
class MaskObject:
    """Hold a model and its scalar in their groups: masked, or their mask, or sums of either.

    vect: elements of the vector's group, shape (length,). unit: an element of the unit's group.
    """

    configs: MaskConfigPair
    vect: Elements
    unit: int

    def __repr__(self) -> str:
        return f"MaskObject(length={len(self.vect)})"

    @classmethod
    def zero(cls, configs: MaskConfigPair, length: int) -> MaskObject:
        """Return the empty sum."""
        return cls(configs, zeros(length, configs.vect.order), 0)

    def add(self, other: MaskObject) -> None:
        """Add another one in place. Raises LocalProtocolError if its configuration or length differs."""
        if other.configs != self.configs or len(other.vect) != len(self.vect):
            raise LocalProtocolError("masked models of other configurations or lengths don't add up")
        add(self.vect, other.vect, self.configs.vect.order)
        self.unit = (self.unit + other.unit) % self.configs.unit.order


def derive_mask(seed: bytes, length: int, configs: MaskConfigPair) -> MaskObject:
    """Return the mask of a seed (32 secret bytes) for a model of `length` weights."""
    mask = MaskObject.zero(configs, length)
    add_masks(mask, [seed])
    return mask


def add_masks(total: MaskObject, seeds: Iterable[bytes]) -> None:
    """Derive the mask of every seed and add it to `total` in place; the order of the seeds does not matter.

    Raises LocalProtocolError if a seed has not 32 bytes; the total is then of no use.
    """
    vect, unit = total.configs.vect, total.configs.unit
    sieve = _WordSieve(vect) if fits_word(vect.order) else _IntegerSieve(vect)
    # Sums of uint64 are folded only when one more mask could leave 64 bits.
    room = max((2**64 - 1) // vect.order - 1, 1)
    waiting = 0
    for seed in seeds:
        stream = ChaCha20Stream(seed)
        total.unit = (total.unit + _integer(stream, unit)) % unit.order
        sieve.add(stream, total.vect)
        waiting += 1
        if waiting == room:
            _fold(total.vect, vect.order, waiting)
            waiting = 0
    if waiting:
        _fold(total.vect, vect.order, waiting)


def _fold(total: Elements, order: int, added: int) -> None:
    if added == 1 and total.dtype == np.uint64:
        fold_once(total, order)
    else:
        np.remainder(total, np.uint64(order) if total.dtype == np.uint64 else order, out=total)


class _Sieve(ABC):
    """Sift draws from a stream, a piece at a time, through one buffer."""

    def __init__(self, config: MaskConfig) -> None:
        self._size = config.draw_bytes
        self._stride = -(-self._size // CHACHA_WORD_BYTES) * CHACHA_WORD_BYTES
        self._yield = config.order / (1 << 8 * self._size)
        self._longest = self._piece(PIECE_BYTES // self._stride)

    def add(self, stream: ChaCha20Stream, total: Elements) -> None:
        """Add one mask to `total`; it is not folded."""
        most = len(self._longest)
        place = 0
        while place < len(total):
            draws = int(1.02 * (len(total) - place) / self._yield) + 64
            piece = self._longest if draws >= most else self._longest[:draws]
            stream.fill(piece.view(np.uint8).reshape(-1).data)
            place = self._add_piece(piece, total, place)

    @abstractmethod
    def _piece(self, draws: int) -> NDArray[Any]:
        """Return room for so many draws, C-contiguous; the first axis counts them."""

    @abstractmethod
    def _add_piece(self, piece: NDArray[Any], total: Elements, place: int) -> int:
        """Add the elements among the draws to `total` from `place` on, up to its end, and return the next place."""


class _WordSieve(_Sieve):
    """Sift draws of at most 8 bytes."""

    def __init__(self, config: MaskConfig) -> None:
        super().__init__(config)
        self._order = np.uint64(config.order)
        self._low_bits = np.uint64((1 << 8 * self._size) - 1)
        self._kernels: ModuleType | None = sys.modules.get(KERNELS)
        self._sifted = 0

    def _piece(self, draws: int) -> NDArray[Any]:
        return np.empty(draws, f"<u{self._stride}")

    def _add_piece(self, piece: NDArray[Any], total: Elements, place: int) -> int:
        before, self._sifted = self._sifted, self._sifted + len(piece)
        if self._kernels is None and before <= KERNELS_PAY_DRAWS < self._sifted:
            self._kernels = load_kernels()
        draws = piece.astype(np.uint64, copy=False)
        add = add_below if self._kernels is None else self._kernels.add_below
        return int(add(draws, self._low_bits, self._order, total, place))


class _IntegerSieve(_Sieve):
    """Sift longer draws: by their 8 highest bytes first, so that few become Python integers in vain."""

    def __init__(self, config: MaskConfig) -> None:
        super().__init__(config)
        self._order = config.order
        self._highest = np.uint64((config.order - 1) >> 8 * (self._size - WORD_BYTES))

    def _piece(self, draws: int) -> NDArray[Any]:
        return np.empty((draws, self._stride), np.uint8)

    def _add_piece(self, piece: NDArray[Any], total: Elements, place: int) -> int:
        draws = piece[:, : self._size]
        highest = np.ascontiguousarray(draws[:, -WORD_BYTES:]).view("<u8")[:, 0]
        likely = draws[np.flatnonzero(highest <= self._highest)]
        numbers = (int.from_bytes(draw, "little") for draw in likely)
        kept = from_integers([number for number in numbers if number < self._order], self._order)
        part = total[place : place + len(kept)]
        part += kept[: len(part)]
        return place + len(part)


def add_below(
    draws: NDArray[np.uint64], low_bits: np.uint64, order: np.uint64, total: NDArray[np.uint64], place: int
) -> int:
    """Do what the compiled loop does: it is the plain twin of `kernels.add_below`."""
    np.bitwise_and(draws, low_bits, out=draws)
    kept = draws[np.flatnonzero(draws < order)]
    part = total[place : place + len(kept)]
    part += kept[: len(part)]
    return place + len(part)


def load_kernels() -> ModuleType | None:
    """Take the compiled loop from now on, which gives the same bits; return None if numba is not installed."""
    try:
        return import_module(KERNELS)
    except MissingExtraError:
        return None


def _integer(stream: ChaCha20Stream, config: MaskConfig) -> int:
    """Return the next element of any order, and take from the stream no more words than it needs."""
    order, size = config.order, config.draw_bytes
    view = memoryview(bytearray(-(-size // CHACHA_WORD_BYTES) * CHACHA_WORD_BYTES))
    while True:
        stream.fill(view)
        number = int.from_bytes(view[:size], "little")
        if number < order:
            return number
