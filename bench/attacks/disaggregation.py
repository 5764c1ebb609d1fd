"""Attack 4: take the sums of many rounds apart again, from who took part how often.

50 users, of whom each round draws 15 (25 and 8 with --quick). A user's update is the same in all of its rounds (a
statistic, or a model that hardly moves), or that of a model that is being trained. The coordinator sees the sum of each
round. Two attackers:

counts      knows only how often each user took part in every ten rounds, as logs of a fleet say. It finds who was in
            which round first, then everybody's update: the attack of the source.
members     knows who was in which round, as whoever runs rounds does.

Least squares then give every user's mean update. Success: the share of users whose rounds were found without a mistake;
and the share of users whose update was found: what sets it apart from the mean of all, with a correlation of at least
0.9.

Where we differ from the source: in place of its integer program, a linear program with the least absolute errors, whose
solution is rounded to the counts and improved by swaps. Without noise it finds what the integer program finds.

Source: Lam, Wei, Brooks, Reddi, Mitzenmacher, "Gradient Disaggregation: Breaking Privacy in Federated Learning by
Reconstructing the User Participant Matrix", ICML 2021.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import linprog  # comes with the extra `sklearn`

import ridotto
from bench.attacks import digits
from bench.attacks.table import Settings, Table, Value, percent
from ridotto.core.fixedpoint import container
from ridotto.core.rng import SEED_BYTES, SecretRng, insecure_seeded_rng, numpy_generator
from ridotto.privacy.noise.words import Words
from ridotto.rounds.dice import SeededDice
from ridotto.rounds.pipeline import Pipeline

USERS, DRAWN, SPAN = 50, 0.3, 10
"""DRAWN: share of the users in a round. SPAN: rounds of which only counts are known."""

EXAMPLES, FOUND, SHORTEST = 60, 0.9, 1e-12
CLIP = 0.3

SOURCE = "Lam et al., ICML 2021"


@dataclass(frozen=True)
class Defence:
    """drawn: users of a round. trains: the model moves, so updates change."""

    name: str
    noise: float | None = None
    clip: float | None = CLIP
    drawn: float = DRAWN
    trains: bool = False

    def plan(self, users: int) -> ridotto.Plan:
        noise = self.noise
        dp = None if noise is None else ridotto.DistributedGaussian(noise_multiplier=noise, delta=1e-5)
        return ridotto.Plan(
            cohort=round(self.drawn * users),
            minimum=round(self.drawn * users),
            clip=self.clip,
            dp=dp,
            max_examples=1,
            protocol=ridotto.Pairwise(corrupt=0.0),
        )


DEFENCES = (
    Defence("masks", clip=None),
    Defence("masks, clip"),
    Defence("masks, clip, the model moves", trains=True),
    Defence("masks, clip, everybody in every round", drawn=1.0),
    Defence("masks, noise z = 0.01", noise=0.01),
    Defence("masks, noise z = 0.1", noise=0.1),
    Defence("masks, noise z = 1", noise=1.0),
)


@dataclass(frozen=True)
class Found:
    """Shares of users: whose rounds were found from counts; whose update was, from counts, and from the members."""

    rounds: float
    from_counts: float
    from_members: float


def run(settings: Settings) -> list[Table]:
    data = digits.non_iid(settings.data)
    each = len(data.x) // digits.CLIENTS
    count, rounds = (USERS // 2, 100) if settings.quick else (USERS, 200)
    users = [(data.x[begin::10][:EXAMPLES], data.y[begin::10][:EXAMPLES]) for begin in range(0, count * each, each)]
    trainer = ridotto.NumpyTrainer(
        (digits.FEATURES, digits.CLASSES), seed=settings.seed, batch_size=EXAMPLES, learning_rate=0.1
    )
    rows: list[tuple[Value, ...]] = []
    for defence in DEFENCES:
        found = attack(trainer, users, defence, rounds, insecure_seeded_rng(settings.seed).child(defence.name))
        rows.append((defence.name, *map(percent, (found.rounds, found.from_counts, found.from_members))))
        print(f"  {defence.name}", flush=True)
    columns = ("defence", "rounds found from counts", "updates found from counts", "updates found from members")
    notes = (
        f"{count} users, {rounds} rounds of {round(DRAWN * count)}; d = {trainer.layout.length:,}; clip {CLIP}; "
        f"noise in shares. Counts are over {SPAN} rounds.",
    )
    return [Table("disaggregation", "Disaggregation over rounds", SOURCE, columns, tuple(rows), notes)]


def attack(
    trainer: ridotto.NumpyTrainer,
    users: list[tuple[np.ndarray, np.ndarray]],
    defence: Defence,
    rounds: int,
    rng: SecretRng,
) -> Found:
    """Run the rounds, then take their sums apart."""
    members = drawn_members(len(users), round(defence.drawn * len(users)), rounds, rng.child("members"))
    sums, updates = watched(trainer, users, defence, members, rng)
    guessed = participation(sums, members.reshape(-1, SPAN, len(users)).sum(axis=1))
    return Found(
        rounds=float((guessed == members).all(axis=0).mean()),
        from_counts=alike(solved(guessed, sums), updates),
        from_members=alike(solved(members, sums), updates),
    )


def drawn_members(users: int, drawn: int, rounds: int, rng: SecretRng) -> np.ndarray:
    """Return who is in which round, float64 of 0 and 1, shape (rounds, users)."""
    generator, members = numpy_generator(rng), np.zeros((rounds, users))
    for row in members:
        row[generator.choice(users, drawn, replace=False)] = 1
    return members


def watched(
    trainer: ridotto.NumpyTrainer,
    users: list[tuple[np.ndarray, np.ndarray]],
    defence: Defence,
    members: np.ndarray,
    rng: SecretRng,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the sum of every round as it is opened, and what each user's update was on average over its rounds."""
    plan, vector = defence.plan(len(users)), trainer.initial()
    pipeline = Pipeline(plan, len(vector))
    sums, updates = np.zeros((len(members), len(vector))), np.zeros((len(users), len(vector)))
    secrets = [rng.child("user", user) for user in range(len(users))]
    words = [Words(secret.child("words").bytes(SEED_BYTES)) if plan.dp else None for secret in secrets]
    for number, row in enumerate(members):
        total = np.zeros(pipeline.length, container(plan.bits))
        for user in np.flatnonzero(row):
            update = trainer.train(vector, users[user], secrets[user]).vector - vector
            updates[user] += update
            total += pipeline.encode(update, 1, {}, SeededDice(secrets[user]), words=words[user])
        opened = pipeline.decode(total)
        sums[number] = opened.mean.astype(np.float64) * opened.participants
        if defence.trains:
            vector = vector + opened.mean
    return sums, updates / np.maximum(members.sum(axis=0), 1)[:, None]


def participation(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Guess who was in which round, shape (rounds, users). counts: of each span and user, shape (spans, users).

    A user's column lies in the space that the sums span, as far as noise leaves that alone: what is at right angles to
    the first `users` singular vectors is as short as the counts allow.
    """
    users = counts.shape[1]
    angles = np.linalg.svd(sums, full_matrices=False)[0][:, users:].T  # square: rounds are fewer than d
    found = [swapped(rounded(relaxed(angles, own), own), angles) for own in counts.T]
    return np.stack(found, axis=1)


def relaxed(angles: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return values of 0 to 1 with the right counts and the least sum of |angles @ values|, shape (rounds,)."""
    size, rounds = angles.shape
    spans = np.kron(np.eye(len(counts)), np.ones(rounds // len(counts)))
    solution = linprog(
        np.r_[np.zeros(rounds), np.ones(size)],
        A_ub=np.block([[angles, -np.eye(size)], [-angles, -np.eye(size)]]),
        b_ub=np.zeros(2 * size),
        A_eq=np.c_[spans, np.zeros((len(counts), size))],
        b_eq=counts,
        bounds=[(0, 1)] * rounds + [(0, None)] * size,
        method="highs-ipm",  # without noise the simplex method loses its way among solutions that are all but equal
    )
    values: np.ndarray = np.full(rounds, 0.5) if solution.x is None else solution.x[:rounds]
    return values


def rounded(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return 1 for the largest values of each span, as many as its count says, and 0 for the others."""
    order = np.argsort(np.argsort(-values.reshape(len(counts), -1), axis=1), axis=1)
    return (order < counts[:, None]).astype(np.float64).ravel()


def swapped(guess: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """Swap a 1 and a 0 of the same span, the pair that helps most, until none does."""
    products = angles.T @ angles
    own, spans = products.diagonal(), np.arange(len(guess)) // SPAN
    guess = guess.copy()
    for _ in range(len(guess)):
        pull = products @ guess
        change = 2 * (pull[None] - pull[:, None]) + own[:, None] + own[None] - 2 * products
        allowed = (guess[:, None] == 1) & (guess[None] == 0) & (spans[:, None] == spans[None])
        change[~allowed] = 0
        best = np.unravel_index(change.argmin(), change.shape)
        if change[best] >= -1e-9:
            break
        guess[list(best)] = 0, 1
    return guess


def solved(members: np.ndarray, sums: np.ndarray) -> np.ndarray:
    """Return everybody's update by least squares, shape (users, d)."""
    result: np.ndarray = np.linalg.lstsq(members, sums, rcond=1e-9)[0]
    return result


def alike(found: np.ndarray, updates: np.ndarray) -> float:
    """Return the share of users whose update was found: what sets it apart from the mean of all."""
    found, updates = (rows - rows.mean(axis=0) for rows in (found, updates))
    lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(updates, axis=1)
    return float(np.mean((lengths > SHORTEST) & (np.vecdot(found, updates) >= FOUND * lengths)))
