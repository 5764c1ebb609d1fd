"""`ridotto join --committee`: helpers in processes of their own, one of whom is killed in the middle."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ridotto.participant.enter import Params
from ridotto.participant.help import serve_committee
from ridotto.rounds.plan import Risk
from ridotto.rounds.policy import Policy
from tests.cli.conftest import SERVER, Coordinator

HELPERS = ("north", "south", "east", "west", "centre", "coast")

SERVED = SERVER.replace(
    "i_know",
    'protocol = { name = "committee", corrupt = 0.0, helpers = { keys = { %s } } }\ni_know',
)


def lines(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture
def served(ridotto, folder) -> Iterator[Coordinator]:
    """Serve a plan whose sums six helpers open."""
    shown = [ridotto("identity", name, "--state", folder / "helpers").out.strip() for name in HELPERS]
    plan = (SERVED % ", ".join(shown)).replace("phase_s = 5.0", "phase_s = 2.0")
    (folder / "server.toml").write_text(plan, encoding="utf-8")
    (folder / "policy.toml").write_text('i_know = ["small-cohort"]\nmin_corrupt = 0.0\n', encoding="utf-8")
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


def helping(served: Coordinator, name: str) -> list[str]:
    policy, state = served.folder / "policy.toml", served.folder / "helpers"
    return ["join", served.url, "--committee", "--name", name, "--state", str(state), "--policy", str(policy)]


def test_helpers_serve_and_one_is_killed(ridotto, served, in_background):
    policy = Policy(i_know=(Risk.SMALL_COHORT,), min_corrupt=0.0)
    pool = ThreadPoolExecutor(4)
    known = [Params(served.url, name=name, state=served.folder / "helpers", policy=policy) for name in HELPERS[1:-1]]
    helpers = [pool.submit(serve_committee, params) for params in known]
    killed = subprocess.Popen(
        [sys.executable, "-m", "ridotto", *helping(served, HELPERS[-1]), "--json"], stdout=subprocess.PIPE, text=True
    )
    others = [in_background(served.join(number)) for number in range(3)]
    watched = subprocess.Popen(
        [sys.executable, "-m", "ridotto", *helping(served, HELPERS[0]), "--json"], stdout=subprocess.PIPE, text=True
    )
    for line in killed.stdout:
        if json.loads(line)["message"] == "Checked":
            os.kill(killed.pid, signal.SIGKILL)
            break
    killed.communicate()
    again = in_background(helping(served, HELPERS[-1]))
    out, _ = watched.communicate(timeout=60)
    *events, summary = lines(out)
    assert (watched.returncode, summary["name"], summary["rounds"]) == (0, "north", [1, 2])
    assert [event["message"] for event in events if event["event"] == "sending"] == [
        *("MemberKey", "Checked", "Ack", "MaskSum")
    ] * 2
    assert [process.wait(timeout=30) for process in (*others, again)] == [0] * 4
    assert [helper.result(30).rounds for helper in helpers] == [(1, 2)] * 4
    pool.shutdown()

    federation, *records = lines(ridotto("status", served.url, "--json").out)
    assert federation["state"] == "done"
    assert [(record["participants"], record["failure"]) for record in records] == [(3, ""), (3, "")]
    assert "helpers" in ridotto("status", served.url).out


def test_whoever_joins_in_the_wrong_role_is_told_what_to_do(ridotto, served):
    refused = ridotto(*helping(served, "stranger"))
    assert refused.code == 2
    assert "does not name stranger with key" in refused.sentence
    assert '"stranger" = "' in refused.sentence

    arguments = served.join(0)
    arguments[arguments.index("--name") + 1] = "north"
    arguments[arguments.index("--state") + 1] = str(served.folder / "helpers")
    refused = ridotto(*arguments)
    assert refused.code == 2
    assert refused.sentence == "the plan names north as a helper: serve with `ridotto join URL --committee`"


def test_a_plan_without_helpers_has_no_committee_to_join(ridotto, coordinator):
    refused = ridotto("join", coordinator.url, "--committee", "--name", "north", "--state", coordinator.folder / "s")
    assert refused.code == 2
    assert refused.sentence == 'the plan of ridotto asks for no helpers; its protocol is "pairwise"'


def test_a_plan_that_names_too_few_helpers_is_not_served(ridotto, folder):
    (folder / "server.toml").write_text(SERVED % "", encoding="utf-8")
    refused = ridotto("serve", folder / "server.toml")
    assert "the plan's committees are made of helpers, and it names 0" in refused.sentence
    assert refused.code == 3
