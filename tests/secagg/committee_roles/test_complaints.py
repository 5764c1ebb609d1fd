"""Who is dropped when parcels don't open: small cases by hand."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ridotto.secagg.committee_roles.complaints import DOUBTFUL_COMPLAINTS, settle


def test_nobody_complains() -> None:
    verdict = settle({0: (), 1: (), 2: ()}, 1, 2)
    assert (verdict.dropped, verdict.at_fault, verdict.aside) == (frozenset(), frozenset(), frozenset())


def test_more_than_t_complaints_prove_a_fault() -> None:
    verdict = settle({0: (7,), 1: (7, 8), 2: ()}, 1, 2)
    assert (verdict.dropped, verdict.at_fault) == ({7, 8}, {7})


def test_a_member_that_complains_about_many_is_set_aside() -> None:
    verdict = settle({0: tuple(range(DOUBTFUL_COMPLAINTS + 1)), 1: (9,), 2: (), 3: ()}, 1, 2)
    assert (verdict.dropped, verdict.aside) == ({9}, {0})


def test_no_more_are_set_aside_than_can_be_spared() -> None:
    many = tuple(range(DOUBTFUL_COMPLAINTS + 1))
    verdict = settle({0: many, 1: tuple(10 + one for one in many), 2: ()}, 1, 2)
    assert verdict.aside == {0}
    assert verdict.dropped == {10 + one for one in many}


@given(
    st.dictionaries(st.integers(0, 8), st.sets(st.integers(0, 20)), min_size=3), st.integers(1, 3), st.integers(1, 9)
)
def test_whoever_is_left_holds_every_share_that_is_left(
    complaints: dict[int, set[int]], corrupt: int, needed: int
) -> None:
    verdict = settle(complaints, corrupt, needed)
    for seat in set(complaints) - verdict.aside:
        assert complaints[seat] <= verdict.dropped
    assert len(set(complaints) - verdict.aside) >= min(needed, len(complaints))
    assert verdict.at_fault <= verdict.dropped
