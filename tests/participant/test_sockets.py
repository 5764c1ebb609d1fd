"""One federation over real sockets: the real coordinator in its own process, three participants, one of them killed.

Everything else here is tested without a port; this shows that both sides speak of the same interface.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from ridotto.errors import UnreachableError
from ridotto.participant.enter import Params, load_identity
from ridotto.participant.events import EventKind, Summary
from ridotto.participant.join import join
from ridotto.rounds.policy import Policy
from tests.coordinator.certificates import make_certificates
from tests.participant.bench import StepTrainer

pytest.importorskip("starlette", reason="the server is an extra")
pytest.importorskip("granian", reason="the server is an extra")

NAMES = ("east", "north", "west")
POLICY = Policy(min_corrupt=0.0)
REPOSITORY = Path(__file__).parents[2]

COORDINATOR = """
import sys
from pathlib import Path
from ridotto.coordinator.folder import CoordinatorFolder
from ridotto.coordinator.serve import ServerSettings, serve
from ridotto.coordinator.settings import FederationSettings
from tests.participant.fake import LAYOUT, PLAN
import msgspec, numpy as np

allowed = dict(pair.split("=") for pair in sys.argv[3:])
plan = msgspec.structs.replace(PLAN, cohort=3, join_s=60.0, train_s=60.0, phase_s=60.0)
settings = FederationSettings(name="test", plan=plan, rounds=2, allowed=allowed)
with CoordinatorFolder(Path(sys.argv[1])) as folder:
    federation = folder.federation(settings, LAYOUT, np.zeros(LAYOUT.length, np.float32))
    tls = {}
    if sys.argv[2]:
        files = Path(sys.argv[2])
        tls = dict(certificate=files / "server.pem", key=files / "server.key", client_ca=files / "ca.pem")
    serve(federation, ServerSettings(port=0, **tls), ready=lambda url: print(url, flush=True))
"""

KILLED = """
import os, sys
from pathlib import Path
from ridotto.errors import UnreachableError
from ridotto.participant.enter import Params
from ridotto.participant.events import EventKind
from ridotto.participant.join import join
from tests.participant.bench import StepTrainer
from tests.participant.test_sockets import POLICY

def die(event):
    if event.message == "Masked" and event.round == 1:
        os._exit(9)

params = Params(sys.argv[1], name="west", state=Path(sys.argv[2]), policy=POLICY)
join(params, StepTrainer(1.0), None, on_event=die)
"""


@contextmanager
def coordinator(tmp_path: Path, certificates: Path | None = None) -> Iterator[str]:
    keys = {name: load_identity(Params("http://any", name=name, state=tmp_path)).public.hex() for name in NAMES}
    allowed = [f"{name}={key}" for name, key in keys.items()]
    folder, tls = str(tmp_path / "coordinator"), str(certificates or "")
    command = [sys.executable, "-c", COORDINATOR, folder, tls, *allowed]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.terminate()


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    with coordinator(tmp_path) as address:
        yield address


def take_part(url: str, folder: Path, name: str, step: float) -> Summary:
    return join(Params(url, name=name, state=folder, policy=POLICY, patience_s=30.0), StepTrainer(step), None)


def test_a_federation_over_sockets_outlives_a_killed_participant(url, tmp_path):
    with ThreadPoolExecutor(3) as pool:
        others = [pool.submit(take_part, url, tmp_path, name, step) for name, step in (("east", 3.0), ("north", 5.0))]
        command = [sys.executable, "-c", KILLED, url, str(tmp_path)]
        done = subprocess.run(command, check=False, timeout=60, cwd=REPOSITORY)
        assert done.returncode == 9
        west = take_part(url, tmp_path, "west", 1.0)
        summaries = [west, *(other.result(60) for other in others)]
    for summary in summaries:
        assert np.abs(summary.model - 6.0).max() < 1e-4
        assert [(report.outcome, report.reason) for report in summary.rounds] == [(EventKind.CLOSED, "")] * 2


def test_a_federation_over_mutual_tls_with_an_authority_of_its_own(tmp_path):
    make_certificates(tmp_path)
    proof = tmp_path / "client.pem", tmp_path / "client.key"

    def secured(url: str, name: str, **tls: object) -> Params:
        return Params(url, name=name, state=tmp_path, policy=POLICY, patience_s=30.0, **tls)

    with coordinator(tmp_path, tmp_path) as url, ThreadPoolExecutor(3) as pool:
        assert url.startswith("https://")
        running = [
            pool.submit(join, secured(url, name, ca=tmp_path / "ca.pem", certificate=proof), StepTrainer(step), None)
            for name, step in zip(NAMES, (3.0, 5.0, 1.0), strict=True)
        ]
        for one in running:
            assert np.abs(one.result(60).model - 6.0).max() < 1e-4
        for tls in ({"ca": tmp_path / "ca.pem"}, {"certificate": proof}):
            stranger = Params(url, name="south", state=tmp_path, policy=POLICY, patience_s=0.5, **tls)
            with pytest.raises(UnreachableError, match="certificate"):
                join(stranger, StepTrainer(1.0), None)
