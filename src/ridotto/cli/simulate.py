"""`ridotto simulate`: many participants in one process, as a configuration file says."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ridotto.cli.options import ConfigFile, Debug, Json

if TYPE_CHECKING:
    from ridotto.simulate.result import Result


def simulate(
    file: ConfigFile,
    seed: Annotated[int | None, typer.Option(help="Another seed than the file's.")] = None,
    rounds: Annotated[int | None, typer.Option(help="Another number of rounds than the file's.")] = None,
    save: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Write model, history and records here when it ends.")
    ] = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Simulate a federation in this process, with the secure sum of a real one. The same seed gives the same bits."""
    from ridotto.config import SimulationConfig, beside, load_config
    from ridotto.simulate.engine import simulate as run
    from ridotto.simulate.result import SimulationFailedError
    from ridotto.tasks import load_task

    config = load_config(file, SimulationConfig)
    folder = save or (beside(file, config.save) if config.save else None)
    task = load_task(config.program, config.options, file.parent)
    total = config.rounds if rounds is None else rounds
    shown = nullcontext(_Lines()) if json else _progress(total)
    try:
        with shown as watcher:
            result = run(
                task.trainer,
                task.clients,
                config.plan,
                rounds=total,
                seed=config.seed if seed is None else seed,
                test=task.test,
                test_every=config.test_every,
                max_failures=config.max_failures,
                on_round=watcher.show,
            )
    except SimulationFailedError as error:
        if folder is not None:
            error.result.save(folder)
        raise
    saved = None if folder is None else result.save(folder)
    _summarise(result, saved, json=json)


class _Lines:
    """Print each round as a JSON line."""

    def show(self, row: Mapping[str, Any]) -> None:
        from ridotto.cli.screen import machine

        machine("round", **row)


def _progress(rounds: int) -> AbstractContextManager[Any]:
    from ridotto.cli.progress import RoundProgress

    return RoundProgress(rounds)


def _summarise(result: Result, saved: Path | None, *, json: bool) -> None:
    from ridotto.cli.screen import machine, pairs, person

    rows = result.table.rows
    failed = sum(1 for record in result.records if record.failure)
    measures = {key: value for key, value in rows[-1].items() if key.startswith(("test_", "train_"))}
    if json:
        machine("result", rounds=len(rows), failed=failed, model=result.digest, measures=measures, saved=saved)
        return
    facts = {
        "rounds": f"{len(rows)}" + (f", {failed} failed" if failed else ""),
        **{name: f"{value:.4f}" for name, value in measures.items() if value is not None},
        "protection": result.plan.protection(),
        "model": result.digest[:16] + "  (SHA-256)",
        **({"saved in": str(saved)} if saved else {}),
    }
    person().print(pairs("", facts))
