"""What a simulation gives back: the history, the model, the records of the rounds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from ridotto.core.tensors import write_model
from ridotto.core.vector import Layout, Vector
from ridotto.errors import RoundFailedError, StorageError
from ridotto.privacy.statement import PrivacyStatement
from ridotto.rounds.plan import Plan
from ridotto.rounds.record import RoundRecord
from ridotto.simulate.checkpoint import Checkpoint
from ridotto.simulate.outcome import Outcome
from ridotto.simulate.table import Row, Table, data_frame

MODEL_FILE, HISTORY_FILE, RECORDS_FILE, PLAN_FILE = "model.safetensors", "history.csv", "records.json", "plan.json"
"""What `Result.save` writes."""


@dataclass(frozen=True, repr=False)
class Result:
    """Hold what a simulation gave.

    vector: the final model, float32, shape (layout.length,). records: one a round, times in virtual seconds. table:
    one row a round, as `row` explains its columns. lost: how many participants were lost, by round. engine: what
    trained, in words. checkpoint: what `simulate(..., resume=folder)` goes on from, once it is saved. privacy: what was
    spent and what that depends on; None without differential privacy. stopped: why there are fewer rounds than were
    asked for, or nothing.
    """

    plan: Plan
    seed: int
    layout: Layout
    vector: Vector
    records: tuple[RoundRecord, ...]
    table: Table
    lost: tuple[int, ...]
    engine: str
    checkpoint: Checkpoint
    privacy: PrivacyStatement | None = None
    stopped: str = ""

    def __repr__(self) -> str:
        last = self.table.rows[-1]
        measured = "".join(f", {name}={value:.4g}" for name, value in last.items() if _is_measure(name, value))
        failed = sum(1 for record in self.records if record.failure)
        return f"Result({len(self.records)} rounds, {failed} failed{measured})"

    @cached_property
    def history(self) -> Any:
        """Return the table: a pandas DataFrame where pandas is installed, else our own `Table`."""
        return data_frame(self.table)

    @property
    def model(self) -> dict[str, NDArray[np.float32]]:
        """Return the final model as named arrays, copied."""
        return self.layout.unflatten(self.vector.copy())

    @property
    def digest(self) -> str:
        """Return SHA-256 of the final model's file, hex: equal for equal bits."""
        return self.records[-1].model

    def save(self, folder: str | Path) -> Path:
        """Write model.safetensors, history.csv, records.json, plan.json and a checkpoint into a folder, and return it.

        The folder is made if it is not there; files of these names are replaced. `simulate(..., resume=folder)` goes
        on from there.
        Raises StorageError if something can't be written.
        """
        folder = Path(folder)
        files = {
            MODEL_FILE: write_model(self.vector, self.layout),
            HISTORY_FILE: self.table.csv().encode(),
            RECORDS_FILE: msgspec.json.format(msgspec.json.encode(self.records), indent=1),
            PLAN_FILE: msgspec.json.format(msgspec.json.encode({"seed": self.seed, "plan": self.plan}), indent=1),
        }
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for name, content in files.items():
                (folder / name).write_bytes(content)
        except OSError as error:
            raise StorageError(f"the result can't be saved in {folder}: {error.strerror or error}") from error
        self.checkpoint.write(folder)
        return folder

    def plot(self, path: str | Path | None = None) -> Any:
        """Draw the metrics over the rounds, and who was lost; return the matplotlib figure.

        path: also save it there; the suffix names the format (.png, .pdf, .svg).
        Raises MissingExtraError without matplotlib, ConfigError for another suffix, StorageError if the file can't be
        written.
        """
        from ridotto.simulate.plot import draw

        return draw(self.table.rows, self.lost, None if path is None else Path(path))


class SimulationFailedError(RoundFailedError):
    """Stop a simulation in which too many rounds failed one after another. result: what was done until then."""

    def __init__(self, reason: str, blame: tuple[str, ...], result: Result) -> None:
        self.result = result
        super().__init__("ROUNDS_FAILED", reason, blame)


class SimulationInterruptedError(KeyboardInterrupt):
    """Tell that Ctrl-C stopped a simulation between two rounds or in one. result: what was done until then.

    A KeyboardInterrupt, so that nothing takes it for a failure that it should go on after.
    """

    def __init__(self, result: Result | None, folder: Path | None) -> None:
        self.result = result
        self.folder = folder
        rounds = len(result.records) if result is not None else 0
        saved = f"; to go on, resume from {folder}" if folder is not None and rounds else ""
        unsaved = "; it has no folder to go on from: save= gives it one" if folder is None and rounds else ""
        super().__init__(f"the simulation was interrupted after {rounds} rounds{saved or unsaved}")


NAMES_SHOWN = 20
"""Names in one cell of the history at most; the rest are counted."""


UNLIMITED: Mapping[str, float] = {"epsilon": math.inf}
"""What a round without differential privacy spends."""


def row(
    outcome: Outcome,
    tested: Mapping[str, float],
    test_s: float,
    spent: Mapping[str, float] = UNLIMITED,
    parameters: int = 0,
) -> dict[str, Any]:
    """Make the line of the history that tells of one round.

    round: from 1. test_*: measured on the test data with the model after the round. train_*: weighted means over the
    participants, from the sum, each measured as its trainer does; None if the round failed. asked: clients of the
    cohort. participants, examples: in the sum. lost: names. refused, dropped: names and reasons; dropped are clients
    whose training failed. excluded: names, of those whose sum a robust rule left out. clip: the largest norm of an
    update, if there was one; clipped: how many were longer, under differential privacy an estimate or unknown. epsilon:
    of differential privacy, spent until here, infinite without any; epsilon_left: of the budget, if there is one.
    saturated: entries cut off at value_range. bytes_up, bytes_down: of a member of the cohort, on average. compression:
    how often bytes_up goes into the model's size in float32; parameters: d. seconds_*: of the wall clock, for training,
    for the secure sum and the step of the model, and for the test; these alone differ between two runs of one seed.
    virtual_s: how long the round took in virtual time. secure_sum: "machines" if the real protocol ran, "modelled" if
    its costs were computed; then modelled_participant_cpu_s, modelled_coordinator_cpu_s are what it would have taken a
    participant on average, and the coordinator. failure: why there is no new model, or nothing.
    """
    record, asked = outcome.record, max(1, outcome.asked)
    return {
        "round": record.round,
        **{f"test_{name}": value for name, value in tested.items()},
        **{f"train_{name}": value for name, value in record.metrics.items()},
        "asked": outcome.asked,
        "participants": record.participants,
        "lost": _listed(list(outcome.lost)),
        "refused": _listed([f"{name}: {why}" for name, why in outcome.refused.items()], "; "),
        "dropped": _listed([f"{name}: {why}" for name, why in outcome.dropped.items()], "; "),
        "excluded": _listed(list(outcome.excluded)),
        "examples": record.examples,
        "clip": record.clip,
        "clipped": record.clipped,
        **spent,
        "saturated": record.saturated,
        "bytes_up": round(outcome.bytes_up / asked),
        "compression": 4 * parameters * asked / outcome.bytes_up if outcome.bytes_up else None,
        "bytes_down": round(outcome.bytes_down / asked),
        "seconds_train": outcome.train_s,
        "seconds_sum": outcome.sum_s,
        "seconds_test": test_s,
        "virtual_s": record.finished - record.started,
        "secure_sum": outcome.secure_sum,
        **outcome.modelled,
        "failure": record.failure,
    }


def _listed(words: list[str], separator: str = ", ") -> str:
    more = len(words) - NAMES_SHOWN
    return separator.join(words[:NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")


def history_table(rows: Sequence[Row]) -> Table:
    """Put the lines of a history together, with what was measured in front.

    A round that failed or was not tested has no metrics; its line has None there.
    """
    found = dict.fromkeys(column for line in rows for column in line)
    tested = [column for column in found if column.startswith("test_")]
    trained = [column for column in found if column.startswith("train_")]
    columns = tuple(dict.fromkeys(["round", *tested, *trained, *found]))
    return Table(columns, tuple({column: line.get(column) for column in columns} for line in rows))


def _is_measure(name: str, value: Any) -> bool:
    return name.startswith(("test_", "train_")) and value is not None
