"""What an engine is asked and what it answers: the contract between rounds and engines.

    Job       who trains, from which model, with which rank in the round
    Answer    the sum of everybody's encoded updates
    Update    one client's update, for the machines of a real protocol, which mask each by itself
    Engine    answers jobs: inline, pool, ray

Sums are exact (`core.fixedpoint`) and all randomness is addressed by name, so every engine gives the same bits. The
tests hold each of them to the same list.
"""

from __future__ import annotations

import pickle
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ridotto.core.fixedpoint import IntVector
from ridotto.core.rng import SEED_BYTES, SecretRng
from ridotto.core.vector import Vector
from ridotto.core.wire import sentence
from ridotto.errors import DataError
from ridotto.learn.strategy import State
from ridotto.rounds.vault import Vault


@dataclass(frozen=True)
class Job:
    """Say who trains what in one round.

    number: of the round, from 1. model: what clients receive, float32, shape (d,). state: the algorithm's vectors
    that they receive with it. positions: of the clients, int64, ascending; ranks: their places in the round's cohort,
    int64, which address their rounding bits. turns: what addresses a client's draws in training instead of the round's
    number, int64, where a client may be in a round twice. scales: factor of each update, float64, or None for 1. kept:
    position -> what a client kept from its last round, where the plan has it keep something. seed: what compressed
    updates of the round have in common. clip: the largest norm of an update, where it changes from round to round.
    drop: go on without a client whose training fails, instead of raising.
    """

    number: int
    model: Vector = field(repr=False)
    positions: NDArray[np.int64]
    ranks: NDArray[np.int64]
    state: State = field(default_factory=dict, repr=False)
    turns: NDArray[np.int64] | None = None
    scales: NDArray[np.float64] | None = None
    seed: bytes = field(default=b"", repr=False)
    clip: float | None = None
    kept: Mapping[int, Vector] = field(default_factory=dict, repr=False)
    drop: bool = False

    def __len__(self) -> int:
        return len(self.positions)


def round_job(
    vault: Vault,
    number: int,
    cohort: NDArray[np.int64],
    ranks: NDArray[np.int64],
    kept: Mapping[int, Vector],
    drop: bool,
    seed: bytes,
) -> Job:
    """Return the job of a round in which everybody trains on the vault's model.

    cohort: positions of all that are asked; ranks: of those among them that train. kept: of any clients. seed: the
    round's nonce.
    """
    positions = cohort[ranks]
    own = {}
    if vault.clients_keep:
        own = {position: kept[position] for position in positions.tolist() if position in kept}
    return Job(
        number=number,
        model=vault.model,
        positions=positions,
        ranks=ranks,
        state=vault.algorithm_state,
        kept=own,
        drop=drop,
        seed=seed,
        clip=vault.plan.clip_norm,
    )


def round_nonce(rng: SecretRng, number: int) -> bytes:
    """Return the nonce of a simulated round, 32 bytes: it follows from the seed."""
    return rng.child("nonce", number).bytes(SEED_BYTES)


@dataclass(frozen=True)
class Answer:
    """Tell what became of a job.

    total: sum of the encoded updates, shape (pipeline.length,); the engine's own memory, valid until its next job.
    dropped: position -> why, of clients whose training failed. kept: position -> what a client keeps for next time.
    train_s: wall seconds of training, the mean over workers that work at the same time. sparse_bytes: what the vectors
    of everybody in the sum take on the wire, where zeros are left out; 0 for other plans: their vectors are all alike.
    """

    total: IntVector = field(repr=False)
    dropped: Mapping[int, str]
    kept: Mapping[int, Vector] = field(repr=False)
    train_s: float
    sparse_bytes: int = 0


@dataclass(frozen=True)
class Update:
    """Hold what one client contributes: what is summed, its weight, its metrics, and what it keeps for next time."""

    vector: Vector = field(repr=False)
    examples: int
    metrics: Mapping[str, float]
    kept: Vector | None = field(default=None, repr=False)


class Engine(Protocol):
    """Train the clients of a job. Engines keep nothing between jobs that could change a bit of an answer."""

    @property
    def description(self) -> str:
        """Say in a few words what works here: what a history and a progress bar show."""

    def sum(self, job: Job) -> Answer:
        """Train everybody and add their encoded updates up.

        Raises DataError, naming client and round, for data that can't be trained on; whatever else training raises
        comes through with a note that names client and round.
        """

    def updates(self, job: Job) -> Callable[[int], Update]:
        """Return a function from a place in `job.positions` to that client's update; each may be asked for once.

        Raises, then or when it is called, what `sum` raises; `job.drop` is for the caller to heed.
        """

    def done(self) -> int:
        """Return how many clients of the present job are done. May be asked from another thread."""

    def close(self) -> None:
        """Give processes and memory back. The engine can't be used afterwards."""


class RemoteTraceback(Exception):  # noqa: N818 - it is what the traceback says, not an error of its own
    """Show, as the cause of an error, the traceback that it had in another process."""

    def __init__(self, text: str) -> None:
        self.text = text
        super().__init__(text)

    def __str__(self) -> str:
        return f'\n"""\n{self.text}"""'


class ClientDataError(DataError):
    """Name the client, and the round, whose data can't be trained on. why: the same without them."""

    def __init__(self, client: str, number: int, why: str) -> None:
        self.why = why
        super().__init__(f"{client}, round {number}: {why}")
        self._arguments = client, number, why

    def __reduce__(self) -> tuple[type[ClientDataError], tuple[str, int, str]]:
        return ClientDataError, self._arguments


def blame(error: Exception, name: str, number: int) -> Exception:
    """Return the error with the client and the round in it: a DataError says them first, any other has a note."""
    if isinstance(error, DataError):
        named = ClientDataError(name, number, str(error))
        named.__cause__ = error
        return named
    error.add_note(f"This happened while {name} was training in round {number}.")
    return error


def reason(error: Exception) -> str:
    """Say in one line why a client was dropped."""
    if isinstance(error, DataError):
        return sentence(getattr(error, "why", error))
    return sentence(f"{type(error).__name__}: {error}")


def with_traceback(
    error: Exception, dumps: Callable[[Any], bytes] = pickle.dumps, loads: Callable[[bytes], Any] = pickle.loads
) -> tuple[Exception, str]:
    """Return an error and its traceback as text, ready to be sent to another process.

    An error that would not survive the way goes as a RuntimeError with its text and its notes: one of a class that the
    other side can't find, or, more often, one whose `__init__` asks for other arguments than it hands on. dumps, loads:
    what will pack and unpack it.
    """
    text = "".join(traceback.format_exception(error))
    try:
        loads(dumps(error))
    except Exception:
        stand_in = RuntimeError(f"{type(error).__name__}: {error}")
        for note in getattr(error, "__notes__", ()):
            stand_in.add_note(note)
        return stand_in, text
    return error, text


def from_elsewhere(error: Exception, text: str) -> Exception:
    """Return an error that came from another process, with the traceback that it had there as its cause."""
    error.__cause__ = RemoteTraceback(text)
    return error
