"""The one line that turns a training loop into a federated one.

for epoch in range(20):                                        # before
for epoch in ridotto.rounds(url, model, examples=len(data)):   # after: model is updated in place
    train_one_epoch(model, data)
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from ridotto.errors import ConfigError, DataError
from ridotto.learn.adapt import adapt
from ridotto.learn.trainer import Model
from ridotto.participant.client import PATIENCE_S
from ridotto.participant.enter import Params, enter
from ridotto.participant.events import Spent
from ridotto.participant.loop import Participation
from ridotto.participant.notes import Keeper
from ridotto.rounds.policy import Policy

Examples = int | Callable[[], int]
"""How many examples a round trains on: the weight of the update. A function is asked after every round's training."""

Metrics = Callable[[], Mapping[str, float]]
"""Measure the model after local training: means over the examples. What the plan does not name stays here."""


class Round(int):
    """Count a round from 0, as `range` does, so that it can stand where an epoch stood.

    A round that failed is tried again with the same number; one that went on without this participant is skipped.
    """

    rounds: int
    """How many rounds there will be."""

    metrics: dict[str, float]
    """What `report` was told."""

    spent: Spent | None
    """What the rounds before this one have cost in privacy, by our own count; None where nobody asks for any."""

    def __new__(cls, number: int, rounds: int, spent: Spent | None = None) -> Self:
        """Make the round with this number, from 1, of `rounds`."""
        self = super().__new__(cls, number - 1)
        self.rounds, self.spent = rounds, spent
        self.metrics = {}
        return self

    @property
    def number(self) -> int:
        """Return the round's number as the coordinator and its records count it: from 1."""
        return int(self) + 1

    def report(self, **metrics: float) -> None:
        """Add metrics of this round's training, means over the examples; only their masked sum leaves the device."""
        self.metrics.update({name: float(value) for name, value in metrics.items()})


def rounds(
    url: str,
    model: object,
    *,
    examples: Examples,
    name: str | None = None,
    state: Path | None = None,
    policy: Policy | None = None,
    token: str = "",
    metrics: Metrics | None = None,
    coordinator: str | None = None,
    patience_s: float = PATIENCE_S,
    ca: Path | None = None,
    certificate: tuple[Path, Path] | None = None,
    receipts: Keeper | None = None,
) -> Iterator[Round]:
    """Take part in a federation's rounds: each pass through the loop trains the federation's model in place.

    model: a torch module, a fitted scikit-learn estimator, or a dict or tree of arrays. Before the loop's body it is
    set to the global model; when the body is done the difference is masked and sent. After the last round it is the
    final global model. examples: how many the body trains on, >= 1. The other arguments are those of `Params`.

    If the body raises, or leaves the loop, the coordinator is told that this participant declines, and nothing else.
    The process may be killed at any moment: started again, it goes on where it was, and trains again at most the pass
    that it was in.

    Raises at once: DataError for no examples or a model that is not supported, ConfigError for a wrong argument. While
    running: DataError for a model whose shapes are not the federation's or that has become NaN, ConsentError where the
    policy refuses, ConfigError for a plan whose algorithm changes local steps, which are yours here, RefusedError,
    UnreachableError, StorageError, and RoundFailedError if the federation failed.

    >>> from ridotto.participant.rounds import Round
    >>> epoch = Round(3, rounds=20)
    >>> epoch == 2, epoch.number, epoch.rounds
    (True, 3, 20)
    """
    params = Params(url, name, state, policy or Policy(), token, coordinator, patience_s, ca, certificate, receipts)
    adapter = adapt(model)
    if not callable(examples):
        require_examples(examples)
    return _in_federation(params, adapter, examples, metrics)


def require_examples(examples: int) -> int:
    """Return a number of examples. Raises DataError if there are none or it is not a whole number."""
    try:
        count = operator.index(examples)
    except TypeError as error:
        raise DataError(f"examples is a whole number, not {type(examples).__name__}") from error
    if count < 1:
        raise DataError(f"there are {count} examples to train on; a participant without data can't take part")
    return count


def _in_federation(params: Params, model: Model, examples: Examples, metrics: Metrics | None) -> Iterator[Round]:
    with enter(params, model.layout) as participation:
        yield from follow(participation, model, examples, metrics)


def follow(
    participation: Participation, model: Model, examples: Examples, metrics: Metrics | None = None
) -> Iterator[Round]:
    """Yield a `Round` for every task of a participation that has started, and hand in what its body did to `model`."""
    while (task := participation.next_task()) is not None:
        with declining(participation):
            if task.correction is not None:
                raise ConfigError(
                    "the plan's algorithm bends every local step, and a loop of your own takes its steps itself: take "
                    "part with `ridotto join` and a trainer, or ask for a plan with fedavg"
                )
            model.write(task.vector)
            this = Round(task.round, task.rounds, participation.spent)
            yield this
            trained = model.read()
            count = require_examples(examples() if callable(examples) else examples)
            measured = {**(metrics() if metrics is not None else {}), **this.metrics}
        participation.submit(trained - task.vector, count, measured)
    vector, _ = participation.final_model()
    model.write(vector)


@contextmanager
def declining(participation: Participation) -> Iterator[None]:
    """Decline the open round if training does not come to its end, and pass the reason on.

    The coordinator learns the type of an exception and never its message, which may hold data.
    """
    try:
        yield
    except GeneratorExit:
        # Python closes a loop's iterator in the same way whether the body said `break` or raised. No waiting here:
        # whoever leaves wants to leave.
        participation.decline("left its training loop", patience_s=0)
        raise
    except BaseException as error:
        participation.decline(f"training failed: {type(error).__name__}", patience_s=0)
        raise
