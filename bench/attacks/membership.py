"""Attack 2: tell from the final model whether a participant was in the training.

A participant is in or out with everything it has: the unit of ridotto's differential privacy. Many models are trained,
each on a random half of 200 participants with 5 digits each, everybody in every round. The attacker sees the final
model and the participant's own digits, and knows everything else. Two attacks:

loss        a member's loss is small (Yeom et al.)
LiRA        the loss is compared with that of other models, half of which had this participant (Carlini et al.), leaving
            out the model under attack: Gaussians for in and out, the likelihood ratio as the score

Both numbers are over all participants of all models; the lower bound on epsilon takes a threshold that was chosen on
one half of the models and rates from the other. Its trials are several participants of one model, which are not quite
independent of each other: `audit` has a bound without that flaw.

Source: Yeom, Giacomelli, Fredrikson, Jha, "Privacy Risk in Machine Learning: Analyzing the Connection to Overfitting",
CSF 2018, adversary 2; Carlini, Chien, Nasr, Song, Terzis, Tramer, "Membership Inference Attacks From First
Principles", S&P 2022, algorithm 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import ridotto
from bench.attacks import digits
from bench.attacks.bounds import rates_bound
from bench.attacks.table import Settings, Table, Value, percent
from ridotto.core.rng import insecure_seeded_rng, numpy_generator

PARTICIPANTS, EXAMPLES = 200, 5
ROUNDS, CLIP, DELTA = 40, 1.0, 1e-5
LOW = 0.01
"""The false positive rate at which true positives are told: an attack that is right about few, and sure of them."""

SOURCE = "Yeom et al., CSF 2018; Carlini et al., S&P 2022"


@dataclass(frozen=True)
class Defence:
    name: str
    clip: float | None = CLIP
    epsilon: float | None = None

    def plan(self, cohort: int) -> ridotto.Plan:
        epsilon = self.epsilon
        dp = None if epsilon is None else ridotto.CentralGaussian(epsilon=epsilon, delta=DELTA)
        risks = (ridotto.Risk.NO_PROTECTION,)  # who sees the sums is of no account here: the model is
        return ridotto.Plan(
            cohort=cohort, protocol=ridotto.Ideal(), clip=self.clip, dp=dp, max_examples=1, i_know=risks
        )


DEFENCES = (
    Defence("none", clip=None),
    Defence("clip"),
    Defence("epsilon 100", epsilon=100.0),
    Defence("epsilon 30", epsilon=30.0),
    Defence("epsilon 8", epsilon=8.0),
    Defence("epsilon 2", epsilon=2.0),
)


@dataclass(frozen=True)
class Models:
    """losses: of each participant's digits on each model, shape (models, participants). members: who was in it."""

    losses: np.ndarray
    members: np.ndarray
    accuracy: float
    epsilon: float


def run(settings: Settings) -> list[Table]:
    data = digits.shuffled(settings.data)
    count = PARTICIPANTS * EXAMPLES
    people = [
        (data.x[begin : begin + EXAMPLES], data.y[begin : begin + EXAMPLES]) for begin in range(0, count, EXAMPLES)
    ]
    trainer = ridotto.NumpyTrainer(
        (digits.FEATURES, digits.CLASSES), seed=settings.seed, epochs=5, batch_size=EXAMPLES, learning_rate=0.1
    )
    models = 4 if settings.quick else 24
    rows: list[tuple[Value, ...]] = []
    curves = {}
    for defence in DEFENCES:
        found = trained(trainer, people, data.test, defence, models, settings.seed)
        scores = {"loss": -found.losses, "LiRA": likelihood_ratios(found)}
        cells: list[Value] = [defence.name, percent(found.accuracy)]
        for name, score in scores.items():
            false, true = curve(score, found.members)
            curves[defence.name, name] = false, true
            cells += [float(np.trapezoid(true, false)), percent(float(np.interp(LOW, false, true)))]
        cells += [max(bound(score, found.members) for score in scores.values()), found.epsilon]
        rows.append(tuple(cells))
        print(f"  {defence.name}", flush=True)
    columns = (
        *("defence", "accuracy", "loss: AUC", "loss: TPR at 1 % FPR", "LiRA: AUC", "LiRA: TPR at 1 % FPR"),
        *("epsilon at least", "epsilon claimed"),
    )
    notes = (
        f"{models} models of {trainer.layout.length:,} parameters for each line; {PARTICIPANTS // 2} of {PARTICIPANTS} "
        f"participants with {EXAMPLES} digits each in every one, {ROUNDS} rounds, clip {CLIP:g}, noise of the "
        f"coordinator, delta {DELTA:g}. Guessing has an AUC of 0.5 and a TPR of 1 %. Bound: the larger of the two "
        "attacks', each at 97.5 % confidence.",
    )
    return [Table("membership", "Membership inference", SOURCE, columns, tuple(rows), notes, {"curves": curves})]


def trained(
    trainer: ridotto.NumpyTrainer,
    people: Sequence[Any],
    test: tuple[np.ndarray, np.ndarray],
    defence: Defence,
    models: int,
    seed: int,
) -> Models:
    """Train models on random halves, and evaluate each on everybody's own digits."""
    cohort = len(people) // 2
    members, losses = np.zeros((models, len(people)), bool), np.zeros((models, len(people)))
    accuracies, epsilon = [], float("inf")
    for model in range(models):
        generator = numpy_generator(insecure_seeded_rng(seed).child("membership", model))
        chosen = np.sort(generator.choice(len(people), cohort, replace=False))
        members[model, chosen] = True
        result = ridotto.simulate(
            trainer,
            [people[place] for place in chosen],
            defence.plan(cohort),
            rounds=ROUNDS,
            seed=seed + model,
            engine="vectorised",
            batch=cohort,
            secure_sum="modelled",
            progress=False,
        )
        losses[model] = [trainer.evaluate(result.vector, own)["loss"] for own in people]
        accuracies.append(trainer.evaluate(result.vector, test)["accuracy"])
        spent = None if result.privacy is None else result.privacy.epsilon
        epsilon = float("inf") if spent is None else spent
    return Models(losses, members, float(np.mean(accuracies)), epsilon)


def likelihood_ratios(found: Models) -> np.ndarray:
    """Return log p(loss | in) - log p(loss | out), from the other models, shape (models, participants).

    One variance for in and one for out, over all participants, since few models know each of them (section VI-C).
    """
    # Logarithms of losses are nearer to Gaussian than losses are.
    values, models = np.log(found.losses + 1e-9), len(found.losses)
    scores = np.zeros_like(values)
    for model in range(models):
        others = np.arange(models) != model
        terms = []
        for inside in (True, False):
            which = found.members[others] == inside
            known, count = np.where(which, values[others], 0.0), np.maximum(which.sum(axis=0), 1)
            mean = known.sum(axis=0) / count
            spread = (np.where(which, values[others] - mean, 0.0) ** 2).sum() / max(1, which.sum() - which.shape[1])
            terms.append(-((values[model] - mean) ** 2) / (2 * spread) - 0.5 * np.log(spread))
        scores[model] = terms[0] - terms[1]
    return scores


def curve(scores: np.ndarray, members: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return false and true positive rates for every threshold, ascending."""
    truth = members.ravel()[np.argsort(-scores, axis=None)]
    true, false = np.cumsum(truth) / truth.sum(), np.cumsum(~truth) / (~truth).sum()
    return np.r_[0, false], np.r_[0, true]


def bound(scores: np.ndarray, members: np.ndarray, confidence: float = 0.975) -> float:
    """Return a lower bound on epsilon: the threshold from the first half of the models, rates from the second."""
    half = len(scores) // 2
    best, chosen = -1.0, 0.0
    for threshold in np.quantile(scores[:half], np.linspace(0.005, 0.995, 100)):
        found = at(scores[:half], members[:half], float(threshold), confidence)
        if found > best:
            best, chosen = found, float(threshold)
    return at(scores[half:], members[half:], chosen, confidence)


def at(scores: np.ndarray, members: np.ndarray, threshold: float, confidence: float) -> float:
    positive = scores > threshold
    true, false = positive[members], positive[~members]
    return rates_bound((int(true.sum()), true.size), (int(false.sum()), false.size), DELTA, confidence)
