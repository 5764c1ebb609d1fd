"""Configuration files: every key is known or refused, in one sentence with the file, the key and what is expected."""

from __future__ import annotations

from pathlib import Path

import pytest

from ridotto.config import (
    EnrolmentSection,
    FederationSection,
    ServerConfig,
    SimulationConfig,
    TlsSection,
    beside,
    child_environment,
    enrolment_token,
    load_config,
    state_directory,
)
from ridotto.errors import ConfigError, PlanError
from ridotto.rounds.plan import CentralGaussian, Optimiser, Pairwise, Plan
from ridotto.rounds.policy import Policy

SIMULATION = """
rounds = 3
seed = 1
[plan]
cohort = 10
"""
SERVER = """
program = "digits"
rounds = 20
[federation]
data = "runs/digits"
[plan]
cohort = 10
[plan.protocol]
name = "pairwise"
corrupt = 0.2
[plan.optimiser]
name = "fedavg"
[plan.metrics]
accuracy = 1.0
[enrolment]
tokens = 10
allow = { north = "aa" }
[tls]
certificate = "cert.pem"
key = "key.pem"
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "x.toml"
    path.write_text(text, encoding="utf-8")
    return path


def refusal(folder: Path, text: str, kind: type = SimulationConfig, error: type[Exception] = ConfigError) -> str:
    path = write(folder, text)
    with pytest.raises(error) as caught:
        load_config(path, kind)
    sentence = str(caught.value)
    assert sentence.startswith(f"{path}")
    assert "\n" not in sentence
    return sentence.removeprefix(f"{path}: ")


def test_reads_a_whole_server_file(tmp_path):
    config = load_config(write(tmp_path, SERVER), ServerConfig)
    assert config.plan.protocol == Pairwise(corrupt=0.2)
    assert (config.rounds, config.enrolment.tokens, config.federation.port) == (20, 10, 8765)
    assert config.tls is not None
    assert config.tls.client_ca is None


def test_reads_a_short_simulation_file(tmp_path):
    config = load_config(write(tmp_path, SIMULATION), SimulationConfig)
    assert (config.program, config.options, config.save) == ("digits", {}, None)


@pytest.mark.parametrize(
    ("found", "replaced_by", "sentence"),
    [
        (
            "cohort = 10",
            "cohrt = 10",
            '[plan] has no key "cohrt"; did you mean "cohort"? expected one of cohort, minimum',
        ),
        (
            "rounds = 3",
            "rouds = 3",
            'the top level has no key "rouds"; did you mean "rounds"? expected one of rounds, seed',
        ),
        ("cohort = 10", 'cohort = "ten"', "plan.cohort is a text in quotes, expected a whole number"),
        ("cohort = 10", "cohort = 10\nminimum = 7.5", "plan.minimum is a number, expected a whole number"),
        ("cohort = 10", "cohort = 10\nmetrics = 3", "plan.metrics is a whole number, expected a table"),
        ("rounds = 3\n", "", 'the key "rounds" is missing from the top level'),
        ("cohort = 10", "", 'the key "cohort" is missing from [plan]'),
        (
            "cohort = 10",
            'cohort = 10\nprotocol = { name = "pairwize" }',
            'plan.protocol.name is "pairwize"; did you mean "pairwise"? expected one of ideal, pairwise',
        ),
        (
            "cohort = 10",
            'cohort = 10\nprotocol = { name = "pairwise", corupt = 0.1 }',
            '[plan.protocol] has no key "corupt"; did you mean "corrupt"? expected one of name, corrupt, drop_out',
        ),
        (
            "cohort = 10",
            "cohort = 10\nprotocol = { corrupt = 0.1 }",
            'the key "name" is missing from [plan.protocol]',
        ),
        (
            "cohort = 10",
            'cohort = 10\ni_know = ["no-protecton"]',
            'plan.i_know[0] is "no-protecton"; did you mean "no-protection"? expected one of small-cohort',
        ),
        ("cohort = 10", "cohort = 10\nxyzzy = 1", '[plan] has no key "xyzzy"; expected one of cohort'),
    ],
)
def test_says_what_is_wrong_with_a_key(tmp_path, found, replaced_by, sentence):
    assert refusal(tmp_path, SIMULATION.replace(found, replaced_by)).startswith(sentence)


def test_a_plan_that_is_impossible_keeps_its_own_reason(tmp_path):
    text = SIMULATION.replace("cohort = 10", 'cohort = 10\noptimiser = { name = "fedfoo" }')
    assert refusal(tmp_path, text, error=PlanError) == (
        "there is no strategy 'fedfoo'; the known ones are fedavg, fedavgm, fedadagrad, fedadam, fedyogi"
    )


@pytest.mark.parametrize(
    ("found", "replaced_by", "sentence"),
    [
        ('data = "runs/digits"', 'data = "x"\nport = 70000', "federation.port is 0 to 65535, not 70000"),
        ("tokens = 10", "tokens = -1", "enrolment.tokens is 0 to 100000, not -1"),
        ('key = "key.pem"', "", 'the key "key" is missing from [tls]'),
        ("[tls]", "[tsl]", 'the top level has no key "tsl"; did you mean "tls"? expected one of rounds, federation'),
    ],
)
def test_says_what_is_wrong_with_a_server(tmp_path, found, replaced_by, sentence):
    assert refusal(tmp_path, SERVER.replace(found, replaced_by), ServerConfig).startswith(sentence)


def test_says_where_toml_is_broken(tmp_path):
    assert "line 1" in refusal(tmp_path, "rounds = = 3")


def test_says_that_there_is_no_file(tmp_path):
    with pytest.raises(ConfigError, match=r"there is no file .*none\.toml: give the path of a TOML file"):
        load_config(tmp_path / "none.toml", ServerConfig)


def test_a_file_that_is_not_text_is_refused(tmp_path):
    path = tmp_path / "x.toml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="can't be read"):
        load_config(path, ServerConfig)


def test_paths_are_relative_to_the_file(tmp_path):
    assert beside(tmp_path / "x.toml", "runs/a") == tmp_path / "runs" / "a"
    assert beside(tmp_path / "x.toml", "/elsewhere") == Path("/elsewhere")


def test_the_state_directory_follows_the_environment(monkeypatch):
    monkeypatch.delenv("RIDOTTO_STATE", raising=False)
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    assert state_directory() is None
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    assert state_directory() is None  # the specification: such a path is invalid and must be ignored
    monkeypatch.setenv("XDG_STATE_HOME", "/state")
    assert state_directory() == Path("/state/ridotto")
    monkeypatch.setenv("RIDOTTO_STATE", "/own")
    assert state_directory() == Path("/own")


def test_the_token_may_be_in_the_environment(monkeypatch):
    monkeypatch.delenv("RIDOTTO_TOKEN", raising=False)
    assert enrolment_token() == ""
    monkeypatch.setenv("RIDOTTO_TOKEN", "secret")
    assert enrolment_token() == "secret"


def test_many_processes_take_one_thread_each():
    assert child_environment()["OPENBLAS_NUM_THREADS"] == "1"


@pytest.mark.parametrize(
    ("table", "why"),
    [
        ('name = "sampel"', 'plan.compress[1].name is "sampel"; did you mean "sample"? expected one of rotate, sample'),
        ('name = "sample"\nfractoin = 0.5', '[plan.compress[1]] has no key "fractoin"; did you mean "fraction"?'),
    ],
)
def test_names_what_does_not_fit_in_a_list_of_tables(tmp_path, table, why):
    path = tmp_path / "simulation.toml"
    path.write_text(SIMULATION + f'[[plan.compress]]\nname = "rotate"\n[[plan.compress]]\n{table}\n', encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_config(path, SimulationConfig)
    assert why in str(caught.value)


def test_every_key_is_documented():
    page = (Path(__file__).parents[1] / "docs" / "configuration.md").read_text(encoding="utf-8")
    sections = (SimulationConfig, ServerConfig, FederationSection, EnrolmentSection, TlsSection)
    keys = {
        key
        for kind in (*sections, Plan, Pairwise, CentralGaussian, Optimiser, Policy)
        for key in kind.__struct_fields__
    }
    assert {
        key for key in keys if f"`{key}`" not in page and f"[{key}]" not in page and f".{key}]" not in page
    } == set()


def test_a_name_stands_for_a_part_of_a_plan_with_its_defaults(tmp_path):
    named = SIMULATION.replace("[plan]", '[plan]\nprotocol = "oneshot"\noptimiser = "fedavg"\nalgorithm = "fedavg"')
    spelt = SIMULATION + '[plan.protocol]\nname = "oneshot"\n'
    plans = [load_config(write(tmp_path, text), SimulationConfig).plan for text in (named, spelt)]
    assert plans[0] == plans[1]
    assert plans[0].protocol_name == "oneshot"
    said = refusal(tmp_path, named.replace('"oneshot"', '"oneshoe"'))
    assert said.startswith('plan.protocol.name is "oneshoe"; did you mean "oneshot"?')
