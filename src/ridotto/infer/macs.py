"""Tags: proof that what a party opens is what it was dealt, computed on as the protocol says.

The dealer has two keys of a model, of which each party gets a share: alpha in Z_2^128 and delta, 64 bits. To every
secret that it shares it also shares a *tag*:

    a word r     lifted to Z_2^128: both parties add random upper halves to their shares, so r mod 2^64 is what it was.
                 Its tag is alpha r mod 2^128, shared additively
    a bit b      its tag is delta where b = 1 and zero elsewhere, shared by XOR

All that parties compute between two openings is linear in dealt secrets, with public factors; a public number c has
the tag alpha c, of which each party computes a share. So the same steps, run on tags, give shares of the tag of
whatever was opened. Who opens something else, wrong by e, must also be wrong by alpha e in the tag. For words e is not
zero mod 2^64, so alpha e mod 2^128 has at least 2^65 values, all as likely; for bits there are 2^64.

A party's share v of a lifted word and its share m of the tag travel in one Python integer, v + m 2^512: additions and
products with public words act on both, and 512 bits are room enough between two openings.
Source: Cramer, Damgård, Escudero, Scholl and Xing, "SPDZ2k: Efficient MPC mod 2^k for Dishonest Majority", CRYPTO 2018,
with k = s = 64; tags of bits: Nielsen, Nordholt, Orlandi and Burra, "A New Approach to Practical Active-Secure
Two-Party Computation", CRYPTO 2012. We differ in that an honest dealer makes all tags.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ridotto.core.rng import Rng
from ridotto.errors import LocalProtocolError
from ridotto.infer.kernels.plain import Side, Words, expand
from ridotto.infer.kernels.tagged import FIELD_BITS, RING
from ridotto.infer.streams import Dealing, Material, Stream

LOW_32 = np.uint64(0xFFFFFFFF)
SHIFT_32 = np.uint64(32)

Tags = NDArray[Any]
"""v + m 2^512 for each word: Python integers, dtype object."""


@dataclass(frozen=True, repr=False)
class Keys:
    """Hold the dealer's keys of a model. low, high: halves of alpha."""

    low: np.uint64
    high: np.uint64
    delta: np.uint64


@dataclass(frozen=True, repr=False)
class Tagger:
    """Stand for one party where a protocol runs on tags: its shares of the keys. first: whether it is party 0."""

    first: bool
    alpha: int
    delta: np.uint64

    def constant(self, values: Words) -> Tags:
        """Return its share of public words and of their tags."""
        tags: Tags = values.astype(object) * (int(self.first) + (self.alpha << FIELD_BITS))
        return tags


class TagDealing(Dealing):
    """Deal as `Dealing` does, and tags with everything.

    keys: None for the dealing that draws them. seal: a client's seed, for what only it may open.
    """

    def __init__(self, rng: Rng, session: bytes, keys: Keys | None, seal: bytes) -> None:
        super().__init__(rng, session)
        self._keys = keys
        self._seal = Stream(seal, session, "sealed")

    @property
    def keys(self) -> Keys:
        """Return the keys; the first call of a dealing without keys draws them."""
        if self._keys is None:
            zero, one = (part.tolist() for part in self.own(3))
            alpha = zero[0] + one[0] + (zero[1] + one[1] << 64) & RING
            low, high, delta = alpha & RING >> 64, alpha >> 64, zero[2] ^ one[2]
            self._keys = Keys(np.uint64(low), np.uint64(high), np.uint64(delta))
        return self._keys

    def sealed(self, *shape: int) -> Words:
        """Share the next words of the client's stream, and return them."""
        secret = self._seal.words(*shape)
        self.share(secret)
        return secret

    def sealed_bits(self, *shape: int) -> Words:
        """Share the next planes of the client's stream, and return them."""
        secret = self._seal.words(*shape)
        self.share_bits(secret)
        return secret

    def random(self, *shape: int) -> Words:
        """Return a uniform secret; its tag is dealt."""
        zero, one = self.own(*shape)
        self._tag(zero, one)
        return zero + one

    def random_bits(self, *shape: int) -> Words:
        """Return uniform bits; their tags are dealt."""
        secret = super().random_bits(*shape)
        super().share_bits(expand(secret) & self.keys.delta)
        return secret

    def share(self, secret: Words) -> None:
        """Share this secret additively, and its tag."""
        zero = self._split(secret)
        self._tag(zero, secret - zero)

    def share_bits(self, secret: Words) -> None:
        """Share this secret by XOR, and the tags of its bits."""
        super().share_bits(secret)
        super().share_bits(expand(secret) & self.keys.delta)

    def _tag(self, zero: Words, one: Words) -> None:
        upper = self.own(*zero.shape)
        low, high = _times(*_add(zero, upper[0], one, upper[1]), self.keys)
        self.share_wide(low.reshape(-1), high.reshape(-1))

    def share_wide(self, low: Words, high: Words) -> None:
        """Share numbers of 128 bits additively mod 2^128, as (2, count) words; without tags."""
        self.walk.add(b"s", 2 * low.size)
        mask = self._streams[0].words(2, low.size)
        self._parts[1].append(np.stack(_subtract(low, high, mask[0], mask[1])))


class TagMaterial(Material):
    """Read material and its tags. tags: of all requests so far, in order, to be taken by `Replayed`."""

    def __init__(self, seed: bytes, session: bytes, said: Words, *, first: bool, dealer: str = "dealer") -> None:
        super().__init__(seed, session, said, first=first, dealer=dealer)
        self.tags: deque[NDArray[Any]] = deque()

    def tagger(self) -> Tagger:
        """Read shares of the keys: the first request of a model's material."""
        low, high, delta = super().random(3)
        return Tagger(bool(self.first), int(low) + (int(high) << 64), delta)

    def random(self, *shape: int) -> Words:
        """Return this party's share of a `random` secret; keep its tag."""
        return self._with_tag(super().random(*shape))

    def share(self, *shape: int) -> Words:
        """Return this party's share of a shared secret; keep its tag."""
        return self._with_tag(super().share(*shape))

    def random_bits(self, *shape: int) -> Words:
        """Return this party's share of random bits; keep their tags."""
        share = Material.random(self, *shape)
        self.tags.append(Material.share(self, *shape[:-1], 64 * shape[-1]))
        return share

    def share_bits(self, *shape: int) -> Words:
        """Return this party's share of shared bits; keep their tags."""
        share = Material.share(self, *shape)
        self.tags.append(Material.share(self, *shape[:-1], 64 * shape[-1]))
        return share

    def words(self, count: int) -> Words:
        """Return secret words of this party alone, without tags."""
        return Material.random(self, count)

    def _with_tag(self, low: Words) -> Words:
        high = Material.random(self, *low.shape)
        tag = Material.share(self, 2, low.size)
        value = low.reshape(-1).astype(object) + high.reshape(-1).astype(object) * (1 << 64)
        mac = tag[0].astype(object) + tag[1].astype(object) * (1 << 64)
        self.tags.append((value + mac * (1 << FIELD_BITS)).reshape(low.shape))
        return low


class Replayed:
    """Give the tags of a `TagMaterial` in the order in which they were read: the `Material` of steps on tags."""

    def __init__(self, material: TagMaterial, tagger: Tagger) -> None:
        self.first: Side = tagger
        self._tags = material.tags

    def random(self, *shape: int) -> NDArray[Any]:
        """Return the next tags."""
        tags = self._tags.popleft()
        if tags.size not in (math.prod(shape), 64 * math.prod(shape)):
            raise LocalProtocolError("steps on tags ask for other sizes than steps on shares")
        return tags

    share = random_bits = share_bits = random

    def published(self, *shape: int) -> NDArray[Any]:
        """Refuse: what is said to both parties has no tags."""
        raise LocalProtocolError("there are no tags of published words")

    def close(self) -> None:
        """Raise LocalProtocolError if tags are left."""
        if self._tags:
            raise LocalProtocolError(f"{len(self._tags)} arrays of tags are left")


def _add(low: Words, high: Words, low2: Words, high2: Words) -> tuple[Words, Words]:
    total = low + low2
    return total, high + high2 + (total < low).astype(np.uint64)


def _subtract(low: Words, high: Words, low2: Words, high2: Words) -> tuple[Words, Words]:
    return low - low2, high - high2 - (low < low2).astype(np.uint64)


def _times(low: Words, high: Words, keys: Keys) -> tuple[Words, Words]:
    """Return the product with alpha mod 2^128."""
    a0, a1, b0, b1 = low & LOW_32, low >> SHIFT_32, keys.low & LOW_32, keys.low >> SHIFT_32
    middle = a1 * b0 + (a0 * b0 >> SHIFT_32)
    other = a0 * b1 + (middle & LOW_32)
    carried = a1 * b1 + (middle >> SHIFT_32) + (other >> SHIFT_32)
    return low * keys.low, carried + high * keys.low + low * keys.high
