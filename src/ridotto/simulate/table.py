"""A history as a table: a pandas DataFrame where pandas is installed, a small table of our own where it is not.

The only module that imports pandas.
"""

from __future__ import annotations

import csv
import html
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Row = Mapping[str, Any]
"""One line of a table: column -> number or text, or None where there is nothing to say."""

SHOWN_ROWS = 40
"""How many rows are printed: about a screen. Of a longer table the middle is left out."""


@dataclass(frozen=True, repr=False)
class Table:
    """Hold rows that all have the same columns, and show them in a terminal and in a notebook.

    `table["loss"]` is a column as a list; iterating yields rows.

    >>> Table(("round", "loss"), ({"round": 1, "loss": 0.25}, {"round": 2, "loss": None}))
    round  loss
        1  0.25
        2     -
    """

    columns: tuple[str, ...]
    rows: tuple[Row, ...]

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def __getitem__(self, column: str) -> list[Any]:
        if column not in self.columns:
            raise KeyError(f"there is no column {column!r}; the columns are {', '.join(self.columns)}")
        return [row[column] for row in self.rows]

    def __repr__(self) -> str:
        cells = [self.columns, *self._cells()]
        widths = [max(len(line[place]) for line in cells) for place in range(len(self.columns))]
        return "\n".join("  ".join(map(str.rjust, line, widths)) for line in cells)

    def _repr_html_(self) -> str:
        """Show the table in a notebook."""
        head = "".join(f"<th>{html.escape(column)}</th>" for column in self.columns)
        body = "".join(
            "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in line) + "</tr>" for line in self._cells()
        )
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"

    def csv(self) -> str:
        """Return the table as CSV (RFC 4180), numbers in full and nothing where there is nothing to say."""
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self.columns)
        writer.writeheader()
        writer.writerows(self.rows)
        return text.getvalue()

    def _cells(self) -> list[tuple[str, ...]]:
        lines = [tuple(_cell(row[column]) for column in self.columns) for row in self.rows]
        if len(lines) <= SHOWN_ROWS:
            return lines
        half = SHOWN_ROWS // 2
        return [*lines[:half], ("...",) * len(self.columns), *lines[-half:]]


def data_frame(table: Table) -> Any:
    """Return the table as a pandas DataFrame where pandas is installed, else the table itself."""
    try:
        import pandas
    except ModuleNotFoundError:
        return table
    return pandas.DataFrame(list(table.rows), columns=list(table.columns))


def _cell(value: Any) -> str:
    if value is None or value == "":
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
