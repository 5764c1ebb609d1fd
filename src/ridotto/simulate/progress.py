"""A progress bar that tells the truth: what is done, clients and sums and tests, and the time that is left by that.

With the command line, the only place that imports rich.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from datetime import timedelta
from time import monotonic
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

REFRESH_PER_SECOND = 4

ALMOST = 0.99
"""Of a round, at most, that is only guessed to be done."""


class RoundProgress:
    """Show the rounds of a simulation: a bar on a terminal, one line a round elsewhere.

    A context manager: the bar is there from `with` to its end. lines: print rounds where there is no terminal; a
    simulation in a script stays silent there.
    """

    def __init__(self, console: Console, rounds: int, done: int = 0, *, lines: bool = False) -> None:
        self._console = console
        self._rounds = rounds
        self._ended = done
        self._lines = lines and not console.is_terminal
        self._clients: Callable[[], float] = lambda: 0.0
        self._training, self._round_s = 1.0, 0.0
        self._shown = 0.0
        self._begun: tuple[int, float] | None = None
        self._bar = _Live(
            self._now,
            TextColumn("round {task.fields[ended]}/{task.fields[rounds]}"),
            BarColumn(bar_width=24),
            TextColumn("{task.description}"),
            TextColumn("{task.fields[left]}"),
            console=console,
            disable=not console.is_terminal,
            refresh_per_second=REFRESH_PER_SECOND,
        )
        self._bar.add_task("", total=rounds, completed=done, ended=done, rounds=rounds, left="")

    @classmethod
    def on_standard_error(cls, rounds: int, done: int) -> Self:
        """Make a bar on standard error."""
        return cls(Console(stderr=True, highlight=False), rounds, done)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._bar.stop()

    def watch(self, part: Callable[[], float], ended: int = 0) -> None:
        """Take a function that says which part of the present round's clients is done, 0 to 1; it is asked often.

        ended: rounds that are already done, of a simulation that is resumed.
        """
        self._clients = part
        self._ended = ended
        self._shown = monotonic()
        self._begun = ended, self._shown

    def note(self, text: str) -> None:
        """Show a line that stays, on a terminal: which engine was chosen, say."""
        if self._console.is_terminal:
            self._console.print(text, markup=False, soft_wrap=True, style="dim")

    def show(self, row: Mapping[str, Any]) -> None:
        """Show a round that has ended; a failed one stays visible."""
        self._ended += 1
        self._training, self._round_s = _part_of_training(row)
        self._shown = monotonic()
        self._bar.say(_short(row))
        if (row["failure"] and self._console.is_terminal) or self._lines:
            text = f"round {row['round']:>{len(str(self._rounds))}}/{self._rounds}  {_long(row)}"
            self._console.print(text, markup=False, soft_wrap=True)

    def _now(self) -> tuple[int, float, str]:
        """Return rounds ended, the same with the present one in part, and the time that is left.

        When everybody has trained, a round is as far as training took the one before: the sum and the test are to come,
        and go on by the clock, as long as they took then.
        """
        ended, trained = self._ended, min(1.0, self._clients())
        part = self._training * trained
        if trained == 1.0 and self._round_s > 0:
            part = max(part, min((monotonic() - self._shown) / self._round_s, ALMOST))
        done = min(float(self._rounds), ended + part)
        return ended, done, self._left(done)

    def _left(self, done: float) -> str:
        """Say how long the rest takes at the mean speed so far: it grows while nothing moves."""
        if self._begun is None or done <= self._begun[0]:
            return "-:--:--"
        each_s = (monotonic() - self._begun[1]) / (done - self._begun[0])
        return str(timedelta(seconds=round(each_s * (self._rounds - done))))


class _Live(Progress):
    """Ask how far things are whenever the bar is drawn."""

    def __init__(self, now: Callable[[], tuple[int, float, str]], *columns: Any, **options: Any) -> None:
        self._ask = now
        super().__init__(*columns, **options)

    def say(self, description: str) -> None:
        for task in self.task_ids:
            self.update(task, description=description)

    def get_renderables(self) -> Any:
        ended, completed, left = self._ask()
        for task in self.task_ids:
            # `update` would draw again; the fields of a task are what it sets.
            self.update(task, completed=completed, ended=ended, left=left)
        yield from super().get_renderables()


def _part_of_training(row: Mapping[str, Any]) -> tuple[float, float]:
    """Return which part of a round's time training took, and the seconds of all."""
    training = float(row.get("seconds_train", 0.0))
    whole = training + row.get("seconds_sum", 0.0) + row.get("seconds_test", 0.0)
    return (training / whole, whole) if whole > 0 else (1.0, 0.0)


def _short(row: Mapping[str, Any]) -> str:
    """Return what fits beside a bar: the accuracy, or whatever was measured first."""
    measures = _measures(row)
    return "failed" if row["failure"] else next((m for m in measures if "accuracy" in m), "".join(measures[:1]))


def _long(row: Mapping[str, Any]) -> str:
    if row["failure"]:
        return f"failed: {row['failure']}"
    lost = f"  lost {row['lost']}" if row["lost"] else ""
    dropped = f"  dropped {row['dropped']}" if row["dropped"] else ""
    excluded = f"  left out {row['excluded']}" if row.get("excluded") else ""
    about = f"{_spent(row)}{_size(row)}{lost}{dropped}{excluded}"
    return f"{row['participants']} participants  {'  '.join(_measures(row))}{about}"


def _spent(row: Mapping[str, Any]) -> str:
    """Return what was spent, what is left, and how many updates were too long, where a plan is about that."""
    spent = f"  epsilon {row['epsilon']:.3f}" if math.isfinite(row.get("epsilon", math.inf)) else ""
    left = f" ({row['epsilon_left']:.3f} left)" if spent and row.get("epsilon_left") is not None else ""
    clipped = f"  {row['clipped']:.0f} clipped at {row['clip']:.3g}" if row.get("clipped") is not None else ""
    return f"{spent}{left}{clipped}"


def _size(row: Mapping[str, Any]) -> str:
    """Return how small the uploads are, where they are smaller than float32."""
    times = row.get("compression")
    return f"  upload 1/{times:.1f} of float32" if times and times > 1.05 else ""


def _measures(row: Mapping[str, Any]) -> list[str]:
    named = ((name, value) for name, value in row.items() if name.startswith(("test_", "train_")))
    return [f"{name.replace('_', ' ')} {value:.4f}" for name, value in named if value is not None]
