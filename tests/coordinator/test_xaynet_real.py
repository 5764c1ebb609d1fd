"""The real, unmodified client of xaynet trains against our coordinator over HTTP."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ridotto.errors import ConfigError
from ridotto.secagg.xaynet.config import Bound, Data, Group, MaskConfig, Models
from tests.coordinator.xaynet_clients import OWN, model, scalar

REPOSITORY = Path(__file__).resolve().parents[2]
CLIENTS = 10
MOST_FAILURES = 5
STOP_S = 10
"""A round fails when none of 10 clients is chosen as a summer, a chance of 0.65^10 = 1.4 %, or fewer than 3 as
updaters, 0.5 %; then there is another. That six rounds of seven do has a chance below 1e-8."""


@contextmanager
def process(module: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", f"tests.coordinator.{module}", *map(str, arguments)]
    running = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
    try:
        yield running
    finally:
        running.kill()
        running.communicate()


def line(running: subprocess.Popen[str]) -> str:
    assert running.stdout is not None
    found = running.stdout.readline().strip()
    assert found, f"it ended with {running.wait()}"
    return found


def check(result: dict[str, Any], first: bool) -> None:
    """Hold a round's result to what the clients in it sent; it tells itself who they are."""
    mean = [Fraction(weight) for weight in result["mean"]]
    members = [number for number in range(OWN) if mean[number]]
    assert len(members) == len(result["updaters"]) >= 3
    assert len(result["summers"]) >= 1
    assert result["dissenters"] == []
    weight = sum(scalar(number) for number in members)
    assert Fraction(result["scalars"]) == weight
    sums = [sum(scalar(number) * model(number, first)[place] for number in members) for place in range(len(mean))]
    assert mean == [total / weight for total in sums]
    assert result["rounded"] == [float(np.float32(float(value))) for value in mean]


@pytest.mark.parametrize(
    "config",
    [
        MaskConfig(),
        pytest.param(MaskConfig(Group.POWER2, Data.F64, Bound.B2, Models.M6), marks=pytest.mark.slow),
        pytest.param(MaskConfig(Group.INTEGER, Data.F32, Bound.BMAX, Models.M12), marks=pytest.mark.slow),
        pytest.param(MaskConfig(Group.PRIME, Data.F32, Bound.B6, Models.M9), marks=pytest.mark.slow),
    ],
    ids=lambda config: config.to_bytes().hex(),
)
def test_real_clients_get_the_exact_weighted_mean_twice_in_a_row(config: MaskConfig) -> None:
    if find_spec("xaynet_sdk") is None:
        pytest.skip("xaynet's own client is not installed: pip install xaynet-sdk-python==0.1.0")
    with process("xaynet_server", 0, config.to_bytes().hex()) as server:
        url = line(server)
        assert url.startswith("http://127.0.0.1:")
        with process("xaynet_clients", url, CLIENTS) as clients:
            done: list[dict[str, Any]] = []
            failures = 0
            while len(done) < 2:
                result = json.loads(line(server))
                failures += "failed" in result
                assert failures <= MOST_FAILURES, result
                if "failed" not in result:
                    done.append(result)
            received = json.loads(line(clients))
        server.send_signal(signal.SIGTERM)
        assert server.wait(STOP_S) == 0
    for result, first in zip(done, (True, False), strict=True):
        check(result, first)
    # Clients make float32 of a ratio by dividing two float32 numbers.
    assert np.allclose(received, done[0]["rounded"], rtol=2**-22, atol=0)


def test_says_that_the_port_is_taken() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with process("xaynet_server", other.getsockname()[1]) as server:
            assert line(server).startswith("can't listen at 127.0.0.1 port")
            assert server.wait(STOP_S) == ConfigError.exit_code
