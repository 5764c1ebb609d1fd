"""Choose a committee from a pool by a beacon, such that neither the coordinator nor a candidate can pick.

First the pool is fixed: `pool_root` of everybody who offers to serve. Then a beacon is published that nobody knew while
the pool was open: a public randomness beacon of a later time, or what several parties committed to before and reveal
now. The members are the candidates with the lowest SHA-256(pool root || beacon || key). Everybody who knows the pool
computes the same, and a participant refuses a committee that was not chosen so.

What it does not do: it does not tell one device under many names from many devices. That is up to whoever admits
candidates to the pool. Nor does it prove that the beacon came after the pool; whoever runs the beacon vouches for that.

Source: Loudet, Sandu-Popa, Bouganim, "SEP2P: Secure and Efficient P2P Personal Data Processing", EDBT 2019, for the
choice of actors that colluding nodes can't influence. The rule is ours.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache

from ridotto.core.machine import COORDINATOR
from ridotto.errors import PeerProtocolError, PlanError
from ridotto.secagg.committee_roles.merkle import merkle_root
from ridotto.secagg.committee_roles.roster import Roster
from ridotto.secagg.session import Member


def pool_root(pool: Sequence[Member]) -> bytes:
    """Return the root of a pool, whatever its order.

    Raises PlanError if a name or a key is in it twice.
    """
    if len({member.name for member in pool}) != len(pool) or len({member.key for member in pool}) != len(pool):
        raise PlanError("a pool has each name and each key once")
    return merkle_root([member.key + member.name.encode() for member in sorted(pool, key=lambda one: one.name)])


def choose(pool: Sequence[Member], beacon: bytes, size: int, corrupt: int) -> Roster:
    """Return the committee of `size` that pool and beacon decide.

    Raises PlanError if the pool is too small or malformed.
    """
    return _choose(tuple(pool), beacon, size, corrupt)


# A simulation has many participants in one process, who all compute the same.
@lru_cache(maxsize=8)
def _choose(pool: tuple[Member, ...], beacon: bytes, size: int, corrupt: int) -> Roster:
    if not 0 < size <= len(pool):
        raise PlanError(f"a pool of {len(pool)} has no committee of {size}")
    root = pool_root(pool)
    chosen = sorted(pool, key=lambda member: _rank(root, beacon, member))[:size]
    return Roster(tuple(sorted(chosen, key=lambda member: member.name)), corrupt, root, beacon)


def check_choice(roster: Roster, pool: Sequence[Member]) -> None:
    """Return if this committee is the one that its beacon chooses from `pool`.

    pool: as the caller knows it, not as whoever shows the committee does.
    Raises PeerProtocolError, blaming the coordinator, if not.
    """
    try:
        expected = choose(pool, roster.beacon, len(roster.members), roster.corrupt)
    except PlanError as error:
        raise PeerProtocolError(COORDINATOR, f"its committee can't come from the pool: {error}") from error
    if expected != roster:
        raise PeerProtocolError(COORDINATOR, "its committee is not the one that the beacon chooses from the pool")


def _rank(root: bytes, beacon: bytes, member: Member) -> bytes:
    return hashlib.sha256(b"ridotto/1 choice\x00" + root + beacon + member.key).digest()
