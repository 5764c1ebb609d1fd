"""Clips, compression, noise and robust rules together: the modelled sum has the bits of the real protocol."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import ridotto
from ridotto import (
    AdaptiveClip,
    BucketedMedian,
    CentralGaussian,
    Clip,
    CountSketch,
    DistributedGaussian,
    ErrorFeedback,
    Ideal,
    LowRank,
    NormBound,
    NumpyTrainer,
    Plan,
    Quantize,
    Risk,
    Robust,
    Rotate,
    Sample,
    Ternary,
    TopK,
)
from ridotto.errors import ConfigError
from ridotto.simulate.faults import DropOut, RandomDropOuts

NOISE = DistributedGaussian(noise_multiplier=0.5, delta=1e-5)
CENTRAL = CentralGaussian(noise_multiplier=0.5, delta=1e-5)
IDEAL: dict[str, Any] = {"protocol": Ideal(), "i_know": (Risk.NO_PROTECTION,)}
SMALL: dict[str, Any] = {"i_know": (Risk.SMALL_COHORT,)}
ONE: dict[str, Any] = {"max_examples": 1}

PLANS: dict[str, dict[str, Any]] = {
    "everything": {"clip": AdaptiveClip(norm=1.0), "dp": NOISE, **ONE,
                   "compress": [Rotate(), Sample(0.5), Quantize(bits=10)]},
    "quarter": {"compress": [Rotate(), Sample(0.25)]},
    "adaptive": {"clip": AdaptiveClip()},
    "layers": {"clip": Clip(0.5, per_layer=True)},
    "layers with noise": {"clip": Clip(0.5, per_layer=True), "dp": NOISE, **ONE},
    "sketch": {"compress": [CountSketch(rows=2, columns=50)]},
    "low rank": {"compress": [LowRank(2)], "clip": 1.0, "dp": NOISE, **ONE},
    "feedback": {"compress": [LowRank(2, scaled=False), ErrorFeedback()]},
    "top-k": {"compress": [TopK(0.1), ErrorFeedback()], **IDEAL},
    "ternary": {"compress": [Ternary()], **IDEAL},
    "median of groups": {"robust": BucketedMedian(3), "clip": 1.0, **ONE, **SMALL},
    "norm bound": {"robust": NormBound(3), "clip": 1.0, "dp": NOISE, **ONE, **SMALL},
    "central groups": {"robust": NormBound(3), "clip": AdaptiveClip(norm=1.0, deviation=0.2), "dp": CENTRAL,
                       **ONE, **SMALL},
    "krum": {"robust": Robust("krum", {"attackers": 2}), **ONE, **IDEAL},
}  # fmt: skip


def clients(count: int = 15) -> list[tuple[np.ndarray, np.ndarray]]:
    generator = np.random.default_rng(3)
    labels = [generator.integers(3, size=8 + place % 3) for place in range(count)]
    return [(np.eye(3, 8, dtype="f4")[y] + generator.normal(0, 0.3, (len(y), 8)).astype("f4"), y) for y in labels]


def learn(settings: dict[str, Any], rounds: int = 3, **options: Any) -> ridotto.Result:
    trainer = NumpyTrainer((8, 12, 3), seed=1, batch_size=4, learning_rate=0.2)
    defaults = {"seed": 4, "progress": False, "secure_sum": "modelled", "engine": "inline"}
    return ridotto.simulate(trainer, clients(), Plan(cohort=12, **settings), rounds=rounds, **(defaults | options))


def told(result: ridotto.Result) -> list[tuple[Any, ...]]:
    columns = ("participants", "excluded", "clip", "clipped", "epsilon", "saturated", "bytes_up", "lost", "failure")
    rows = [dict(line, lost=sorted(line["lost"].split(", "))) for line in result.table.rows]
    return [tuple(line[column] for column in columns) for line in rows]


@pytest.mark.parametrize("name", PLANS)
def test_the_modelled_sum_has_the_bits_of_the_machines(name: str) -> None:
    modelled, real = (learn(PLANS[name], secure_sum=way) for way in ("modelled", "machines"))
    assert [record.model for record in modelled.records] == [record.model for record in real.records]
    assert told(modelled) == told(real)
    assert not any(line["failure"] for line in real.table.rows)


@pytest.mark.parametrize("name", ["everything", "adaptive", "feedback", "median of groups", "krum"])
@pytest.mark.parametrize("engine", ["vectorised", "pool"])
def test_engines_agree(name: str, engine: str) -> None:
    options = {"batch": 4} if engine == "vectorised" else {"workers": 2}
    assert learn(PLANS[name], engine=engine, **options).digest == learn(PLANS[name]).digest


@pytest.mark.parametrize("name", ["everything", "adaptive", "feedback", "central groups"])
def test_goes_on_where_it_stopped(name: str, tmp_path: Any) -> None:
    whole = learn(PLANS[name], rounds=4)
    learn(PLANS[name], rounds=2, save=tmp_path)
    assert learn(PLANS[name], rounds=4, resume=tmp_path).digest == whole.digest


@pytest.mark.parametrize("name", ["everything", "median of groups", "central groups", "krum"])
def test_drop_outs_are_the_same_in_both(name: str) -> None:
    faults = [RandomDropOuts(0.1, before="Plain" if name == "krum" else "Masked"), DropOut(1, "client-03", "Announce")]
    modelled, real = (learn(PLANS[name], secure_sum=way, faults=faults) for way in ("modelled", "machines"))
    assert told(modelled) == told(real)
    assert modelled.digest == real.digest


def test_the_clip_follows_the_updates() -> None:
    clips = [line["clip"] for line in learn({"clip": AdaptiveClip(norm=10.0, step=0.5)}, rounds=8).table.rows]
    assert clips[0] == 10.0
    # Everybody is within 10, so each round takes exp(-0.25) of it.
    assert clips[1] == pytest.approx(10.0 * np.exp(-0.25))
    assert clips[-1] < 3


def test_history_says_how_small_uploads_are() -> None:
    whole, quarter = (learn(settings).table.rows[0] for settings in ({**IDEAL}, {**IDEAL, "compress": [Sample(0.25)]}))
    assert quarter["compression"] > 2.2 * whole["compression"]


def test_a_stateful_simulation_of_devices_refuses_what_belongs_to_one_round() -> None:
    options = {"devices": ridotto.fleets.uniform(), "pace": ridotto.pace.Buffered(size=10, concurrency=12)}
    with pytest.raises(ConfigError, match="an asynchronous simulation mixes rounds"):
        learn({"compress": [Sample(0.5)], **IDEAL}, **options)


class Liar(NumpyTrainer):
    """A trainer whose first clients send minus ten times what they learnt, as long as nobody clips them."""

    def train(self, parameters: Any, data: Any, rng: Any, *rest: Any) -> Any:
        result = super().train(parameters, data, rng, *rest)
        if len(data[1]) == 8:
            result.vector[...] = parameters - 10 * (result.vector - parameters)
        return result


def test_lies_that_are_clipped_pass_the_check_and_a_median_stands_them() -> None:
    trainer = Liar((8, 12, 3), seed=1, batch_size=4, learning_rate=0.2)
    options = {"seed": 4, "progress": False, "secure_sum": "modelled", "engine": "inline", "test": clients()[0]}
    robust = Plan(cohort=12, robust=Robust("median"), clip=0.5, max_examples=1, **IDEAL)
    naive = Plan(cohort=12, clip=0.5, max_examples=1, **IDEAL)
    found = [ridotto.simulate(trainer, clients(), plan, rounds=12, **options) for plan in (robust, naive)]
    assert found[0].table.rows[-1]["test_accuracy"] > found[1].table.rows[-1]["test_accuracy"] + 0.2


def test_fltrust_trains_on_data_of_the_servers_own() -> None:
    trainer = Liar((8, 12, 3), seed=1, batch_size=4, learning_rate=0.2)
    plan = Plan(cohort=12, robust=Robust("fltrust"), max_examples=1, **IDEAL)
    options = {"seed": 4, "progress": False, "engine": "inline", "test": clients()[0]}
    with pytest.raises(ConfigError, match="it needs data"):
        ridotto.simulate(trainer, clients(), plan, rounds=2, **options)
    results = [
        ridotto.simulate(trainer, clients(), plan, rounds=12, root=clients()[1], secure_sum=way, **options)
        for way in ("modelled", "machines")
    ]
    assert results[0].digest == results[1].digest
    assert results[0].table.rows[-1]["test_accuracy"] > 0.7
