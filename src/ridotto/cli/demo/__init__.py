"""`ridotto demo`: a federation of real processes on this machine, two of which are killed in the middle of a round.

children    processes and what they say
story       what has happened so far
play        the demo itself: starts, watches, kills
view        what a person sees of it
verdict     what the model is compared with
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from ridotto.cli.options import Debug, Json

DEFAULT_FOLDER = Path("ridotto-demo")
ROUNDS = 20
"""Enough for the accuracy to settle; the demo stays below half a minute on two cores."""

SEED = 30
"""Of the split of the digits; what the processes draw for keys, masks and training is different in every run."""


def demo(
    folder: Annotated[
        Path | None,
        typer.Option("--dir", metavar="FOLDER", help="An empty or new folder; a new one in ./ridotto-demo without it."),
    ] = None,
    rounds: Annotated[int, typer.Option(min=4, max=200, help="How many rounds.")] = ROUNDS,
    seed: Annotated[int, typer.Option(help="Decides who has which digits, and the initial model.")] = SEED,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Train on real handwritten digits with ten participant processes, and kill two of them in the middle of round 3.

    A coordinator and ten participants talk over HTTP on this machine; pairwise masks hide every update from the
    coordinator. Ends with 0 only if the model is at most 2 points of accuracy below one trained on all data in one
    place, otherwise with 1.
    """
    from ridotto.cli.demo.play import Play
    from ridotto.cli.demo.view import view

    play = Play(_fresh(folder), rounds, seed)
    shown = view(play.story, json=json)
    with _stopped_in_order():
        play.run(shown)
    result = play.result()
    shown.finish(result)
    if not result.verdict.good:
        raise typer.Exit(1)


@contextmanager
def _stopped_in_order() -> Iterator[None]:
    """Treat the end of the terminal, and a polite request to stop, like Ctrl-C: no process must be left behind."""
    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {number: signal.signal(number, _interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


def _fresh(folder: Path | None) -> Path:
    """Return an empty folder: the one that is wanted, or the next number in the default one."""
    from ridotto.errors import ConfigError, StorageError

    try:
        if folder is None:
            number = 1
            while (DEFAULT_FOLDER / f"{number}").exists():
                number += 1
            folder = DEFAULT_FOLDER / f"{number}"
        elif folder.exists() and any(folder.iterdir()):
            raise ConfigError(f"the folder {folder} is not empty: give a new one, or none")
        (folder / "logs").mkdir(parents=True)
    except OSError as error:
        raise StorageError(f"the folder {folder} can't be made: {error.strerror or error}") from error
    return folder.resolve()
