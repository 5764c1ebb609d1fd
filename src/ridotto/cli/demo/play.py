"""The demo itself: start a coordinator and ten participants, watch them, kill two, compare the model."""

from __future__ import annotations

import queue
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import msgspec

from ridotto.cli.demo.children import Children, Ended, Told
from ridotto.cli.demo.story import STEPS, Person, Story
from ridotto.cli.demo.verdict import Verdict, compare
from ridotto.cli.stream import events, fetch
from ridotto.core.tensors import read_model
from ridotto.core.vector import Vector
from ridotto.errors import RidottoError, UnreachableError
from ridotto.rounds.record import SignedRecord
from ridotto.rounds.service import MODELS_PATH
from ridotto.tasks import digits

PARTICIPANTS = 10
VICTIMS = ("participant-3", "participant-7")
FAULT_ROUND = 3
FAULT = f"{FAULT_ROUND}:Masked:600"
"""The victims hold back their masked vectors in round 3: others have their keys and shares by then, and the masks that
they have with them must be taken off the sum."""

LOOK_S = 1.0
"""Between the moment at which only the victims are waited for and their end, for whoever watches."""

SILENCE_S = 90.0
"""Without any news something is broken that nobody reports."""

TICK_S = 0.1
EPOCHS = 5
"""Passes over its data that a participant makes in a round."""

CONFIG = """\
# The coordinator of `ridotto demo`.
program = "digits"
options = {{ clients = {participants}, seed = {seed}, epochs = {epochs} }}
rounds = {rounds}

[federation]
name = "demo"
data = "coordinator"
port = 0

[plan]
cohort = {participants}
minimum = 7              # a round survives three drop-outs
join_s = 0.75            # the killed never come back: do not wait long for them
train_s = 30.0
phase_s = 3.0            # how long the others wait for the killed

[plan.protocol]
name = "pairwise"
corrupt = 0.1            # one of ten may collude with the coordinator

[plan.optimiser]
name = "fedavgm"
parameters = {{ momentum = 0.5 }}

[plan.metrics]
accuracy = 1.0

[enrolment]
tokens = {participants}
"""


@dataclass(frozen=True)
class Result:
    """Hold what came of the demo. model, records: files."""

    story: Story
    verdict: Verdict
    seconds: float
    folder: Path
    model: Path
    records: Path


class Watcher(Protocol):
    """Show the story to somebody while it happens."""

    def __enter__(self) -> object: ...

    def __exit__(self, *_: Any) -> None: ...

    def update(self) -> None:
        """Show what is new."""


class Play:
    """Run the demo once. folder: empty, absolute."""

    def __init__(self, folder: Path, rounds: int, seed: int) -> None:
        self._folder = folder
        self._rounds = rounds
        self._seed = seed
        self._task = digits(clients=PARTICIPANTS, seed=seed)
        sizes = {f"participant-{i}": len(data[1]) for i, data in enumerate(self._task.clients)}
        self.story = Story(rounds, {name: Person(name, size) for name, size in sizes.items()})
        self._started = time.monotonic()
        self._url = ""
        self._coordinator = b""
        self._signed: list[SignedRecord] = []
        self._model = b""
        self._paused_at: dict[str, float] = {}

    def run(self, watcher: Watcher) -> None:
        """Play until every participant that was not killed has the final model.

        Raises RidottoError if a process ends that was not meant to, or nothing happens any more.
        """
        (self._folder / "server.toml").write_text(
            CONFIG.format(participants=PARTICIPANTS, seed=self._seed, epochs=EPOCHS, rounds=self._rounds),
            encoding="utf-8",
        )
        with watcher, Children(self._folder / "logs") as children:
            children.start("coordinator", ["serve", str(self._folder / "server.toml")])
            heard = time.monotonic()
            while not self._is_over():
                try:
                    news = children.news.get(timeout=TICK_S)
                except queue.Empty:
                    if time.monotonic() - heard > SILENCE_S:
                        raise RidottoError(f"nothing happened for {SILENCE_S:.0f} s: see {children.folder}") from None
                else:
                    heard = time.monotonic()
                    self._hear(news, children)
                self._kill_when_due(children)
                watcher.update()
            self._save()

    def result(self) -> Result:
        """Compare the model, and say where everything lies."""
        story = self.story
        verdict = compare(story.accuracy[-1], self._task, self._seed, self._rounds * EPOCHS)
        seconds = time.monotonic() - self._started
        return Result(story, verdict, seconds, self._folder, self._model_file, self._records_file)

    @property
    def _model_file(self) -> Path:
        return self._folder / "model.safetensors"

    @property
    def _records_file(self) -> Path:
        return self._folder / "records.json"

    def _is_over(self) -> bool:
        return all(person.finished or person.killed for person in self.story.people.values())

    def _hear(self, news: Told | Ended, children: Children) -> None:
        match news:
            case Ended():
                children.check(news)
            case Told("coordinator", "listening", facts):
                self._meet(facts, children)
            case Told("events", "progress", facts):
                self.story.progress(facts)
            case Told("events", "record", facts):
                self._take_record(facts)
            case Told("events", "state", facts) if facts["state"] == "failed":
                raise RidottoError(f"the federation failed: {facts['reason']}; see {children.folder}")
            case Told(name, event, facts) if name in self.story.people:
                self.story.participant(name, event, facts)
                if event == "paused":
                    self._paused_at.setdefault(name, time.monotonic())

    def _meet(self, facts: Mapping[str, Any], children: Children) -> None:
        """Watch the coordinator, and start the participants, each with a token of its own."""
        self._url, self._coordinator = facts["url"], bytes.fromhex(facts["coordinator"])
        self.story.step = "starting the participants"
        children.listen(_watch, self._url, children)
        tokens = Path(facts["tokens"]).read_text(encoding="utf-8").split()
        for number, (name, token) in enumerate(zip(self.story.people, tokens, strict=True)):
            arguments = ["join", self._url, "--program", "digits", "--client", str(number), "--name", name]
            arguments += ["--option", f"clients={PARTICIPANTS}", "--option", f"seed={self._seed}"]
            arguments += ["--option", f"epochs={EPOCHS}", "--state", str(self._folder / "participants")]
            arguments += ["--coordinator", facts["coordinator"]]
            arguments += ["--pause", FAULT] if name in VICTIMS else []
            children.start(name, arguments, {"RIDOTTO_TOKEN": token})

    def _take_record(self, facts: Mapping[str, Any]) -> None:
        """Check a round's signed record, and evaluate the model that it names on the held-out digits."""
        signed = msgspec.convert(facts, SignedRecord)
        signed.check(self._coordinator)
        self._signed.append(signed)
        if signed.record.failure:
            self.story.record(signed.record, None)
            return
        self._model = fetch(f"{self._url}{MODELS_PATH}/{signed.record.model}")
        self.story.record(signed.record, self._accuracy(read_model(self._model)[0]))

    def _accuracy(self, vector: Vector) -> float:
        return float(self._task.trainer.evaluate(vector, self._task.test)["accuracy"])

    def _kill_when_due(self, children: Children) -> None:
        """Kill the victims once both hold their masked vectors back and everybody else has answered."""
        alive = [name for name in VICTIMS if not self.story.people[name].killed]
        if alive and (self._is_due() or self._is_overdue()):
            for name in alive:
                children.kill(name)
                self.story.kill(name)

    def _is_due(self) -> bool:
        if len(self._paused_at) < len(VICTIMS) or not set(self.story.waiting) <= set(VICTIMS):
            return False
        return time.monotonic() - max(self._paused_at.values()) >= LOOK_S

    def _is_overdue(self) -> bool:
        """Tell whether a victim missed its round, because this machine was too busy to start it in time."""
        return self.story.round > FAULT_ROUND and self.story.step == STEPS["Masked"]

    def _save(self) -> None:
        self._model_file.write_bytes(self._model)
        self._records_file.write_bytes(msgspec.json.format(msgspec.json.encode(self._signed), indent=1))


def _watch(url: str, children: Children) -> None:
    try:
        for kind, facts in events(url):
            children.tell("events", kind, facts)
    except (UnreachableError, OSError, ValueError):
        return  # the coordinator has ended; its process says how
