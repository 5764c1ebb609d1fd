"""The messages around a secure sum, in sending order; and the tasks of the two round machines with their answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from ridotto.core.wire import Bytes32, Count, Message, Signature, Text
from ridotto.rounds.plan import Plan
from ridotto.secagg.protocols import PROTOCOLS
from ridotto.secagg.session import CommitteeSession, Session

ANNOUNCE_CONTEXT = "announce"
"""Context of the coordinator's signature over a session's id."""


class Announce(Message, frozen=True):
    """coordinator: open a session; signed over its sid with the coordinator's identity key."""

    plan: Plan
    session: Session | CommitteeSession
    signature: Signature


class Decline(Message, frozen=True):
    """participant: not this time; the reason goes into the round's record."""

    sid: Bytes32
    reason: Text


class Closed(Message, frozen=True):
    """coordinator: the round is over.

    model: the next one, or the same one if the round failed. reason: empty if it did not fail.
    """

    sid: Bytes32
    model: Bytes32
    reason: Text = ""


ROUND_MESSAGES = (Announce, Decline, Closed)


def messages_of_all() -> tuple[type[Message], ...]:
    """Return every message that coordinator and participant exchange, for a codec."""
    every: list[type[Message]] = [*ROUND_MESSAGES]
    for protocol in PROTOCOLS.values():
        every += protocol.messages
    # Those of committees are said in more than one protocol.
    return tuple(dict.fromkeys(every))


@dataclass(frozen=True, slots=True)
class Train:
    """participant's task: get the model with this digest, train on it, answer with `Trained` or `NotTrained`."""

    model: bytes
    round: int


class Trained(Message, frozen=True):
    """Bring the result of local training; it never leaves the participant.

    update: trained - received, float32, shape (d,). metrics: means over the examples.
    """

    update: Any
    examples: Count
    metrics: Mapping[str, float]

    def __repr__(self) -> str:
        return f"Trained(examples={self.examples})"


class NotTrained(Message, frozen=True):
    """Say why there is no update."""

    reason: Text


@dataclass(frozen=True, slots=True)
class Merge:
    """coordinator's task: add the opened sum of session `sid` to the round's total, and forget the sum. No answer.

    Comes once for each session whose check lanes are right, in plans without a robust rule. contributions: in the sum.
    """

    sid: bytes
    contributions: int


@dataclass(frozen=True, slots=True)
class Discard:
    """coordinator's task: forget the sum of session `sid`, which failed, and what was kept of it. No answer."""

    sid: bytes


@dataclass(frozen=True, slots=True)
class Apply:
    """coordinator's task: make the next model, answer with `Applied` or `NotApplied`.

    sids: of the opened sums, in the order of the sessions, where a robust rule looks at each; otherwise `TOTAL` alone.
    seed: what compressed updates have in common, the attempt's nonce.
    """

    round: int
    sids: tuple[bytes, ...]
    seed: bytes = b""


class NotApplied(Message, frozen=True):
    """Say why the opened sums made no model."""

    reason: Text


class Applied(Message, frozen=True):
    """Report the next model and what the sums said.

    clip: the largest norm of an update in this round, if there was one. clipped: how many were longer, or None if that
    is not known; under differential privacy an estimate. excluded: sid -> why its sum was left out by a robust rule.
    """

    model: Bytes32
    participants: Count
    examples: Count
    saturated: Count
    metrics: dict[str, float]
    clip: float | None = None
    clipped: float | None = None
    excluded: dict[bytes, str] = msgspec.field(default_factory=dict)
