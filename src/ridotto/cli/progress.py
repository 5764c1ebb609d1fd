"""Show rounds as they end: a progress bar on a terminal, one line a round elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ridotto.cli.screen import line, person


class RoundProgress:
    """Show the rounds of a simulation. A context manager: the bar is there from `with` to its end."""

    def __init__(self, rounds: int) -> None:
        self._console = person()
        self._rounds = rounds
        self._bar = Progress(
            TextColumn("round"),
            MofNCompleteColumn(),
            BarColumn(bar_width=24),
            TextColumn("{task.description}"),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task("", total=rounds)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._bar.stop()

    def show(self, row: Mapping[str, Any]) -> None:
        """Show a round that has ended; a failed one stays visible."""
        self._bar.update(self._task, advance=1, description=_short(row))
        if row["failure"] or not self._console.is_terminal:
            line(self._console, f"round {row['round']:>{len(str(self._rounds))}}/{self._rounds}  {_long(row)}")


def _short(row: Mapping[str, Any]) -> str:
    """Return what fits beside a bar: the accuracy, or whatever was measured first."""
    measures = _measures(row)
    return "failed" if row["failure"] else next((m for m in measures if "accuracy" in m), "".join(measures[:1]))


def _long(row: Mapping[str, Any]) -> str:
    if row["failure"]:
        return f"failed: {row['failure']}"
    lost = f"  lost {row['lost']}" if row["lost"] else ""
    return f"{row['participants']} participants  {'  '.join(_measures(row))}{lost}"


def _measures(row: Mapping[str, Any]) -> list[str]:
    named = ((name, value) for name, value in row.items() if name.startswith(("test_", "train_")))
    return [f"{name.replace('_', ' ')} {value:.4f}" for name, value in named if value is not None]
