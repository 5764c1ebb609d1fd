"""Tests of devices in two roles: what is said to both, and what a device without its seat does."""

from __future__ import annotations

import pytest

from ridotto.core.machine import COORDINATOR, Send
from ridotto.errors import PeerProtocolError
from ridotto.rounds.seats import to_devices
from ridotto.secagg.committee_roles.messages import MemberBook
from ridotto.secagg.oneshot.messages import Contribution, Parcels
from tests.rounds.federation import Federation, assert_mean, make_plan


def make_federation(**changes: object) -> Federation:
    return Federation(make_plan(7, protocol="oneshot", minimum=4), **changes)


def test_what_is_said_to_both_roles_is_said_once() -> None:
    book, other = MemberBook(b"s" * 32, ()), MemberBook(b"s" * 32, ())
    sent = to_devices([Send("a/member", book), Send("b/member", book), Send("a", book), Send("a", other)])
    assert sent == [Send("a", book), Send("b", book), Send("a", other)]
    federation = make_federation()
    federation.run()
    books = [envelope.to for envelope in federation.sent if isinstance(envelope.message, MemberBook)]
    assert sorted(books) == sorted(member.name for member in federation.attempt.members)


def test_a_device_that_was_started_again_keeps_out_of_its_seat() -> None:
    """Its seat is empty from the beginning here; its vector is in the sum all the same."""
    federation = make_federation()
    federation.begin()
    federation.attempts -= 1
    finish = federation.run(swap={"p002": federation.participant("p002", serving=None)})
    assert finish.error is None
    assert_mean(federation, range(7))
    assert {envelope.message.__class__.__name__ for envelope in federation.sent if envelope.sender == "p002"} == {
        "Contribution"
    }


def test_a_device_that_dies_in_its_seat_ignores_what_comes_for_it() -> None:
    federation = make_federation()
    federation.run()
    restarted = federation.participant("p002", serving=None)
    said = []
    for envelope in federation.sent:
        if envelope.sender == COORDINATOR and envelope.to == "p002" and not isinstance(envelope.message, Parcels):
            effects = restarted.receive(COORDINATOR, envelope.message, 0.0)
            if type(envelope.message).__name__ == "Announce":
                effects += restarted.receive("self", federation.trained("p002"), 0.0)
            said += [effect.message for effect in effects if isinstance(effect, Send)]
    first = [envelope.message for envelope in federation.sent if envelope.sender == "p002"]
    assert said == [message for message in first if isinstance(message, Contribution)]


def test_refuses_messages_for_a_seat_that_it_has_not() -> None:
    federation = Federation(make_plan(7, protocol="pairwise"))
    federation.run()
    with pytest.raises(PeerProtocolError, match="Parcels came before there was an update"):
        federation.participant("p001").receive(COORDINATOR, Parcels(b"s" * 32, ()), 0.0)
    announced = federation.participant("p001")
    announced.receive(COORDINATOR, federation.sent[0].message, 0.0)
    with pytest.raises(PeerProtocolError):
        announced.receive(COORDINATOR, Parcels(b"s" * 32, ()), 0.0)


def test_a_second_book_is_refused() -> None:
    federation = make_federation()
    federation.run()
    waiting = federation.participant("p000")
    announce, book = (
        next(e.message for e in federation.sent if e.to == "p000" and type(e.message).__name__ == kind)
        for kind in ("Announce", "MemberBook")
    )
    waiting.receive(COORDINATOR, announce, 0.0)
    waiting.receive(COORDINATOR, book, 0.0)
    with pytest.raises(PeerProtocolError, match="MemberBook came where Parcels belongs"):
        waiting.receive(COORDINATOR, book, 0.0)
