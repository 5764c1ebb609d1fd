"""Trees of sums: any shape gives the bits of the flat sum, and a lost session is missing with its own and no more."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ridotto.core.fixedpoint import IntVector, container
from ridotto.core.rng import insecure_seeded_rng
from ridotto.errors import LocalProtocolError
from ridotto.rounds.dice import SeededDice
from ridotto.rounds.pipeline import Pipeline
from ridotto.rounds.plan import Pairwise, Plan
from ridotto.rounds.totals import add_up, merge
from tests.rounds.federation import examples_of, loss_of, make_plan, update_of

SESSIONS, MEMBERS, PARAMETERS = 6, 3, 5

Tree = int | list["Tree"]
"""A session's number, or the trees below a node."""


def trees() -> st.SearchStrategy[Tree]:
    """Draw trees whose leaves are the sessions, each once and in any order."""

    def cut(leaves: list[Tree], draw: st.DrawFn) -> Tree:
        while len(leaves) > 1:
            taken = draw(st.integers(2, len(leaves)))
            leaves = [*leaves[taken:], leaves[:taken]]
        return leaves[0]

    return st.composite(lambda draw: cut(draw(st.permutations(range(SESSIONS))), draw))()


def plan_of(bits: int) -> Plan:
    protocol = Pairwise(corrupt=0.0, shard_size=MEMBERS)
    return make_plan(SESSIONS * MEMBERS, protocol=protocol, bits=bits, value_range=0.5, minimum=2)


def vector_of(pipeline: Pipeline, index: int) -> IntVector:
    dice = SeededDice(insecure_seeded_rng(index))
    return pipeline.encode(update_of(index) / 32, examples_of(index), {"loss": loss_of(index) / 8}, dice)


def sum_of(pipeline: Pipeline, session: int) -> IntVector:
    """Add up a session's vectors as integers, mod 2^w at the end: without anything of ours."""
    rows = [vector_of(pipeline, session * MEMBERS + place).astype(object) for place in range(MEMBERS)]
    width = 8 * np.dtype(container(pipeline.plan.bits)).itemsize
    return np.array([int(one) % 2**width for one in sum(rows)], container(pipeline.plan.bits))


def total_of(tree: Tree, sums: list[IntVector]) -> IntVector:
    return sums[tree] if isinstance(tree, int) else add_up(total_of(part, sums) for part in tree)


@given(tree=trees(), bits=st.sampled_from((13, 16, 20, 32, 64)))
def test_any_tree_gives_the_bits_of_the_flat_sum(tree: Tree, bits: int) -> None:
    pipeline = Pipeline(plan_of(bits), PARAMETERS)
    sums = [sum_of(pipeline, session) for session in range(SESSIONS)]
    before = [one.tobytes() for one in sums]
    found = total_of(tree, sums)
    exact = sum(one.astype(object) for one in sums)
    assert found.dtype == container(bits)
    assert [int(one) % 2**bits for one in found] == [int(one) % 2**bits for one in exact]
    assert [one.tobytes() for one in sums] == before
    assert pipeline.decode(found).participants == SESSIONS * MEMBERS


@given(tree=trees(), lost=st.integers(0, SESSIONS - 1))
def test_a_lost_session_is_missing_with_its_own_and_no_more(tree: Tree, lost: int) -> None:
    pipeline = Pipeline(plan_of(32), PARAMETERS)
    sums = [sum_of(pipeline, session) for session in range(SESSIONS)]
    rest = [one for session, one in enumerate(sums) if session != lost]
    # Nothing comes up from it: as if a session of nobody stood in its place.
    found = total_of(tree, [np.zeros_like(one) if session == lost else one for session, one in enumerate(sums)])
    np.testing.assert_array_equal(found, add_up(rest))
    decoded = pipeline.decode(found)
    there = [index for index in range(SESSIONS * MEMBERS) if index // MEMBERS != lost]
    assert (decoded.participants, decoded.examples) == (len(there), sum(map(examples_of, there)))


def test_a_total_takes_a_part_in_and_leaves_it_as_it_is() -> None:
    total, part = np.array([1, 2**32 - 1], np.uint32), np.array([2, 2], np.uint32)
    merge(total, part)
    assert (list(total), list(part)) == ([3, 1], [2, 2])


@pytest.mark.parametrize(
    "part",
    [np.ones(1, np.uint32), np.ones(3, np.uint32), np.ones(2, np.uint64), np.ones(2, np.uint16), np.ones((1, 2), "u4")],
)
def test_refuses_a_part_of_another_form(part: IntVector) -> None:
    """One element would be stretched, and a narrower one widened: a total that is wrong without a word."""
    total = np.array([1, 2], np.uint32)
    with pytest.raises(LocalProtocolError, match=r"is no part of a total, uint32 of shape \(2,\)"):
        merge(total, part)
    assert list(total) == [1, 2]


def test_refuses_to_add_up_nothing() -> None:
    with pytest.raises(LocalProtocolError, match="there are no sums to add up"):
        add_up([])
