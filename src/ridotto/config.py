"""Configuration: TOML files into frozen structs, and the only module that reads the environment.

    SimulationConfig    of `ridotto simulate FILE.toml`
    ServerConfig        of `ridotto serve FILE.toml` and `ridotto token FILE.toml`

Every key is known or refused: a misspelt one must not quietly leave a default in place. `docs/configuration.md` lists
them all. Paths in a file are relative to the folder that the file lies in, so that it works from anywhere.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import msgspec

from ridotto.errors import ConfigError, PlanError
from ridotto.rounds.plan import Plan

DEFAULT_PORT = 8765
"""Where a coordinator listens if its configuration does not say."""


NAMED_PARTS = ("protocol", "algorithm", "optimiser")
"""Parts of a plan for which a name will do."""


class _Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Stand above the tables of a configuration file."""


class SimulationConfig(_Section, frozen=True, kw_only=True):
    """Describe a simulation.

    program: "digits", or "file.py:function" or "package.module:function" that returns a `ridotto.Task`. options:
    arguments of that function. seed: of everything random; without a default, because it decides the result.
    test_every: the model is evaluated after so many rounds. engine, workers, batch, secure_sum, on_client_error: as in
    `ridotto.simulate`. max_failures: so many failed rounds in a row end it. save: a folder for model, history, records
    and checkpoints.
    """

    rounds: int
    seed: int
    plan: Plan
    program: str = "digits"
    options: dict[str, Any] = {}
    test_every: int = 1
    engine: str = "auto"
    workers: int | None = None
    batch: int | None = None
    secure_sum: str = "machines"
    on_client_error: str = "raise"
    max_failures: int = 3
    save: str | None = None


class FederationSection(_Section, frozen=True, kw_only=True):
    """Say what the federation is called, where it keeps its data and where it listens.

    data: folder for database and blobs. host: 127.0.0.1 lets only this machine in. port: 0 takes a free one.
    max_failures: so many failed attempts in a row stop the federation. presence_s: who asked for its inbox within so
    many seconds counts as present.
    """

    data: str
    name: str = "ridotto"
    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    max_failures: int = 5
    presence_s: float = 10.0

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ConfigError(f"federation.port is 0 to 65535, not {self.port}")


class EnrolmentSection(_Section, frozen=True, kw_only=True):
    """Say who may enrol: holders of one-time tokens, and identity keys on a list.

    tokens: so many are made when the federation starts for the first time, and written to tokens.txt in its data
    folder; `ridotto token` makes more. allow: name -> identity key (64 hex digits) of those who need no token.
    """

    tokens: int = 0
    allow: dict[str, str] = {}

    def __post_init__(self) -> None:
        if not 0 <= self.tokens <= 100_000:
            raise ConfigError(f"enrolment.tokens is 0 to 100000, not {self.tokens}")


class TlsSection(_Section, frozen=True, kw_only=True):
    """Name the PEM files of an encrypted service. client_ca: if given, participants must show a certificate of it."""

    certificate: str
    key: str
    client_ca: str | None = None


class XaynetSection(_Section, frozen=True, kw_only=True):
    """Say how existing clients of xaynet take part, with `ridotto serve --xaynet`.

    sum_chance, update_chance: of a client, to be drawn as a summer; of the others, as an updater. summers: at most so
    many. min_s: how long a phase lasts at least. The plan's minimum and cohort limit the updates.
    """

    sum_chance: float
    update_chance: float
    summers: int = 20
    min_s: float = 5.0


class ServerConfig(_Section, frozen=True, kw_only=True):
    """Describe a coordinator.

    program, options: as in `SimulationConfig`; the coordinator takes the initial model from the task, and its test
    data if it has some. rounds: successful ones, after which the federation is done.
    """

    rounds: int
    federation: FederationSection
    plan: Plan
    enrolment: EnrolmentSection
    program: str = "digits"
    options: dict[str, Any] = {}
    tls: TlsSection | None = None
    xaynet: XaynetSection | None = None


Config = TypeVar("Config", SimulationConfig, ServerConfig)


def load_config(path: Path, kind: type[Config]) -> Config:
    """Read a TOML file as one kind of configuration.

    Raises ConfigError, in one sentence with file and key, if it can't be read or a key is unknown, missing or of a
    wrong type; PlanError, with the file, if the plan is impossible.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"there is no file {path}: give the path of a TOML file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} can't be read: {getattr(error, 'strerror', None) or error}") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error
    return config_from(data, kind, str(path))


def config_from(data: Mapping[str, Any], kind: type[Config], where: str) -> Config:
    """Turn what a TOML file holds into a configuration. where: names the file in errors, which `load_config` lists."""
    data = _spelt_out(data)
    try:
        return msgspec.convert(data, kind)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{where}: {_sentence(str(error), data, kind)}") from error
    except (ConfigError, PlanError) as error:
        raise type(error)(f"{where}: {error}") from error


def _spelt_out(data: Mapping[str, Any]) -> Mapping[str, Any]:
    """Let a name stand for the part of a plan that has it and its defaults: `protocol = "oneshot"`."""
    plan = data.get("plan")
    if not isinstance(plan, Mapping):
        return data
    named = {key: {"name": plan[key]} for key in NAMED_PARTS if isinstance(plan.get(key), str)}
    return {**data, "plan": {**plan, **named}}


def beside(config: Path, path: str) -> Path:
    """Return a path that a configuration file names: relative to the file's folder, "~" is the home directory."""
    return config.parent / Path(path).expanduser()


def state_directory() -> Path | None:
    """Return where the environment says that participants keep identity keys and state files.

    RIDOTTO_STATE if it is set, else `ridotto` in XDG_STATE_HOME; None for the platform's usual place.
    """
    own = os.environ.get("RIDOTTO_STATE")
    if own:
        return Path(own)
    # The XDG base directory specification: a relative path is invalid and must be ignored.
    xdg = Path(os.environ.get("XDG_STATE_HOME", ""))
    return xdg / "ridotto" if xdg.is_absolute() else None


def enrolment_token() -> str:
    """Return RIDOTTO_TOKEN, or nothing: other users of a machine can see what is on a command line."""
    return os.environ.get("RIDOTTO_TOKEN", "")


def child_environment() -> dict[str, str]:
    """Return the environment for processes of which many run on one machine: one thread each for NumPy's BLAS."""
    threads = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
    return {**os.environ, **dict.fromkeys(threads, "1"), "PYTHONUNBUFFERED": "1"}


# What msgspec says when data do not fit, and what TOML's users call its types. A message of a later version that
# matches none of these patterns is passed on as it is.
_UNKNOWN = re.compile(r"Object contains unknown field `(?P<key>.*)`")
_MISSING = re.compile(r"Object missing required field `(?P<key>.*)`")
_WRONG_TYPE = re.compile(r"Expected `(?P<wanted>.*)`, got `(?P<found>.*)`")
_WRONG_NAME = re.compile(r"Invalid (?:enum )?value '(?P<found>.*)'")
_AT = re.compile(r" - at `\$\.?(?P<path>.*)`$")
_WORDS = {
    "int": "a whole number",
    "float": "a number",
    "str": "a text in quotes",
    "bool": "true or false",
    "array": "a list",
    "object": "a table",
    "null": "nothing",
}


def _sentence(message: str, data: Mapping[str, Any], kind: type) -> str:
    """Say in our words what did not fit, with what was found, what was expected and the closest valid key."""
    at = _AT.search(message)
    path = at["path"] if at else ""
    message = message[: at.start()] if at else message
    place = f"[{path}]" if path else "the top level"
    if found := _UNKNOWN.match(message):
        return f'{place} has no key "{found["key"]}"; {_closest(found["key"], _known(kind, data, path))}'
    if found := _MISSING.match(message):
        return f'the key "{found["key"]}" is missing from {place}'
    if found := _WRONG_TYPE.match(message):
        wanted = [_WORDS.get(word, word) for word in found["wanted"].split(" | ") if word != "null"]
        return f"{path or 'the file'} is {_WORDS.get(found['found'], found['found'])}, expected {' or '.join(wanted)}"
    if found := _WRONG_NAME.match(message):
        return f'{path} is "{found["found"]}"; {_closest(found["found"], _names(kind, data, path))}'
    return message


def _closest(found: str, known: list[str]) -> str:
    if not known:
        return "expected another value"
    near = difflib.get_close_matches(found, known, n=1, cutoff=0.5)
    hint = f'did you mean "{near[0]}"? ' if near else ""
    return f"{hint}expected {'one of ' if len(known) > 1 else ''}{', '.join(known)}"


def _known(kind: type, data: Mapping[str, Any], path: str) -> list[str]:
    """Return the keys of the table at `path`."""
    return [key for table in _structs_at(kind, data, path) for key in _keys(table)]


def _names(kind: type, data: Mapping[str, Any], path: str) -> list[str]:
    """Return the values that a name at `path` may have: members of an enumeration, or tags of a union."""
    parent, _, key = path.rpartition(".")
    key = key.partition("[")[0]
    tables = _structs_at(kind, {}, parent)
    if key == "name" and len(tables) > 1:
        return [str(table.__struct_config__.tag) for table in tables]
    enums = [part for table in tables for part in _parts(get_type_hints(table).get(key))]
    return [str(member.value) for enum in enums if hasattr(enum, "__members__") for member in enum]


def _structs_at(kind: type, data: Mapping[str, Any], path: str) -> list[Any]:
    """Return the structs that the table at `path` may become; the tag that `data` hold decides between several."""
    tables: list[Any] = [kind]
    for step in filter(None, path.split(".")):
        name, _, place = step.partition("[")
        hints = [get_type_hints(table).get(name) for table in tables]
        tables = [part for hint in hints for part in _parts(hint) if hasattr(part, "__struct_config__")]
        found: Any = data.get(name, {})
        # Which element of a list of tables does not fit is not always said; it is the first that nothing takes.
        data = next((part for part in found if _unfit(part, tables)), {}) if place else found
    tagged = [t for t in tables if data and t.__struct_config__.tag in (None, data.get(t.__struct_config__.tag_field))]
    return tagged or tables


def _unfit(part: Any, tables: list[Any]) -> bool:
    """Tell whether no table takes this part of a list."""
    fitting = [t for t in tables if isinstance(part, dict) and t.__struct_config__.tag == part.get("name")]
    return not fitting or not set(part) <= set(_keys(fitting[0]))


def _keys(table: Any) -> list[str]:
    tag = table.__struct_config__.tag_field
    return [*([tag] if tag else []), *table.__struct_encode_fields__]


def _parts(hint: Any) -> list[Any]:
    """Take a type hint apart: the members of a union, the elements of a tuple, or the type itself."""
    if isinstance(hint, UnionType) or get_origin(hint) is tuple:
        return [part for member in get_args(hint) for part in _parts(member)]
    return [hint]
