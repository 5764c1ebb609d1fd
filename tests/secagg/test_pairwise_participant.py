"""What a participant refuses that no honest coordinator says, beyond the attacks of docs/threats.md."""

from __future__ import annotations

import msgspec
import pytest

from ridotto.core.machine import COORDINATOR
from ridotto.errors import PeerProtocolError
from ridotto.secagg.binding import KEYS_CONTEXT, keys_statement
from ridotto.secagg.messages import Delivery, Evidence, KeyBook, KeyEntry, PublicKeys, Survivors
from ridotto.secagg.session import session_id
from tests.conformance.test_sums import fresh_participant
from tests.conformance.world import World, identity, make_session

WORLD = World(make_session())
WORLD.run()
SID = session_id(WORLD.session)
HEARD = [envelope.message for envelope in WORLD.sent if envelope.to == "p000"]


def started(messages: int):  # type: ignore[no-untyped-def]
    """Return p000 after it has heard so many of the coordinator's honest messages."""
    machine = fresh_participant(WORLD.session, "p000")
    machine.start(0.0)  # type: ignore[attr-defined]
    for message in HEARD[:messages]:
        machine.receive(COORDINATOR, message, 0.0)  # type: ignore[attr-defined]
    return machine


@pytest.mark.parametrize("place", range(4))
def test_refuses_each_message_of_another_session_and_then_takes_the_right_one(place: int) -> None:
    machine, message = started(place), HEARD[place]
    with pytest.raises(PeerProtocolError, match=f"its {type(message).__name__} belongs to another session"):
        machine.receive(COORDINATOR, msgspec.structs.replace(message, sid=b"x" * 32), 0.0)
    assert machine.receive(COORDINATOR, message, 0.0)


@pytest.mark.parametrize("place", range(4))
def test_each_message_comes_in_its_place(place: int) -> None:
    machine = started(place)
    for other in HEARD[:place] + HEARD[place + 1 :]:
        with pytest.raises(PeerProtocolError, match=f"{type(other).__name__} came where"):
            machine.receive(COORDINATOR, other, 0.0)
    assert machine.expire(1e9) == []


@pytest.mark.parametrize("field", ["exchange", "mask"])
def test_refuses_a_low_order_key_that_its_owner_has_signed(field: str) -> None:
    """The honest coordinator would have refused it; this one helps p001 to make everybody fail."""
    book = HEARD[0]
    assert isinstance(book, KeyBook)
    entry = msgspec.structs.replace(book.entries[1], **{field: bytes(32)})
    signature = identity("p001").sign(KEYS_CONTEXT, keys_statement(SID, 1, entry.exchange, entry.mask))
    entries = (book.entries[0], msgspec.structs.replace(entry, signature=signature), *book.entries[2:])
    machine = started(0)
    with pytest.raises(PeerProtocolError, match="its key book has unusable keys of p001"):
        machine.receive(COORDINATOR, KeyBook(SID, entries), 0.0)
    assert machine.receive(COORDINATOR, book, 0.0)


def test_refuses_books_boxes_and_lists_that_are_not_in_order() -> None:
    book = HEARD[0]
    assert isinstance(book, KeyBook)
    strange = KeyEntry(9_999, b"e" * 32, b"m" * 32, b"s" * 64)
    lies = [
        (0, KeyBook(SID, ()), "its key book has 0 members, the minimum is 3"),
        (0, KeyBook(SID, (*book.entries, strange)), "its key book is not a sorted list of members"),
        (0, KeyBook(SID, (*book.entries[:4], msgspec.structs.replace(book.entries[0], member=4))), "one key twice"),
        (1, Delivery(SID, HEARD[1].boxes[::-1]), "boxes of members that are not my neighbours, or unsorted"),
        (1, Delivery(SID, ()), "it delivered 0 boxes, too few to hide among"),
        (2, Survivors(SID, ()), "leaves me out"),
        (2, Survivors(SID, (0, 1, 2, 3, 4, 5)), "not a sorted list of members of the key book"),
        (3, Evidence(SID, HEARD[3].votes[::-1]), "its evidence is not sorted by member"),
        (3, Evidence(SID, ()), "0 members vouch for its survivor list, 3 are needed"),
    ]
    for place, message, why in lies:
        machine = started(place)
        with pytest.raises(PeerProtocolError, match=why):
            machine.receive(COORDINATOR, message, 0.0)
        assert machine.receive(COORDINATOR, HEARD[place], 0.0)


def test_what_participants_say_is_not_for_participants() -> None:
    keys = next(e.message for e in WORLD.sent if isinstance(e.message, PublicKeys))
    with pytest.raises(PeerProtocolError, match="PublicKeys came where KeyBook belongs"):
        started(0).receive(COORDINATOR, keys, 0.0)
