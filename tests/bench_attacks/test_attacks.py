"""Each attack of the bench works on toy data where nothing defends, and is stopped by what stops it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import ridotto
from bench.attacks import digits, disaggregation, gradients, membership, poisoning, replacement
from bench.attacks.__main__ import write
from bench.attacks.inversion import Defence as Sight
from bench.attacks.inversion import exposed, matches
from bench.attacks.malice import TARGET, Kind, Lie, triggered
from bench.attacks.table import Table, percent
from ridotto.core.rng import insecure_seeded_rng

HIDDEN = 30


def blobs(count: int, features: int, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Ten classes around ten random corners."""
    generator = np.random.default_rng(seed)
    corners = np.random.default_rng(0).normal(size=(10, features))
    y = generator.integers(0, 10, count)
    return (corners[y] + generator.normal(0, 0.7, (count, features))).astype(np.float32), y


def images(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Noise in the place of digits: no two are alike."""
    generator = np.random.default_rng(2)
    x = generator.uniform(digits.BLACK, digits.WHITE, (count, digits.FEATURES)) * generator.uniform(0.2, 1, (count, 1))
    return x.astype(np.float32), generator.integers(0, 10, count)


def best_matches(sight: Sight, count: int, *, crafted: bool = False) -> np.ndarray:
    x, y = images(count)
    trainer = ridotto.NumpyTrainer((digits.FEATURES, HIDDEN, digits.CLASSES), seed=1, batch_size=64, learning_rate=0.1)
    start = gradients.crafted(HIDDEN, images(300)[0]) if crafted else trainer.initial()
    seen = exposed(trainer, start, (x, y), sight, insecure_seeded_rng(1)).astype(np.float64)
    candidates = gradients.bins(seen, HIDDEN) if crafted else gradients.ratios(seen, HIDDEN)
    return matches(x[None], [candidates]).best


def test_one_update_shows_its_image_and_a_clip_does_not_help() -> None:
    assert best_matches(Sight("none", clip=None), 1).min() > 0.99
    assert best_matches(Sight("clip"), 1).min() > 0.99


def test_a_crafted_model_shows_images_behind_a_sum() -> None:
    assert np.sort(best_matches(Sight("sum", 5, clip=None), 5, crafted=True))[-2] > 0.95


@pytest.mark.parametrize(
    "sight", [Sight("mask", masked=True), Sight("noise", noise=1.0), Sight("noise on a sum", 5, noise=1.0)]
)
def test_masks_and_noise_show_nothing(sight: Sight) -> None:
    assert best_matches(sight, sight.members).max() < 0.4


@pytest.mark.slow  # importing torch
def test_matching_gradients_finds_an_image() -> None:
    pytest.importorskip("torch")
    x, y = images(1)
    trainer = ridotto.NumpyTrainer((digits.FEATURES, HIDDEN, digits.CLASSES), seed=1, batch_size=64, learning_rate=0.1)
    start = trainer.initial()
    seen = exposed(trainer, start, (x, y), Sight("none", clip=None), insecure_seeded_rng(1))
    found = gradients.matched(seen[None], start, y[None], HIDDEN, 1)
    assert matches(x[None], list(found)).best.min() > 0.9


def task(rounds: int = 4) -> poisoning.Task:
    x, y = blobs(1000, 36)
    clients = [(x[begin : begin + 50], y[begin : begin + 50]) for begin in range(0, 1000, 50)]
    trainer = ridotto.NumpyTrainer((36, 10), seed=1, learning_rate=0.1)
    return poisoning.Task(
        clients,
        blobs(50, 36, 4),
        trainer,
        poisoning.tests_of(*blobs(400, 36, 3), 3.0, 10),
        3.0,
        10,
        rounds,
        1,
        "inline",
    )


def test_a_backdoor_works_without_defence_and_labels_are_flipped() -> None:
    plan = poisoning.open_plan(cohort=20)
    clean = poisoning.attack(task(), plan, {})
    backdoor = poisoning.attack(task(), plan, dict.fromkeys((3, 7), Lie(Kind.BACKDOOR, 10.0)))
    flip = poisoning.attack(task(), plan, dict.fromkeys(range(12), Lie(Kind.FLIP)))
    assert clean.accuracy > 0.9
    assert clean.backdoor < 0.5
    assert backdoor.backdoor > 0.8
    assert flip.flipped > 0.5 > clean.flipped


def test_a_robust_rule_stops_reversed_updates() -> None:
    lies = dict.fromkeys((3, 7), Lie(Kind.REVERSE, 10.0))
    open_, median = poisoning.open_plan(cohort=20), poisoning.open_plan(cohort=20, robust=ridotto.Robust("median"))
    assert poisoning.attack(task(), open_, lies).accuracy < 0.5
    assert poisoning.attack(task(), median, lies).accuracy > 0.9


def test_a_server_with_data_of_its_own_stops_reversed_updates() -> None:
    plan = poisoning.open_plan(cohort=20, clip=1.0, robust=ridotto.Robust("fltrust"))
    lies = dict.fromkeys((3, 7), Lie(Kind.REVERSE, 10.0))
    assert poisoning.attack(task(), plan, lies, rooted=True).accuracy > 0.9


def test_a_trigger_is_a_square_in_the_corner() -> None:
    image = triggered(np.zeros((1, 36), np.float32), 3.0).reshape(6, 6)
    assert image.sum() == 3.0 * 16
    assert (image[-4:, -4:] == 3).all()
    assert TARGET == 0


def test_sums_over_rounds_come_apart_unless_there_is_noise() -> None:
    x, y = blobs(120, 30)
    users = [(x[begin : begin + 10], y[begin : begin + 10]) for begin in range(0, 120, 10)]
    trainer = ridotto.NumpyTrainer((30, 10), seed=1, batch_size=10, learning_rate=0.1)
    plain, noisy = (
        disaggregation.attack(
            trainer, users, disaggregation.Defence("", noise=noise), 40, insecure_seeded_rng(4).child("users")
        )
        for noise in (None, 10.0)  # few parameters hide less than many
    )
    assert plain.rounds > 0.5  # of 40 rounds; with more there is one solution
    assert plain.from_members == 1.0
    assert noisy.rounds == noisy.from_counts == noisy.from_members == 0.0


def test_members_are_told_from_others_by_their_losses() -> None:
    """Losses of members are smaller by a factor that each participant has for itself."""
    generator = np.random.default_rng(5)
    members = generator.integers(0, 2, (12, 50)).astype(bool)
    own = generator.uniform(0, 4, 50)
    losses = np.exp(own + generator.normal(0, 0.2, members.shape) - members)
    found = membership.Models(losses, members, 0.0, 0.0)
    areas = []
    for scores in (-losses, membership.likelihood_ratios(found), generator.normal(size=members.shape)):
        false, true = membership.curve(scores, members)
        areas.append(float(np.trapezoid(true, false)))
    assert areas[0] < 0.8
    assert areas[1] > 0.95
    assert abs(areas[2] - 0.5) < 0.1
    assert membership.bound(membership.likelihood_ratios(found), members) > 1
    assert membership.bound(generator.normal(size=members.shape), members) == 0.0


def test_tables_are_text_and_json(tmp_path: Path) -> None:
    table = Table(
        "t", "Title", "Somebody 2026", ("defence", "reached"), (("none", float("inf")), ("all", percent(0.0)))
    )
    assert "| none    | infinite |" in table.markdown()
    write(tmp_path / "t.json", [table], "quick", 1.0)
    found = json.loads((tmp_path / "t.json").read_text())
    assert found["tables"]["t"]["rows"] == [
        {"defence": "none", "reached": "infinite"},
        {"defence": "all", "reached": "0 %"},
    ]
    assert [percent(share) for share in (0.011, 0.5, 0.985)] == ["1.1 %", "50 %", "98.5 %"]


def replaced(defence: str, way: replacement.Way, kind: Kind) -> tuple[float, float, replacement.Course]:
    """Return the accuracy if nobody lies, that with 2 of 20 lying in every round, and what became of the rounds."""
    made = {
        "one sum": replacement.masked(20),
        "mean": replacement.masked(20, robust=ridotto.NormBound(groups=6)),
        "median": replacement.masked(20, robust=ridotto.BucketedMedian(groups=6)),
    }[defence]
    clean = replacement.honest(task(), made)
    attack = replacement.Attack((3, 7), Lie(kind, 100.0), way)
    course = replacement.attacked(task(), made, attack, clean, late=False)
    assert course.outcome is not None
    return clean.outcome.accuracy, course.outcome.accuracy, course


def test_masked_liars_without_a_clip_replace_the_model_unless_groups_are_checked() -> None:
    clean, left, _ = replaced("one sum", replacement.Way.UNCLIPPED, Kind.REVERSE)
    assert clean > 0.9
    assert left < 0.5
    clean, left, course = replaced("mean", replacement.Way.UNCLIPPED, Kind.REVERSE)
    assert left > clean - 0.05
    assert min(course.left_out) >= 1 / 6
    assert course.failed == 0


def test_liars_within_the_limit_are_not_left_out() -> None:
    for defence in ("mean", "median"):
        _, _, course = replaced(defence, replacement.Way.WITHIN, Kind.REVERSE)
        assert course.left_out == [0.0] * 4


def test_a_round_with_too_many_dirty_groups_keeps_the_model() -> None:
    made = replacement.masked(20, robust=ridotto.BucketedMedian(groups=6))
    attack = replacement.Attack(tuple(range(12)), Lie(Kind.REVERSE, 100.0), replacement.Way.UNCLIPPED)
    federation = replacement.Federation(task(), made)
    course = federation.run(range(1, 3), attack)
    assert (course.failed, course.left_out) == (2, [])
    assert (federation.vault.model == task().trainer.initial()).all()


def test_replacement_without_liars_is_what_the_simulation_trains() -> None:
    """The bench's own loop and the simulation differ in dice only."""
    plan = replacement.masked(20)
    own = replacement.honest(task(), plan).outcome.accuracy
    assert abs(own - poisoning.attack(task(), plan, {}).accuracy) < 0.02
