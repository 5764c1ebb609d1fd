"""A federation with differential privacy, as people and machines see it: real processes, one budget, one early end."""

from __future__ import annotations

import json
import subprocess
import sys

import msgspec
import pytest

from ridotto.participant.events import Spent
from ridotto.rounds.plan import DistributedGaussian, Plan
from ridotto.rounds.private import PrivacyAccount
from ridotto.rounds.record import RoundRecord, SessionRecord, with_privacy

PARAMETERS = 10
DP = {"noise_multiplier": 6.0, "delta": 1e-5}


def account(rounds: int, epsilon: float | None = None) -> PrivacyAccount:
    """The account of the served plan, by itself."""
    dp = DistributedGaussian(epsilon=epsilon, **DP)
    plan = Plan(cohort=3, minimum=3, clip=1.0, max_examples=1, dp=dp, i_know=("small-cohort",))
    found = PrivacyAccount(plan, PARAMETERS)
    for _ in range(rounds):
        found.charge()
    return found


BUDGET = round((account(2).cost.epsilon + account(3).cost.epsilon) / 2, 3)


@pytest.fixture
def folder(folder):
    """Make the server's plan a private one whose budget ends after two of nine rounds."""
    text = (folder / "server.toml").read_text(encoding="utf-8")
    text = text.replace("rounds = 2", "rounds = 9").replace("[plan]", "[plan]\nclip = 1.0\nmax_examples = 1")
    dp = f'[plan.dp]\nname = "distributed-gaussian"\ndelta = 1e-5\nnoise_multiplier = 6.0\nepsilon = {BUDGET}\n'
    (folder / "server.toml").write_text(text + dp, encoding="utf-8")
    return folder


def lines(out: str) -> list[dict]:
    return [json.loads(line) for line in out.splitlines()]


def test_everybody_sees_what_is_spent_and_training_ends_by_itself(ridotto, coordinator, in_background, folder):
    policy = f'i_know = ["small-cohort"]\nnoise = "distributed"\nmax_delta = 1e-5\nmax_epsilon = {BUDGET}\n'
    (folder / "policy.toml").write_text(policy, encoding="utf-8")
    others = [in_background(coordinator.join(number)) for number in range(2)]
    ran = ridotto(*coordinator.join(2), "--json")
    assert (ran.code, ran.err) == (0, "")
    assert [other.wait(timeout=30) for other in others] == [0, 0]
    *events, summary = lines(ran.out)
    assert summary["rounds"] == [1, 2]
    assert events[-1]["event"] == "done"
    assert events[-1]["reason"].startswith("the privacy budget is spent: epsilon ")
    closed = [event["spent"] for event in events if event["event"] == "closed"]
    assert [spent["epsilon"] for spent in closed] == [account(number).cost.epsilon for number in (1, 2)]
    assert summary["spent"] == closed[-1]
    assert (closed[-1]["limit"], closed[-1]["rounds"], closed[-1]["relation"]) == (BUDGET, 2, "zero-out")

    federation, *records = lines(ridotto("status", coordinator.url, "--json").out)
    spent, left = account(2).cost.epsilon, account(2, BUDGET).left
    assert (federation["state"], federation["round"], federation["rounds"]) == ("done", 2, 9)
    assert federation["reason"] == events[-1]["reason"]
    assert (federation["privacy"]["epsilon"], federation["epsilon_left"]) == (spent, left)
    assert [record["privacy"]["epsilon"] for record in records] == [account(1).cost.epsilon, spent]
    facts = records[-1]["privacy"]
    assert (records[-1]["epsilon_left"], facts["budget"], facts["delta"]) == (left, BUDGET, 1e-5)
    assert (facts["relation"], facts["unit"], facts["noise_multiplier"]) == ("zero-out", "participant", 6.0)
    assert facts["sampling"].startswith("No sampling is credited: devices choose when they are there")
    assert facts["trust"].startswith("Trusted: 2 of every 3 participants in a sum")

    shown = " ".join(ridotto("status", coordinator.url).out.split())
    assert f"After 2 of 9 rounds: epsilon {-(-spent * 1000 // 1) / 1000:g} of {BUDGET:g} at delta 1e-05" in shown
    assert "whether or not any one participant contributes anything" in shown
    assert "round participants lost metrics epsilon left" in shown

    # Who comes later finds a federation that is over; who asks for more privacy than is left does not begin.
    assert "the privacy budget is spent" in ridotto(*coordinator.join(3)).out


def test_a_policy_that_asks_for_more_ends_with_6_before_training(ridotto, coordinator, in_background, folder):
    for number in range(2):
        in_background(coordinator.join(number))
    strict = folder / "strict.toml"
    strict.write_text('i_know = ["small-cohort"]\nmin_noise_multiplier = 7.0\n', encoding="utf-8")
    ran = ridotto(*coordinator.join(2), "--policy", strict)
    assert ran.code == 6
    assert "the noise multiplier is 6; the policy has min_noise_multiplier = 7" in ran.sentence
    assert "training" not in ran.out


def test_serve_says_what_is_spent_and_logs_it(folder):
    process = subprocess.Popen(
        [sys.executable, "-m", "ridotto", "serve", str(folder / "server.toml")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    shown = ""
    while "Ctrl-C" not in shown:
        shown += process.stdout.readline()
    process.terminate()
    _, logged = process.communicate(timeout=20)
    assert process.returncode == 0
    assert f"After 0 of 9 rounds: epsilon 0 of {BUDGET:g}" in " ".join(shown.split())
    assert f"round 1 of 9; epsilon 0 of {BUDGET:g} at delta 1e-05 (zero-out) is spent" in logged


def test_serve_refuses_a_budget_without_room_for_a_round(ridotto, folder):
    text = (folder / "server.toml").read_text(encoding="utf-8")
    (folder / "server.toml").write_text(text.replace(f"epsilon = {BUDGET}", "epsilon = 0.1"), encoding="utf-8")
    ran = ridotto("serve", folder / "server.toml")
    assert ran.code == 3
    assert "the first round would already spend epsilon" in ran.sentence


def test_an_infinite_epsilon_is_null_for_machines():
    from ridotto.cli.join import _spent

    assert _spent(Spent(1, float("inf"), 1e-6, None))["spent"]["epsilon"] is None
    assert _spent(None) == {}


def test_status_has_a_column_for_what_there_is():
    from ridotto.cli.status import _columns

    session = SessionRecord(sid="aa", shard=0, members=2, included=("liar", "other"), lost={}, excluded="too long")
    facts = {"round": 1, "attempt": 1, "plan": "", "protocol": "pairwise", "model_before": "", "model": ""}
    plain = RoundRecord(**facts, started=0.0, finished=1.0, sessions=())
    assert list(_columns([plain])) == ["round", "participants", "lost", "metrics"]
    shown = with_privacy(
        msgspec.structs.replace(plain, sessions=(session,), clipped=2.4), account(1, epsilon=8.0).statement()
    )
    columns = _columns([plain, shown])
    assert [column(plain) for column in columns.values()][4:] == ["-", "-", "-", "-"]
    left = 8.0 - account(1).cost.epsilon
    assert [column(shown) for column in columns.values()][4:] == [
        "2",
        "liar, other",
        f"{-(-account(1).cost.epsilon * 1000 // 1) / 1000:g}",
        f"{left * 1000 // 1 / 1000:g}",
    ]
