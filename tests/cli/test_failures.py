"""Errors turned into sentences and exit codes."""

from __future__ import annotations

import errno

import pytest

from ridotto.cli.failures import failure_of
from ridotto.cli.options import program_options
from ridotto.cli.screen import size
from ridotto.errors import ConfigError, LocalProtocolError, RoundFailedError


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (RoundFailedError("TOO_FEW", "2 are there,\n 3 are needed"), 10, "TOO_FEW: 2 are there, 3 are needed"),
        (LocalProtocolError("a bug"), 70, "a bug"),
        (OSError(errno.ENOSPC, "No space left on device", "/data"), 9, "the disk is full (/data): make room"),
        (OSError(errno.EDQUOT, "Quota exceeded"), 9, "the disk is full: make room"),
        (OSError(errno.EADDRINUSE, "Address in use"), 2, "the port is in use"),
        (PermissionError(errno.EACCES, "Permission denied", "/root/x"), 9, "/root/x can't be used: Permission denied"),
        (ConnectionResetError(errno.ECONNRESET, "Connection reset"), 8, "the connection failed: Connection reset"),
        (OSError("odd"), 1, "unexpected OSError: odd; run again with --debug"),
    ],
)
def test_says_what_happened(error, code, said):
    failure = failure_of(error)
    assert failure.exit_code == code
    assert failure.sentence.startswith(said)


def test_an_unexpected_error_says_where_it_was_raised():
    try:
        raise ValueError("odd data")
    except ValueError as error:
        error.add_note("This happened while client-3 was training.")
        failure = failure_of(error)
    assert failure.exit_code == 1
    assert "unexpected ValueError in " in failure.sentence
    assert "test_failures.py, line " in failure.sentence
    assert "odd data This happened while client-3 was training." in failure.sentence


def test_options_are_read_as_toml_or_as_text():
    words = ["clients=10", "alpha=0.5", "name=hospital", "sizes=[4, 2]", "fast=true", "text=a=b"]
    assert program_options(words) == {
        "clients": 10,
        "alpha": 0.5,
        "name": "hospital",
        "sizes": [4, 2],
        "fast": True,
        "text": "a=b",
    }
    assert program_options(None) == {}


@pytest.mark.parametrize("word", ["clients", "=3", "a-b=3"])
def test_an_option_that_is_none_is_refused(word):
    with pytest.raises(ConfigError, match="expected KEY=VALUE"):
        program_options([word])


def test_sizes_are_spelt_for_people():
    assert [size(n) for n in (0, 999, 1000, 5e6, 7e9, 3e12)] == ["0 B", "999 B", "1.0 kB", "5.0 MB", "7.0 GB", "3.0 TB"]
