"""Uploads without zeros and downloads as deltas over real sockets: the same model everywhere, in few bytes."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from ridotto.core.vector import Layout
from ridotto.learn.trainer import LocalResult
from ridotto.participant.enter import Params, load_identity
from ridotto.participant.events import Summary
from ridotto.participant.join import join
from ridotto.rounds.compression import TopK
from ridotto.rounds.plan import Ideal, Plan, Risk
from ridotto.rounds.policy import Policy
from tests.participant.bench import StepTrainer

pytest.importorskip("starlette", reason="the server is an extra")
pytest.importorskip("granian", reason="the server is an extra")

NAMES = ("east", "north", "west")
REPOSITORY = Path(__file__).parents[2]
LAYOUT = Layout.of({"weight": np.zeros((200, 50), np.float32)})
WHOLE_BYTES = 4 * LAYOUT.length
PLAN = Plan(
    cohort=3,
    minimum=3,
    protocol=Ideal(),
    compress=(TopK(0.02),),
    download_bits=4,
    i_know=(Risk.NO_PROTECTION,),
    join_s=20.0,
    train_s=20.0,
    phase_s=20.0,
)

COORDINATOR = """
import sys
from pathlib import Path
from ridotto.coordinator.folder import CoordinatorFolder
from ridotto.coordinator.serve import ServerSettings, serve
from ridotto.coordinator.settings import FederationSettings
from tests.participant.test_small_traffic import LAYOUT, PLAN
import numpy as np

allowed = dict(pair.split("=") for pair in sys.argv[4:])
settings = FederationSettings(name="test", plan=PLAN, rounds=int(sys.argv[2]), allowed=allowed)
with CoordinatorFolder(Path(sys.argv[1])) as folder:
    federation = folder.federation(settings, LAYOUT, np.zeros(LAYOUT.length, np.float32))
    serve(federation, ServerSettings(port=int(sys.argv[3])), ready=lambda url: print(url, flush=True))
"""


class Ramp(StepTrainer):
    """Move every entry by another amount, so that the largest ones are known."""

    def train(self, vector, data, rng):
        ramp = np.arange(LAYOUT.length, dtype=np.float32) / np.float32(LAYOUT.length)
        return LocalResult(vector + np.float32(self.step) * ramp, 10, {"loss": 0.5})


def params(folder: Path, url: str, name: str) -> Params:
    policy = Policy(protocols=("ideal",), min_corrupt=0.0, i_know=(Risk.NO_PROTECTION,))
    return Params(url, name=name, state=folder, policy=policy, patience_s=30.0)


def rounds(folder: Path, count: int, port: int = 0) -> tuple[list[Summary], int]:
    """Serve so many rounds in all, let everybody take part in those that are left; return the port, too."""
    keys = [f"{name}={load_identity(params(folder, 'http://any', name)).public.hex()}" for name in NAMES]
    command = [sys.executable, "-c", COORDINATOR, str(folder / "coordinator"), str(count), str(port), *keys]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY) as process:
        assert process.stdout is not None
        try:
            url = process.stdout.readline().strip()
            with ThreadPoolExecutor(3) as pool:
                running = [pool.submit(join, params(folder, url, name), Ramp(1.0, LAYOUT), None) for name in NAMES]
                return [one.result(60) for one in running], int(url.rpartition(":")[2])
        finally:
            process.terminate()


def test_small_uploads_and_downloads_over_sockets_and_a_restart(tmp_path: Path) -> None:
    summaries, port = rounds(tmp_path, 2)
    for summary in summaries:
        one, two = summary.rounds
        assert one.sent_bytes < WHOLE_BYTES / 10
        # One whole model, and deltas of an eighth after it.
        assert one.received_bytes > WHOLE_BYTES > 4 * two.received_bytes
        assert two.received_bytes > WHOLE_BYTES / 9
    # The same address, by which participants know their coordinator again.
    again, _ = rounds(tmp_path, 3, port)
    assert len({summary.model_digest for summary in again}) == 1
    for summary in again:
        (three,) = summary.rounds
        assert three.received_bytes < WHOLE_BYTES / 4
        # The 200 largest entries are sent; rounding leaves the others where they were, or a step of 4 bits beside it.
        assert np.abs(summary.model[-200:] - 3.0).max() < 0.5
        assert np.abs(summary.model[:8000]).max() < 0.5
