"""What has happened in the demo so far: a fold over the news, for whoever shows it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ridotto.rounds.record import RoundRecord

STEPS = {
    "PublicKeys": "training, then public keys",
    "SealedShares": "secret shares",
    "Masked": "masked vectors",
    "Consistency": "agreeing on who is in the sum",
    "Unmask": "taking the masks off the sum",
    "Open": "opening the sum",
}
"""What the coordinator collects, by the type of the message, in words."""

MESSAGES = {
    "PublicKeys": "keys",
    "SealedShares": "secret shares",
    "Masked": "masked vector",
    "Consistency": "signature",
    "Unmask": "shares for the sum",
}
"""What a participant sends, by the type of the message, in words."""


@dataclass
class Person:
    """Hold what is known of one participant. doing: in a word or two. examples: of its own data."""

    name: str
    examples: int
    doing: str = "starting"
    sent_bytes: int = 0
    received_bytes: int = 0
    killed: bool = False
    finished: bool = False


@dataclass
class Story:
    """Hold what has happened. accuracy: on the held-out digits, one a round. records: of rounds that made a model."""

    rounds: int
    people: dict[str, Person]
    round: int = 0
    step: str = "starting the processes"
    waiting: tuple[str, ...] = ()
    answered: int = 0
    accuracy: list[float] = field(default_factory=list)
    records: list[RoundRecord] = field(default_factory=list)
    failures: list[RoundRecord] = field(default_factory=list)
    killed_in: int = 0

    def participant(self, name: str, event: str, facts: Mapping[str, Any]) -> None:
        """Take note of what a participant says of itself."""
        person = self.people[name]
        if "sent_bytes" in facts:
            person.sent_bytes, person.received_bytes = facts["sent_bytes"], facts["received_bytes"]
        match event:
            case "summary":
                person.finished, person.doing = True, "done"
            case "sending":
                person.doing = f"sent its {MESSAGES.get(facts['message'], facts['message'])}"
            case "paused":
                person.doing = f"holds its {MESSAGES.get(facts['message'], facts['message'])} back"
            case "closed":
                person.doing = "has the new model" if not facts["reason"] else "round failed"
            case "lost":
                person.doing = "left behind"
            case _:
                person.doing = event

    def progress(self, facts: Mapping[str, Any]) -> None:
        """Take note of how far the coordinator's round is."""
        self.round = facts["round"]
        self.step = STEPS.get(facts["step"], facts["step"])
        self.answered = facts["answered"]
        self.waiting = tuple(facts["waiting"])

    def record(self, record: RoundRecord, accuracy: float | None) -> None:
        """Take note of a round that has ended. accuracy: of its model; None if it failed."""
        if accuracy is None:
            self.failures.append(record)
            return
        self.records.append(record)
        self.accuracy.append(accuracy)
        self.round, self.step, self.waiting, self.answered = record.round, "a new model", (), record.participants

    def kill(self, name: str) -> None:
        """Take note of a kill."""
        self.people[name].killed, self.people[name].doing = True, "killed"
        self.killed_in = self.round

    def lost(self) -> dict[int, dict[str, str]]:
        """Return which round lost whom: round -> name -> where and why."""
        lost: dict[int, dict[str, str]] = {}
        for record in (*self.failures, *self.records):
            if record.lost:
                lost.setdefault(record.round, {}).update(record.lost)
        return dict(sorted(lost.items()))

    def happened(self) -> list[str]:
        """Return sentences about rounds that lost somebody."""
        return [f"round {number} lost {', '.join(names)}" for number, names in self.lost().items()]
