"""The data holder's policy file: TOML -> `rounds.policy.Policy`.

    protocols = ["pairwise"]
    min_participants = 5
    min_corrupt = 0.1
    max_clip = 1.0
    i_know = []

    noise = "distributed"          # differential privacy, and how much of it
    min_noise_multiplier = 1.0
    max_delta = 1e-6
    max_epsilon = 8.0              # for all rounds together, as this participant counts

    [roster]                       # who may be in a round with me, by identity key
    north = "5f3c..."

    [helpers]                      # whom I trust to serve on committees
    clinic = "90ab..."

A key that is left out keeps its default; a key that is misspelt would leave a floor down without anyone noticing, so
unknown keys are refused.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec

from ridotto.core.wire import NAME_PATTERN
from ridotto.errors import ConfigError
from ridotto.rounds.plan import Risk
from ridotto.rounds.policy import NOISES, Policy
from ridotto.rounds.service import HexKey
from ridotto.secagg.protocols import PROTOCOLS

FIELDS = {field.name: field for field in msgspec.structs.fields(Policy)}

Check = tuple[Callable[[Any], bool], str]
"""Whether a value is usable, and what is expected of it."""

CHECKS: dict[str, Check] = {
    "min_participants": (lambda value: value >= 1, "a number from 1 up"),
    "min_corrupt": (lambda value: 0 <= value < 1, "a fraction from 0 to below 1"),
    "max_clip": (lambda value: 0 < value < float("inf"), "a positive norm"),
    "noise": (lambda value: value in NOISES, " or ".join(f'"{noise}"' for noise in NOISES)),
    "min_noise_multiplier": (lambda value: 0 < value < float("inf"), "a finite number above 0"),
    "max_delta": (lambda value: 0 < value < 1, "a probability above 0 and below 1"),
    "max_epsilon": (lambda value: 0 < value < float("inf"), "a finite number above 0"),
}


def load_policy(path: Path) -> Policy:
    """Read a policy file.

    Raises ConfigError naming the file and the key, with what was found, what is expected and, for a word that is not
    known, the closest one that is.
    """
    settings = _read(path)
    for key, value in settings.items():
        if key not in FIELDS:
            raise ConfigError(f"{path}: there is no key {key!r} in a policy{_closest(key, FIELDS)}")
        try:
            _check(key, value)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from error
    try:
        return msgspec.convert(settings, Policy)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"the policy file {path} can't be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"the policy file {path} is not TOML: {error}") from error


def _check(key: str, value: Any) -> None:
    if key in ("protocols", "i_know"):
        _check_words(key, value, PROTOCOLS if key == "protocols" else [risk.value for risk in Risk])
    if key in ("roster", "helpers"):
        _check_roster(key, value)
    try:
        converted = msgspec.convert(value, FIELDS[key].type)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{key} is {value!r}: {_lowered(str(error))}") from error
    usable, expected = CHECKS.get(key, (lambda value: True, ""))
    if not usable(converted):
        raise ConfigError(f"{key} is {value!r}, expected {expected}")


def _check_words(key: str, value: Any, known: Iterable[str]) -> None:
    if not isinstance(value, list):
        raise ConfigError(f'{key} is {value!r}, expected a list of words in quotes, as ["{next(iter(known))}"]')
    for word in value:
        if word not in known:
            raise ConfigError(f"{key} has {word!r}, which is unknown{_closest(str(word), known)}")


def _check_roster(table: str, value: Any) -> None:
    if not isinstance(value, dict):
        raise ConfigError(f"{table} is {value!r}, expected a table: name = identity key")
    for name, key in value.items():
        if NAME_PATTERN.fullmatch(name) is None:
            raise ConfigError(f"{table} has {name!r}, which is not a participant's name")
        try:
            msgspec.convert(key, HexKey)
        except msgspec.ValidationError as error:
            raise ConfigError(f"{table}.{name} is {key!r}, expected an identity key: 64 hex digits") from error


def _closest(word: str, known: Iterable[str]) -> str:
    """Return the end of a sentence: the closest known word, or all of them."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; there are {', '.join(sorted(known))}"


def _lowered(text: str) -> str:
    return text[:1].lower() + text[1:]
