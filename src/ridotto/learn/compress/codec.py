"""What a compression decides: the vector that leaves a participant, and what the server makes of the mean of them.

    participant   encode(update, shared, own, state)   -> vector of length(d) entries, new state
    everybody     mean of the encodings: a secure sum, which nobody sees into
    server        decode(mean, d, shared)              -> an estimate of the mean update, d entries

All of it is pure. `shared` is public randomness of the round, the same for all, so that all participants rotate alike,
send the same coordinates, and sketch with the same hashes; without that their vectors could not be added up. `own` is
a participant's secret randomness, for rounding.

What this means for privacy. `shared` hides nothing: sampling coordinates with a public seed amplifies no privacy, and
`sensitivity` holds for every seed, also for one that an attacker chose. Decoding is post-processing. So noise that is
added to encodings is sized by `sensitivity(clip, d)`, where `clip` bounds the l2 norm of the update *before* encoding.
It is the norm of what one participant can add to the sum: the neighbours differ by adding or removing one participant.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ridotto.core.rng import SEED_BYTES, Rng, SecretRng
from ridotto.core.vector import Vector, require_finite
from ridotto.crypto.prg import keystream, stream_key
from ridotto.errors import DataError, PlanError

_SALT = b"ridotto/1 compress"


@dataclass(frozen=True)
class Shared:
    """Expand the public seed of a round into streams that all participants share.

    seed: 32 bytes, fresh for every round and fixed before participants train, such as a digest of the round's record.
    Streams are AES in counter mode (`crypto.prg`): the same bits on every platform. Asking twice for the same label
    gives the same stream, so every use has a label of its own.
    Raises LocalProtocolError if the seed has another length.
    """

    seed: bytes

    def __post_init__(self) -> None:
        stream_key(self.seed, _SALT, "")

    def child(self, *labels: str | int) -> Shared:
        """Return independent shared randomness for one part of a codec."""
        return Shared(SecretRng(self.seed).child(*labels).bytes(SEED_BYTES))

    def words(self, label: str, count: int) -> NDArray[np.uint32]:
        """Return uniform words, uint32, shape (count,)."""
        return self._octets(label, 4 * count).view("<u4").astype(np.uint32, copy=False)

    def signs(self, label: str, count: int) -> NDArray[np.uint32]:
        """Return random signs for `flip`: 0 or 2^31, the sign bit of a float32. uint32, shape (count,)."""
        bits = np.unpackbits(self._octets(label, -(-count // 8)), count=count)
        return np.left_shift(bits, 31, dtype=np.uint32)

    def _octets(self, label: str, length: int) -> NDArray[np.uint8]:
        return keystream(stream_key(self.seed, _SALT, label), 0, length)


def flip(values: Vector, signs: NDArray[np.uint32]) -> Vector:
    """Return a copy in which the entries under a sign bit are negated. values: contiguous, shape (count,)."""
    return np.bitwise_xor(values.view(np.uint32), signs).view(np.float32)


class Encoded(NamedTuple):
    """Hold what a participant gives to the sum, shape (m,), and the state that it keeps if its vector is in the sum."""

    vector: Vector
    state: Vector | None


Forward = Callable[[Vector, Shared, Rng], Vector]
"""(vector of shape (d,), shared, own) -> vector of shape (m,). The input is finite and left alone."""

Backward = Callable[[Vector, int, Shared], Vector]
"""(mean of shape (m,), d, shared) -> vector of shape (d,)."""

Sensitivity = Callable[[float, int], float]
"""(clip, d) -> largest l2 norm of the encoding of a vector of length d whose l2 norm is at most clip."""


def _same_length(length: int) -> int:
    return length


@dataclass(frozen=True)
class Codec:
    """Hold one compression. Make it with its own function, as `rotate()`.

    name: that function's. forward, backward: the two halves; callers use `encode` and `decode`, which check.
    output: d -> m; raises PlanError if d does not fit. bound: see `Sensitivity`; infinite where there is none.
    usual: as `bound`, but what an encoding of a vector that is `clip` long has on average over the seeds (root mean
    square), for whoever clips encodings again; the bound itself if None.
    linear: encodings are vectors whose sum decodes to an estimate of the sum, so it works under masks. unbiased: the
    expectation of the decoded vector, over `shared` and `own`, is the vector. final: what it makes is mostly zeros,
    which nothing may spread again, so it comes last in a chain.
    """

    name: str
    forward: Forward
    backward: Backward
    bound: Sensitivity
    output: Callable[[int], int] = _same_length
    linear: bool = True
    unbiased: bool = True
    final: bool = False
    usual: Sensitivity | None = field(default=None, repr=False)

    @property
    def stateful(self) -> bool:
        """Return whether participants keep a vector of shape (d,) from round to round."""
        return False

    def length(self, entries: int) -> int:
        """Return m, the entries of an encoding, for vectors of d entries.

        Raises PlanError if there are none, or the codec is made for another length.
        """
        if entries < 1:
            raise PlanError(f"{self.name}: there is nothing to compress in a vector of {entries} entries")
        return self.output(entries)

    def sensitivity(self, clip: float, entries: int) -> float:
        """Return the largest l2 norm of an encoding, for vectors of d entries with an l2 norm of at most `clip`.

        It holds for every shared seed and every rounding, whatever the vector. Infinite where nothing can be promised.
        Raises PlanError if clip is not a positive number.
        """
        require_positive(self.name, clip=clip)
        self.length(entries)
        return self.bound(clip, entries)

    def usual_norm(self, clip: float, entries: int) -> float:
        """Return the root mean square, over shared seeds, of the l2 norm of the encoding of a vector `clip` long.

        Encodings that are clipped to it lose little, and then noise needs to hide no more than that: sampling a quarter
        of the entries halves it, while `sensitivity` must count a seed that picks just the largest ones.
        Never above `sensitivity`. Raises PlanError as that does.
        """
        most = self.sensitivity(clip, entries)
        return most if self.usual is None else min(most, self.usual(clip, entries))

    def encode(self, vector: Vector, shared: Shared, own: Rng, state: Vector | None = None) -> Encoded:
        """Compress one participant's vector, float32, shape (d,). state: what `encode` returned when it last counted.

        Raises DataError if the vector is not of that kind or not finite, PlanError as `length` does.
        """
        if vector.dtype != np.float32 or vector.ndim != 1:
            raise DataError(f"{self.name} compresses float32 vectors, not {vector.dtype} of shape {vector.shape}")
        self.length(len(vector))
        require_finite(vector)
        return self._encoded(np.ascontiguousarray(vector), shared, own, state)

    def decode(self, mean: Vector, entries: int, shared: Shared) -> Vector:
        """Estimate the mean of the vectors, float32, shape (d,), from the mean of their encodings, shape (m,).

        Sums in place of means give the estimate of the sum. Raises DataError if the shape or dtype does not fit.
        """
        expected = self.length(entries)
        if mean.dtype != np.float32 or mean.shape != (expected,):
            found = f"{mean.dtype} of shape {mean.shape}"
            raise DataError(f"{self.name}: {entries} entries become float32 of shape ({expected},), not {found}")
        return self.backward(np.ascontiguousarray(mean), entries, shared)

    def _encoded(self, vector: Vector, shared: Shared, own: Rng, state: Vector | None) -> Encoded:
        return Encoded(self.forward(vector, shared, own), None)


@dataclass(frozen=True)
class _ErrorFeedback(Codec):
    """See `error_feedback`."""

    inner: Codec = field(kw_only=True)

    @property
    def stateful(self) -> bool:
        return True

    def _encoded(self, vector: Vector, shared: Shared, own: Rng, state: Vector | None) -> Encoded:
        if state is not None:
            if state.shape != vector.shape:
                raise DataError(f"{self.name}: the state has shape {state.shape}, the vector {vector.shape}")
            vector = vector + state
        encoded = self.inner.forward(vector, shared, own)
        return Encoded(encoded, vector - self.inner.decode(encoded, len(vector), shared))


def error_feedback(inner: Codec) -> Codec:
    """Let participants add what compression lost to their next vector: e <- (x + e) - decode(encode(x + e)).

    For codecs that shrink (top-k, a sample or a low-rank projection with `scaled=False`): with an unbiased one, whose
    decoding is longer than the vector, e grows without bound. It wraps a whole chain, never a part of one.
    Participants keep e, shape (d,), and take the new one only if their vector is in the sum. e is added after
    clipping and can be longer than the clip, so `sensitivity` is infinite: no differential privacy with it.
    Raises PlanError if `inner` has a state already, or is unbiased.
    Source: Karimireddy et al., "Error Feedback Fixes SignSGD and Other Gradient Compression Schemes", ICML 2019,
    algorithm 2, with one vector for a round in place of a gradient for a step.
    """
    if inner.stateful:
        raise PlanError(f"{inner.name} feeds its error back already")
    if inner.unbiased:
        raise PlanError(
            f"{inner.name} is unbiased, so it lengthens vectors and the error that is fed back would grow without "
            "bound; take scaled=False where the codec has it, or leave the error feedback out"
        )
    return _ErrorFeedback(
        f"error_feedback({inner.name})",
        inner.forward,
        inner.backward,
        lambda clip, entries: math.inf,
        inner.output,
        linear=inner.linear,
        unbiased=False,
        final=inner.final,
        inner=inner,
    )


@dataclass(frozen=True)
class _Links:
    """Hold the codecs of a chain: the halves of what `chain` returns."""

    codecs: tuple[Codec, ...]

    @cached_property
    def name(self) -> str:
        return " > ".join(codec.name for codec in self.codecs) or "none"

    def lengths(self, entries: int) -> list[int]:
        """Return the length before every link, and behind the last."""
        lengths = [entries]
        for codec in self.codecs:
            lengths.append(codec.length(lengths[-1]))
        return lengths

    def forward(self, vector: Vector, shared: Shared, own: Rng) -> Vector:
        for place, codec in enumerate(self.codecs):
            vector = codec.forward(vector, shared.child(place), own)
        return vector

    def backward(self, mean: Vector, entries: int, shared: Shared) -> Vector:
        lengths = self.lengths(entries)
        for place in reversed(range(len(self.codecs))):
            mean = self.codecs[place].decode(mean, lengths[place], shared.child(place))
        return mean

    def bound(self, clip: float, entries: int) -> float:
        for codec, length in zip(self.codecs, self.lengths(entries), strict=False):
            clip = codec.bound(clip, length)
        return clip

    def usual(self, clip: float, entries: int) -> float:
        for codec, length in zip(self.codecs, self.lengths(entries), strict=False):
            clip = codec.usual_norm(clip, length)
        return clip

    def output(self, entries: int) -> int:
        return self.lengths(entries)[-1]


def chain(codecs: Sequence[Codec]) -> Codec:
    """Compose codecs: participants apply them in this order, the server in reverse. An empty chain changes nothing.

    Raises PlanError if a codec that makes sparse vectors is not the last, or one has a state: the error
    of a whole chain is fed back, `error_feedback(chain(...))`, or of none of it.
    Source: the order of two hooks, as in optax's `chain`.
    """
    links = _Links(tuple(codecs))
    for place, codec in enumerate(links.codecs):
        if codec.stateful:
            raise PlanError(f"{codec.name} can't be a part of a chain: feed back the error of the whole chain")
        if codec.final and place + 1 < len(links.codecs):
            raise PlanError(f"{codec.name} comes last in a chain; {links.codecs[place + 1].name} follows it")
    last = links.codecs[-1] if links.codecs else None
    return Codec(
        links.name,
        links.forward,
        links.backward,
        links.bound,
        links.output,
        linear=all(codec.linear for codec in links.codecs),
        unbiased=all(codec.unbiased for codec in links.codecs),
        final=last is not None and last.final,
        usual=links.usual,
    )


def require_positive(name: str, **numbers: Any) -> None:
    """Refuse numbers that are not finite or not above 0. Raises PlanError."""
    for word, number in numbers.items():
        if not _is_number(number) or number <= 0:
            raise PlanError(f"{name}: {word} must be a number above 0, not {number!r}")


def require_fraction(name: str, **numbers: Any) -> None:
    """Refuse numbers that are not above 0 and at most 1. Raises PlanError."""
    for word, number in numbers.items():
        if not _is_number(number) or not 0 < number <= 1:
            raise PlanError(f"{name}: {word} must be a number above 0 and at most 1, not {number!r}")


def require_count(name: str, low: int, high: int, **numbers: Any) -> int:
    """Return a whole number from low to high, also if it was written 8.0. Raises PlanError for any other."""
    ((word, number),) = numbers.items()
    if not _is_number(number) or number != int(number) or not low <= number <= high:
        raise PlanError(f"{name}: {word} must be a whole number from {low} to {high}, not {number!r}")
    return int(number)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
