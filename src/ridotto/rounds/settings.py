"""The parts of a plan: how a sum is kept secret, the noise it gets, the federated algorithm, the server optimiser.

They are what plans and the `[plan]` tables of configuration files are made of. What only one part can know is checked
here, what depends on several in `rounds.plan`.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

import msgspec

from ridotto.errors import PlanError
from ridotto.learn.algorithms import LocalAlgorithm, algorithm
from ridotto.learn.strategy import Strategy, strategy
from ridotto.privacy.event import check_delta, check_epsilon
from ridotto.privacy.local.privunit import PrivUnitG
from ridotto.privacy.local.responses import BinaryResponse

SHARD_SIZE = 128
"""Largest complete graph of masks: its 127 masks cost a participant about 60 ms at a million parameters."""


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Stand above what plans and configuration files are made of."""


def refuse_huge(numbers: Mapping[str, object]) -> None:
    """Refuse integers that are no machine word: Python can neither print the largest nor make floats of them."""
    for name, number in numbers.items():
        if isinstance(number, int) and abs(number) > 2**63:
            raise PlanError(f"{name} is an integer of more than 64 bits")


def make_floats(settings: Settings, *names: str) -> None:
    """Turn integers into floats where floats belong: 1 and 1.0 are one plan, and must have one encoding."""
    for name in names:
        value = getattr(settings, name)
        if isinstance(value, dict):
            msgspec.structs.force_setattr(settings, name, {key: _float(number) for key, number in value.items()})
        else:
            msgspec.structs.force_setattr(settings, name, _float(value))


def _float(number: object) -> object:
    return float(number) if isinstance(number, int) and not isinstance(number, bool) else number


def check_part(name: str, value: object, kind: Any) -> None:
    """Refuse a part of a plan that is not of its kind, or has fields that are not, where no type checker looks.

    Raises PlanError.
    """
    if value is None or isinstance(value, float):
        return
    if not isinstance(value, kind):
        shown = value.__name__ + " itself" if isinstance(value, type) else repr(value)
        raise PlanError(f"{name} is one of the objects that docs/configuration.md lists, not {shown}")
    try:
        msgspec.convert(msgspec.to_builtins(value), type(value))
    except (msgspec.ValidationError, TypeError) as error:
        raise PlanError(f"{name}: {type(value).__name__}: {error}") from error


class Ideal(Settings, frozen=True, kw_only=True, tag_field="name", tag="ideal"):
    """Trust the coordinator with every update: no masks. For tests, and where no protection is wanted."""


class Pairwise(Settings, frozen=True, kw_only=True, tag_field="name", tag="pairwise"):
    """Hide every update behind pairwise masks.

    corrupt: fraction of the participants that may collude with the coordinator; a number of members is rounded up.
    graph: "complete" (shards of at most 128, safe against a lying coordinator) or "sparse" (one session whatever
    the cohort; safe only where drop-outs are random, see `secagg.graph`). drop_out: fraction expected to leave
    during masking; sizes the sparse graph. shard_size: members of one session at most, in a complete graph.
    """

    corrupt: float = 0.1
    drop_out: float = 0.1
    graph: str = "complete"
    shard_size: int = SHARD_SIZE

    def __post_init__(self) -> None:
        refuse_huge(msgspec.structs.asdict(self))
        make_floats(self, "corrupt", "drop_out")
        if not 0 <= self.corrupt < 0.5:
            raise PlanError(f"corrupt is a fraction from 0 to below 0.5, not {self.corrupt}")
        if not 0 <= self.drop_out < 0.5:
            raise PlanError(f"drop_out is a fraction from 0 to below 0.5, not {self.drop_out}")
        if self.graph not in ("complete", "sparse"):
            raise PlanError(f'graph is "complete" or "sparse", not "{self.graph}"')
        if not 2 <= self.shard_size <= SHARD_SIZE:
            raise PlanError(f"shard_size is 2 to {SHARD_SIZE}, not {self.shard_size}")


LARGEST_MULTIPLIER = 1e6
"""More noise than that teaches nothing."""

LARGEST_BANDS = 1024
"""So many rounds of noise a coordinator keeps at most."""


class _Private(Settings, frozen=True, kw_only=True):
    """Stand above the mechanisms of differential privacy.

    delta: at which epsilon is counted; well below one over the number of participants. It has no default. epsilon: what
    a training may spend in all; without a number for the noise, the noise is also chosen such that the planned rounds
    spend just that. metrics_epsilon: of every metric in every round, for plans with `metrics`: each participant answers
    by itself with one bit, which is as private as that whoever sees it (`rounds.metrics`).
    """

    shared: ClassVar[bool] = False
    """Participants add shares; the noise of a sum is there only if enough of them did."""

    central: ClassVar[bool] = False
    """The coordinator adds the noise."""

    local: ClassVar[bool] = False
    """What leaves a participant is private by itself."""

    seated: ClassVar[bool] = False
    """The committee that opens a sum adds the noise."""

    delta: float
    epsilon: float | None = None
    metrics_epsilon: float | None = None

    def __post_init__(self) -> None:
        refuse_huge(msgspec.structs.asdict(self))
        make_floats(self, "delta", "epsilon", "metrics_epsilon")
        check_delta(self.delta)
        if self.epsilon is not None:
            check_epsilon(self.epsilon)
        if self.metrics_epsilon is not None:
            BinaryResponse(self.metrics_epsilon)


class _Noise(_Private, frozen=True, kw_only=True):
    """Stand above mechanisms that add noise to a sum.

    noise_multiplier (z): deviation of the noise on one opened sum over the plan's clip. Without, epsilon decides.
    """

    noise_multiplier: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        make_floats(self, "noise_multiplier")
        if self.noise_multiplier is None and self.epsilon is None:
            raise PlanError("dp needs noise_multiplier (how much noise), epsilon (how much may be spent), or both")
        if self.noise_multiplier is not None and not 0 < self.noise_multiplier <= LARGEST_MULTIPLIER:
            raise PlanError(
                f"noise_multiplier is above 0 and at most {LARGEST_MULTIPLIER:g}, not {self.noise_multiplier}; "
                "for a plan without noise leave dp out"
            )

    @property
    def multiplier(self) -> float:
        """Return z, or 0 if it is not known yet."""
        return self.noise_multiplier or 0.0

    def with_noise(self, noise: float) -> Self:
        """Return the same mechanism with this noise multiplier."""
        return msgspec.structs.replace(self, noise_multiplier=noise)

    def with_epsilon(self, epsilon: float) -> Self:
        """Return the same mechanism with its noise yet to be worked out, for this epsilon."""
        return msgspec.structs.replace(self, noise_multiplier=None, epsilon=epsilon)


class _SumNoise(_Noise, frozen=True, kw_only=True):
    """Stand above mechanisms whose sums are private, and not what makes them up.

    relation: neighbouring relation that epsilon is counted under, "zero-out" or "replace-one"; None takes, of those
    that the sampling is known to amplify under and those that it is not, whichever comes to the smaller epsilon.
    """

    relation: Literal["zero-out", "replace-one"] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.relation not in (None, "zero-out", "replace-one"):
            raise PlanError(f'relation is "zero-out", "replace-one" or left out, not {self.relation!r}')


class DistributedGaussian(_SumNoise, frozen=True, kw_only=True, tag_field="name", tag="distributed-gaussian"):
    """Let every participant add its share of discrete Gaussian noise before it masks.

    Shares are sized for the fewest contributions that a sum is opened with, less the corrupt ones, so drop-outs never
    weaken the noise. Trusted: so many participants of each session, to add their share and forget it. Unit: a
    participant; neighbouring relation: `relation`.
    Source: Kairouz, Liu, Steinke, "The Distributed Discrete Gaussian Mechanism for Federated Learning with Secure
    Aggregation", ICML 2021.
    """

    shared: ClassVar[bool] = True


class DistributedSkellam(_SumNoise, frozen=True, kw_only=True, tag_field="name", tag="distributed-skellam"):
    """Let every participant add its share of Skellam noise before it masks.

    As `DistributedGaussian`, but shares add up to just the distribution that is counted, however small they are. The
    price: no sampling is credited, and units of the ring are coarser, because a share has at most 1,448 of them.
    Source: Agarwal, Kairouz, Liu, "The Skellam Mechanism for Differentially Private Federated Learning", NeurIPS 2021.
    """

    shared: ClassVar[bool] = True


class CommitteeGaussian(_SumNoise, frozen=True, kw_only=True, tag_field="name", tag="committee-gaussian"):
    """Let the helpers of protocol `committee` add discrete Gaussian noise to the masks that they take off.

    Every slot adds as much as is counted, because only one slot is certainly honest; with all of them honest, J times
    the variance is there. No participant is needed for it, and whoever leaves takes none along. Trusted: all but
    `helpers.corrupt` of the helpers, to add it and forget it. Unit and relation: as for `DistributedGaussian`.
    Source: as for `CentralGaussian`; noise by helpers from the seeds that they hold is ours.
    """

    seated: ClassVar[bool] = True


class CentralGaussian(_SumNoise, frozen=True, kw_only=True, tag_field="name", tag="central-gaussian"):
    """Let the coordinator add discrete Gaussian noise to the opened sum, before it makes a model of it.

    Trusted: the coordinator, which sees the exact sum. Unit and relation: as for `DistributedGaussian`.
    Source: McMahan et al., "Learning Differentially Private Recurrent Language Models", ICLR 2018; noise in integers:
    Canonne, Kamath, Steinke, "The Discrete Gaussian for Differential Privacy", NeurIPS 2020.
    """

    central: ClassVar[bool] = True


class BandedGaussian(_SumNoise, frozen=True, kw_only=True, tag_field="name", tag="banded-gaussian"):
    """Let the coordinator add noise that is correlated over rounds and partly cancels in the model (DP-FTRL).

    It assumes nothing about sampling, but that whoever runs the rounds keeps everybody to `participations` (k) rounds
    at most, `separation` or more apart. bands: b, at most `separation`; the noise of b - 1 rounds is kept, which takes
    8 bytes an entry each. noise_multiplier: of the independent noise, before it is correlated.
    Trusted: the coordinator, which sees the exact sums. Unit and relation: as for `DistributedGaussian`.
    Source: Kalinin, Lampert, "Banded Square Root Matrix Factorization for Differentially Private Model Training",
    NeurIPS 2024; in integers: `privacy.noise.banded`.
    """

    central: ClassVar[bool] = True

    bands: int
    participations: int
    separation: int

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("bands", "participations", "separation"):
            if not isinstance(getattr(self, name), int):
                raise PlanError(f"{name} is a whole number, not {getattr(self, name)!r}")
        if not 1 <= self.bands <= LARGEST_BANDS:
            raise PlanError(f"bands are 1 to {LARGEST_BANDS}, not {self.bands}")
        if self.participations < 1 or self.separation < 1:
            found = f"{self.participations} participations, {self.separation} apart"
            raise PlanError(f"participations and separation are whole numbers of rounds, at least 1: found {found}")
        if self.participations > 1 and self.separation < self.bands:
            raise PlanError(
                f"rounds of one participant may be {self.separation} apart, and {self.bands} bands need them that far "
                "apart: take fewer bands or a larger separation"
            )


class LocalGaussian(_Noise, frozen=True, kw_only=True, tag_field="name", tag="local-gaussian"):
    """Let every participant add so much discrete Gaussian noise that what it sends is private by itself.

    noise_multiplier: of one contribution's own noise over the clip. epsilon holds for a participant that is in every
    round, whatever the coordinator and all others do: neither masks nor sampling earn any credit. Trusted: nobody
    but one's own device. Neighbouring relation: replace-one, any two updates.
    Source: Canonne, Kamath, Steinke, "The Discrete Gaussian for Differential Privacy", NeurIPS 2020.
    """

    local: ClassVar[bool] = True


class PrivUnit(_Private, frozen=True, kw_only=True, tag_field="name", tag="privunit"):
    """Let every participant send a random direction that leans towards its update.

    report_epsilon: of one report, pure, 2e-6 to 200; without, epsilon decides. Otherwise as `LocalGaussian`. Directions
    are computed in float64, so the guarantee is that of real numbers (`privacy.local.privunit`).
    Source: Bhowmick et al., "Protection Against Reconstruction and Its Applications in Private Federated Learning",
    2018, algorithm 1; Asi, Feldman, Talwar, "Optimal Algorithms for Mean Estimation under Local Differential Privacy",
    ICML 2022.
    """

    local: ClassVar[bool] = True

    report_epsilon: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        make_floats(self, "report_epsilon")
        if self.report_epsilon is None and self.epsilon is None:
            raise PlanError("dp needs report_epsilon (of one report), epsilon (how much may be spent), or both")
        if self.report_epsilon is not None:
            PrivUnitG(self.report_epsilon, 2, 1.0)

    @property
    def noise_multiplier(self) -> float | None:
        """Return 1 / report_epsilon: what stands for the noise where it is worked out and stored."""
        return None if self.report_epsilon is None else 1 / self.report_epsilon

    @property
    def multiplier(self) -> float:
        """Return 0: nothing is added to a sum."""
        return 0.0

    def with_noise(self, noise: float) -> Self:
        """Return the same mechanism with report_epsilon = 1 / noise, in float32: so it survives being inverted."""
        return msgspec.structs.replace(self, report_epsilon=struct.unpack("<f", struct.pack("<f", 1 / noise))[0])

    def with_epsilon(self, epsilon: float) -> Self:
        """Return the same mechanism with its reports yet to be worked out, for this epsilon."""
        return msgspec.structs.replace(self, report_epsilon=None, epsilon=epsilon)


Mechanism = (
    DistributedGaussian
    | DistributedSkellam
    | CommitteeGaussian
    | CentralGaussian
    | BandedGaussian
    | LocalGaussian
    | PrivUnit
)
"""What stands in a plan's `dp`."""


class Algorithm(Settings, frozen=True, kw_only=True):
    """Choose the federated algorithm by name, with its parameters (see `learn.algorithms`)."""

    name: str = "fedavg"
    parameters: dict[str, float] = {}

    def __post_init__(self) -> None:
        refuse_huge(self.parameters)
        make_floats(self, "parameters")

    def build(self) -> LocalAlgorithm:
        """Return the algorithm.

        Raises PlanError if the name or a parameter is unknown.
        """
        if "name" in self.parameters:
            raise PlanError(f"{self.name} has no parameter 'name'")
        return algorithm(self.name, **self.parameters)


class Optimiser(Settings, frozen=True, kw_only=True):
    """Choose the server optimiser by name, with its parameters (see `learn.strategy`)."""

    name: str = "fedavg"
    parameters: dict[str, float] = {}

    def __post_init__(self) -> None:
        refuse_huge(self.parameters)
        make_floats(self, "parameters")

    def build(self) -> Strategy:
        """Return the strategy.

        Raises PlanError if the name or a parameter is unknown.
        """
        if "name" in self.parameters:
            raise PlanError(f"{self.name} has no parameter 'name'")
        return strategy(self.name, **self.parameters)
