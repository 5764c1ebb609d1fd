"""Run the examples as a user would: short enough to be a test."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
MAX_LINES = 100


def run(example: str, folder: Path, *arguments: str) -> str:
    # -W error: an example must not greet a newcomer with a warning.
    command = [sys.executable, "-W", "error", str(EXAMPLES / example), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("example", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_every_example_is_short(example):
    assert len(example.read_text(encoding="utf-8").splitlines()) < MAX_LINES


def test_digits_are_learned_without_a_server(tmp_path):
    printed = run("simulate_digits.py", tmp_path, "8", "out")
    assert "test_accuracy" in printed
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "checkpoint.msgpack",
        "history.csv",
        "history.png",
        "model.safetensors",
        "plan.json",
        "records.json",
    }
    header, *lines = (tmp_path / "out" / "history.csv").read_text().splitlines()
    accuracy = [float(line.split(",")[header.split(",").index("test_accuracy")]) for line in lines]
    assert len(accuracy) == 8
    assert accuracy[-1] > 0.7


def test_algorithms_are_compared(tmp_path):
    printed = run("simulate_algorithms.py", tmp_path, "2", "picture.png").splitlines()
    assert [line.split()[0] for line in printed] == ["FedAvg", "SCAFFOLD", "FedDyn"]
    assert all("after 2 rounds" in line for line in printed)
    assert (tmp_path / "picture.png").stat().st_size > 10_000


def test_a_plan_is_private_small_and_robust(tmp_path):
    printed = run("private_small_robust.py", tmp_path, "3").splitlines()
    assert [line.split(" accuracy")[0].rstrip() for line in printed[:4]] == [
        "masks",
        "masks, small",
        "masks, noise",
        "masks, noise, small",
    ]
    assert "epsilon 8.00" in printed[2]
    assert printed[6].startswith("six liars, median of 20 groups")


def test_paces_are_compared(tmp_path):
    printed = run("simulate_devices.py", tmp_path, "0.1", "picture.png").splitlines()
    assert [line.split()[0] for line in printed] == ["synchronous", "over-selected", "buffered"]
    minutes = {line.split()[0]: float(line.split()[4]) / int(line.split()[1]) for line in printed}
    assert minutes["buffered"] < minutes["over-selected"] < minutes["synchronous"]
    assert (tmp_path / "picture.png").stat().st_size > 10_000


def test_an_encrypted_model_agrees_with_the_plain_one(tmp_path):
    printed = run("encrypted_mnist.py", tmp_path, "--rounds", "6", "--images", "200", "--in-process")
    found = dict(line.rsplit(maxsplit=1) for line in printed.splitlines() if line.startswith(("agree", "encrypted")))
    assert float(found["agreement"]) >= 0.995
    assert float(found["encrypted accuracy"]) > 0.75
    assert "bytes an image online" in printed


def test_an_encrypted_model_reads_images_from_a_file(tmp_path):
    import numpy as np

    images, labels = np.arange(400 * 4, dtype=np.uint8).reshape(400, 2, 2), np.arange(400) % 10
    np.savez(tmp_path / "mnist.npz", x_train=images, y_train=labels, x_test=images[:30], y_test=labels[:30])
    given = ("--data", "mnist.npz", "--rounds", "2", "--batch", "8", "--in-process")
    assert "agreement" in run("encrypted_mnist.py", tmp_path, *given)
