"""Train MNIST with everything in one plan: `python -m bench.composition --data DIR [--seeds N] [--out DIR]`.

100 clients, two shards of the sorted labels each, all in every round; one hidden layer; masks, and per plan an adaptive
clip, noise, compression. Prints a table and, with --out, writes table.json and curves.png.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import ridotto
from bench.machine import describe
from bench.simulation.workloads import Parts, load, workload
from ridotto import AdaptiveClip, DistributedGaussian, NumpyTrainer, Plan, Quantize, Rotate, Sample
from ridotto.core.packing import packed_size
from ridotto.rounds.pipeline import Pipeline

SIZES = (784, 64, 10)
EPSILON, DELTA = 8.0, 1e-3
CLIP = AdaptiveClip(norm=0.7)
NOISE = DistributedGaussian(epsilon=EPSILON, delta=DELTA)


def small(bits: int) -> list[Any]:
    return [Rotate(), Sample(0.25), Quantize(bits=bits)]


PLANS: dict[str, dict[str, Any]] = {
    "float32 sums": {},
    "clip": {"clip": CLIP},
    "clip, 25 %, 10 bits": {"clip": CLIP, "compress": small(10)},
    "clip, 25 %, 8 bits": {"clip": CLIP, "compress": small(8)},
    "dp": {"clip": CLIP, "dp": NOISE},
    "dp, 25 %, 10 bits": {"clip": CLIP, "dp": NOISE, "compress": small(10)},
    "dp, 25 %, 8 bits": {"clip": CLIP, "dp": NOISE, "compress": small(8)},
}
"""Name -> what is in the plan beside masks. Sums without a clip are of 32 bits, and lose nothing that shows."""


@dataclass
class Row:
    """vector: bytes of a masked vector. upload: of everything that a participant sends in a round. curves: test
    accuracy by round, one for each seed."""

    name: str
    accuracy: float
    epsilon: float
    noise: float
    clip: float | None
    vector: int
    upload: int
    float32: int
    curves: list[list[float]]
    seconds: float


def measure(name: str, settings: dict[str, Any], clients: list[Any], test: Any, rounds: int, seeds: int) -> Row:
    begin, results = time.perf_counter(), []
    for seed in range(1, seeds + 1):
        trainer = NumpyTrainer(SIZES, seed=seed, learning_rate=0.05, batch_size=32, epochs=1)
        plan = Plan(cohort=100, minimum=90, max_examples=1, **settings)
        options = {"secure_sum": "modelled", "engine": "inline", "progress": False, "test": test}
        results.append(ridotto.simulate(trainer, clients, plan, rounds=rounds, seed=seed, **options))
    curves = [[float(line["test_accuracy"]) for line in result.table.rows] for result in results]
    plan, last = results[0].plan, results[0].table.rows[-1]
    pipeline = Pipeline(plan, trainer.layout)
    return Row(
        name=name,
        accuracy=median(curve[-1] for curve in curves),
        epsilon=last["epsilon"],
        noise=plan.multiplier,
        clip=last["clip"],
        vector=packed_size(pipeline.length, plan.bits),
        upload=last["bytes_up"],
        float32=4 * trainer.layout.length,
        curves=curves,
        seconds=time.perf_counter() - begin,
    )


COLUMNS = "{:22} {:>8} {:>8} {:>6} {:>7} {:>16} {:>16} {:>7}"


def line(row: Row) -> str:
    return COLUMNS.format(
        row.name,
        f"{row.accuracy:.4f}",
        "inf" if row.epsilon == float("inf") else f"{row.epsilon:.3f}",
        f"{row.noise:.2f}" if row.noise else "",
        "" if row.clip is None else f"{row.clip:.3f}",
        f"{row.vector:,} 1/{row.float32 / row.vector:.1f}",
        f"{row.upload:,} 1/{row.float32 / row.upload:.1f}",
        f"{row.seconds:.0f} s",
    )


def draw(rows: list[Row], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 4.5), layout="constrained")
    for row in rows:
        curve = [median(values) for values in zip(*row.curves, strict=True)]
        style = "--" if row.epsilon < float("inf") else "-"
        axes.plot(range(1, len(curve) + 1), curve, style, label=row.name)
    axes.set(xlabel="round", ylabel="test accuracy", ylim=(0.3, 1.0))
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right", fontsize=8)
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.composition", description=__doc__)
    parser.add_argument("--data", required=True, help="mnist.npz or its folder")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--seeds", type=int, default=1, help="the median is shown")
    parser.add_argument("--only", default="", help="plans whose name begins with one of these, by comma")
    parser.add_argument("--out", type=Path, help="folder for table.json and curves.png")
    arguments = parser.parse_args()
    task = workload("w1-mlp")
    data = load(arguments.data, task)
    parts = Parts(data, task)
    clients = [parts[client] for client in range(task.clients)]
    wanted = tuple(arguments.only.split(",")) if arguments.only else ("",)
    print(f"{describe()}; load {os.getloadavg()[0]:.1f}; {arguments.seeds} seeds, {arguments.rounds} rounds")
    print(COLUMNS.format("plan, with masks", "accuracy", "epsilon", "z", "clip", "vector", "upload", ""), flush=True)
    rows = []
    for name, settings in PLANS.items():
        if name.startswith(wanted):
            rows.append(measure(name, settings, clients, data.test, arguments.rounds, arguments.seeds))
            print(line(rows[-1]), flush=True)
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
        found = {"machine": describe(), "delta": DELTA, "rows": [asdict(row) for row in rows]}
        (arguments.out / "table.json").write_text(json.dumps(found, indent=1), encoding="utf-8")
        draw(rows, arguments.out / "curves.png")


if __name__ == "__main__":
    main()
