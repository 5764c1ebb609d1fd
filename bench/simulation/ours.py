"""Run one workload with `ridotto.simulate` in this process and print what it measured as JSON.

python -m bench.simulation.ours w1-mlp --engine pool --workers 2 --data DIR
"""

from __future__ import annotations

import argparse
import json
import sys
from statistics import median
from time import perf_counter, process_time
from typing import Any

import numpy as np

import ridotto
from bench.simulation import workloads
from bench.simulation.process import cpu_seconds
from ridotto.core.rng import insecure_seeded_rng, numpy_generator


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.simulation.ours", description=__doc__)
    parser.add_argument("workload")
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--workers", type=int)
    parser.add_argument("--batch", type=int)
    parser.add_argument("--secure-sum", default="modelled", choices=("modelled", "machines"))
    parser.add_argument("--protocol", default="ideal", choices=("ideal", "pairwise"))
    parser.add_argument("--rounds", type=int, help="other than the workload's own number")
    parser.add_argument("--data", required=True, help="mnist.npz or its folder")
    print(json.dumps(measure(parser.parse_args())))
    return 0


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    task = workloads.workload(arguments.workload, arguments.rounds)
    data = workloads.load(arguments.data, task)
    trainer = make_trainer(task)
    plan = make_plan(task, arguments.protocol)
    marks: list[tuple[float, float]] = []
    used, started = cpu_seconds(), perf_counter()
    result = ridotto.simulate(
        trainer,
        make_clients(data, task),
        plan,
        rounds=task.rounds,
        seed=workloads.SEED,
        schedule=None if task.cohort == task.clients else task.schedule(),
        engine=arguments.engine,
        workers=arguments.workers,
        batch=arguments.batch,
        secure_sum=arguments.secure_sum,
        on_round=lambda row: marks.append((perf_counter(), process_time())),
        progress=False,
    )
    used = cpu_seconds() - used
    wall, cpu = (np.diff([mark[clock] for mark in marks]).tolist() for clock in (0, 1))
    first = marks[0][0] - started
    return {
        "round": median(wall or [first]),
        "parent_cpu": median(cpu or [used]),
        "all_cpu": used / task.rounds,
        "start": max(0.0, first - median(wall)) if wall else 0.0,
        "accuracy": trainer.evaluate(result.vector, data.test)["accuracy"],
        "digest": result.digest,
        "engine": result.engine,
    }


def make_trainer(task: workloads.Workload) -> Any:
    """Return the trainer of a workload, sure that it does what the floors do."""
    settings: dict[str, Any] = {"epochs": 1, "batch_size": task.batch_size, "learning_rate": task.learning_rate}
    if task.sizes is None:
        from bench.simulation.models import cnn

        return ridotto.TorchTrainer(cnn(), **settings)
    trainer = ridotto.NumpyTrainer(task.sizes, seed=workloads.SEED, **settings)
    if not np.array_equal(trainer.initial(), task.initial()):
        raise SystemExit("workloads.initial no longer gives the weights that NumpyTrainer starts from")
    rng = insecure_seeded_rng(workloads.SEED).child("train", 1, 2)
    if not np.array_equal(numpy_generator(rng).permutation(7), workloads.batch_order(1, 2, 7)):
        raise SystemExit("workloads.batch_order no longer draws what a trainer draws")
    return trainer


def make_plan(task: workloads.Workload, protocol: str) -> Any:
    if protocol == "pairwise":
        return ridotto.Plan(cohort=task.cohort, max_examples=task.examples)
    risks = (ridotto.Risk.NO_PROTECTION,)
    return ridotto.Plan(cohort=task.cohort, max_examples=task.examples, protocol=ridotto.Ideal(), i_know=risks)


def make_clients(data: workloads.Data, task: workloads.Workload) -> Any:
    """Return the clients as ranges of the shared arrays."""
    starts = workloads.Parts(data, task).start(np.arange(task.clients))
    return ridotto.ClientData.ranges((data.x, data.y), starts, starts + task.examples)


if __name__ == "__main__":
    sys.exit(main())
