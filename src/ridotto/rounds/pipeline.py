"""What happens to an update between training and masking, and to a sum after unmasking.

    participant   clip -> compress -> weight -> fixed point -> lanes behind it    float32[d] -> mod 2^b, shape (length,)
    coordinator   lanes off -> signed -> divide by the summed weight -> decompress -> mean update float32[d], metrics

Under differential privacy everybody's weight is 1, rounding keeps the l2 norm within a bound, and noise is added in
integers: by the participants before the lanes go behind, or by the coordinator once lanes are off (`rounds.noise`).

Lanes: the weight, the number of entries that were cut off, whether the clip shortened the update, then one per metric
(`rounds.metrics`). Under differential privacy nothing exact may travel: no lane tells who was clipped, the bit of an
adaptive clip is an entry that gets noise, and metrics are random answers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ridotto.core.fixedpoint import IntVector, container
from ridotto.core.vector import Layout, Vector, require_finite
from ridotto.errors import DataError, LocalProtocolError, PlanError
from ridotto.privacy.clip import clip_factor
from ridotto.privacy.noise.centred import encode_centred
from ridotto.privacy.noise.encode import encode_private
from ridotto.privacy.noise.ring import add_noise
from ridotto.privacy.noise.words import Words
from ridotto.rounds.clipping import Clip, Clipped, clip_layers, clip_whole, norm_of
from ridotto.rounds.dice import OWN_WORDS, Dice, NoDice, OwnDice, shared_by
from ridotto.rounds.encoding import BIT_SLACK, Encoding
from ridotto.rounds.mechanisms import ANSWERS
from ridotto.rounds.metrics import METRIC_STEPS, answer_of, from_answers, from_steps, steps_of
from ridotto.rounds.noise import RoundNoise, noise_of
from ridotto.rounds.plan import Plan
from ridotto.rounds.settings import CentralGaussian
from ridotto.secagg.lanes import Lanes, LaneSums

BLOCK_ELEMENTS = 1 << 18
"""Entries that are encoded at once, each block with a dither of its own. Only the result is as long as the update:
memory that a process touches for the first time costs more than encoding into it."""


NO_WORDS = "a plan with dp needs secret words for rounding and noise; there is no default"

NO_EXAMPLES = "there are no examples to train on; a participant without data can't take part"


@dataclass(frozen=True)
class RoundSum:
    """Hold what a round's opened sums say.

    mean: weighted mean update, float32, shape (d,). examples: summed weights. participants: contributions.
    metrics: weighted means. saturated: entries, over all participants, that were cut off at `value_range`. clipped: how
    many updates were longer than the clip; under differential privacy an estimate with noise, if the clip adapts, and
    else None. encoded: the mean before it was decompressed, shape (m,).
    """

    mean: Vector
    examples: int
    participants: int
    metrics: Mapping[str, float]
    saturated: int
    clipped: float | None
    encoded: Vector


@dataclass(frozen=True)
class Pipeline:
    """Encode updates of one size under a plan, and decode their sum.

    size: d, or the model's layout, which low-rank compression and per-layer clips need.
    Raises PlanError for a plan whose noise is not calibrated yet, or that does not fit the size.
    """

    plan: Plan
    size: int | Layout

    def __post_init__(self) -> None:
        # Asked for at once, so that an impossible plan is refused before anything is trained.
        self.noise  # noqa: B018
        self.encoding.fixed  # noqa: B018
        self.encoding.entries  # noqa: B018
        if isinstance(self.plan.clip, Clip) and self.encoding.layout is None:
            raise PlanError("a clip per layer needs the model's layout, not just its size")

    @cached_property
    def encoding(self) -> Encoding:
        """Return lengths, bounds and units."""
        return Encoding(self.plan, self.size)

    @property
    def parameters(self) -> int:
        """Return d."""
        return self.encoding.parameters

    @property
    def entries(self) -> int:
        """Return how many elements of a summed vector stand before the lanes."""
        return self.encoding.entries

    @cached_property
    def noise(self) -> RoundNoise | None:
        """Return the noise of an opened sum; None without differential privacy."""
        return noise_of(self.plan, self.size)

    @property
    def plain(self) -> bool:
        """Tell whether entries are clipped as a whole and rounded, and no more: `Accumulator` does that in one go."""
        return self.noise is None and self.encoding.codec is None and not isinstance(self.plan.clip, Clip)

    @property
    def counts_clipped(self) -> bool:
        """Tell whether a lane says how many updates the clip shortened: it is exact, so not under dp."""
        return self.plan.clip is not None and self.plan.dp is None

    @cached_property
    def lanes(self) -> Lanes:
        """Return the layout of what follows the update."""
        metric = ANSWERS if self.plan.dp is not None else METRIC_STEPS * self.plan.max_examples
        clipped = (1,) if self.counts_clipped else ()
        capacities = (self.plan.max_examples, self.entries, *clipped, *(metric for _ in self.plan.metrics))
        return Lanes(self.plan.bits, self.plan.summed, capacities)

    @cached_property
    def length(self) -> int:
        """Return the elements of a summed vector: the update's and the lanes'."""
        return self.entries + self.lanes.size

    @property
    def dice(self) -> int:
        """Return how many words of dice the encoding of one update takes."""
        return self.entries + OWN_WORDS * (self.encoding.codec is not None)

    def encode(
        self,
        update: Vector,
        examples: int,
        metrics: Mapping[str, float],
        dice: Dice,
        layout: Layout | None = None,
        words: Words | None = None,
        seed: bytes = b"",
    ) -> IntVector:
        """Turn an update into integers mod 2^b, shape (length,).

        update: float32, shape (d,). examples: > 0; counts at most as `max_examples`. metrics: means over examples;
        those the plan does not name are left out. dice: round. layout: names the parameter in errors. words: secret, of
        this participant and attempt alone; under differential privacy they round and make the noise, and `dice` is not
        asked. They have no default: noise that somebody can guess is none. seed: 32 public bytes that all participants
        of the attempt share, where the plan compresses.
        Raises DataError for NaN, infinity, no examples, a wrong shape, or a metric that the plan asks for and is
        missing; LocalProtocolError if words or seed are needed and not given.
        """
        if update.shape != (self.parameters,):
            raise DataError(f"the update has shape {update.shape}, the model {self.parameters} parameters")
        if examples < 1:
            raise DataError(NO_EXAMPLES)
        weight = min(examples, self.plan.max_examples)
        steps = [self._told(name, metrics, weight, words) for name in sorted(self.plan.metrics)]
        vector = np.empty(self.length, container(self.plan.bits))
        entries = vector[: self.entries]
        if self.plain:
            saturated, shortened = self._encode_plain(update, weight, dice, layout, entries)
        elif self.noise is None:
            clipped, shortened = self._clipped(update, layout)
            compressed = self._compressed(clipped, dice, seed)
            if self.encoding.clips_again and self.plan.clip_norm is not None and self.encoding.codec is not None:
                compressed = clip_whole(compressed, self.encoding.clip).vector
            saturated = self._encode_entries(compressed, weight, dice, (1.0, None), entries)
        else:
            saturated, shortened = 0, False  # not told: that would be exact
            self._encode_private(update, self.noise, words, dice, seed, layout, entries)
        told = [int(shortened)] if self.counts_clipped else []
        vector[self.entries :] = self.lanes.write([weight, saturated, *told, *steps])
        return vector

    def feed_back(
        self, update: Vector, kept: Vector | None, seed: bytes, layout: Layout | None = None
    ) -> tuple[Vector, Vector]:
        """Add what compression lost last time to an update, and return it with what will be lost of it now.

        update: float32, shape (d,). kept: what the last call returned second, if its update was in the sum. For plans
        with `ErrorFeedback`, whose codecs draw nothing of their own, so that `encode` loses just that.
        Raises DataError as `encode` does.
        """
        if self.encoding.feedback is None:
            raise LocalProtocolError("a plan without compression has nothing to feed back")
        whole = update if kept is None else update + kept
        clipped = self._clipped(whole, layout).vector
        encoded = self.encoding.feedback.encode(clipped, shared_by(seed), NoDice())
        if encoded.state is None:
            raise LocalProtocolError("the plan's compression feeds nothing back")
        return whole, encoded.state

    def _encode_plain(
        self, update: Vector, weight: int, dice: Dice, layout: Layout | None, out: IntVector
    ) -> tuple[int, bool]:
        """Clip and encode in one go; return how many entries were cut off, and whether the update was too long."""
        if self.plan.clip_norm is None:
            require_finite(update, layout)
            return self._encode_entries(update, weight, dice, (1.0, None), out), False
        # One pass tells that all is finite, how much to clip, and that no entry is larger than the norm.
        norm = norm_of(update, layout)
        factor = clip_factor(norm, self.plan.clip_norm)
        return self._encode_entries(update, weight, dice, (factor, norm), out), factor != 1.0

    def _clipped(self, update: Vector, layout: Layout | None) -> Clipped:
        if self.plan.clip_norm is None:
            require_finite(update, layout)
            return Clipped(update, False)
        if isinstance(self.plan.clip, Clip) and self.encoding.layout is not None:
            return clip_layers(update, self.plan.clip_norm, self.encoding.layout)
        return clip_whole(update, self.plan.clip_norm, layout)

    def _compressed(self, clipped: Vector, dice: Dice, seed: bytes) -> Vector:
        if self.encoding.codec is None:
            return clipped
        return self.encoding.codec.encode(clipped, shared_by(seed), OwnDice(dice)).vector

    def _encode_entries(
        self, update: Vector, weight: int, dice: Dice, size: tuple[float, float | None], out: IntVector
    ) -> int:
        """Encode block by block into `out`; return how many entries were cut off.

        size: the clip factor, and a number that no entry is beyond if one is known.
        """
        factor, peak = size
        fixed, saturated = self.encoding.fixed, 0
        for begin in range(0, len(update), BLOCK_ELEMENTS):
            block = slice(begin, begin + BLOCK_ELEMENTS)
            words = dice.words(len(update[block]))
            _, outside = fixed.encode(update[block], weight, words, factor=factor, peak=peak, out=out[block])
            saturated += outside
        return saturated

    def _encode_private(
        self,
        update: Vector,
        noise: RoundNoise,
        words: Words | None,
        dice: Dice,
        seed: bytes,
        layout: Layout | None,
        out: IntVector,
    ) -> None:
        """Clip, round within D2 and add this participant's noise, if it is participants who add it; or report."""
        if words is None:
            raise LocalProtocolError(NO_WORDS)
        vector, length, within = self._measured(update, dice, seed, layout)
        factor = clip_factor(length, self.encoding.clip)
        norm: float | None = length
        if self.encoding.report is not None:
            clipped = np.multiply(vector, factor, dtype=np.float64).astype(np.float32)
            report = self.encoding.report.randomise(clipped, words.child("report"))
            self._encode_entries(report, 1, dice, (1.0, None), out)
            return
        if self.encoding.bit:
            # Before, not in the same pass: a factor of 1e-38 would make the bit's entry infinite.
            vector, bit = clip_whole(vector, self.encoding.clip).vector, self.encoding.bit * BIT_SLACK * (within - 0.5)
            copies = self.encoding.copies
            vector = np.concatenate([vector, np.full(copies, bit / math.sqrt(copies), np.float32)])
            factor, norm = 1.0, None
        if noise.centred:
            bits, sigma = self.plan.bits, noise.sigma
            encode_centred(vector, noise.scale, noise.bound, sigma, words, bits, out, factor=factor, norm=norm)
            return
        dp = self.plan.dp
        share = noise.source if dp is not None and (dp.shared or dp.local) else None
        encode_private(vector, noise.scale, noise.bound, share, words, self.plan.bits, out, factor=factor, norm=norm)

    def _measured(self, update: Vector, dice: Dice, seed: bytes, layout: Layout | None) -> tuple[Vector, float, bool]:
        """Return what is left to be clipped as a whole, its l2 norm, and whether the update was within the clip."""
        if self.encoding.codec is None and not isinstance(self.plan.clip, Clip):
            norm = norm_of(update, layout)
            return update, norm, norm <= self.encoding.clip
        clipped, shortened = self._clipped(update, layout)
        compressed = self._compressed(clipped, dice, seed)
        return compressed, norm_of(compressed), not shortened

    def add_central_noise(self, total: IntVector, words: Words | None) -> IntVector:
        """Return a sum with the coordinator's noise on every entry but the lanes; the sum itself without `dp` central.

        total: shape (length,), of all opened sessions together; left as it is. words: secret, of this sum alone.
        Raises LocalProtocolError if words are needed and not given.
        """
        if self.noise is None or not isinstance(self.plan.dp, CentralGaussian):
            return total  # banded noise remembers, so the vault adds it
        if words is None:
            raise LocalProtocolError("noise of the coordinator needs secret words; there is no default")
        noisy = total.copy()
        entries = noisy[: self.entries]
        add_noise(entries, self.noise.source, words, out=entries)
        return noisy

    def read_lanes(self, total: IntVector) -> LaneSums:
        """Read the lanes of a summed vector, shape (length,)."""
        mask = np.array((1 << self.plan.bits) - 1, dtype=total.dtype)
        return self.lanes.read(total[self.entries :] & mask)

    def decode(self, total: IntVector, seed: bytes = b"", expected: float | None = None) -> RoundSum:
        """Turn an opened sum, shape (length,), into the mean update and the metrics.

        seed: as for `encode`. expected: by what sums are divided in place of the number of contributions, where that
        must not show. Raises DataError if the summed weight is 0, or a lane holds more than honest participants can sum
        to; LocalProtocolError if the seed is needed and not given.
        """
        sums = self.read_lanes(total)
        weight, saturated, *rest = sums.values
        if weight < 1:
            raise DataError("the summed weight is 0: nobody had examples")
        self._check_lanes(sums)
        short, metrics = (rest[:1], rest[1:]) if self.counts_clipped else ([], rest)
        encoded = self.encoding.fixed.decode(total[: self.entries], weight)
        if expected is not None:
            encoded *= np.float32(sums.count / expected)
        compressed = encoded[: self.encoding.compressed]
        named = zip(sorted(self.plan.metrics), metrics, strict=True)
        return RoundSum(
            mean=self._decompressed(compressed, seed),
            examples=weight,
            participants=sums.count,
            metrics={name: self._mean_metric(name, told, weight) for name, told in named},
            saturated=saturated,
            clipped=float(short[0]) if short else self._estimated_clipped(encoded, sums.count),
            encoded=compressed,
        )

    def _decompressed(self, mean: Vector, seed: bytes) -> Vector:
        if self.encoding.codec is None:
            return mean
        return self.encoding.codec.decode(mean, self.parameters, shared_by(seed))

    def _estimated_clipped(self, encoded: Vector, count: int) -> float | None:
        """Return how many were clipped, as the noisy bits have it; None if no bits travelled."""
        if not self.encoding.bit:
            return None
        copies = self.encoding.copies
        within = float(encoded[-copies:].mean()) * math.sqrt(copies) / self.encoding.bit + 0.5
        return count * (1 - min(max(within, 0.0), 1.0))

    def _check_lanes(self, sums: LaneSums) -> None:
        # A liar may write anything here. Beyond these limits a metric leaves its range and a count its message.
        weight, *_ = sums.values
        exact = len(sums.values) - len(self.plan.metrics)
        limits = [sums.count * capacity for capacity in self.lanes.capacities[:exact]]
        limits += [weight * (METRIC_STEPS if self.plan.dp is None else ANSWERS) for _ in self.plan.metrics]
        for found, limit in zip(sums.values, limits, strict=True):
            if found > limit:
                raise DataError(f"a lane sums to {found}, honest participants reach {limit} at most: somebody lied")

    def _told(self, name: str, metrics: Mapping[str, float], weight: int, words: Words | None) -> int:
        """Return what goes into a metric's lane."""
        bound, dp = self.plan.metrics[name], self.plan.dp
        if dp is None:
            return steps_of(name, metrics, bound) * weight
        if words is None or dp.metrics_epsilon is None:
            raise LocalProtocolError(NO_WORDS)
        return answer_of(name, metrics, bound, dp.metrics_epsilon, words)

    def _mean_metric(self, name: str, told: int, weight: int) -> float:
        bound, dp = self.plan.metrics[name], self.plan.dp
        if dp is None or dp.metrics_epsilon is None:
            return from_steps(told, weight, bound)
        return from_answers(told, weight, bound, dp.metrics_epsilon)
