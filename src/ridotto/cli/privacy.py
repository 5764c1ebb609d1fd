"""`ridotto privacy`: what a plan costs in privacy, and how much noise an epsilon takes, without training."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ridotto.cli.options import ConfigFile, Debug, Json

if TYPE_CHECKING:
    from ridotto.privacy.statement import PrivacyStatement
    from ridotto.rounds.private import Forecast

TABLE_ROUNDS, PLOT_ROUNDS = 12, 80
"""How many rounds a table and a plot show at most."""


def privacy(
    file: ConfigFile,
    rounds: Annotated[int | None, typer.Option(min=1, help="Another number of rounds than the file's.")] = None,
    population: Annotated[
        int | None,
        typer.Option(min=1, help="How many participants rounds draw from; the program's clients without it."),
    ] = None,
    epsilon: Annotated[
        float | None, typer.Option(help="Work out the noise that this epsilon takes, in place of the plan's own.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw epsilon over the rounds: .png, .pdf or .svg.")
    ] = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Say what a plan costs in privacy, or which noise an epsilon takes, without training."""
    from ridotto.config import SimulationConfig, load_config
    from ridotto.rounds.private import Draw, calibrated, forecast, with_epsilon
    from ridotto.rounds.settings import BandedGaussian
    from ridotto.simulate.privacy import draw_of
    from ridotto.simulate.sampling import Uniform
    from ridotto.tasks import load_task

    config = load_config(file, SimulationConfig)
    task = load_task(config.program, config.options, file.parent)
    total, parameters = config.rounds if rounds is None else rounds, task.trainer.layout.length
    plan = config.plan if epsilon is None else with_epsilon(config.plan, epsilon)
    # What `ridotto simulate` would do with this file.
    drawn = draw_of(Uniform(), None, None, plan, len(task.clients) if population is None else population)
    if isinstance(plan.dp, BandedGaussian):
        # What it costs depends on the plan alone, if somebody keeps participants to it.
        drawn = Draw(spaced=(plan.dp.participations, plan.dp.separation))
    plan = calibrated(plan, total, parameters, drawn)
    found = forecast(plan, parameters, drawn, total, PLOT_ROUNDS if plot else TABLE_ROUNDS)
    if plot is not None:
        from ridotto.simulate.plot import draw_epsilon

        draw_epsilon(found.points, found.statement, plot)
    if json:
        _print_lines(found)
    else:
        _print_table(found, plot)


def _print_lines(found: Forecast) -> None:
    from ridotto.cli.screen import machine

    for point in found.points:
        machine("rounds", rounds=point.rounds, epsilon=_finite(point.epsilon), epsilon_known=_finite(point.known))
    machine("privacy", **found.statement.as_dict(), affordable=found.affordable)


def _print_table(found: Forecast, plot: Path | None) -> None:
    from ridotto.cli.screen import line, pairs, person, table
    from ridotto.rounds.private import MOST_ROUNDS

    statement, console = found.statement, person()
    lasts = "" if found.affordable is None else f"{found.affordable} rounds"
    if found.affordable is not None and found.affordable >= MOST_ROUNDS:
        lasts = "as many rounds as anybody wants"
    facts = {
        "noise": _noise(statement),
        "budget": f"epsilon {statement.budget:g}" if statement.budget is not None else "none",
        **({"lasts for": lasts} if lasts else {}),
        "hides": f"one {statement.unit} ({statement.relation}), at delta {statement.delta:g}",
        "sampling": statement.sampling,
        "trust": statement.trust,
        **({"note": " ".join(statement.notes)} if statement.notes else {}),
        **({"plot": str(plot)} if plot else {}),
    }
    console.print(pairs("", facts))
    every = max(1, -(-len(found.points) // TABLE_ROUNDS))
    shown = [*found.points[:-1:every], found.points[-1]]
    rows = [(str(point.rounds), _number(point.epsilon), _number(point.known)) for point in shown]
    console.print(table("", ("rounds", "epsilon", "if one knows who took part"), rows))
    if found.affordable is not None and found.affordable < found.points[-1].rounds:
        line(console, f"Training would stop by itself after {found.affordable} rounds.")


def _noise(statement: PrivacyStatement) -> str:
    if statement.noise_multiplier is None:
        return f"{statement.mechanism}; clip {statement.clip:g}"
    return f"{statement.noise_multiplier:.4g} times the clip of {statement.clip:g}: {statement.mechanism}"


def _finite(number: float) -> float | None:
    # JSON has no infinity; null says that there is no bound.
    return number if math.isfinite(number) else None


def _number(number: float) -> str:
    return f"{math.ceil(number * 1000) / 1000:.3f}" if math.isfinite(number) else "infinite"
