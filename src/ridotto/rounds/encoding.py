"""What a plan makes of updates of one size, before any is there: lengths, bounds, and the units of the ring.

    update, d entries -> clip -> compress -> m entries -> clip again (dp) -> + the clip's bit (dp) -> units -> ring

Two ways to choose units. Without noise and without `Quantize`, they are the finest power of two for which no sum that
can occur wraps round. Otherwise they are a number of units for the *bound*, the largest l2 norm of a vector that is
rounded; so what is rounded and hidden looks the same in units whatever the clip is just now.

Under differential privacy a compressed update is clipped once more, at what an update as long as the clip has on
average after compression (`Codec.usual_norm`). Without, noise would have to hide the worst seed there is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

from ridotto.core.fixedpoint import FixedPoint
from ridotto.core.vector import Layout
from ridotto.errors import PlanError
from ridotto.learn.compress import Codec
from ridotto.learn.compress.rotate import flattened
from ridotto.privacy.local.privunit import PrivUnit2
from ridotto.rounds.clipping import AdaptiveClip
from ridotto.rounds.compression import ErrorFeedback, build_chain, quantizer
from ridotto.rounds.headroom import units_with_noise
from ridotto.rounds.mechanisms import finest_units
from ridotto.rounds.plan import Plan
from ridotto.rounds.settings import PrivUnit

ENTRY_ODDS = 2.0**-20
"""Probability that a rotated update has an entry beyond the range of a `Quantize`, which then is cut off."""

BIT_SLACK = 1 - 2.0**-20
"""What rounding the bit's entry to float32 may add to a norm is taken off beforehand."""


@dataclass(frozen=True)
class Encoding:
    """Say what a plan makes of updates with d entries.

    size: d, or the model's layout, which low-rank compression and per-layer clips need.
    Raises PlanError, from its parts, for a plan whose noise is not calibrated yet, or that has no room.
    """

    plan: Plan
    size: int | Layout

    @property
    def parameters(self) -> int:
        """Return d."""
        return self.size if isinstance(self.size, int) else self.size.length

    @property
    def layout(self) -> Layout | None:
        """Return the model's layout, if it was given."""
        return None if isinstance(self.size, int) else self.size

    @cached_property
    def codec(self) -> Codec | None:
        """Return what clipped updates are compressed by; None for nothing."""
        if not self.plan.compress:
            return None
        return self.feedback if not self.plan.feeds_back else self._chain(without=ErrorFeedback)

    @cached_property
    def feedback(self) -> Codec | None:
        """Return the same with the error feedback of the plan, if it has some."""
        return self._chain()

    def _chain(self, without: type | None = None) -> Codec | None:
        parts = [part for part in self.plan.compress if without is None or not isinstance(part, without)]
        built = build_chain(parts, self.layout)
        return None if built.name == "none" else built

    @cached_property
    def compressed(self) -> int:
        """Return m, the entries of a compressed update. Raises PlanError if they are more than it had before."""
        if self.codec is None:
            return self.parameters
        length = self.codec.length(self.parameters)
        if length > self.parameters:
            raise PlanError(f"{self.codec.name} makes {length} entries of {self.parameters}: leave it out, or ask less")
        return length

    @cached_property
    def entries(self) -> int:
        """Return the entries that are rounded: m, and those of the bit of an adaptive clip under dp."""
        return self.compressed + self.copies

    @cached_property
    def clip(self) -> float:
        """Return the largest l2 norm of a compressed update: infinite without a clip."""
        norm = self.plan.clip_norm
        if norm is None:
            return math.inf
        if self.codec is None:
            return norm
        measure = self.codec.usual_norm if self.clips_again else self.codec.sensitivity
        return measure(norm, self.parameters)

    @property
    def clips_again(self) -> bool:
        """Tell whether compressed updates are clipped once more, at what they usually are: for noise or a rule."""
        return self.plan.dp is not None or self.plan.robust is not None

    @cached_property
    def bit(self) -> float:
        """Return s, by which the bit of an adaptive clip is weighted under dp; 0 where there is none."""
        plan = self.plan
        if plan.dp is None or plan.dp.noise_multiplier is None or not isinstance(plan.clip, AdaptiveClip):
            return 0.0
        return self.clip * plan.clip.bit_weight(plan.dp.noise_multiplier, plan.summed)

    @cached_property
    def report(self) -> PrivUnit2 | None:
        """Return what turns a compressed update into a private report; None where noise does, or nothing."""
        dp = self.plan.dp
        if not isinstance(dp, PrivUnit) or dp.report_epsilon is None:
            return None
        return PrivUnit2(dp.report_epsilon, self.compressed, self.clip)

    @cached_property
    def copies(self) -> int:
        """Return over how many entries the bit is spread: in the small ring of a `Quantize` its sum would not fit one.

        Over (1 / (2 deviation))^2 of them it is no larger than the noise on each, when all bits agree.
        """
        plan = self.plan
        if not self.bit or not isinstance(plan.clip, AdaptiveClip):
            return 0
        return 1 if quantizer(plan.compress) is None else math.ceil((2 * plan.clip.deviation) ** -2)

    @cached_property
    def bound(self) -> float:
        """Return the largest l2 norm of what is rounded, the bit included; infinite without a clip."""
        if self.report is not None:
            return self.report.bound / self.report.shrinkage
        return math.hypot(self.clip, self.bit / 2)

    @cached_property
    def units(self) -> float | None:
        """Return how many units of the ring the bound is; None where units are the finest that never wrap.

        It does not depend on the clip. Raises PlanError if the ring has no room.
        """
        plan, quantize = self.plan, quantizer(self.plan.compress)
        if quantize is not None:
            units = quantize.units_of_bound(plan.summed, self.entries, plan.spread)
            if plan.dp is None:
                return units
            # Noise is sized by the norm of a whole vector, which then must fit into the ring by itself.
            return min(units, finest_units(plan), float((1 << (plan.bits - 1)) - 1))
        if plan.dp is not None:
            return min(units_with_noise(plan.bits, plan.summed, plan.multiplier, plan.spread), finest_units(plan))
        return None

    @cached_property
    def fixed(self) -> FixedPoint:
        """Return the encoding of entries into the ring."""
        plan, units = self.plan, self.units
        if units is None:
            return FixedPoint(plan.bits, plan.value_range, plan.summed, plan.max_examples)
        highest = (1 << (plan.bits - 1)) - 1
        # A rotated entry is far below the norm; one that is not, in a ring without room for it, is cut off.
        reach = 1.0 if plan.dp is not None else flattened(1.0, self.entries, ENTRY_ODDS)
        reach = min(reach, highest / units)
        return FixedPoint(plan.bits, self.bound * reach, plan.summed, plan.max_examples, units / self.bound)
