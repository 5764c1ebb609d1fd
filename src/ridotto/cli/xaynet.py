"""`ridotto serve FILE.toml --xaynet`: rounds for existing clients of xaynet, who know nothing of plans."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ridotto.errors import ConfigError, DataError, StorageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ridotto.config import ServerConfig
    from ridotto.coordinator.serve import ServerSettings
    from ridotto.core.vector import Layout, Vector
    from ridotto.rounds.plan import Plan
    from ridotto.secagg.xaynet.settings import XaynetSettings
    from ridotto.tasks import Task

MODEL_FILE = "model.safetensors"

PROTECTION = (
    "PET hides updates from a coordinator that has no summer on its side, and from the network. One summer that helps "
    "the coordinator, or that the coordinator makes up, opens every update: docs/protocols/xaynet.md."
)


def serve_xaynet_clients(config: ServerConfig, task: Task, server: ServerSettings, data: Path, *, json: bool) -> None:
    """Serve rounds until all are done or somebody stops it; the newest model lies in the data folder.

    Raises ConfigError for a plan that xaynet's clients can't follow, MissingExtraError without PyNaCl.
    """
    from ridotto.cli.screen import line, machine, pairs, person
    from ridotto.coordinator.xaynet_serve import serve_xaynet

    layout, path = task.trainer.layout, data / MODEL_FILE
    settings, initial = _settings(config, layout.length), _model(path, task)

    def ready(url: str) -> None:
        if json:
            machine("listening", url=url, data=data, protocol="xaynet")
            return
        facts = {"listening at": url, "protection": PROTECTION, "model": str(path)}
        person().print(pairs(f"{config.federation.name}: {config.rounds} rounds for xaynet's clients", facts))

    def done(round_done: Any, mean: NDArray[Any]) -> None:
        _keep(path, mean, layout)
        found = {"round": round_done.number, "updaters": len(round_done.updaters), "summers": len(round_done.summers)}
        if json:
            machine("round", **found)
        else:
            line(person(), ", ".join(f"{name} {number}" for name, number in found.items()))

    def failed(failure: Any) -> None:
        if json:
            machine("failed", reason=str(failure.error))
        else:
            line(person(), f"a round failed: {failure.error}", "yellow")

    serve_xaynet(settings, server, initial=initial, on_round=done, on_failure=failed, rounds=config.rounds, ready=ready)


def _settings(config: ServerConfig, length: int) -> XaynetSettings:
    from ridotto.secagg.xaynet.settings import PhaseLimits, XaynetSettings

    section, plan = config.xaynet, config.plan
    if section is None:
        raise ConfigError("xaynet's clients draw lots for their tasks: add a table [xaynet] with their chances")
    _check(plan)
    summers = PhaseLimits(least=1, most=section.summers, min_s=section.min_s, max_s=plan.join_s + plan.train_s)
    updates = PhaseLimits(least=plan.least, most=plan.cohort, min_s=section.min_s, max_s=plan.train_s)
    return XaynetSettings(
        length=length,
        sum_chance=section.sum_chance,
        update_chance=section.update_chance,
        sum=summers,
        update=updates,
        sum2=summers,
    )


def _check(plan: Plan) -> None:
    """Refuse what clients that know nothing of the plan would not do."""
    if plan.protocol_name != "ideal":
        raise ConfigError(
            'PET protects less than a plan can say, so with xaynet\'s clients the plan says protocol "ideal" and '
            'i_know = ["no-protection"]'
        )
    unknown = [name for name in ("clip", "dp", "compress", "robust", "metrics", "download_bits") if getattr(plan, name)]
    if plan.optimiser.name != "fedavg" or plan.optimiser.parameters:
        unknown.append("optimiser")
    if plan.algorithm.name != "fedavg":
        unknown.append("algorithm")
    if unknown:
        raise ConfigError(
            f"xaynet's clients send weighted models and know nothing of {', '.join(unknown)}: leave it out"
        )


def _model(path: Path, task: Task) -> Vector:
    """Return the model to go on with: the newest one, or the task's."""
    from ridotto.core.tensors import read_model

    if not path.exists():
        return task.trainer.initial()
    vector, layout = read_model(path.read_bytes())
    if layout != task.trainer.layout:
        raise DataError(f"{path} is a model of another shape than the program's: move it away, or take its program")
    return vector


def _keep(path: Path, mean: NDArray[Any], layout: Layout) -> None:
    from ridotto.core.tensors import write_model

    new = path.with_suffix(".new")
    try:
        new.write_bytes(write_model(mean, layout))
        new.replace(path)
    except OSError as error:
        raise StorageError(f"the model can't be kept in {path}: {error.strerror or error}") from error
