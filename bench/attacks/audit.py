"""Attack 5: look for canaries in noisy sums, and bound epsilon from below by how often the guess is right.

Canaries are updates that an adversary chose, as long as the clip allows and nearly at right angles to each other. Each
is in its session's sum or not (zero-out: that participant contributes zeros) by a fair coin. The adversary sees every
opened sum and guesses from its product with each canary. Sums are made by the real pipeline: encode at every
participant, add mod 2^b, noise, decode.

The noise is the least that the plan promises: as few contributions as it opens, and those that `corrupt` allows for
brought no noise of their own.

Source: Steinke, Nasr, Jagielski, "Privacy Auditing with One (1) Training Run", NeurIPS 2023, algorithm 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.attacks.bounds import one_run_bound
from bench.attacks.table import Settings, Table
from ridotto.core.fixedpoint import container
from ridotto.core.rng import SEED_BYTES, SecretRng, insecure_seeded_rng, numpy_generator
from ridotto.privacy.noise.words import Words
from ridotto.rounds.dice import SeededDice
from ridotto.rounds.pipeline import Pipeline
from ridotto.rounds.plan import CentralGaussian, DistributedGaussian, Pairwise, Plan
from ridotto.rounds.private import PrivacyAccount

CONFIDENCE = 0.95
GUESSED = 0.2
"""Share of the canaries that are guessed, those with the clearest scores; fixed beforehand, as the bound needs."""

SOURCE = "Steinke, Nasr, Jagielski, NeurIPS 2023"


@dataclass(frozen=True)
class Audit:
    """claimed: epsilon of the plan's own account. bound: the lower bound on what it really is. right: of `guesses`."""

    claimed: float
    bound: float
    right: int
    guesses: int
    canaries: int

    @property
    def holds(self) -> bool:
        return self.bound <= self.claimed


def audit(
    plan: Plan,
    dimension: int,
    canaries: int,
    rng: SecretRng,
    *,
    rounds: int = 1,
    claim: Plan | None = None,
    confidence: float = CONFIDENCE,
) -> Audit:
    """Insert canaries into the sums of `plan`; its claim is that of `claim`, which differs to test the audit itself.

    plan, claim: with a clip of 1, the length of a canary. dimension: d, much larger than the members of a session, else
    canaries hide each other. The bound is wrong, above the true epsilon, with a probability of at most 1 - confidence;
    it is rarely anywhere near.
    """
    coins = numpy_generator(rng.child("coins")).integers(0, 2, canaries).astype(bool)
    scores = np.zeros(canaries)
    for begin in range(0, canaries, plan.honest):
        session = slice(begin, min(begin + plan.honest, canaries))
        inserted = signs(rng.child("canaries", begin), len(coins[session]), dimension)
        for number in range(rounds):
            total = opened(plan, inserted * coins[session, None], rng.child("round", begin, number))
            scores[session] += inserted @ total
    guesses = int(GUESSED * canaries) // 2 * 2
    order = np.argsort(scores)
    right = int((~coins[order[: guesses // 2]]).sum() + coins[order[-(guesses // 2) :]].sum())
    delta, claimed = claimed_cost(claim or plan, dimension, rounds)
    return Audit(claimed, one_run_bound(canaries, guesses, right, delta, confidence), right, guesses, canaries)


def signs(rng: SecretRng, count: int, dimension: int) -> np.ndarray:
    """Return random vectors of length 1 with entries +-1/sqrt(d), float32, shape (count, d)."""
    drawn = numpy_generator(rng).integers(0, 2, (count, dimension), np.int8)
    found: np.ndarray = ((2 * drawn - 1) / np.sqrt(dimension)).astype(np.float32)
    return found


def opened(plan: Plan, updates: np.ndarray, rng: SecretRng) -> np.ndarray:
    """Return the decoded sum of one session, float32, shape (d,): through encode, addition mod 2^b, and decode.

    updates: a row for each participant.
    """
    pipeline = Pipeline(plan, updates.shape[1])
    total = np.zeros(pipeline.length, container(plan.bits))
    for place, update in enumerate(updates):
        own = rng.child("participant", place)
        words = Words(own.child("words").bytes(SEED_BYTES))
        total += pipeline.encode(update, 1, {}, SeededDice(own), words=words)
    total = pipeline.add_central_noise(total, Words(rng.child("coordinator").bytes(SEED_BYTES)))
    decoded = pipeline.decode(total)
    found: np.ndarray = np.multiply(decoded.mean, decoded.examples, dtype=np.float32)
    return found


def claimed_cost(plan: Plan, dimension: int, rounds: int) -> tuple[float, float]:
    """Return (delta, epsilon) of so many rounds, by the plan's account."""
    account = PrivacyAccount(plan, dimension)
    for _ in range(rounds):
        account.charge()
    return account.delta, account.cost.epsilon


def audited_plan(noise_multiplier: float, kind: Any = DistributedGaussian, cohort: int = 128) -> Plan:
    dp = kind(noise_multiplier=noise_multiplier, delta=1e-5)
    return Plan(cohort=cohort, clip=1.0, max_examples=1, protocol=Pairwise(), dp=dp)


CASES = (
    ("shares, z = 0.5", DistributedGaussian, 0.5, 1, 1.0),
    ("shares, z = 1", DistributedGaussian, 1.0, 1, 1.0),
    ("shares, z = 2", DistributedGaussian, 2.0, 1, 1.0),
    ("shares, z = 4, 10 rounds", DistributedGaussian, 4.0, 10, 1.0),
    ("coordinator, z = 1", CentralGaussian, 1.0, 1, 1.0),
    ("broken on purpose: a tenth of z = 2", DistributedGaussian, 2.0, 1, 0.1),
)
"""(name, mechanism, noise multiplier that is claimed, rounds, how much of the noise is really there)."""


def run(settings: Settings) -> list[Table]:
    dimension, canaries = (5_000, 600) if settings.quick else (10_000, 2_000)
    rows = []
    for name, kind, noise, rounds, there in CASES:
        rng = insecure_seeded_rng(settings.seed).child("audit", name)
        claim, plan = audited_plan(noise, kind), audited_plan(noise * there, kind)
        found = audit(plan, dimension, canaries, rng, rounds=rounds, claim=claim)
        verdict = "holds" if found.holds else "REFUTED"
        rows.append((name, f"{found.right} of {found.guesses}", found.bound, found.claimed, verdict))
    notes = (
        f"{canaries:,} canaries of length clip in sums of {audited_plan(1.0).honest} honest contributions, "
        f"d = {dimension:,}; the clearest {GUESSED:.0%} are guessed. delta 1e-5; bound at {CONFIDENCE:.0%} confidence.",
        "The last line must be refuted: it shows that the audit can find noise that is too small.",
    )
    columns = ("noise", "right guesses", "epsilon at least", "epsilon claimed", "claim")
    return [Table("audit", "One-run audit of noisy sums", SOURCE, columns, tuple(rows), notes)]
