"""Mailboxes keep what is under way, and nothing that was acknowledged."""

from __future__ import annotations

from ridotto.coordinator.presence import Mailboxes


def make_mailboxes() -> Mailboxes:
    mailboxes = Mailboxes()
    mailboxes.deliver([("ann", b"one"), ("ann", b"two"), ("bob", b"other"), ("ann", b"three")])
    return mailboxes


def test_frames_after_the_first_ones() -> None:
    mailboxes = make_mailboxes()
    assert mailboxes.frames("ann", 0) == [b"one", b"two", b"three"]
    assert mailboxes.frames("ann", 0) == [b"one", b"two", b"three"]
    assert mailboxes.frames("ann", 2) == [b"three"]
    assert mailboxes.frames("ann", 3) == []
    mailboxes.deliver([("ann", b"four")])
    assert mailboxes.frames("ann", 3) == [b"four"]
    assert mailboxes.frames("bob", 0) == [b"other"]


def test_what_is_acknowledged_is_forgotten() -> None:
    mailboxes = make_mailboxes()
    mailboxes.frames("ann", 2)
    assert mailboxes.frames("ann", 1) == []
    assert mailboxes.frames("ann", 2) == [b"three"]


def test_who_acknowledges_too_much_gets_nothing_and_harms_nobody() -> None:
    mailboxes = make_mailboxes()
    assert mailboxes.frames("ann", 99) == []
    assert mailboxes.frames("bob", 0) == [b"other"]


def test_another_attempt_begins_at_zero() -> None:
    mailboxes = make_mailboxes()
    mailboxes.frames("ann", 3)
    mailboxes.clear()
    mailboxes.deliver([("ann", b"new")])
    assert mailboxes.frames("ann", 0) == [b"new"]
