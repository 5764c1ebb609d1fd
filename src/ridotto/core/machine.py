"""The machine protocol, its five effects, and a router that runs machines in one process.

Anything with more than one party is a machine: it is told what happened and when, and answers with effects.
It does no I/O, reads no clock, and draws randomness only from the `rng` it was given. A driver carries the
effects out: the simulator, the coordinator and the participant are three drivers of the same machines.

    Send(to, message, attachment)   deliver a message; a large vector travels beside it, named by its hash
    Do(task)                        do something slow or large; its result comes back as a message from SELF
    Wake(at)                        call `expire` at this time or later
    Publish(record)                 show a fact to whoever watches; never needed for the protocol to go on
    Finish(result, error)           this machine is done

Large vectors never enter the coordinator's machine. A message that brings one carries its SHA-256 and its
length (`wire.Attached`); the machine answers with a `Do` that folds it into a sum, and the driver, which has
the bytes at hand, does so. So a machine's whole state follows from a short log of small messages.

Source of the form: sans-I/O (h11), Willow's traits, the VDAF reference code (`run_vdaf`).
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Protocol

from ridotto.core.wire import Message
from ridotto.errors import LocalProtocolError, PeerProtocolError, RidottoError

COORDINATOR = "coordinator"
"""The name under which the coordinator's machine sends and receives."""

SELF = "self"
"""The sender of results of a machine's own tasks. No participant may bear this name."""

Buffer = bytes | bytearray | memoryview
"""Bytes of a large vector on their way from one party to another."""


@dataclass(frozen=True, slots=True)
class Send:
    """Deliver `message` to the party named `to`, with `attachment` beside it where the message names one."""

    to: str
    message: Message
    attachment: Buffer | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Do:
    """Carry out a task. What it yields, if anything, comes back through `receive` from SELF."""

    task: Any


@dataclass(frozen=True, slots=True)
class Wake:
    """Call `expire` at `at` (seconds, same clock as `now`) or later. Early calls do no harm."""

    at: float


@dataclass(frozen=True, slots=True)
class Publish:
    """Show a fact to whoever watches the round."""

    record: Any


@dataclass(frozen=True, slots=True)
class Finish:
    """End the machine with a result, or with the error that stopped it."""

    result: Any = None
    error: RidottoError | None = None


Effect = Send | Do | Wake | Publish | Finish
"""What a machine asks its driver to do."""


class Machine(Protocol):
    """Turn events into effects. Every party of every protocol has this face."""

    def start(self, now: float) -> list[Effect]:
        """Begin. Called once, before anything else."""

    def receive(self, sender: str, message: Message, now: float) -> list[Effect]:
        """Take one message of an authenticated sender.

        Raises PeerProtocolError if the message is refused; the machine's state is then as it was before.
        """

    def expire(self, now: float) -> list[Effect]:
        """Notice that time has passed."""


@dataclass(frozen=True, slots=True)
class Envelope:
    """One message under way in a `Router`: who sends what to whom, to arrive when."""

    sender: str
    to: str
    message: Message
    attachment: Buffer | None
    at: float


Link = Callable[[Envelope], Iterable[Envelope]]
"""The network between machines: lose, delay, repeat or change an envelope. Tests put their attackers here."""

Perform = Callable[[str, Any, Buffer | None], Message | None]
"""Carry out the task of the machine named first; the attachment is the one of the message just received."""


def direct(envelope: Envelope) -> Iterable[Envelope]:
    """Deliver at once and unchanged: the default link."""
    yield envelope


class Router:
    """Run machines in one process and in virtual time, deterministically.

    machines: by name. perform: carries out `Do` tasks. link: the network. Events are handled in order of
    time, then of arrival, so the same machines, link and seed give the same run.
    """

    def __init__(self, machines: Mapping[str, Machine], perform: Perform, link: Link = direct) -> None:
        self.now = 0.0
        self.finished: dict[str, Finish] = {}
        self.refusals: list[tuple[str, PeerProtocolError]] = []
        self.published: list[Any] = []
        self._machines = dict(machines)
        self._perform = perform
        self._link = link
        self._order = count()
        self._queue: list[tuple[float, int, Envelope | str]] = []

    def run(self) -> dict[str, Finish]:
        """Start every machine and go on until nothing is left to happen; return who finished, and how."""
        for name, machine in self._machines.items():
            self._carry_out(name, machine.start(self.now), None)
        while self._queue:
            self.now, _, event = heapq.heappop(self._queue)
            self._handle(event)
        return self.finished

    def _handle(self, event: Envelope | str) -> None:
        name = event if isinstance(event, str) else event.to
        machine = self._machines.get(name)
        if machine is None or name in self.finished:
            return
        if isinstance(event, str):
            self._carry_out(name, machine.expire(self.now), None)
            return
        try:
            effects = machine.receive(event.sender, event.message, self.now)
        except PeerProtocolError as refusal:
            self.refusals.append((name, refusal))
            return
        self._carry_out(name, effects, event.attachment)

    def _carry_out(self, name: str, effects: list[Effect], attachment: Buffer | None) -> None:
        for effect in effects:
            match effect:
                case Send(to, message, payload):
                    for envelope in self._link(Envelope(name, to, message, payload, self.now)):
                        self._push(max(envelope.at, self.now), envelope)
                case Do(task):
                    result = self._perform(name, task, attachment)
                    if result is not None:
                        self._push(self.now, Envelope(SELF, name, result, None, self.now))
                case Wake(at):
                    self._push(max(at, self.now), name)
                case Publish(record):
                    self.published.append(record)
                case Finish():
                    if name in self.finished:
                        raise LocalProtocolError(f"machine {name!r} finished twice")
                    self.finished[name] = effect

    def _push(self, at: float, event: Envelope | str) -> None:
        heapq.heappush(self._queue, (at, next(self._order), event))
