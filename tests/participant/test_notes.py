"""Notes for receipts: one for each attempt in which something was sent, and about nothing else."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import pytest

from ridotto.core.wire import Message
from ridotto.participant.notes import Notes, Source
from ridotto.rounds.inclusion import Contributed
from ridotto.rounds.messages import Announce, Closed, Decline
from ridotto.secagg.messages import Masked
from ridotto.secagg.session import Member, Session, session_id
from tests.participant.fake import PLAN, key

MODEL = b"n" * 32


@dataclass
class Kept:
    """A keeper that only remembers."""

    notes: list[Contributed] = field(default_factory=list)

    def note(self, own: Contributed) -> None:
        self.notes.append(own)

    def check(self, source: Source, coordinator: bytes, name: str, over: int) -> Iterable[tuple[Contributed, str]]:
        return ()


def announce(nonce: bytes = b"1" * 32) -> Announce:
    members = tuple(Member(name, key(name).public) for name in ("me", "she", "you"))
    session = Session(
        protocol="pairwise",
        plan=PLAN.fingerprint(),
        model=b"m" * 32,
        nonce=nonce,
        round=3,
        shard=0,
        members=members,
        length=4,
        bits=32,
        minimum=3,
    )
    return Announce(PLAN, session, bytes(64))


SID = session_id(announce().session)
SENT = Masked(digest=b"d" * 32, size=16, sid=SID)


def notes_after(heard: list[Message], said: list[Message]) -> list[Contributed]:
    kept = Kept()
    notes = Notes("me", kept)
    for message in heard:
        notes.heard(message)
    for message in said:
        notes.said(message)
    notes.end(7)
    notes.end(8)
    return kept.notes


def test_says_what_was_sent_in_which_session_and_what_came_out() -> None:
    (own,) = notes_after([announce(), Closed(SID, MODEL)], [SENT])
    assert (own.name, own.attempt, own.session) == ("me", 7, announce().session)
    assert (own.contribution, own.model, own.inclusion) == ((b"d" * 32).hex(), MODEL.hex(), None)


@pytest.mark.parametrize(
    ("heard", "said"), [([], [SENT]), ([announce()], []), ([announce()], [Decline(SID, "not this time")])]
)
def test_says_nothing_where_nothing_was_sent(heard: list[Message], said: list[Message]) -> None:
    assert notes_after(heard, said) == []


def test_a_second_session_and_the_end_of_another_one_change_nothing() -> None:
    (own,) = notes_after([announce(), announce(b"2" * 32), Closed(b"x" * 32, MODEL)], [SENT])
    assert session_id(own.session) == SID
    assert own.model is None


def test_who_keeps_no_receipts_takes_no_notes() -> None:
    notes = Notes("me", None)
    notes.heard(announce())
    notes.said(SENT)
    notes.end(7)
