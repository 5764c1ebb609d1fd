"""`ridotto serve FILE.toml --xaynet`: what it refuses, and that PET's routes answer."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from typing import Any

import httpx
import pytest

pytest.importorskip("nacl", reason="xaynet's clients need PyNaCl: pip install 'ridotto[xaynet]'")

IDEAL = '[plan.protocol]\nname = "ideal"\n'
PROX = '[plan.algorithm]\nname = "fedprox"\nparameters = { mu = 0.1 }\n'
CHANCES = "[xaynet]\nsum_chance = 0.3\nupdate_chance = 0.9\n"


def write(folder: Any, *more: str, known: str = "no-protection") -> Any:
    text = (folder / "server.toml").read_text(encoding="utf-8").replace("small-cohort", known)
    path = folder / "xaynet.toml"
    path.write_text(text + "".join(more), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("more", "known", "why"),
    [
        ((IDEAL,), "no-protection", "add a table [xaynet] with their chances"),
        ((CHANCES,), "small-cohort", 'the plan says protocol "ideal"'),
        ((IDEAL, PROX, CHANCES), "no-protection", "know nothing of algorithm"),
        ((IDEAL, CHANCES + "summer = 1\n"), "no-protection", 'has no key "summer"; did you mean "summers"?'),
        ((IDEAL, CHANCES.replace("0.3", "1.5")), "no-protection", "expected 0 < sum < 1"),
    ],
)  # fmt: skip
def test_refuses_what_the_clients_can_not_follow(
    ridotto: Any, folder: Any, more: tuple[str, ...], known: str, why: str
) -> None:
    found = ridotto("serve", write(folder, *more, known=known), "--xaynet")
    assert found.code != 0
    assert why in " ".join(found.err.split())


def test_serves_the_routes_of_pet_until_it_is_stopped(folder: Any) -> None:
    command = [sys.executable, "-m", "ridotto", "serve", str(write(folder, IDEAL, CHANCES)), "--xaynet", "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        said = json.loads(process.stdout.readline())
        assert said["protocol"] == "xaynet"
        parameters = httpx.get(f"{said['url']}/params", timeout=20)
        assert (parameters.status_code, len(parameters.content)) == (200, 136)
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
    assert process.returncode == 0
