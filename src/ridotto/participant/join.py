"""Take part with a trainer: what `ridotto join` runs."""

from __future__ import annotations

from typing import Any

from ridotto.errors import ConfigError
from ridotto.learn.trainer import LocalResult, SteerableTrainer, Trainer
from ridotto.participant.enter import Params, enter
from ridotto.participant.events import Fault, OnEvent, Summary
from ridotto.participant.loop import Participation
from ridotto.participant.rounds import declining
from ridotto.participant.task import Task


def join(
    params: Params, trainer: Trainer, data: Any, *, on_event: OnEvent | None = None, fault: Fault | None = None
) -> Summary:
    """Take part until all rounds are over: train with `trainer` on `data` whenever a round asks for it.

    data: what the trainer reads. on_event: watches. fault: for demonstrations.
    Raises what `ridotto.rounds` raises, and, after a Decline, DataError if the trainer refuses the data and ConfigError
    if the plan's algorithm bends local steps and the trainer does not let it.
    """
    with enter(params, trainer.layout, on_event=on_event, fault=fault) as participation:
        return run(participation, trainer, data)


def run(participation: Participation, trainer: Trainer, data: Any) -> Summary:
    """Carry out every task of a participation that has started, and sum it up."""
    while (task := participation.next_task()) is not None:
        with declining(participation):
            result = _train(trainer, data, task)
        participation.submit(result.vector - task.vector, result.examples, result.metrics)
    model, sha256 = participation.final_model()
    traffic = participation.traffic
    reports = tuple(participation.reports)
    sent, received = traffic.sent_bytes, traffic.received_bytes
    return Summary(participation.name, reports, sent, received, model, sha256, participation.spent)


def _train(trainer: Trainer, data: Any, task: Task) -> LocalResult:
    if task.correction is None:
        return trainer.train(task.vector, data, task.rng)
    if not isinstance(trainer, SteerableTrainer):
        raise ConfigError(
            f"the plan's algorithm bends the steps of plain SGD, and {type(trainer).__name__} does not let it; "
            "NumpyTrainer, TorchTrainer and JaxTrainer with plain SGD do"
        )
    return trainer.train(task.vector, data, task.rng, task.correction)
