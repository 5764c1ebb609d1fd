"""Committees chosen by a beacon: nobody can pick, and everybody can check."""

from __future__ import annotations

from collections import Counter

import pytest

from ridotto.errors import PeerProtocolError, PlanError
from ridotto.secagg.committee_roles.choice import check_choice, choose, pool_root
from ridotto.secagg.committee_roles.roster import Roster
from ridotto.secagg.session import Member

POOL = tuple(Member(f"m{index:02}", bytes([index]) * 32) for index in range(20))
BEACON = b"b" * 32


def test_the_order_of_the_pool_does_not_matter() -> None:
    assert choose(POOL, BEACON, 5, 1) == choose(POOL[::-1], BEACON, 5, 1)
    assert pool_root(POOL) == pool_root(POOL[::-1])


def test_members_are_sorted_by_name() -> None:
    names = [member.name for member in choose(POOL, BEACON, 7, 2).members]
    assert names == sorted(set(names))
    assert len(names) == 7


@pytest.mark.parametrize("place", range(5))
def test_4_4_any_changed_member_is_refused(place: int) -> None:
    roster = choose(POOL, BEACON, 5, 1)
    check_choice(roster, POOL)
    outside = next(member for member in POOL if member not in roster.members)
    swapped = [*roster.members[:place], *roster.members[place + 1 :], outside]
    members = tuple(sorted(swapped, key=lambda member: member.name))
    with pytest.raises(PeerProtocolError, match="not the one"):
        check_choice(Roster(members, 1, roster.pool, roster.beacon), POOL)


def test_4_4_another_pool_is_refused() -> None:
    """A candidate added after the beacon, to be chosen: the root of the pool changes, and with it everything."""
    roster = choose(POOL, BEACON, 5, 1)
    for pool in (POOL[:-1], (*POOL, Member("z", b"z" * 32)), POOL[:3]):
        with pytest.raises(PeerProtocolError, match="committee"):
            check_choice(roster, pool)


def test_4_4_grinding_a_key_after_the_beacon_changes_the_ranks_of_all() -> None:
    """Ranks depend on the pool's root, so a key can't be tried against the ranks of the others as they were."""
    before = choose(POOL, BEACON, 5, 1).members
    moved = 0
    for trial in range(20):
        after = choose((*POOL[:-1], Member("m19", bytes([100 + trial]) * 32)), BEACON, 5, 1).members
        moved += after != before
    assert moved >= 18


def test_4_4_everybody_serves_equally_often() -> None:
    """2,000 beacons, 5 of 20: 500 each. False alarm below 1e-6: 20 times 6 standard deviations (19.4 each)."""
    counts = Counter(
        member.name for beacon in range(2000) for member in choose(POOL, beacon.to_bytes(32, "big"), 5, 1).members
    )
    assert len(counts) == 20
    assert all(abs(count - 500) < 6 * 19.4 for count in counts.values())


@pytest.mark.parametrize("pool", [POOL[:4], (*POOL, POOL[0]), (*POOL, Member("other", POOL[0].key))])
def test_pools_that_can_not_be_are_refused(pool: tuple[Member, ...]) -> None:
    with pytest.raises(PlanError):
        choose(pool, BEACON, 5, 1)


@pytest.mark.parametrize(
    "members",
    [POOL[2::-1], (POOL[0], POOL[0], POOL[1]), (Member("coordinator", b"c" * 32), POOL[1], POOL[2])],
)
def test_rosters_that_can_not_be_are_refused(members: tuple[Member, ...]) -> None:
    with pytest.raises(PlanError):
        Roster(members, 1, BEACON, BEACON)


def test_two_members_with_one_key_are_refused() -> None:
    with pytest.raises(PlanError, match="share one identity key"):
        Roster((POOL[0], Member("m99", POOL[0].key)), 1, BEACON, BEACON)


@pytest.mark.parametrize(("size", "corrupt", "quorum"), [(64, 24, 45), (7, 2, 5), (5, 2, 4), (3, 1, 3), (2, 1, 2)])
def test_two_quorums_share_an_honest_member(size: int, corrupt: int, quorum: int) -> None:
    found = Roster(tuple(Member(f"m{index:02}", bytes([index]) * 32) for index in range(size)), corrupt, BEACON, BEACON)
    assert found.quorum == quorum
    assert 2 * quorum - size > corrupt


def test_a_committee_of_the_corrupt_is_refused() -> None:
    with pytest.raises(PlanError, match="can't agree"):
        Roster(POOL[:3], 3, BEACON, BEACON)
