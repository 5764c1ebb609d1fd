"""Workload W1: does masking change what is learned, and what does it cost?

    python bench/w1.py --data mnist.npz

100 clients with 600 handwritten digits each, cut by shards so that most see two classes (McMahan et al. 2017); 10
clients a round, one local epoch of batches of 32, SGD with 0.05; a dense network 784-200-10; 20 rounds. The same
clients in the same rounds train with the same random numbers, once in a bare loop that averages float32 models, once in
`ridotto.simulate` with pairwise masks and once more to see whether the bits are the same.

mnist.npz holds x_train (60000, 28, 28) uint8, y_train, x_test and y_test: LeCun, Cortes and Burges, CC BY-SA 3.0, as
https://storage.googleapis.com/tensorflow/tf-keras-datasets/mnist.npz has it.

Its pixels are normalised as is usual, by the mean and the standard deviation of the training set. Seconds compare best
with one BLAS thread: OPENBLAS_NUM_THREADS=1.
"""

from __future__ import annotations

import argparse
import sys
from statistics import median
from time import perf_counter

import numpy as np

import ridotto
from ridotto.core.rng import insecure_seeded_rng, numpy_generator
from ridotto.simulate.partition import shards

CLIENTS, COHORT, ROUNDS, SEED = 100, 10, 20, 1
MEAN, DEVIATION = 0.1307, 0.3081
"""Of the pixels of the training set, in 0 .. 1."""

TOLERANCE = 0.003
"""How far the final accuracies may be apart."""


def load(path):
    """Read MNIST; return (clients, test), each data set as (x, y)."""
    with np.load(path) as file:
        x_train, x_test = (_normalised(file[name].reshape(-1, 784)) for name in ("x_train", "x_test"))
        y_train, y_test = (file[name].astype(np.int64) for name in ("y_train", "y_test"))
    parts = shards(y_train, CLIENTS, 2, insecure_seeded_rng(SEED))
    return [(x_train[part], y_train[part]) for part in parts], (x_test, y_test)


def _normalised(pixels):
    return (pixels.astype(np.float32) / 255 - np.float32(MEAN)) / np.float32(DEVIATION)


def plain(trainer, clients, schedule, test):
    """Run FedAvg as a loop without any framework; return (accuracy, seconds of each round)."""
    rng, model, seconds = insecure_seeded_rng(SEED), trainer.initial(), []
    for number, cohort in enumerate(schedule, 1):
        started = perf_counter()
        total, examples = np.zeros_like(model), 0
        for client in cohort:
            result = trainer.train(model, clients[client], rng.child("train", number, client))
            total += result.vector * np.float32(result.examples)
            examples += result.examples
        model = total / np.float32(examples)
        seconds.append(perf_counter() - started)
    return trainer.evaluate(model, test)["accuracy"], seconds


def simulated(trainer, clients, schedule, test, protocol):
    """Run the same with `ridotto.simulate`; return (accuracy, seconds of each round, digest of the model)."""
    risks = (ridotto.Risk.NO_PROTECTION,) if protocol == ridotto.Ideal() else ()
    plan = ridotto.Plan(cohort=COHORT, max_examples=600, protocol=protocol, i_know=risks)
    result = ridotto.simulate(
        trainer, clients, plan, rounds=ROUNDS, seed=SEED, schedule=schedule, test=test, test_every=ROUNDS
    )
    seconds = [row["seconds_train"] + row["seconds_sum"] for row in result.table]
    return result.table["test_accuracy"][-1], seconds, result.digest


def main():
    parser = argparse.ArgumentParser(description="Compare masked rounds with a plain loop on workload W1.")
    parser.add_argument("--data", required=True, help="path of mnist.npz")
    clients, test = load(parser.parse_args().data)
    trainer = ridotto.NumpyTrainer((784, 200, 10), seed=SEED, epochs=1, batch_size=32, learning_rate=0.05)
    generator = numpy_generator(insecure_seeded_rng(SEED).child("schedule"))
    schedule = [sorted(map(int, generator.choice(CLIENTS, COHORT, replace=False))) for _ in range(ROUNDS)]

    floor, floor_seconds = plain(trainer, clients, schedule, test)
    ideal, ideal_seconds, ideal_digest = simulated(trainer, clients, schedule, test, ridotto.Ideal())
    masked, masked_seconds, digest = simulated(trainer, clients, schedule, test, ridotto.Pairwise())
    _, _, again = simulated(trainer, clients, schedule, test, ridotto.Pairwise())

    print(f"{'':24}{'accuracy':>10}{'ms a round':>12}{'ratio':>8}")
    for name, accuracy, seconds in (
        ("plain loop", floor, floor_seconds),
        ("simulate, ideal", ideal, ideal_seconds),
        ("simulate, pairwise", masked, masked_seconds),
    ):
        ratio = median(seconds) / median(floor_seconds)
        print(f"{name:24}{accuracy:10.4f}{median(seconds) * 1e3:12.1f}{ratio:8.2f}")
    print(f"same bits twice: {'yes' if digest == again else 'NO'}")
    print(f"same bits as ideal: {'yes' if digest == ideal_digest else 'NO'}")
    close = abs(masked - floor) <= TOLERANCE
    print(f"accuracies within {TOLERANCE}: {'yes' if close else 'NO'}")
    sys.exit(0 if close and digest == again == ideal_digest else 1)


if __name__ == "__main__":
    main()
