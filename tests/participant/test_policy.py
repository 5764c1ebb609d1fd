"""Tests of the policy file: what it says, and what it says wrongly."""

from __future__ import annotations

import pytest

from ridotto.errors import ConfigError
from ridotto.participant.policy import load_policy
from ridotto.rounds.plan import Risk
from ridotto.rounds.policy import Policy

KEY = "ab" * 32


def load(tmp_path, text: str) -> Policy:
    path = tmp_path / "policy.toml"
    path.write_text(text, encoding="utf-8")
    return load_policy(path)


def test_reads_every_key(tmp_path):
    text = f"""
        protocols = ["pairwise", "ideal"]
        min_participants = 5
        min_corrupt = 0.2
        max_clip = 1
        i_know = ["no-protection"]
        noise = "distributed"
        min_noise_multiplier = 1
        max_delta = 1e-6
        max_epsilon = 8
        [roster]
        north = "{KEY}"
    """
    assert load(tmp_path, text) == Policy(
        protocols=("pairwise", "ideal"),
        min_participants=5,
        min_corrupt=0.2,
        max_clip=1.0,
        i_know=(Risk.NO_PROTECTION,),
        noise="distributed",
        min_noise_multiplier=1.0,
        max_delta=1e-6,
        max_epsilon=8.0,
        roster={"north": KEY},
    )


def test_an_empty_file_is_the_default_policy(tmp_path):
    assert load(tmp_path, "") == Policy()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("min_participant = 5", "there is no key 'min_participant' in a policy; did you mean 'min_participants'?"),
        (
            "zebra = 5",
            "there is no key 'zebra' in a policy; there are helpers, i_know, max_clip, max_delta, max_epsilon, ",
        ),
        ('min_participants = "5"', "min_participants is '5': expected `int`, got `str`"),
        ("min_participants = 0", "min_participants is 0, expected a number from 1 up"),
        ("min_corrupt = 1.0", "min_corrupt is 1.0, expected a fraction from 0 to below 1"),
        ("min_corrupt = nan", "min_corrupt is nan, expected a fraction from 0 to below 1"),
        ("max_clip = -1.0", "max_clip is -1.0, expected a positive norm"),
        ('noise = "much"', 'noise is \'much\', expected "any" or "distributed"'),
        ("min_noise_multiplier = 0", "min_noise_multiplier is 0, expected a finite number above 0"),
        ("max_delta = 1", "max_delta is 1, expected a probability above 0 and below 1"),
        ("max_epsilon = inf", "max_epsilon is inf, expected a finite number above 0"),
        ("max_epsilon = 8.0", "max_epsilon is 8.0 and max_delta is missing: say at which delta epsilon is counted"),
        ('protocols = ["pairwide"]', "protocols has 'pairwide', which is unknown; did you mean 'pairwise'?"),
        ('protocols = "pairwise"', "protocols is 'pairwise', expected a list of words in quotes"),
        ('i_know = ["no-protectoin"]', "i_know has 'no-protectoin', which is unknown; did you mean 'no-protection'?"),
        ("i_know = [1]", "i_know has 1, which is unknown"),
        ('roster = "all"', "roster is 'all', expected a table"),
        ('[roster]\nnorth = "abcd"', "roster.north is 'abcd', expected an identity key: 64 hex digits"),
        ('[roster]\n"no rth" = "abcd"', "roster has 'no rth', which is not a participant's name"),
        ("min_participants = ", "is not TOML: Invalid value"),
    ],
)
def test_says_what_is_wrong_and_what_is_expected(tmp_path, text, why):
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    assert why in str(caught.value)
    assert str(tmp_path / "policy.toml") in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"the policy file .*none\.toml can't be read: No such file or directory"):
        load_policy(tmp_path / "none.toml")


def test_bytes_that_are_not_text_are_refused(tmp_path):
    (tmp_path / "policy.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="is not TOML"):
        load_policy(tmp_path / "policy.toml")
