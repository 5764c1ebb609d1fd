"""Attack 1: get participants' images back from what the coordinator sees of one round.

Each participant takes one step of SGD over its images, on a 784-200-10 network, and its update goes through the real
pipeline. The coordinator sees one update, one masked vector, or a sum, and tries to see images.

An image counts as recovered if a candidate's correlation with it, pixel by pixel, is at least 0.9. The line `guess`
says what somebody reaches who saw no update at all, and has as many other people's images to offer.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

import ridotto
from bench.attacks import digits, gradients
from bench.attacks.table import Settings, Table, Value, percent
from bench.simulation.workloads import Data
from ridotto.core.fixedpoint import container
from ridotto.core.rng import SEED_BYTES, SecretRng, insecure_seeded_rng
from ridotto.crypto.prg import Mask, add_masks
from ridotto.privacy.noise.words import Words
from ridotto.rounds.dice import SeededDice
from ridotto.rounds.pipeline import Pipeline

HIDDEN, RECOVERED = 200, 0.9
LEARNING_RATE = 0.1
CLIP = 0.1
"""About a quarter of what one step moves the model by, so that everybody's update is clipped."""

SOURCE = "Phong et al., ATIS 2017; Zhu et al., NeurIPS 2019; Geiping et al., NeurIPS 2020; Fowl et al., ICLR 2022"

GUESS = "guess: other people's images"


@dataclass(frozen=True)
class Defence:
    """members: in the sum that the coordinator sees. masked: it sees the vector of one of them before the sum."""

    name: str
    members: int = 1
    clip: float | None = CLIP
    noise: float | None = None
    masked: bool = False

    def plan(self) -> ridotto.Plan:
        noise = self.noise
        dp = None if noise is None else ridotto.DistributedGaussian(noise_multiplier=noise, delta=1e-5)
        risks = (ridotto.Risk.NO_PROTECTION,)  # sums are made here; masks that cancel would change nothing
        return ridotto.Plan(
            cohort=self.members,
            minimum=self.members,
            protocol=ridotto.Ideal(),
            clip=self.clip,
            dp=dp,
            max_examples=1,
            i_know=risks,
        )


DEFENCES = (
    Defence("none: one update", clip=None),
    Defence("clip: one update"),
    Defence("masks: one vector", masked=True),
    Defence("masks: sum of 10", 10, clip=None),
    Defence("masks: sum of 50", 50, clip=None),
    Defence("masks, noise z = 0.01: sum of 10", 10, noise=0.01),
    Defence("masks, noise z = 1: sum of 10", 10, noise=1.0),
    Defence("masks, noise z = 1: sum of 50", 50, noise=1.0),
)


@dataclass(frozen=True)
class Attack:
    """images: of each participant. crafted: the model that is handed out. optimised: match gradients."""

    name: str
    images: int
    crafted: bool = False
    optimised: bool = False


ATTACKS = (
    Attack("1 image each: ratios", 1),
    Attack("matched", 1, optimised=True),
    Attack("crafted model", 1, crafted=True),
    Attack("8 images each: ratios", 8),
    Attack("crafted model, 8", 8, crafted=True),
)


@dataclass(frozen=True)
class Seen:
    """best: the largest correlation of a candidate with each true image. images, found: both, shape (n, 784)."""

    best: np.ndarray
    images: np.ndarray = field(repr=False)
    found: np.ndarray = field(repr=False)


def run(settings: Settings) -> list[Table]:
    data = digits.shuffled(settings.data)
    rows: list[tuple[Value, ...]] = [(GUESS, *(percent(chance(data, attack)) for attack in ATTACKS))]
    shown = {}
    for defence in DEFENCES:
        cells: list[Value] = [defence.name]
        for attack in ATTACKS:
            seen = attacked(settings, data, defence, attack)
            cells.append(percent(float(np.mean(seen.best >= RECOVERED))))
            shown[defence.name, attack.name] = seen
        rows.append(tuple(cells))
        print(f"  {defence.name}", flush=True)
    columns = ("what the coordinator sees", *(attack.name for attack in ATTACKS))
    notes = (
        f"Images recovered: correlation of at least {RECOVERED}. One step of SGD on 784-{HIDDEN}-10. Clip {CLIP}, "
        "noise in shares. Labels are known to `matched`.",
    )
    return [Table("inversion", "Gradient inversion", SOURCE, columns, tuple(rows), notes, {"seen": shown})]


def attacked(settings: Settings, data: Data, defence: Defence, attack: Attack) -> Seen:
    """Run one attack on a few sums, and look for every image that is behind them."""
    few, many = (5, 20) if attack.optimised else (20, 100)
    sums = max(2, (few if settings.quick else many) // defence.members)
    rng = insecure_seeded_rng(settings.seed).child("inversion", defence.name, attack.name)
    trainer = ridotto.NumpyTrainer(
        (digits.FEATURES, HIDDEN, digits.CLASSES), seed=settings.seed, batch_size=64, learning_rate=LEARNING_RATE
    )
    start = gradients.crafted(HIDDEN, data.test[0][:2000]) if attack.crafted else trainer.initial()
    count = defence.members * attack.images
    images = data.x[: sums * count].reshape(sums, count, -1)
    labels = data.y[: sums * count].reshape(sums, count)
    seen = np.stack(
        [
            exposed(trainer, start, (images[place], labels[place]), defence, rng.child("sum", place))
            for place in range(sums)
        ]
    )
    if attack.optimised:
        candidates = list(gradients.matched(seen, start, labels, HIDDEN, settings.seed))
    else:
        found = gradients.bins if attack.crafted else gradients.ratios
        candidates = [found(row.astype(np.float64), HIDDEN) for row in seen]
    return matches(images, candidates)


def exposed(
    trainer: ridotto.NumpyTrainer,
    start: np.ndarray,
    data: tuple[np.ndarray, np.ndarray],
    defence: Defence,
    rng: SecretRng,
) -> np.ndarray:
    """Return the mean update as the coordinator decodes it, of participants who each have a share of the images."""
    plan = defence.plan()
    pipeline = Pipeline(plan, len(start))
    total = np.zeros(pipeline.length, container(plan.bits))
    shares = zip(*(np.split(part, defence.members) for part in data), strict=True)
    for place, own in enumerate(shares):
        secret = rng.child("participant", place)
        update = trainer.train(start, own, secret).vector - start
        words = Words(secret.child("words").bytes(SEED_BYTES)) if plan.dp else None
        total += pipeline.encode(update, 1, {}, SeededDice(secret), words=words)
    if defence.masked:
        add_masks(total[: len(start)], [Mask(rng.child("mask").bytes(SEED_BYTES), 1)], b"one session")
    return pipeline.decode(total).mean


def matches(images: np.ndarray, candidates: list[np.ndarray]) -> Seen:
    """Find for every image of each sum the candidate that is most like it."""
    best, found = [], []
    for true, guessed in zip(images, candidates, strict=True):
        if not len(guessed):
            guessed = np.zeros((1, true.shape[1]))
        likeness = standardised(true) @ standardised(guessed).T
        best.append(likeness.max(axis=1))
        found.append(guessed[likeness.argmax(axis=1)])
    return Seen(np.concatenate(best), images.reshape(-1, images.shape[-1]), np.concatenate(found))


def standardised(rows: np.ndarray) -> np.ndarray:
    """Return rows of mean 0 and length 1, so that products are correlations; what is constant becomes 0."""
    centred = rows - rows.mean(axis=1, keepdims=True, dtype=np.float64)
    lengths = np.linalg.norm(centred, axis=1, keepdims=True)
    result: np.ndarray = np.divide(centred, lengths, out=np.zeros_like(centred), where=lengths > 0)
    return result


def chance(data: Data, attack: Attack) -> float:
    """Return how many images have one that is as like among others, as many as the attack has candidates."""
    offered = HIDDEN if not attack.optimised else attack.images
    images, others = data.x[:200, None], data.x[200 : 200 + 200 * offered].reshape(200, offered, -1)
    return float(np.mean(matches(images, list(others)).best >= RECOVERED))
