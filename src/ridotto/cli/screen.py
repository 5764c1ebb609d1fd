"""What a verb shows: lines and tables for people, JSON lines for machines; never both."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

PLAIN_WIDTH = 160
"""Of what is not a terminal and has no width of its own: a log file, a pipe."""


def person() -> Console:
    """Return the console that people read: standard output, plain text where it is not a terminal."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=PLAIN_WIDTH)


def line(console: Console, text: str, style: str = "") -> None:
    """Print one line as it is, however long it is."""
    console.print(text, style=style, markup=False, soft_wrap=True)


def machine(event: str, **facts: Any) -> None:
    """Print one JSON line: {"event": ..., ...}."""
    print(json.dumps({"event": event, **facts}, default=_plain), flush=True)


def printable(text: object) -> str:
    r"""Return what another machine says without what could move the cursor or change colours.

    >>> printable("epsilon 1\x1b[31m")
    'epsilon 1 [31m'
    """
    return "".join(letter if letter.isprintable() else " " for letter in str(text))


def epsilon(value: float | None) -> str:
    """Spell what was spent, rounded up; None is infinite.

    >>> epsilon(1.23401), epsilon(None)
    ('1.235', 'infinite')
    """
    return "infinite" if value is None or math.isinf(value) else f"{math.ceil(round(value * 1000, 6)) / 1000:g}"


def rest(value: float | None) -> str:
    """Spell what is left of a budget, rounded down; None is no budget.

    >>> rest(1.23499), rest(None)
    ('1.234', '-')
    """
    return "-" if value is None else f"{math.floor(round(value * 1000, 6)) / 1000:g}"


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """Make a table; every column but the first is aligned to the right."""
    made = Table(title=title or None, title_justify="left", title_style="bold", header_style="bold", box=None)
    for number, column in enumerate(columns):
        made.add_column(column, justify="right" if number else "left", no_wrap=True)
    for row in rows:
        made.add_row(*row)
    return made


def pairs(title: str, facts: Mapping[str, str]) -> Table:
    """Make a table of names and what they stand for."""
    made = Table(title=title or None, title_justify="left", title_style="bold", show_header=False, box=None)
    made.add_column(style="dim", no_wrap=True)
    made.add_column(overflow="fold")
    for name, fact in facts.items():
        made.add_row(name, Text(fact))
    return made


def size(count: float) -> str:
    """Spell a number of bytes for people.

    >>> size(512), size(123_456), size(7_654_321)
    ('512 B', '123.5 kB', '7.7 MB')
    """
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def _plain(value: Any) -> Any:
    """Turn what json does not know into what it does: NumPy numbers and paths."""
    return value.item() if hasattr(value, "item") else str(value)
