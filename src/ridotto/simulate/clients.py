"""Who takes part in a simulation: names and data by position, and who is asked in which round."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, overload

from ridotto.core.machine import COORDINATOR, SELF
from ridotto.core.rng import Rng, numpy_generator
from ridotto.core.wire import NAME_PATTERN
from ridotto.errors import ConfigError, PlanError
from ridotto.rounds.plan import Plan

ClientId = str | int
"""A client as a user points at it: by name, or by its position in the sequence of clients."""

Cohort = tuple[int, ...]
"""The positions of the clients that are asked in one round, ascending."""


class NumberedNames(Sequence[str]):
    """Name `count` clients client-0, client-1, ..., with as many digits as the last one needs.

    Names are made when they are asked for, so a million of them take no memory.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._digits = len(str(max(count - 1, 0)))

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, position: int) -> str: ...
    @overload
    def __getitem__(self, position: slice) -> Sequence[str]: ...
    def __getitem__(self, position: int | slice) -> str | Sequence[str]:
        if isinstance(position, slice):
            return [self._name(place) for place in range(self._count)[position]]
        return self._name(range(self._count)[position])

    def __iter__(self) -> Iterator[str]:
        return map(self._name, range(self._count))

    def _name(self, position: int) -> str:
        return f"client-{position:0{self._digits}}"


@dataclass(frozen=True)
class Clients:
    """Hold the names and the data sets of all clients; the two have the same length."""

    names: Sequence[str]
    data: Sequence[Any]

    @classmethod
    def of(cls, data: Sequence[Any] | Mapping[str, Any], names: Sequence[str] | None = None) -> Clients:
        """Take what a user calls clients: a mapping from name to data, or a sequence of data sets.

        names: for a sequence; numbered if there are none.
        Raises ConfigError if there is no client, or a name is missing, malformed, reserved or given twice.
        """
        if isinstance(data, Mapping):
            if names is not None:
                raise ConfigError("clients given by name have their names: leave `names` out")
            data, names = list(data.values()), list(data)
        if not hasattr(data, "__len__") or not hasattr(data, "__getitem__"):
            raise ConfigError(f"clients are a sequence of data sets or a mapping by name, not {type(data).__name__}")
        if len(data) == 0:
            raise ConfigError("there are no clients: give at least one data set")
        if names is not None:
            _check_names(names, len(data))
        return cls(NumberedNames(len(data)) if names is None else tuple(names), data)

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def _positions(self) -> dict[str, int]:
        return {name: position for position, name in enumerate(self.names)}

    def position(self, client: ClientId) -> int:
        """Return where a client stands in the sequence. Raises ConfigError if there is no such client."""
        if isinstance(client, str):
            if client not in self._positions:
                first, last = self.names[0], self.names[-1]
                raise ConfigError(f"there is no client {client!r}; the {len(self)} clients are {first} to {last}")
            return self._positions[client]
        if not 0 <= client < len(self):
            raise ConfigError(f"there is no client at position {client}; positions are 0 to {len(self) - 1}")
        return int(client)

    def sample(self, count: int, rng: Rng) -> Cohort:
        """Draw `count` clients uniformly, each at most once."""
        drawn = numpy_generator(rng).choice(len(self), count, replace=False, shuffle=False)
        return tuple(sorted(int(position) for position in drawn))


def check_cohort(clients: Clients, plan: Plan) -> None:
    """Refuse a plan that asks for more clients than there are. Raises PlanError."""
    if plan.cohort > len(clients):
        raise PlanError(f"the plan asks for a cohort of {plan.cohort} and there are {len(clients)} clients")


def read_schedule(schedule: Sequence[Sequence[ClientId]], clients: Clients, plan: Plan, rounds: int) -> list[Cohort]:
    """Check a user's schedule, one row of clients a round, and return it by position.

    Raises ConfigError, naming the round, if rows are missing, a client is unknown or listed twice, or the plan can't
    make sessions of so many; PlanError if no sparse graph over so few is safe.
    """
    if len(schedule) < rounds:
        raise ConfigError(f"the schedule has {len(schedule)} rows and there are {rounds} rounds")
    return [_row(number, row, clients, plan) for number, row in enumerate(schedule[:rounds], 1)]


def _row(number: int, row: Sequence[ClientId], clients: Clients, plan: Plan) -> Cohort:
    positions = sorted(clients.position(client) for client in row)
    if len(set(positions)) < len(positions):
        raise ConfigError(f"round {number} of the schedule lists a client twice")
    if plan.cohort_of(len(positions)) != len(positions):
        raise ConfigError(
            f"round {number} of the schedule has {len(positions)} clients; the plan takes at most {plan.cohort}, "
            f"in sessions of {plan.least} to {plan.session_limit}"
        )
    # A sparse graph has a floor of its own.
    plan.sparse(min(len(positions), plan.session_limit))
    return tuple(positions)


def _check_names(names: Sequence[str], count: int) -> None:
    if len(names) != count:
        raise ConfigError(f"there are {len(names)} names for {count} clients")
    seen: set[str] = set()
    for name in names:
        # These names go into the real machines, which refuse any other.
        if not isinstance(name, str) or not NAME_PATTERN.fullmatch(name) or name in (COORDINATOR, SELF):
            raise ConfigError(
                f"{name!r} can't name a client: 1 to 64 letters, digits and . _ @ -, the first a letter or a digit, "
                f"and not {COORDINATOR!r} or {SELF!r}"
            )
        if name in seen:
            raise ConfigError(f"two clients are named {name!r}")
        seen.add(name)
