"""The members' keys: fresh for every session, signed by their identities, shown to all in one book."""

from __future__ import annotations

import hashlib
from functools import lru_cache

from ridotto.core.machine import COORDINATOR
from ridotto.crypto.seal import IdentityKey, verify
from ridotto.errors import PeerProtocolError, ProtocolError
from ridotto.secagg.binding import number
from ridotto.secagg.committee_roles.messages import MemberBook, MemberEntry, MemberKey
from ridotto.secagg.committee_roles.roster import Roster, strictly_sorted
from ridotto.secagg.committee_roles.seals import Seal, check_public
from ridotto.secagg.committee_roles.setup import SeatedSetup

KEY_CONTEXT = "committee key"


def key_statement(context: bytes, seat: int, public: bytes) -> bytes:
    """Say: in this session and committee, this seat's key is this one."""
    return context + number(seat) + public


def signed_key(identity: IdentityKey, sid: bytes, context: bytes, seat: int, public: bytes) -> MemberKey:
    """Return a member's first message."""
    return MemberKey(sid, public, identity.sign(KEY_CONTEXT, key_statement(context, seat, public)))


def check_key(roster: Roster, context: bytes, kind: Seal, entry: MemberEntry, peer: str) -> None:
    """Return if this key is one of its kind, and signed by the identity of its seat.

    peer: who showed it. Raises PeerProtocolError if not.
    """
    member = roster.members[entry.seat]
    try:
        check_public(kind, entry.public)
    except ProtocolError as error:
        raise PeerProtocolError(peer, f"the key of {member.name} is unusable: {error}") from error
    try:
        verify(member.key, KEY_CONTEXT, key_statement(context, entry.seat, entry.public), entry.signature)
    except ProtocolError as error:
        raise PeerProtocolError(peer, f"the key of {member.name} bears no valid signature") from error


def check_book(setup: SeatedSetup, book: MemberBook) -> None:
    """Return if a book names as many members as are needed, sorted, with distinct keys of their own making.

    Raises PeerProtocolError, blaming the coordinator, if not.
    """
    _check_book(setup.roster, setup.context, setup.seal, book, setup.needed)


# A simulation has many participants in one process, who are all shown the same book. Refusals are not remembered.
@lru_cache(maxsize=8)
def _check_book(roster: Roster, context: bytes, kind: Seal, book: MemberBook, least: int) -> None:
    if not strictly_sorted((entry.seat for entry in book.entries), len(roster.members)):
        raise PeerProtocolError(COORDINATOR, "its book of members is not a sorted list of the committee's seats")
    if len(book.entries) < least:
        raise PeerProtocolError(COORDINATOR, f"its book has {len(book.entries)} members, {least} are needed")
    if len({entry.public for entry in book.entries}) != len(book.entries):
        raise PeerProtocolError(COORDINATOR, "its book shows one key twice")
    for entry in book.entries:
        check_key(roster, context, kind, entry, COORDINATOR)


def forget_checks() -> None:
    """Check every book anew from here on: for whoever measures what a check costs."""
    _check_book.cache_clear()


def book_root(context: bytes, book: MemberBook) -> bytes:
    """Hash the book that was shown: who is in it, with which keys."""
    statements = b"".join(key_statement(context, entry.seat, entry.public) for entry in book.entries)
    return hashlib.sha256(b"members\x00" + statements).digest()
