"""What a participant tells whoever watches, what it says at the end, and what a demonstration may break."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

from ridotto.core.vector import Vector
from ridotto.errors import ConfigError
from ridotto.privacy.event import Relation


class EventKind(StrEnum):
    """Say what has just happened."""

    WAITING = "waiting"
    """For a round that includes this participant."""

    TRAINING = "training"
    """The model is there; local training begins."""

    SENDING = "sending"
    """A message is about to be sent: `message` names it."""

    PAUSED = "paused"
    """A fault holds `message` back: the moment for a demonstration to kill this process."""

    CLOSED = "closed"
    """The round is over; `reason` is empty if a new model came out."""

    LOST = "lost"
    """The round goes on, or has ended, without this participant: `reason` says why."""

    RECEIPT = "receipt"
    """The receipt of a round was checked: `reason` says what it proves about this participant's contribution."""

    DONE = "done"
    """All rounds are over; `reason` says why, if there were fewer than planned."""


@dataclass(frozen=True)
class Spent:
    """Say what all rounds so far have cost this participant, by its own count; see `rounds.spending`.

    epsilon: at this delta; infinite if one of the rounds had no differential privacy. limit: the most that the policy
    allows, or None. relation: always zero-out.
    """

    rounds: int
    epsilon: float
    delta: float
    limit: float | None
    relation: Relation = Relation.ZERO_OUT

    def __str__(self) -> str:
        of = "" if self.limit is None else f" of {self.limit:g}"
        count = "1 round" if self.rounds == 1 else f"{self.rounds} rounds"
        epsilon = "infinite" if math.isinf(self.epsilon) else f"{math.ceil(self.epsilon * 1000) / 1000:g}"
        return f"epsilon {epsilon}{of} at delta {self.delta:g} ({self.relation}) after {count}"


@dataclass(frozen=True)
class Event:
    """Show one step. round: from 1, 0 where there is none. size_bytes: of what is sent.

    spent: where a round has ended and differential privacy is counted.
    """

    kind: EventKind
    round: int = 0
    attempt: int = 0
    message: str = ""
    size_bytes: int = 0
    reason: str = ""
    spent: Spent | None = None


OnEvent = Callable[[Event], None]
"""Watch a participant. What it raises ends the participation."""


@dataclass(frozen=True)
class RoundReport:
    """Say how one attempt at a round ended for this participant.

    outcome: CLOSED or LOST. reason: why it was lost or failed, empty if a new model came out. sent_bytes,
    received_bytes: bodies only, since the report before this one.
    """

    round: int
    attempt: int
    outcome: EventKind
    reason: str
    sent_bytes: int
    received_bytes: int


@dataclass(frozen=True)
class Summary:
    """Say how a participation went.

    model: the final global model, float32, shape (d,). model_digest: of its file. spent: by all rounds of this
    federation, where differential privacy is counted.
    """

    name: str
    rounds: tuple[RoundReport, ...]
    sent_bytes: int
    received_bytes: int
    model: Vector = field(repr=False)
    model_digest: bytes
    spent: Spent | None = None


@dataclass(frozen=True)
class Fault:
    """Hold a message back for a while, in one round, so that a demonstration can kill the process in the middle of it.

    round: from 1. before: the message's type, as "Masked". pause_s: seconds.
    """

    round: int
    before: str
    pause_s: float

    def __post_init__(self) -> None:
        if self.round < 1 or not self.pause_s >= 0:
            raise ConfigError(f"a fault needs a round from 1 and a pause from 0 s, not {self.round}, {self.pause_s} s")
