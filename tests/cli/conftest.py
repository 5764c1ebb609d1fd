"""What the tests of the command line share: configuration files, programs, a coordinator in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from ridotto.cli import run

SIMULATION = """
rounds = 2
seed = 1
program = "program.py:make"
[plan]
cohort = 5
[plan.metrics]
accuracy = 1.0
"""

SERVER = """
rounds = 2
program = "program.py:make"
[federation]
data = "data"
port = 0
[plan]
cohort = 3
minimum = 3
join_s = 0.2
train_s = 20.0
phase_s = 5.0
i_know = ["small-cohort"]
[enrolment]
tokens = 8
"""

POLICY = 'i_know = ["small-cohort"]\n'

PROGRAM = """
import numpy as np
import ridotto

class Broken(ridotto.NumpyTrainer):
    def initial(self):
        return super().initial() * np.float32("nan")

def make(clients=5, sizes=(4, 2), examples=6, nan=False, broken=False, rate=0.1):
    kind = Broken if broken else ridotto.NumpyTrainer
    x = np.random.default_rng(1).normal(size=(examples, 4)).astype(np.float32)
    y = np.arange(examples) % 2
    if nan:
        x[0] = np.nan
    return ridotto.Task(kind(sizes, seed=1, learning_rate=rate), [(x, y)] * clients, (x, y))
"""


@dataclass(frozen=True)
class Ran:
    """How a verb ended."""

    code: int
    out: str
    err: str

    @property
    def sentence(self) -> str:
        """The one line on standard error, after checking that it is one and no traceback."""
        assert "Traceback" not in self.err
        lines = self.err.strip().splitlines()
        assert len(lines) == 1, self.err
        assert lines[0].startswith("ridotto: ")
        return lines[0].removeprefix("ridotto: ")


@pytest.fixture
def ridotto(capfd) -> Callable[..., Ran]:
    """Run the command line in this process."""

    def call(*arguments: object) -> Ran:
        capfd.readouterr()
        code = run([str(argument) for argument in arguments])
        captured = capfd.readouterr()
        return Ran(code, captured.out, captured.err)

    return call


@pytest.fixture
def folder(tmp_path) -> Path:
    """A folder with a simulation, a server, their program and a participant's policy."""
    (tmp_path / "simulation.toml").write_text(SIMULATION, encoding="utf-8")
    (tmp_path / "server.toml").write_text(SERVER, encoding="utf-8")
    (tmp_path / "policy.toml").write_text(POLICY, encoding="utf-8")
    (tmp_path / "program.py").write_text(PROGRAM, encoding="utf-8")
    return tmp_path


@dataclass(frozen=True)
class Coordinator:
    """A coordinator that runs in a process of its own."""

    url: str
    key: str
    tokens: list[str]
    process: subprocess.Popen[str]
    folder: Path

    def join(self, number: int) -> list[str]:
        """The arguments with which participant `number` joins."""
        return [
            *("join", self.url, "--program", f"{self.folder}/program.py:make", "--client", str(number)),
            *("--name", f"p{number}", "--state", str(self.folder / "state"), "--token", self.tokens[number]),
            *("--policy", str(self.folder / "policy.toml")),
        ]


@pytest.fixture
def in_background() -> Iterator[Callable[[list[str]], subprocess.Popen[bytes]]]:
    """Run verbs in processes of their own, which are ended after the test."""
    started: list[subprocess.Popen[bytes]] = []

    def start(arguments: list[str]) -> subprocess.Popen[bytes]:
        started.append(subprocess.Popen([sys.executable, "-m", "ridotto", *arguments], stdout=subprocess.DEVNULL))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture
def coordinator(folder) -> Iterator[Coordinator]:
    """Serve `server.toml` of the folder on a free port."""
    process = subprocess.Popen(
        [sys.executable, "-m", "ridotto", "serve", str(folder / "server.toml"), "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        facts = json.loads(process.stdout.readline())
        tokens = Path(facts["tokens"]).read_text(encoding="utf-8").split()
        yield Coordinator(facts["url"], facts["coordinator"], tokens, process, folder)
    finally:
        process.terminate()
        process.communicate(timeout=20)
