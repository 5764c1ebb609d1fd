"""Take part with a trainer: what `ridotto join` runs."""

from __future__ import annotations

from typing import Any

from ridotto.learn.trainer import Trainer
from ridotto.participant.enter import Params, enter
from ridotto.participant.events import Fault, OnEvent, Summary
from ridotto.participant.loop import Participation
from ridotto.participant.rounds import declining


def join(
    params: Params, trainer: Trainer, data: Any, *, on_event: OnEvent | None = None, fault: Fault | None = None
) -> Summary:
    """Take part until all rounds are over: train with `trainer` on `data` whenever a round asks for it.

    data: what the trainer reads. on_event: watches. fault: for demonstrations.
    Raises what `ridotto.rounds` raises, and DataError if the trainer refuses the data (after a Decline).
    """
    with enter(params, trainer.layout, on_event=on_event, fault=fault) as participation:
        return run(participation, trainer, data)


def run(participation: Participation, trainer: Trainer, data: Any) -> Summary:
    """Carry out every task of a participation that has started, and sum it up."""
    while (task := participation.next_task()) is not None:
        with declining(participation):
            result = trainer.train(task.vector, data, task.rng)
        participation.submit(result.vector - task.vector, result.examples, result.metrics)
    model, sha256 = participation.final_model()
    traffic = participation.traffic
    reports = tuple(participation.reports)
    return Summary(participation.name, reports, traffic.sent_bytes, traffic.received_bytes, model, sha256)
