"""Plans of every kind: together they have each part that a plan can have."""

from __future__ import annotations

from ridotto.rounds.clipping import AdaptiveClip, Clip
from ridotto.rounds.compression import CountSketch, ErrorFeedback, LowRank, Quantize, Rotate, Sample, Ternary, TopK
from ridotto.rounds.plan import (
    Algorithm,
    BandedGaussian,
    CentralGaussian,
    Committee,
    CommitteeGaussian,
    DistributedGaussian,
    DistributedSkellam,
    Helpers,
    Ideal,
    LocalGaussian,
    Oneshot,
    Optimiser,
    Pairwise,
    Plan,
    PrivUnit,
    Risk,
)
from ridotto.rounds.robustness import BucketedMedian, NormBound, Robust
from vectors.common import member

DELTA = 1e-6
HELPERS = {name: member(name).key.hex() for name in ("h2", "h0", "h4", "h1", "h3")}
IDEAL = (Risk.NO_PROTECTION,)

PLANS: dict[str, Plan] = {
    "defaults": Plan(cohort=10),
    "ideal": Plan(cohort=3, protocol=Ideal(), i_know=IDEAL),
    "ideal, sparse vectors": Plan(
        cohort=10, protocol=Ideal(), compress=(TopK(fraction=0.1), ErrorFeedback()), i_know=IDEAL
    ),
    "ideal, ternary": Plan(cohort=10, protocol=Ideal(), compress=(Ternary(),), i_know=IDEAL),
    "everything of pairwise": Plan(
        cohort=1000,
        minimum=200,
        protocol=Pairwise(corrupt=0.05, drop_out=0.05, graph="sparse"),
        algorithm=Algorithm(name="fedprox", parameters={"mu": 0.01}),
        optimiser=Optimiser(name="fedadam", parameters={"learning_rate": 0.01, "beta1": 0.8}),
        bits=40,
        value_range=2,
        clip=1.5,
        download_bits=8,
        max_examples=500,
        metrics={"loss": 10, "accuracy": 1.0},
        join_s=1,
        train_s=60.5,
        phase_s=20,
        i_know=(Risk.SPARSE_GRAPH,),
    ),
    "shards of pairwise": Plan(cohort=9, minimum=3, protocol=Pairwise(corrupt=0.0, shard_size=4)),
    "small cohort": Plan(cohort=4, minimum=3, i_know=(Risk.SMALL_COHORT,)),
    "oneshot": Plan(cohort=9, protocol=Oneshot(corrupt=0.0, committee=5, pack="4x21")),
    "oneshot, hybrid seals": Plan(cohort=9, protocol=Oneshot(corrupt=0.0, committee=5, seal="hybrid")),
    "oneshot with helpers": Plan(
        cohort=9, protocol=Oneshot(corrupt=0.0, committee=4, helpers=Helpers(corrupt=2, keys=HELPERS), shard_size=5)
    ),
    "committee": Plan(
        cohort=9, protocol=Committee(corrupt=0.0, helpers=Helpers(keys=HELPERS), replicas=2, shard_size=5)
    ),
    "committee gaussian": Plan(
        cohort=10,
        protocol=Committee(corrupt=0.1),
        clip=1.0,
        max_examples=1,
        dp=CommitteeGaussian(noise_multiplier=1.0, delta=DELTA),
    ),
    "clip per layer": Plan(cohort=10, clip=Clip(2.0, per_layer=True)),
    "adaptive clip": Plan(cohort=10, clip=AdaptiveClip(norm=0.5, quantile=0.6, step=0.1, deviation=0.1)),
    "rotated and quantised": Plan(
        cohort=20, max_examples=1, clip=1.0, compress=(Rotate(), Sample(fraction=0.25), Quantize(bits=12))
    ),
    "count sketch": Plan(cohort=20, max_examples=1, compress=(CountSketch(rows=3, columns=64, median=True),)),
    "low rank": Plan(cohort=20, max_examples=1, compress=(LowRank(rank=2),)),
    "distributed gaussian": Plan(
        cohort=10, clip=1.0, max_examples=1, dp=DistributedGaussian(noise_multiplier=1.0, delta=DELTA)
    ),
    "distributed skellam": Plan(
        cohort=10,
        clip=1.0,
        max_examples=1,
        dp=DistributedSkellam(noise_multiplier=1.0, delta=DELTA, epsilon=8, relation="replace-one"),
    ),
    "central gaussian": Plan(
        cohort=10,
        clip=1.0,
        max_examples=1,
        metrics={"loss": 10.0},
        dp=CentralGaussian(noise_multiplier=0.5, delta=DELTA, metrics_epsilon=1),
    ),
    "banded gaussian": Plan(
        cohort=10,
        clip=1.0,
        max_examples=1,
        dp=BandedGaussian(noise_multiplier=1.0, delta=DELTA, bands=4, participations=3, separation=4),
    ),
    "local gaussian": Plan(cohort=10, clip=1.0, max_examples=1, dp=LocalGaussian(noise_multiplier=4.0, delta=DELTA)),
    "priv-unit": Plan(cohort=10, clip=1.0, max_examples=1, dp=PrivUnit(report_epsilon=8.0, delta=DELTA)),
    "norm bound": Plan(cohort=12, max_examples=1, clip=1.0, robust=NormBound(groups=3), i_know=(Risk.SMALL_COHORT,)),
    "bucketed median": Plan(
        cohort=9, minimum=3, protocol=Pairwise(corrupt=0.0), max_examples=1, clip=1.0, robust=BucketedMedian(groups=3)
    ),
    "a rule": Plan(
        cohort=10, protocol=Ideal(), max_examples=1, clip=1.0, robust=Robust("krum", {"attackers": 2}), i_know=IDEAL
    ),
}
