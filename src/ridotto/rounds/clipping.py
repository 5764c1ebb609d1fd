"""How long an update may be: the clips of a plan, and what they make of one update.

Neighbouring relation and trust: those of `privacy.clip`. The bound that noise is sized by holds for the vector that is
rounded, whichever clip brought it there.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from ridotto.core.fixedpoint import CHUNK_ELEMENTS, Rounder
from ridotto.core.vector import Layout, Vector, require_finite
from ridotto.errors import PlanError
from ridotto.privacy.clip import clip_factor, row_norms
from ridotto.rounds.settings import Settings, make_floats, refuse_huge

SMALLEST_CLIP, LARGEST_CLIP = 1e-30, 1e30
"""Between these `privacy.clip` keeps its promise; below, float32 has too few digits left."""

SMALLEST_DEVIATION, LARGEST_DEVIATION = 0.01, 10.0
LARGEST_STEP = 2.0


def check_norm(norm: float) -> None:
    """Refuse a clip that is no norm. Raises PlanError."""
    if not SMALLEST_CLIP <= norm <= LARGEST_CLIP:
        raise PlanError(f"clip is a norm from {SMALLEST_CLIP:g} to {LARGEST_CLIP:g}, not {norm}")


class Clip(Settings, frozen=True, tag_field="name", tag="clip"):
    """Scale longer updates down to an l2 norm of `norm`. A plan takes a plain number for the same.

    norm: > 0. per_layer: each of the model's n parameters is scaled down by itself, to norm / sqrt(n), so that the
    whole is no longer than `norm` either: a layer with large gradients does not cost the others theirs.
    Source: McMahan et al., "Learning Differentially Private Recurrent Language Models", ICLR 2018, algorithm 1 (flat
    and per-layer clipping).
    """

    norm: float
    per_layer: bool = False

    def __post_init__(self) -> None:
        refuse_huge({"norm": self.norm})
        make_floats(self, "norm")
        check_norm(self.norm)


class AdaptiveClip(Settings, frozen=True, kw_only=True, tag_field="name", tag="adaptive-clip"):
    """Follow a quantile of the updates' norms: after every round, norm <- norm * exp(-step * (b - quantile)).

    b is the fraction of participants whose update was no longer than the clip; each puts one bit into its masked
    vector, and nobody sees whose was which. Under differential privacy the bit is an entry of the vector like any
    other and gets the same noise; it is weighted such that the noise of b is `deviation` of the cohort, and the noise
    on the update grows by as much as that costs.
    norm: of the first round; 0.1 is the source's. quantile: above 0 and below 1. step: the source's eta_C.
    deviation: of b's noise, as a fraction of the cohort; the source's 1 / 20.
    Source: Andrew, Thakkar, McMahan, Ramaswamy, "Differentially Private Learning with Adaptive Clipping", NeurIPS 2021,
    algorithm 1 (geometric updates) and theorem 1 (how the noise is split).
    """

    norm: float = 0.1
    quantile: float = 0.5
    step: float = 0.2
    deviation: float = 0.05

    def __post_init__(self) -> None:
        refuse_huge({name: getattr(self, name) for name in self.__struct_fields__})
        make_floats(self, *self.__struct_fields__)
        check_norm(self.norm)
        if not 0 < self.quantile < 1:
            raise PlanError(f"the quantile of an adaptive clip is between 0 and 1, not {self.quantile}")
        if not 0 < self.step <= LARGEST_STEP:
            raise PlanError(f"the step of an adaptive clip is above 0 and at most {LARGEST_STEP:g}, not {self.step}")
        if not SMALLEST_DEVIATION <= self.deviation <= LARGEST_DEVIATION:
            raise PlanError(
                f"the deviation of an adaptive clip is from {SMALLEST_DEVIATION:g} to {LARGEST_DEVIATION:g} of the "
                f"cohort, not {self.deviation}"
            )

    def after(self, within: float) -> float:
        """Return the next round's norm, a float32 number. within: b, which a liar can move: it counts as 0 to 1."""
        moved = self.norm * math.exp(-self.step * (min(max(within, 0.0), 1.0) - self.quantile))
        # Rounding to float32, as which it is kept, must not lead out of what a clip may be.
        return float(np.float32(min(max(moved, 2 * SMALLEST_CLIP), LARGEST_CLIP / 2)))

    def most_noise(self, cohort: int) -> float:
        """Return the largest noise multiplier for which `bit_weight` has an answer."""
        return 2 * self.deviation * cohort * (1 - 1e-9)

    def bit_weight(self, noise_multiplier: float, cohort: int) -> float:
        """Return s over the clip C: the bit travels as an entry s (b - 1/2).

        With noise of z times the whole vector's bound sqrt(C^2 + s^2 / 4) on every entry, the sum of the bits has a
        deviation of sigma_b = `deviation` * cohort: s^2 = C^2 / (sigma_b^2 / z^2 - 1 / 4), which is theorem 1.
        Raises PlanError where so few participants can't have both.
        """
        rest = (self.deviation * cohort / noise_multiplier) ** 2 - 0.25
        if rest <= 0:
            least = noise_multiplier / 2 / cohort
            raise PlanError(
                f"an adaptive clip asks for noise of {self.deviation:g} of {cohort} participants on its bits, and a "
                f"noise multiplier of {noise_multiplier:.4g} allows no less than {least:.4g} of them: take a larger "
                "cohort or deviation, less noise, or a clip that stays"
            )
        return 1.0 / math.sqrt(rest)


class Clipped(NamedTuple):
    """Hold an update that is not too long, and whether it was."""

    vector: Vector
    shortened: bool


def clip_whole(update: Vector, bound: float, layout: Layout | None = None) -> Clipped:
    """Return the update with an l2 norm of at most `bound`. It may be `update` itself.

    layout: names the parameter in errors. Raises DataError for what is not finite.
    """
    factor = clip_factor(norm_of(update, layout), bound)
    if factor == 1.0:
        return Clipped(update, False)
    return Clipped(np.multiply(update, factor, dtype=np.float64).astype(np.float32), True)


def clip_layers(update: Vector, bound: float, layout: Layout) -> Clipped:
    """Return the update with each of n parameters at most bound / sqrt(n) long. Raises DataError as `clip_whole`."""
    result, shortened, own = update.copy(), False, bound / math.sqrt(max(1, len(layout.fields))) * LAYER_SLACK
    norm_of(update, layout)
    begin = 0
    for field in layout.fields:
        part = slice(begin, begin + field.length)
        clipped = clip_whole(update[part], own) if field.length else Clipped(update[part], False)
        result[part] = clipped.vector
        shortened, begin = shortened or clipped.shortened, part.stop
    return Clipped(result, shortened)


LAYER_SLACK = 1.0 - 2.0**-40
"""The squares of n rounded bounds add up to no more than the whole bound's."""


def norm_of(update: Vector, layout: Layout | None = None) -> float:
    """Return the l2 norm, accumulated in float64. Raises DataError, naming the parameter, for what is not finite."""
    rounder = Rounder(1, max(1, min(len(update), CHUNK_ELEMENTS)))
    norm = row_norms(update[None], rounder)[0]
    if not math.isfinite(norm):
        require_finite(update, layout)
    return norm
