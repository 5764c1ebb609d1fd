"""Receipts from end to end: a coordinator and participants in processes of their own, and what each can audit then."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

PROTOCOLS = {
    "ideal": ('name = "ideal"', '["no-protection"]', 'protocols = ["ideal"]\nmin_corrupt = 0.0\n'),
    "pairwise": ('name = "pairwise"', '["small-cohort"]', ""),
    "oneshot": ('name = "oneshot"\ncorrupt = 0.0', '["small-cohort"]', "min_corrupt = 0.0\n"),
}


@contextmanager
def serving(folder: Path) -> Iterator[dict[str, str]]:
    """Serve `server.toml` of the folder; at the end it is killed."""
    process = subprocess.Popen(
        [sys.executable, "-m", "ridotto", "serve", str(folder / "server.toml"), "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())
    finally:
        process.kill()
        process.communicate(timeout=20)


def configure(folder: Path, protocol: str) -> None:
    table, risks, policy = PROTOCOLS[protocol]
    config = (folder / "server.toml").read_text(encoding="utf-8").replace('["small-cohort"]', risks)
    config = config.replace("[enrolment]", f"[plan.protocol]\n{table}\n[enrolment]")
    (folder / "server.toml").write_text(config, encoding="utf-8")
    (folder / "policy.toml").write_text(f"i_know = {risks}\n{policy}", encoding="utf-8")


@pytest.mark.parametrize(
    "protocol", [name if name == "oneshot" else pytest.param(name, marks=pytest.mark.slow) for name in PROTOCOLS]
)
def test_everybody_can_audit_what_was_done(protocol, ridotto, folder, in_background):
    configure(folder, protocol)
    with serving(folder) as facts:
        tokens = Path(facts["tokens"]).read_text(encoding="utf-8").split()

        def join(number: int) -> list[str]:
            return [
                *("join", facts["url"], "--program", f"{folder}/program.py:make", "--client", str(number)),
                *("--name", f"p{number}", "--state", str(folder / "state"), "--token", tokens[number]),
                *("--policy", str(folder / "policy.toml"), "--receipts", str(folder / f"receipts-{number}")),
            ]

        others = [in_background(join(number)) for number in range(2)]
        ran = ridotto(*join(2), "--json")
        assert (ran.code, ran.err) == (0, "")
        checked = [event for event in map(json.loads, ran.out.splitlines()) if event["event"] == "receipt"]
        assert [event["round"] for event in checked] == [1, 2]
        assert all("was in the set of session" in event["reason"] for event in checked)
        assert [other.wait(timeout=30) for other in others] == [0, 0]
        before = [fetch(facts["url"], number) for number in (1, 2)]
    # Killed and started again it still shows the receipts that it showed before.
    with serving(folder) as facts:
        assert [fetch(facts["url"], number) for number in (1, 2)] == before
    for number in range(3):
        mine = folder / f"receipts-{number}"
        assert len(list(mine.iterdir())) == 4
        for receipt in mine.glob("*.receipt.json"):
            proof = receipt.with_name(receipt.name.replace("receipt", "proof"))
            ran = ridotto("audit", receipt, "--coordinator", facts["coordinator"], "--proof", proof)
            assert ran.code == 0
            assert f"The contribution of p{number} (SHA-256" in ran.out
    for full in Path(facts["receipts"]).glob("*.full.*.json"):
        ran = ridotto("audit", full, "--coordinator", facts["coordinator"])
        assert ran.code == 0
        assert "3 participants were asked" in ran.out


def fetch(url: str, number: int) -> bytes:
    with urllib.request.urlopen(f"{url}/v1/rounds/{number}/receipt", timeout=10) as answer:
        return answer.read()


def test_people_are_told_what_was_checked(ridotto, coordinator, in_background, tmp_path):
    for number in range(2):
        in_background(coordinator.join(number))
    ran = ridotto(*coordinator.join(2), "--receipts", tmp_path / "mine")
    assert ran.code == 0
    assert "round 1: receipt checked (The contribution of p2 (SHA-256" in ran.out
