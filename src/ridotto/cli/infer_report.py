"""What `ridotto infer` shows: a bar while queries run, classes, and what they cost."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from ridotto.infer.graph import Graph
    from ridotto.infer.world import SecretModel, Stats

SHOWN = 20
"""So many results are printed for people; all of them with --json or --save."""


class Report:
    """Follow queries over `count` examples."""

    def __init__(self, count: int, *, json: bool) -> None:
        self._count, self._json = count, json
        self._stats: list[Stats] = []

    def follow(self, answers: Iterable[tuple[int, NDArray[Any], Stats]]) -> NDArray[Any]:
        """Show a bar while answers come; return them all, in order."""
        from rich.console import Console
        from rich.progress import Progress

        found = []
        console = Console(stderr=True)
        with Progress(console=console, transient=True, disable=self._json or not console.is_terminal) as bar:
            task = bar.add_task("classifying, encrypted", total=self._count)
            for examples, part, stats in answers:
                found.append(part)
                self._stats.append(stats)
                bar.advance(task, examples)
        return np.concatenate(found)

    def show(self, found: NDArray[Any], y: NDArray[Any] | None, graph: Graph | None, x: NDArray[Any]) -> None:
        """Print classes (or logits) and what the queries cost. y: the right classes. graph: to compare with."""
        from ridotto.cli.screen import line, machine, pairs, person, size

        classes = found if found.ndim == 1 else found.argmax(axis=1)
        facts: dict[str, Any] = {"examples": len(found), "queries": len(self._stats)}
        if y is not None:
            facts["accuracy"] = float(np.mean(classes == y))
        if graph is not None:
            facts["agreement"] = float(np.mean(classes == _plain(graph, x)))
        costs = _costs(self._stats)
        if self._json:
            for number, value in enumerate(found):
                what = {"class": int(value)} if found.ndim == 1 else {"logits": [float(v) for v in value]}
                machine("prediction", example=number, **what)
            machine("summary", **facts, **costs)
            return
        console = person()
        for number, value in enumerate(found[:SHOWN]):
            text = str(value) if found.ndim == 1 else " ".join(f"{logit:.3f}" for logit in value)
            line(console, f"{number}: {text}")
        if len(found) > SHOWN:
            line(console, f".. {len(found) - SHOWN} more; --save FILE.npy keeps all", "dim")
        shown = {name: f"{value:.4f}" if isinstance(value, float) else str(value) for name, value in facts.items()}
        shown["a query"] = f"{costs['offline_ms']:.1f} ms offline to wait for, {costs['online_ms']:.1f} ms online"
        shown["between the parties"] = f"{costs['rounds']} rounds, {size(costs['sent_bytes'])} a query, online"
        console.print(pairs("", shown))


def measure(shared: SecretModel, x: NDArray[Any], batch: int, repeats: int) -> dict[str, Any]:
    """Ask `repeats` times for the classes of a batch of these examples, and return the medians."""
    examples = np.resize(x, (batch, *x.shape[1:]))
    stats = []
    for turn in range(repeats + 1):
        shared.predict(examples)
        # The first one loads and compiles.
        if turn and shared.stats is not None:
            stats.append(shared.stats)
    return {"batch": batch, **_costs(stats)}


def show_costs(rows: list[dict[str, Any]], *, json: bool) -> None:
    """Print what queries of some sizes cost."""
    from ridotto.cli.screen import machine, person, size, table

    if json:
        for row in rows:
            machine("bench", **row)
        return
    cells = [
        [str(row["batch"]), *(f"{row[phase]:.2f}" for phase in ("online_ms", "offline_ms")), str(row["rounds"])]
        for row in rows
    ]
    for line, row in zip(cells, rows, strict=True):
        line.append(size(row["sent_bytes"]))
    person().print(table("medians", ("batch", "online ms", "offline ms", "rounds", "sent online"), cells))


def _costs(stats: list[Stats]) -> dict[str, Any]:
    return {
        "offline_ms": median(each.offline_s for each in stats) * 1e3,
        "online_ms": median(each.online_s for each in stats) * 1e3,
        "rounds": stats[-1].rounds,
        "sent_bytes": max(each.sent_bytes for each in stats),
    }


def _plain(graph: Graph, x: NDArray[Any]) -> NDArray[np.int64]:
    from ridotto.infer.reference import forward

    parts = [forward(graph, x[start : start + 1024]).argmax(axis=1) for start in range(0, len(x), 1024)]
    return np.concatenate(parts)
