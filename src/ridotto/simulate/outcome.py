"""How one round of a simulation went, whichever way it was run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ridotto.errors import ConfigError
from ridotto.rounds.record import RoundRecord


@dataclass(frozen=True)
class Outcome:
    """Tell how one round went.

    record: in virtual seconds; it names sessions and members only where the real protocol ran. secure_sum: "machines"
    or "modelled". asked: how many clients were asked. lost, refused, dropped: name -> why, of those who left, those
    whose messages the coordinator refused, and those whose training failed. bytes_up, bytes_down: what the members of
    the cohort sent and received, together, the model included. train_s: wall seconds of local training. sum_s: of
    everything else, so of encoding, the secure sum and the step of the model. modelled: what only the model of costs
    knows, by column of the history. excluded: name -> why, of those whose sum a robust rule left out.
    """

    record: RoundRecord
    secure_sum: str
    asked: int
    lost: Mapping[str, str]
    refused: Mapping[str, str]
    dropped: Mapping[str, str]
    bytes_up: int
    bytes_down: int
    train_s: float
    sum_s: float
    modelled: Mapping[str, float] = field(default_factory=dict)
    excluded: Mapping[str, str] = field(default_factory=dict)


def no_round(record: RoundRecord, secure_sum: str, asked: int) -> Outcome:
    """Return the outcome of a round that could not begin: too few were there, and nobody trained."""
    return Outcome(
        record=record,
        secure_sum=secure_sum,
        asked=asked,
        lost={},
        refused={},
        dropped={},
        bytes_up=0,
        bytes_down=0,
        train_s=0.0,
        sum_s=0.0,
    )


def require_rounds(memory: bytes) -> None:
    """Refuse to go on in rounds where an asynchronous simulation stopped. Raises ConfigError."""
    if memory:
        raise ConfigError("a simulation can't be resumed with another pace: it was asynchronous (Buffered)")
