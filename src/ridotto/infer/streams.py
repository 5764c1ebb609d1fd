"""Correlated randomness as two seeds and corrections: how the dealer writes it and the parties read it.

Each party has a seed of the session; its *stream* is AES-128-CTR (`crypto.prg`). In the same order and the
same sizes, dealer and parties ask for three kinds of thing:

    random    both parties take the next words of their streams: the secret is their sum (or XOR), for which nothing
              has to be sent
    share     party 0 takes the next words of its stream, party 1 the next *correction*, which the dealer made as
              secret minus (or XOR) party 0's words

    publish   both parties take the next words of what the dealer says to both

So a dealer's whole message is a seed and what it publishes to each party, and corrections to party 1. Either party
alone sees uniform words. A stream is used for one session and then forgotten: the material is one-time.

Everybody must ask for the same things in the same order: one request more, fewer or of another size, and all that
follows is nonsense that nobody notices. So each side keeps a *walk*, the digest of all its requests, and the three are
compared before anything is opened.
Source: common randomness of SecureNN, Wagh et al., PETS 2019; the correction is what a seed can't give.
"""

from __future__ import annotations

import hashlib
import math

import numpy as np

from ridotto.core.rng import Rng
from ridotto.crypto import prg
from ridotto.errors import LocalProtocolError, PeerProtocolError
from ridotto.infer.kernels.plain import Words

SEED_BYTES = prg.SEED_BYTES
WORD_BYTES = 8

BLOCK_BYTES = 1 << 15
"""Streams are made at least so far ahead, so that many small requests cost one call of the cipher."""


LARGE = 1 << 15
"""From so many words on, a request is answered from a stream of its own. Part of the format: both sides must agree."""


WALK_DOMAIN = b"ridotto/1 infer walk\x00"
"""What stands before the requests when they are hashed."""


class Walk:
    """Keep the order, kinds and sizes of requests: nothing secret."""

    def __init__(self) -> None:
        self._steps = bytearray(WALK_DOMAIN)

    def add(self, kind: bytes, count: int) -> None:
        """Note a request. kind: one letter. count: of words."""
        self._steps += kind + count.to_bytes(8, "big")

    def digest(self) -> bytes:
        """Return SHA-256 of the requests so far, 32 bytes."""
        return hashlib.sha256(self._steps).digest()


class Stream:
    """Read words of the stream of (seed, session, label), one after the other.

    The n-th request of `LARGE` words or more is the beginning of the stream labelled "label n"; smaller ones follow
    each other in the stream labelled "label".

    seed: 32 bytes, secret. session: not empty.
    """

    def __init__(self, seed: bytes, session: bytes, label: str) -> None:
        self._seed, self._session, self._label = seed, session, label
        self._key = prg.stream_key(seed, session, label)
        self._pieces = 0
        self._made = 0
        self._ready = np.empty(0, np.uint64)

    def __repr__(self) -> str:
        return "Stream(...)"

    def words(self, *shape: int) -> Words:
        """Return the next words, uint64, of this shape."""
        count = math.prod(shape)
        if count >= LARGE:
            return self._large(count).reshape(shape)
        if count > self._ready.size:
            self._extend(count - self._ready.size)
        taken, self._ready = self._ready[:count], self._ready[count:]
        return taken.reshape(shape)

    def _large(self, count: int) -> Words:
        """Return words of a stream of their own: as secret, and made in place by the fastest road that there is."""
        self._pieces += 1
        words = np.zeros(count, np.uint64)
        prg.add_masks(words, [prg.Mask(self._seed, 1)], self._session, f"{self._label} {self._pieces}")
        return words

    def _extend(self, count: int) -> None:
        size = max(count * WORD_BYTES, BLOCK_BYTES)
        fresh = prg.keystream(self._key, self._made, size).view("<u8").astype(np.uint64, copy=False)
        self._made += size
        self._ready = np.concatenate([self._ready, fresh]) if self._ready.size else fresh


class Dealing:
    """Write one session's material, in the order in which the parties will read it.

    rng: draws the two seeds. session: the session's id. walk: of all requests so far.
    """

    def __init__(self, rng: Rng, session: bytes) -> None:
        self.session = session
        self.seeds = rng.bytes(SEED_BYTES), rng.bytes(SEED_BYTES)
        self.walk = Walk()
        self._streams = [Stream(seed, session, "dealt") for seed in self.seeds]
        self._parts: tuple[list[Words], list[Words]] = ([], [])

    def __repr__(self) -> str:
        return "Dealing(...)"

    def random(self, *shape: int) -> Words:
        """Return a uniform secret of which each party has an additive share in its stream."""
        self.walk.add(b"r", math.prod(shape))
        return self._streams[0].words(*shape) + self._streams[1].words(*shape)

    def random_bits(self, *shape: int) -> Words:
        """Return a uniform secret of which each party has an XOR share in its stream."""
        self.walk.add(b"r", math.prod(shape))
        return self._streams[0].words(*shape) ^ self._streams[1].words(*shape)

    def own(self, *shape: int) -> tuple[Words, Words]:
        """Return the next words of party 0's stream and of party 1's: two secrets, one of each."""
        self.walk.add(b"r", math.prod(shape))
        return self._streams[0].words(*shape), self._streams[1].words(*shape)

    def share(self, secret: Words) -> None:
        """Share this secret additively."""
        self._split(secret)

    def share_bits(self, secret: Words) -> None:
        """Share this secret by XOR."""
        self.walk.add(b"s", secret.size)
        self._parts[1].append(secret ^ self._streams[0].words(*secret.shape))

    def publish(self, words: Words) -> None:
        """Say these words to both parties."""
        self.walk.add(b"p", words.size)
        for parts in self._parts:
            parts.append(words)

    def sealed(self, *shape: int) -> Words:
        """Refuse: only a dealing with a client's seal can, see `macs.TagDealing`."""
        raise LocalProtocolError("this dealing has no seal of a client")

    sealed_bits = sealed

    def _split(self, secret: Words) -> Words:
        """Share additively; return party 0's share."""
        self.walk.add(b"s", secret.size)
        zero = self._streams[0].words(*secret.shape)
        self._parts[1].append(secret - zero)
        return zero

    def messages(self) -> tuple[Words, Words]:
        """Return what party 0 and party 1 get beside their seeds, in order, one row of words each."""
        zero, one = (
            np.concatenate([np.empty(0, np.uint64), *(part.reshape(-1) for part in parts)]) for parts in self._parts
        )
        return zero, one


class Material:
    """Read one party's part of a session's material. Every word is read once.

    seed: this party's. said: what the dealer sent beside it. first: whether this is party 0. dealer: whom errors name.
    walk: of all requests so far.
    """

    def __init__(self, seed: bytes, session: bytes, said: Words, *, first: bool, dealer: str = "dealer") -> None:
        self.first = first
        self.walk = Walk()
        self._dealer = dealer
        self._stream = Stream(seed, session, "dealt")
        self._said = said

    def __repr__(self) -> str:
        return "Material(...)"

    def random(self, *shape: int) -> Words:
        """Return this party's share of a `random` secret, or its own secret of `own`."""
        self.walk.add(b"r", math.prod(shape))
        return self._stream.words(*shape)

    def random_bits(self, *shape: int) -> Words:
        """Return this party's share of a `random_bits` secret."""
        return self.random(*shape)

    def share_bits(self, *shape: int) -> Words:
        """Return this party's share of a secret that the dealer shared by XOR; raises as `share` does."""
        return self.share(*shape)

    def share(self, *shape: int) -> Words:
        """Return this party's share of a secret that the dealer shared additively.

        Raises PeerProtocolError if the dealer sent too little.
        """
        self.walk.add(b"s", math.prod(shape))
        return self._stream.words(*shape) if self.first else self._next(shape)

    def published(self, *shape: int) -> Words:
        """Return what the dealer says to both parties. Raises PeerProtocolError if it sent too little."""
        self.walk.add(b"p", math.prod(shape))
        return self._next(shape)

    def close(self) -> None:
        """Raise PeerProtocolError if the dealer sent more than this plan needs."""
        if self._said.size:
            raise PeerProtocolError(self._dealer, f"{self._said.size} words of material are too many")

    def _next(self, shape: tuple[int, ...]) -> Words:
        count = math.prod(shape)
        if count > self._said.size:
            raise PeerProtocolError(self._dealer, f"{self._said.size} words of material are left, {count} are needed")
        taken, self._said = self._said[:count], self._said[count:]
        return taken.reshape(shape)
