"""The router: order of events, what a network may do to them, and who is told of a refusal."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import pytest

from ridotto.core.machine import SELF, Do, Effect, Envelope, Finish, Publish, Router, Send, Wake
from ridotto.core.wire import Message
from ridotto.errors import LocalProtocolError, PeerProtocolError


class Ping(Message, frozen=True):
    number: int


class Scripted:
    """Answer every event with what the script says next, and remember what happened."""

    def __init__(self, *script: list[Effect] | Exception) -> None:
        self.script = list(script)
        self.heard: list[Any] = []

    def start(self, now: float) -> list[Effect]:
        return self._next(("start", now))

    def receive(self, sender: str, message: Message, now: float) -> list[Effect]:
        return self._next((sender, getattr(message, "number", None), now))

    def expire(self, now: float) -> list[Effect]:
        return self._next(("expire", now))

    def _next(self, event: Any) -> list[Effect]:
        self.heard.append(event)
        step = self.script.pop(0) if self.script else []
        if isinstance(step, Exception):
            raise step
        return step


def nothing(owner: str, task: Any, attachment: Any) -> Message | None:
    return None


def test_delivers_in_order_of_time_and_then_of_arrival() -> None:
    def later(envelope: Envelope) -> Iterable[Envelope]:
        delay = {1: 5.0, 2: 0.0, 3: 5.0}[envelope.message.number]
        yield dataclasses.replace(envelope, at=envelope.at + delay)

    sender = Scripted([Send("b", Ping(1)), Send("b", Ping(2)), Send("b", Ping(3))])
    receiver = Scripted()
    router = Router({"a": sender, "b": receiver}, nothing, later)
    assert router.run() == {}
    assert receiver.heard == [("start", 0.0), ("a", 2, 0.0), ("a", 1, 5.0), ("a", 3, 5.0)]
    assert router.now == 5.0


def test_time_never_runs_backwards() -> None:
    def early(envelope: Envelope) -> Iterable[Envelope]:
        yield dataclasses.replace(envelope, at=-7.0)

    machine = Scripted([Wake(10.0)], [Send("b", Ping(1)), Wake(3.0)])
    receiver = Scripted()
    Router({"a": machine, "b": receiver}, nothing, early).run()
    assert machine.heard == [("start", 0.0), ("expire", 10.0), ("expire", 10.0)]
    assert receiver.heard[1:] == [("a", 1, 10.0)]


def test_a_network_may_lose_and_repeat() -> None:
    def network(envelope: Envelope) -> Iterable[Envelope]:
        return [] if envelope.message.number == 1 else [envelope, envelope]

    receiver = Scripted()
    Router({"a": Scripted([Send("b", Ping(1)), Send("b", Ping(2))]), "b": receiver}, nothing, network).run()
    assert [event[1] for event in receiver.heard[1:]] == [2, 2]


def test_tasks_get_the_attachment_that_came_and_answer_from_self() -> None:
    performed = []

    def perform(owner: str, task: Any, attachment: Any) -> Message | None:
        performed.append((owner, task, attachment))
        return Ping(9) if task == "answer" else None

    receiver = Scripted([], [Do("answer"), Do("no answer")], [Do("later")])
    Router({"a": Scripted([Send("b", Ping(1), b"vector")]), "b": receiver}, perform).run()
    assert performed == [("b", "answer", b"vector"), ("b", "no answer", b"vector"), ("b", "later", None)]
    assert receiver.heard[-1] == (SELF, 9, 0.0)


def test_a_refusal_is_noted_and_the_run_goes_on() -> None:
    refusal = PeerProtocolError("a", "no")
    receiver = Scripted([], refusal, [Publish("fine"), Finish("done")])
    router = Router({"a": Scripted([Send("b", Ping(1)), Send("b", Ping(2))]), "b": receiver}, nothing)
    assert router.run() == {"b": Finish("done")}
    assert router.refusals == [("b", refusal)]
    assert router.published == ["fine"]


def test_any_other_exception_is_a_bug_and_comes_through() -> None:
    with pytest.raises(ZeroDivisionError):
        Router({"a": Scripted([Send("b", Ping(1))]), "b": Scripted([], ZeroDivisionError())}, nothing).run()


def test_who_has_finished_hears_nothing_more_and_nobody_is_no_receiver() -> None:
    finished = Scripted([Finish(1)])
    Router({"a": Scripted([Send("b", Ping(1)), Send("nobody", Ping(1))]), "b": finished}, nothing).run()
    assert finished.heard == [("start", 0.0)]


def test_finishing_twice_is_our_own_mistake() -> None:
    with pytest.raises(LocalProtocolError, match="machine 'a' finished twice"):
        Router({"a": Scripted([Finish(), Finish()])}, nothing).run()


def test_attachments_are_not_shown() -> None:
    assert "secret" not in repr(Send("a", Ping(1), b"secret"))
