"""Who holds whose shares, and how many open a secret: what both halves derive from the key book."""

from __future__ import annotations

from dataclasses import dataclass

from ridotto.secagg.binding import book_root
from ridotto.secagg.graph import complete_holders, complete_threshold, sparse_holders, sparse_is_safe
from ridotto.secagg.messages import KeyEntry
from ridotto.secagg.session import Session


@dataclass(frozen=True)
class Group:
    """Fix the graph of one session once its key book is fixed.

    book: root of the key book. keys: by member. holders: for each member of the key book, who holds its shares,
    sorted; in a complete graph its owner too. threshold: shares that open a secret.
    """

    book: bytes
    keys: dict[int, KeyEntry]
    holders: dict[int, tuple[int, ...]]
    threshold: int

    def neighbours(self, member: int) -> tuple[int, ...]:
        """Return with whom a member shares masks: its holders other than itself."""
        return tuple(holder for holder in self.holders[member] if holder != member)


def form_group(session: Session, sid: bytes, entries: tuple[KeyEntry, ...]) -> Group:
    """Derive the group from a key book that has been checked.

    A sparse graph that would not be safe for those who showed up, or has no room among them, becomes a complete one.
    """
    present = [entry.member for entry in entries]
    book = book_root(sid, entries)
    keys = {entry.member: entry for entry in entries}
    degree, threshold = session.neighbours, session.threshold
    if degree and len(present) > degree + 1 and sparse_is_safe(len(present), session.corrupt, degree, threshold):
        return Group(book, keys, sparse_holders(present, degree, book), threshold)
    return Group(book, keys, complete_holders(present), complete_threshold(len(present), session.corrupt))
