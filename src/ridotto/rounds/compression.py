"""How a plan makes updates smaller: the codecs of `learn.compress`, as plans and configuration files name them.

They apply in order, after clipping: `[Rotate(), Sample(0.25), Quantize(bits=10)]`. All but `TopK` and `Ternary` make
vectors whose sum decodes to an estimate of the sum, so masks don't mind them.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from ridotto.core.vector import Layout
from ridotto.errors import PlanError
from ridotto.learn.compress import Codec, chain, error_feedback
from ridotto.learn.compress.codec import require_count
from ridotto.learn.compress.count_sketch import count_sketch
from ridotto.learn.compress.delta import LARGEST, SMALLEST
from ridotto.learn.compress.low_rank import low_rank
from ridotto.learn.compress.quantize import Likely
from ridotto.learn.compress.rotate import rotate
from ridotto.learn.compress.sample import sample
from ridotto.learn.compress.sparse import ternary, top_k
from ridotto.rounds.settings import Settings, make_floats, refuse_huge


class _Compression(Settings, frozen=True):
    """Stand above the codecs of a plan."""

    def __post_init__(self) -> None:
        refuse_huge({name: getattr(self, name) for name in self.__struct_fields__})
        floats = [field.name for field in msgspec.structs.fields(self) if field.type is float]
        make_floats(self, *floats)
        self.check()

    def check(self) -> None:
        """Refuse numbers out of range: building the codec does. Raises PlanError."""
        self.build(None)

    def build(self, layout: Layout | None) -> Codec:
        """Return the codec. layout: the model's, for those that look at its matrices."""
        raise NotImplementedError


class Rotate(_Compression, frozen=True, tag_field="name", tag="rotate"):
    """Spread each update evenly over its entries, by a random rotation that the whole round shares: `learn.compress`.

    It shrinks nothing by itself, and lets `Sample` and `Quantize` lose little.
    """

    def build(self, layout: Layout | None) -> Codec:
        """Return the codec."""
        return rotate()


class Sample(_Compression, frozen=True, tag_field="name", tag="sample"):
    """Send a random `fraction` of the entries, the same for everybody in a round.

    scaled: the server multiplies by 1 / fraction, which is unbiased and noisy; without, steps are shorter and surer.
    """

    fraction: float
    scaled: bool = True

    def build(self, layout: Layout | None) -> Codec:
        """Return the codec."""
        return sample(self.fraction, self.scaled)


class CountSketch(_Compression, frozen=True, kw_only=True, tag_field="name", tag="count-sketch"):
    """Send `rows` times `columns` sums of entries. median: of the rows' estimates, in place of their mean."""

    rows: int
    columns: int
    median: bool = False

    def build(self, layout: Layout | None) -> Codec:
        """Return the codec."""
        return count_sketch(self.rows, self.columns, self.median)


class LowRank(_Compression, frozen=True, tag_field="name", tag="low-rank"):
    """Send each matrix of the model multiplied by a random one of `rank` columns. It comes first in a plan.

    scaled: unbiased; without, a projection.
    """

    rank: int
    scaled: bool = True

    def build(self, layout: Layout | None) -> Codec:
        """Return the codec. Raises PlanError without a layout."""
        if layout is None:
            raise PlanError("low-rank compression looks at matrices: it needs the model's layout, not just its size")
        return low_rank(self.rank, layout, self.scaled)

    def check(self) -> None:
        """Refuse a rank out of range."""
        low_rank(self.rank, Layout(()), self.scaled)


class TopK(_Compression, frozen=True, tag_field="name", tag="top-k"):
    """Keep the largest `fraction` of each update's entries. For plans without masks: which they are tells on data."""

    fraction: float

    def build(self, layout: Layout | None) -> Codec:
        """Return the codec."""
        return top_k(self.fraction)


class Ternary(_Compression, frozen=True, tag_field="name", tag="ternary"):
    """Send every entry as -s, 0 or s. For plans without masks."""

    def build(self, layout: Layout | None) -> Codec:
        """Return the codec."""
        return ternary()


class Quantize(Settings, frozen=True, kw_only=True, tag_field="name", tag="quantize"):
    """Send elements of `bits` bits: a ring that holds the sum of everybody's rotated entries nearly always.

    bits: what travels for an entry, 8 to 64; it takes the place of the plan's `bits`. alignment: largest norm of the
    sum, as a fraction of what it is when all updates are as long as the clip and point the same way. reach: standard
    deviations of a sum's entry that the ring has room for. With 4, one entry in about 16,000 wraps round at the most,
    and is wrong by the whole ring; after the rotation back that is a little noise on all entries.
    Exact sums of 8-bit integers of 100 participants would need 15 bits. Needs a clip, and `Rotate` before it.
    Source: Kairouz, Liu, Steinke, "The Distributed Discrete Gaussian Mechanism for Federated Learning with Secure
    Aggregation", ICML 2021, section 5 (choice of the granularity).
    """

    bits: int
    alignment: float = 1.0
    reach: float = 4.0

    def __post_init__(self) -> None:
        refuse_huge({name: getattr(self, name) for name in self.__struct_fields__})
        make_floats(self, "alignment", "reach")
        Likely(self.bits, 1, 1.0, self.alignment, self.reach)

    def units_of_bound(self, participants: int, entries: int, noise: float) -> float:
        """Return how many units of the ring are 1, for vectors of norm 1 that are spread over so many entries.

        noise: standard deviation of all noise on an entry of the sum. Raises PlanError where rounding alone fills the
        ring.
        """
        return 1.0 / self.likely(participants, entries, noise).step

    def likely(self, participants: int, entries: int, noise: float) -> Likely:
        """Return the ring; see `units_of_bound`."""
        spread = entries**-0.5
        return Likely(self.bits, participants, spread, self.alignment, self.reach, noise / spread)


class ErrorFeedback(Settings, frozen=True, tag_field="name", tag="error-feedback"):
    """Let participants add what compression lost to their next update. Written last; without differential privacy.

    For codecs that shrink: `TopK`, and `Sample` or `LowRank` with scaled = false.
    """


Compression = Rotate | Sample | CountSketch | LowRank | TopK | Ternary | Quantize | ErrorFeedback
"""What stands in a plan's `compress`."""


def build_chain(compress: Sequence[Compression], layout: Layout | None) -> Codec:
    """Return what participants apply to their clipped updates; `Quantize` is the ring's business, not the chain's.

    Raises PlanError for an order that makes no sense, or a layout that is needed and not given.
    """
    built = chain([part.build(layout) for part in compress if isinstance(part, _Compression)])
    return error_feedback(built) if any(isinstance(part, ErrorFeedback) for part in compress) else built


def quantizer(compress: Sequence[Compression]) -> Quantize | None:
    """Return the plan's `Quantize`, if there is one."""
    return next((part for part in compress if isinstance(part, Quantize)), None)


def leaves_zeros(compress: Sequence[Compression]) -> bool:
    """Tell whether compressed updates are mostly zeros, which `ideal` sums then leave out on the wire."""
    return any(isinstance(part, TopK | Ternary) for part in compress)


def check_compression(compress: Sequence[Compression], ideal: bool, private: bool, clipped: bool, plain: bool) -> None:
    """Refuse compression that makes no sense, or not with the rest of a plan.

    ideal: the coordinator sees every update. private: the plan has dp. clipped: it has a clip. plain: the algorithm's
    clients keep nothing of their own. Raises PlanError.
    """
    _check_order(compress)
    kinds = [type(part) for part in compress]
    if Quantize in kinds and not clipped:
        raise PlanError("Quantize needs a clip: without a largest norm nobody knows how large a sum becomes")
    if (TopK in kinds or Ternary in kinds) and not ideal:
        raise PlanError(
            "TopK and Ternary don't add up under masks, because everybody sends other entries: take Sample, "
            'CountSketch or LowRank, or protocol "ideal"'
        )
    if (TopK in kinds or Ternary in kinds) and private:
        raise PlanError("dp hides sums of vectors, and which entries TopK or Ternary send is not hidden by it")
    if ErrorFeedback in kinds and (private or not plain):
        raise PlanError(
            "ErrorFeedback adds to an update what its clip does not bound, and clients keep it as their state: leave "
            "it out of plans with dp, and of algorithms whose clients keep another"
        )


def check_download(bits: float, algorithm: str, stateful: bool) -> int:
    """Return the bits of differences for downloads, as a whole number.

    stateful: the algorithm has states. Raises PlanError for bits out of range, and differences that make no sense.
    """
    whole = require_count("download_bits", SMALLEST, LARGEST, bits=bits)
    if stateful:
        raise PlanError(
            f"{algorithm} sends participants a vector of its own beside the model, whole, and steps from where the "
            "model is exactly; download_bits rounds the model and makes nothing else smaller: leave it out"
        )
    return whole


def _check_order(compress: Sequence[Compression]) -> None:
    """Refuse orders that make no sense, as far as that shows without a model. Raises PlanError."""
    kinds = [type(part) for part in compress]
    for kind in set(kinds):
        if kinds.count(kind) > 1:
            raise PlanError(f"{kind.__name__} is in the plan's compress twice")
    tail = [kind for kind in kinds if kind in (Quantize, ErrorFeedback)]
    if tail != kinds[len(kinds) - len(tail) :] or tail == [ErrorFeedback, Quantize]:
        raise PlanError("Quantize comes after all other compression, and ErrorFeedback at the very end")
    if LowRank in kinds and kinds[0] is not LowRank:
        raise PlanError("LowRank comes first: what others leave of an update has no matrices")
    if Quantize in kinds and Rotate not in kinds:
        raise PlanError(
            "Quantize needs Rotate before it: a small ring holds the sum of entries that are spread evenly, and others "
            "not. For a ring without it, leave Quantize out and say bits"
        )
    if ErrorFeedback in kinds and len(kinds) == 1:
        raise PlanError("ErrorFeedback alone has no error to feed back")
    if LowRank not in kinds:
        build_chain(compress, None)
