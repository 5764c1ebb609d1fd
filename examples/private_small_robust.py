"""One plan with masks, noise, an adaptive clip and small uploads; and one that stands participants who lie.

    python examples/private_small_robust.py [rounds]

Sixty clients have a few of the handwritten digits each. Needs the extras "sklearn" (the data) and "dp" (accounting).
"""

import sys

import numpy as np

import ridotto

NOISE = ridotto.DistributedGaussian(epsilon=8.0, delta=1e-3)  # how much noise that takes is worked out
SMALL = [ridotto.Rotate(), ridotto.Sample(0.5), ridotto.Quantize(bits=10)]
PLANS = {
    "masks": {},
    "masks, small": {"clip": ridotto.AdaptiveClip(norm=0.5), "compress": SMALL},
    "masks, noise": {"clip": ridotto.AdaptiveClip(norm=0.5), "dp": NOISE},
    "masks, noise, small": {"clip": ridotto.AdaptiveClip(norm=0.5), "dp": NOISE, "compress": SMALL},
}


class Liar(ridotto.NumpyTrainer):
    """Train honestly for most; clients that were given 21 examples send twenty times the opposite."""

    def train(self, parameters, data, rng, *rest):
        result = super().train(parameters, data, rng, *rest)
        if len(data[1]) == 21:
            result.vector[...] = parameters - 20 * (result.vector - parameters)
        return result


def learn(plan, rounds, trainer=ridotto.NumpyTrainer, liars=0):
    x, y = ridotto.digits()
    clients = [(x[start : start + 25], y[start : start + 25]) for start in range(0, 1500, 25)]
    clients[:liars] = [(x_own[:21], y_own[:21]) for x_own, y_own in clients[:liars]]
    model = trainer((64, 32, 10), seed=1, epochs=3, batch_size=8, learning_rate=0.1)
    settings = {"rounds": rounds, "seed": 1, "test": (x[1500:], y[1500:]), "progress": False}
    # One client at a time, because only `train` knows how to lie; and the protocol's costs are computed, not run.
    return ridotto.simulate(model, clients, plan, engine="inline", secure_sum="modelled", **settings)


def main():
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 25
    for name, settings in PLANS.items():
        last = learn(ridotto.Plan(cohort=60, max_examples=1, **settings), rounds).table.rows[-1]
        clip = "" if last["clip"] is None else f", clip now {last['clip']:.3f}"
        spent = "" if np.isinf(last["epsilon"]) else f", epsilon {last['epsilon']:.2f}"
        print(f"{name:20} accuracy {last['test_accuracy']:.3f}, {last['bytes_up']:,} bytes up{clip}{spent}")

    # Groups of three hide few, and the plan must say that it knows.
    robust = {"robust": ridotto.BucketedMedian(groups=20), "minimum": 2, "i_know": ("small-cohort",)}
    lies = {"mean": {}, "clipped mean": {"clip": 0.3}, "median of 20 groups": {"clip": 0.3, **robust}}
    for name, settings in lies.items():
        plan = ridotto.Plan(cohort=60, max_examples=1, **settings)
        last = learn(plan, rounds, Liar, liars=6).table.rows[-1]
        print(f"six liars, {name:20} accuracy {last['test_accuracy']:.3f}")


if __name__ == "__main__":
    main()
