"""The verbs: what people and machines are shown when all goes well."""

from __future__ import annotations

import json
import re
import stat
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from ridotto import NumpyTrainer, Task, cli
from ridotto.core.tensors import read_model
from ridotto.crypto.identity import load_or_create_identity

VERBS = ("demo", "simulate", "privacy", "serve", "token", "join", "identity", "status", "audit")


def lines(out):
    return [json.loads(line) for line in out.splitlines()]


def test_help_lists_every_verb(ridotto):
    ran = ridotto("--help")
    assert ran.code == 0
    assert all(verb in ran.out for verb in VERBS)
    assert ridotto().out == ran.out


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_json_and_debug(ridotto, verb):
    ran = ridotto(verb, "--help")
    assert ran.code == 0
    assert "--json" in ran.out
    assert "--debug" in ran.out
    assert "--pause" not in ran.out


@pytest.mark.parametrize("verb", VERBS)
def test_every_option_is_documented(ridotto, verb):
    page = (Path(__file__).parents[2] / "docs" / "command-line.md").read_text(encoding="utf-8")
    section = page.partition(f"## ridotto {verb}")[2].partition("\n## ")[0]
    options = set(re.findall(r"--[a-z]+", ridotto(verb, "--help").out)) - {"--help", "--debug"}
    assert {option for option in options if option not in section} == set()


def test_shows_its_version(ridotto):
    from ridotto import __version__

    assert ridotto("--version").out == f"ridotto {__version__}\n"


def test_help_loads_nothing_heavy():
    heavy = ("numpy", "httpx", "sqlalchemy", "granian", "sklearn", "torch")
    code = f"import sys, ridotto.cli; ridotto.cli.run(['--help']); print(*[n for n in {heavy!r} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.splitlines()[-1] == ""


def test_simulates_for_people(ridotto, folder):
    ran = ridotto("simulate", folder / "simulation.toml", "--save", folder / "out")
    assert (ran.code, ran.err) == (0, "")
    assert "round 1/2  5 participants  test loss" in ran.out
    assert "The coordinator sees only sums of at least 4 updates" in ran.out
    assert {path.name for path in (folder / "out").iterdir()} >= {"model.safetensors", "history.csv", "records.json"}


def test_simulates_for_machines_and_repeats_itself(ridotto, folder):
    first = ridotto("simulate", folder / "simulation.toml", "--json")
    *rounds, result = lines(first.out)
    assert [(line["event"], line["round"]) for line in rounds] == [("round", 1), ("round", 2)]
    assert result["event"] == "result"
    assert result["measures"]["test_accuracy"] == rounds[-1]["test_accuracy"]
    again, other = (
        lines(ridotto("simulate", folder / "simulation.toml", "--json", "--seed", seed).out)[-1] for seed in (1, 2)
    )
    assert result["model"] == again["model"] != other["model"]


def test_options_change_how_a_simulation_is_run_and_not_what_comes_out(ridotto, folder):
    file = folder / "simulation.toml"
    expected = lines(ridotto("simulate", file, "--json").out)
    options = ("--engine", "inline", "--secure-sum", "modelled", "--on-client-error", "drop")
    *rounds, result = lines(ridotto("simulate", file, "--json", *options).out)
    assert result["model"] == expected[-1]["model"]
    assert {line["secure_sum"] for line in rounds} == {"modelled"}
    refused = ridotto("simulate", file, "--secure-sum", "none")
    assert "secure_sum is 'machines' or 'modelled', not 'none'" in refused.err


def test_a_simulation_goes_on_from_a_folder(ridotto, folder):
    file, out = folder / "simulation.toml", folder / "out"
    whole = lines(ridotto("simulate", file, "--json", "--rounds", 3).out)[-1]
    ridotto("simulate", file, "--rounds", 1, "--save", out)
    *rounds, result = lines(ridotto("simulate", file, "--json", "--rounds", 3, "--resume", out).out)
    assert [line["round"] for line in rounds] == [2, 3]
    assert result["model"] == whole["model"]


def test_saves_where_the_file_says(ridotto, folder):
    text = (folder / "simulation.toml").read_text(encoding="utf-8")
    (folder / "simulation.toml").write_text(f'save = "here"\n{text}', encoding="utf-8")
    ridotto("simulate", folder / "simulation.toml", "--rounds", 1)
    assert (folder / "here" / "model.safetensors").is_file()


PRIVATE = """
rounds = 6
seed = 1
program = "program.py:make"
options = { clients = 30 }
[plan]
cohort = 6
clip = 1.0
max_examples = 1
[plan.dp]
name = "distributed-gaussian"
delta = 1e-5
epsilon = 3.0
noise_multiplier = 3.0
"""


def test_says_what_a_plan_costs_without_training(ridotto, folder):
    (folder / "private.toml").write_text(PRIVATE)
    pytest.importorskip("matplotlib")
    ran = ridotto("privacy", folder / "private.toml", "--plot", folder / "epsilon.png")
    assert ran.code == 0
    assert "3 times the clip of 1" in ran.out
    assert "a fixed-size sample is known to amplify under replace-one only" in " ".join(ran.out.split())
    assert "Training would stop by itself after" in ran.out
    assert (folder / "epsilon.png").read_bytes().startswith(b"\x89PNG")


def test_the_forecast_is_what_a_simulation_then_spends(ridotto, folder):
    (folder / "private.toml").write_text(PRIVATE)
    *points, statement = lines(ridotto("privacy", folder / "private.toml", "--json").out)
    assert [point["rounds"] for point in points] == [1, 2, 3, 4, 5, 6]
    *rounds, result = lines(ridotto("simulate", folder / "private.toml", "--json").out)
    assert len(rounds) == statement["affordable"] < 6
    assert [line["epsilon"] for line in rounds] == [point["epsilon"] for point in points[: len(rounds)]]
    assert result["stopped"].startswith("the privacy budget is spent")
    assert result["privacy"]["epsilon"] == rounds[-1]["epsilon"]


def test_works_out_the_noise_for_an_epsilon(ridotto, folder):
    (folder / "private.toml").write_text(PRIVATE)
    ran = ridotto(
        "privacy", folder / "private.toml", "--epsilon", "2", "--rounds", "100", "--population", "5000", "--json"
    )
    *_, statement = lines(ran.out)
    assert statement["budget"] == 2.0
    assert statement["affordable"] >= 100
    assert 1.99 <= statement["epsilon"] <= 2.0


def test_a_plan_without_noise_has_no_cost_to_show(ridotto, folder):
    ran = ridotto("privacy", folder / "simulation.toml")
    assert ran.sentence.startswith("the plan has no dp: give it")
    (folder / "private.toml").write_text(PRIVATE)
    assert (
        "epsilon is a finite number above 0" in ridotto("privacy", folder / "private.toml", "--epsilon", "0").sentence
    )


def test_serves_and_joins(ridotto, folder, coordinator, in_background):
    others = [in_background(coordinator.join(number)) for number in range(2)]
    ran = ridotto(*coordinator.join(2), "--json", "--save", folder / "final.safetensors")
    assert (ran.code, ran.err) == (0, "")
    *events, summary = lines(ran.out)
    assert {"waiting", "training", "sending", "closed", "done"} <= {event["event"] for event in events}
    assert (summary["name"], summary["rounds"]) == ("p2", [1, 2])
    assert events[-1]["sent_bytes"] > 0
    assert read_model((folder / "final.safetensors").read_bytes())[1].length == 10
    assert [other.wait(timeout=30) for other in others] == [0, 0]

    federation, *records = lines(ridotto("status", coordinator.url, "--json").out)
    assert (federation["event"], federation["state"], federation["model"]) == ("federation", "done", summary["model"])
    assert [(record["round"], record["participants"]) for record in records] == [(1, 3), (2, 3)]
    shown = ridotto("status", coordinator.url).out
    assert "done" in shown
    assert "3 enrolled" in shown


def test_joins_for_people(ridotto, coordinator, in_background):
    for number in range(2):
        in_background(coordinator.join(number))
    ran = ridotto(*coordinator.join(2))
    assert ran.code == 0
    assert ran.out.startswith("taking part as p2\n")
    assert "round 1: training\n" in ran.out
    assert "took part in" in ran.out


def test_tokens_are_written_once_and_for_their_owner_only(coordinator):
    file = coordinator.folder / "data" / "tokens.txt"
    assert len(set(coordinator.tokens)) == 8
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_makes_more_tokens_while_the_coordinator_runs(ridotto, coordinator, folder):
    made = ridotto("token", folder / "server.toml", "--count", 3)
    assert (made.code, len(made.out.split())) == (0, 3)
    (line,) = lines(ridotto("token", folder / "server.toml", "--json").out)
    # The token lets it in, and the coordinator does not begin a round with one participant.
    process = subprocess.Popen(
        [sys.executable, "-m", "ridotto", *coordinator.join(0), "--token=" + line["tokens"][0], "--json"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert json.loads(process.stdout.readline())["event"] == "waiting"
    finally:
        process.kill()
        process.communicate()


def test_serves_for_people(folder):
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
    assert "ridotto join http://127.0.0.1:" in shown
    assert "(one for each participant)" in shown
    assert "round 1 of 2" in logged


def test_says_how_to_enrol_and_join():
    from ridotto.cli.serve import _join, _tokens

    assert _tokens(Path("tokens.txt"), 0) == "tokens.txt  (one for each participant)"
    assert _tokens(None, 2).startswith("not needed by the 2 of the allow-list")
    assert _tokens(None, 0).startswith("nobody can enrol yet")
    assert "--program digits" in _join("http://here", "digits", Task(NumpyTrainer((2, 2), seed=1), [()]))
    assert _join("http://here", "x.py:f", Task(NumpyTrainer((2, 2), seed=1), [])).startswith('ridotto.rounds("http:')


def test_an_interrupt_ends_with_130(folder, monkeypatch, capfd):
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ridotto.config.load_config", interrupted)
    assert cli.run(["simulate", str(folder / "simulation.toml")]) == 130
    assert capfd.readouterr() == ("", "")


def test_a_reader_that_has_seen_enough_is_no_failure(folder, monkeypatch, capfd):
    def closed(*_: object) -> None:
        raise BrokenPipeError

    monkeypatch.setattr("ridotto.config.load_config", closed)
    assert cli.run(["simulate", str(folder / "simulation.toml")]) == 0


def test_debug_shows_where_a_failure_came_from(ridotto, folder):
    ran = ridotto("simulate", folder / "none.toml", "--debug")
    assert ran.code == 2
    assert "Traceback" in ran.err
    assert ran.err.splitlines()[-1].startswith("ridotto: there is no file")


def test_an_identity_is_shown_as_lists_want_it(ridotto, tmp_path):
    shown = ridotto("identity", "north", "--state", tmp_path)
    ((name, key),) = tomllib.loads(shown.out).items()
    assert name == "north"
    assert bytes.fromhex(key) == load_or_create_identity(tmp_path / "north.pem").public
    assert lines(ridotto("identity", "north", "--state", tmp_path, "--json").out) == [
        {"event": "identity", "name": "north", "key": key}
    ]
    assert ridotto("identity", "no/name", "--state", tmp_path).code == 2
