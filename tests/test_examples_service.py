"""The examples that need a coordinator or the command line do what they say, and are short."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ridotto.cli import run

EXAMPLES = Path(__file__).parents[1] / "examples"
NAMES = ("torch_one_line.py", "server.toml", "simulation.toml")


@pytest.fixture
def examples(tmp_path) -> Path:
    """A copy of the examples, so that what they write does not stay in the repository."""
    return Path(shutil.copytree(EXAMPLES, tmp_path / "examples"))


@pytest.fixture
def served(examples) -> Iterator[dict[str, str]]:
    """What the coordinator of examples/server.toml says when it listens. Its program is a PyTorch script."""
    pytest.importorskip("torch", reason="PyTorch is an extra")
    command = [sys.executable, "-m", "ridotto", "serve", str(examples / "server.toml"), "--port", "0", "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        yield json.loads(process.stdout.readline())
    finally:
        process.terminate()
        process.communicate(timeout=30)


@pytest.mark.parametrize("name", NAMES)
def test_examples_are_short(name):
    assert len((EXAMPLES / name).read_text(encoding="utf-8").splitlines()) < 100


def test_the_simulation_learns(examples, capsys):
    assert run(["simulate", str(examples / "simulation.toml"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["measures"]["test_accuracy"] > 0.8
    assert told["failed"] == 0


def test_one_changed_line_makes_a_torch_script_a_participant(examples, served, tmp_path):
    tokens = Path(served["tokens"]).read_text(encoding="utf-8").split()
    script = str(examples / "torch_one_line.py")
    participants = [
        subprocess.Popen(
            [sys.executable, script, served["url"], f"hospital-{n}", str(n), "--state", str(tmp_path / "state")],
            env={**os.environ, "RIDOTTO_TOKEN": token, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for n, token in enumerate(tokens)
    ]
    said = [participant.communicate(timeout=120) for participant in participants]
    assert [participant.returncode for participant in participants] == [0, 0, 0], said
    last = {out.splitlines()[-1] for out, _ in said}
    assert len(last) == 1  # all three hold the same model
    assert float(last.pop().rpartition(": ")[2]) > 0.85
    assert all(out.count("trained on") == 10 for out, _ in said)
