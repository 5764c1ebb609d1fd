"""What an attack hands back: tables with a row for each defence, as text and as JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

Value = str | float | int | None

INFINITE = "infinite"
"""JSON has no infinity."""


@dataclass(frozen=True)
class Settings:
    """data: mnist.npz or its folder. quick: fewer victims, rounds and models."""

    data: str
    quick: bool = False
    seed: int = 1


@dataclass(frozen=True)
class Table:
    """name: of the picture and of the entry in the JSON. source: the papers. columns: the first is the defence's name.

    notes: what success means, and what the numbers depend on. hidden: what the picture needs beside the cells.
    """

    name: str
    title: str
    source: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Value, ...], ...]
    notes: tuple[str, ...] = ()
    hidden: dict[str, Any] = field(default_factory=dict, repr=False)

    def as_dict(self) -> dict[str, Any]:
        rows = [{column: plain(value) for column, value in zip(self.columns, row, strict=True)} for row in self.rows]
        return {"title": self.title, "source": self.source, "rows": rows, "notes": list(self.notes)}

    def markdown(self) -> str:
        """Return the table as text that is also Markdown, columns aligned."""
        cells = [list(self.columns), *([shown(value) for value in row] for row in self.rows)]
        widths = [max(len(row[place]) for row in cells) for place in range(len(self.columns))]
        head, *body = [line(row, widths) for row in cells]
        rule = "| " + " | ".join("-" * width for width in widths) + " |"
        return "\n".join([f"{self.title} ({self.source})", "", head, rule, *body, "", *self.notes])


def line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |"


def shown(value: Value) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return INFINITE if math.isinf(value) else f"{value:.3g}"
    return str(value)


def plain(value: Value) -> Value:
    return INFINITE if isinstance(value, float) and math.isinf(value) else value


def percent(share: float) -> str:
    """Return a share of 0 to 1 as whole per cent, and with a digit more where that would hide something."""
    number = 100 * share
    return f"{number:.1f} %" if 0 < number < 3 or 97 < number < 100 else f"{number:.0f} %"
