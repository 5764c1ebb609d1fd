"""Rounds of one message over real sockets; a participant is killed, and with it its seat on the committee."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from ridotto.participant.enter import Params, load_identity
from ridotto.participant.events import EventKind, Summary
from ridotto.participant.join import join
from ridotto.rounds.policy import Policy
from tests.participant.bench import StepTrainer
from tests.participant.test_sockets import COORDINATOR, KILLED, REPOSITORY

pytest.importorskip("starlette", reason="the server is an extra")
pytest.importorskip("granian", reason="the server is an extra")

NAMES = ("east", "north", "south", "west")
SERVER = COORDINATOR.replace(
    "cohort=3, join_s=60.0, train_s=60.0, phase_s=60.0",
    "protocol=Oneshot(corrupt=0.0), cohort=4, join_s=60.0, train_s=60.0, phase_s=2.0",
).replace("import sys\n", "import sys\nfrom ridotto.rounds.plan import Oneshot\n")


def take_part(url: str, folder: Path, name: str, step: float) -> Summary:
    params = Params(url, name=name, state=folder, policy=Policy(min_corrupt=0.0), patience_s=30.0)
    return join(params, StepTrainer(step), None)


def test_a_killed_participant_loses_its_seat_and_not_its_update(tmp_path: Path) -> None:
    keys = {name: load_identity(Params("http://any", name=name, state=tmp_path)).public.hex() for name in NAMES}
    command = [sys.executable, "-c", SERVER, str(tmp_path / "server"), "", *(f"{n}={key}" for n, key in keys.items())]
    steps = {"east": 3.0, "north": 5.0, "south": 3.0}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        with ThreadPoolExecutor(4) as pool:
            others = [pool.submit(take_part, url, tmp_path, name, step) for name, step in steps.items()]
            killed = [sys.executable, "-c", KILLED.replace("Masked", "Contribution"), url, str(tmp_path)]
            assert subprocess.run(killed, check=False, timeout=60, cwd=REPOSITORY).returncode == 9
            summaries = [take_part(url, tmp_path, "west", 1.0), *(other.result(60) for other in others)]
        process.terminate()
    for summary in summaries:
        # 28 bits for four weights of up to 10,000: an entry of a mean over 40 examples is coarse.
        assert np.abs(summary.model - 6.0).max() < 1e-3
        assert [(report.outcome, report.reason) for report in summary.rounds] == [(EventKind.CLOSED, "")] * 2
