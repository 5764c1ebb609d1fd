"""One picture for each attack: what it reaches, defence by defence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.attacks import digits
from bench.attacks.table import Table
from ridotto.simulate.plot import DOTS_PER_INCH, STYLE

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9")
"""Okabe and Ito, "Color Universal Design", 2008: told apart with any colour vision."""

WIDTH_INCHES = 7.2
BAR_INCHES, MARGIN_INCHES = 0.13, 1.0
SHOWN_IMAGES = 5
LEAST_RATE = 1e-3


def draw(name: str, tables: list[Table], folder: Path) -> list[Path]:
    """Draw an attack's tables into the folder; return the files."""
    draws = {"inversion": images, "membership": curves, "audit": epsilons}
    files = []
    with rc_context(STYLE):
        for table in tables:
            figure = draws.get(name, bars)(table)
            file = folder / f"attacks-{table.name}.png"
            figure.savefig(file)
            files.append(file)
    return files


def canvas(height: float) -> Figure:
    figure = Figure(figsize=(WIDTH_INCHES, height), dpi=DOTS_PER_INCH)
    figure.set_layout_engine("constrained")
    return figure


def bars(table: Table) -> Figure:
    """Draw every column that is a share as bars, a group of them for each defence, the first defence on top."""
    columns = [place for place in range(1, len(table.columns)) if any(shares(table, place))]
    size = 1 / (len(columns) + 1)
    figure = canvas(MARGIN_INCHES + BAR_INCHES * len(table.rows) * (len(columns) + 1))
    axis = figure.subplots()
    for place, column in enumerate(columns):
        values = [share(row[column]) for row in table.rows]
        where = np.arange(len(values)) + (place + 1) * size - 0.5
        axis.barh(where, np.nan_to_num(values), size * 0.9, color=COLOURS[place], label=table.columns[column])
        for height, value, row in zip(where, values, table.rows, strict=True):
            text = str(row[column] or "") if np.isnan(value) else f"{value:.0f}"
            axis.text(np.nan_to_num(value) + 0.7, height, text, va="center", fontsize=6, color="#444444")
    named(axis, table)
    axis.set(xlabel="%", xlim=(0, 108))
    axis.set_xticks(range(0, 101, 20))
    figure.legend(loc="outside lower center", ncols=3)
    return figure


def epsilons(table: Table) -> Figure:
    """Draw the bound and the claim of each line, joined."""
    figure = canvas(MARGIN_INCHES + 0.28 * len(table.rows))
    axis = figure.subplots()
    least, claimed = (np.array([row[place] for row in table.rows], float) for place in (2, 3))
    where = np.arange(len(table.rows))
    axis.hlines(where, np.minimum(least, claimed), np.maximum(least, claimed), color="#BBBBBB", linewidth=2)
    axis.plot(least, where, "o", color=COLOURS[3], label="at least, by the attack")
    axis.plot(claimed, where, "D", color=COLOURS[0], label="claimed")
    named(axis, table)
    axis.set(xlabel="epsilon", xlim=(0, None))
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def named(axis: Axes, table: Table) -> None:
    axis.set_yticks(np.arange(len(table.rows)), [str(row[0]) for row in table.rows])
    axis.set_ylim(len(table.rows) - 0.5, -0.5)
    axis.grid(axis="y", visible=False)
    axis.set_title(table.title, loc="left")


def curves(table: Table) -> Figure:
    """Draw true over false positive rates, both logarithmic: what counts is what is known of few for sure."""
    figure = canvas(3.4)
    found = table.hidden["curves"]
    attacks = list(dict.fromkeys(attack for _, attack in found))
    for axis, attack in zip(figure.subplots(1, len(attacks), sharey=True), attacks, strict=True):
        for place, row in enumerate(table.rows):
            false, true = found[row[0], attack]
            axis.plot(false, true, color=COLOURS[place], linewidth=1.3, label=row[0] if attack == attacks[0] else None)
        axis.plot([LEAST_RATE, 1], [LEAST_RATE, 1], ":", color="#888888", linewidth=1)
        axis.set(xscale="log", yscale="log", xlim=(LEAST_RATE, 1), ylim=(LEAST_RATE, 1.05))
        axis.set(title=f"{table.title}: {attack}", xlabel="false positive rate")
        if attack == attacks[0]:
            axis.set_ylabel("true positive rate")
    figure.legend(loc="outside lower center", ncols=6)
    return figure


def images(table: Table) -> Figure:
    """Draw a few true images, and what each attack makes of them behind each defence."""
    found = table.hidden["seen"]
    defences = list(dict.fromkeys(defence for defence, _ in found))
    attacks = list(dict.fromkeys(attack for _, attack in found))
    figure = canvas(0.27 * (len(defences) + 1) + 0.3)
    grid = figure.subplots(len(defences) + 1, len(attacks))
    for place, attack in enumerate(attacks):
        first = found[defences[0], attack]
        strip(grid[0, place], first.images[:SHOWN_IMAGES], first.images[:SHOWN_IMAGES])
        grid[0, place].set_title(attack, fontsize=7)
        for row, defence in enumerate(defences, 1):
            seen = found[defence, attack]
            strip(grid[row, place], seen.found[:SHOWN_IMAGES], seen.images[:SHOWN_IMAGES])
    for axis, label in zip(grid[:, 0], ["true images", *defences], strict=True):
        axis.set_ylabel(label, rotation=0, ha="right", va="center", fontsize=7)
    return figure


def strip(axis: Axes, shown: np.ndarray, true: np.ndarray) -> None:
    """Draw images side by side, each scaled as the image that was sought fits it best."""
    sides = [fitted(image, other).reshape(digits.SIDE, digits.SIDE) for image, other in zip(shown, true, strict=True)]
    axis.imshow(np.hstack(sides), cmap="gray", vmin=digits.BLACK, vmax=digits.WHITE, aspect="equal")
    axis.set(xticks=[], yticks=[])
    axis.grid(visible=False)
    axis.spines[:].set_visible(False)


def fitted(image: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Return an image with the mean and the deviation of the true one: the eye judges shapes."""
    centred = image - image.mean()
    result: np.ndarray = centred / max(float(centred.std()), 1e-12) * true.std() + true.mean()
    return result


def shares(table: Table, column: int) -> list[bool]:
    """Tell of every cell of a column whether it is a share."""
    return [not np.isnan(share(row[column])) for row in table.rows]


def share(cell: object) -> float:
    """Return a cell's number in per cent; NaN for one that says that there is none."""
    head, _, unit = str(cell).partition(" ")
    return float(head) if unit == "%" else float("nan")
