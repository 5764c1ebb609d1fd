"""Plans that exist are possible; all others are refused with a reason, whatever the numbers."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ridotto.core.wire import digest
from ridotto.errors import PlanError, RoundFailedError
from ridotto.rounds.compression import Sample
from ridotto.rounds.plan import Algorithm, DistributedGaussian, Ideal, Optimiser, Pairwise, Plan, Risk
from ridotto.rounds.robustness import BucketedMedian
from ridotto.rounds.round import Attempt, make_sessions
from ridotto.secagg.session import Member

KNOWN = (Risk.SMALL_COHORT, Risk.NO_PROTECTION)
FEDDYN = Algorithm(name="feddyn", parameters={"alpha": 0.1})


def members(count: int) -> tuple[Member, ...]:
    return tuple(Member(f"p{i:05}", i.to_bytes(32, "big")) for i in range(count))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"cohort": 0}, "cohort is 1 to 10000000, not 0"),
        ({"cohort": 10_000_001}, "cohort is 1 to 10000000"),
        ({"minimum": 0}, "a sum can't need 0 contributions"),
        ({"minimum": 11}, "the smallest session of a cohort of 10 has 10"),
        ({"bits": 7}, "the ring has 7 bits, it must have 8 to 64"),
        ({"bits": 65}, "the ring has 65 bits"),
        ({"bits": 8, "value_range": 16.0}, "8 bits leave no room: 10 participants with entries up to 16.0"),
        ({"value_range": 0.0}, "value_range is above 0"),
        ({"value_range": math.nan}, "value_range is above 0"),
        ({"value_range": math.inf}, "value_range is above 0"),
        ({"value_range": 1e308}, "at most 2\\^52, not 1e\\+308"),
        ({"value_range": 10**400}, "value_range is an integer of more than 64 bits"),
        ({"clip": 0.0}, "clip is a norm from 1e-30 to 1e\\+30, not 0.0"),
        ({"clip": math.nan}, "clip is a norm"),
        ({"clip": math.inf}, "clip is a norm"),
        ({"clip": 5e-324}, "clip is a norm"),
        ({"max_examples": 0}, "max_examples is 1 to 2\\^31, not 0"),
        ({"max_examples": 2**31 + 1}, "max_examples is 1 to 2\\^31"),
        ({"max_examples": 10**5000}, "max_examples is an integer of more than 64 bits"),
        ({"metrics": {"loss": math.nan}}, "the bound of metric 'loss' is above 0"),
        ({"metrics": {"loss": 0.0}}, "the bound of metric 'loss' is above 0"),
        ({"metrics": {"loss": 2e6}}, "at most 1e\\+06, not 2000000.0"),
        ({"metrics": {"loss": 10**400}}, "loss is an integer of more than 64 bits"),
        ({"metrics": {"": 1.0}}, "1 to 64 printable characters, not ''"),
        ({"metrics": {"a\nb": 1.0}}, "printable characters, not 'a\\\\nb'"),
        ({"metrics": {"\ud800": 1.0}}, "printable characters"),
        ({"metrics": {"x" * 65: 1.0}}, "1 to 64 printable"),
        ({"join_s": 0.0}, "join_s is above 0 and at most a week, not 0.0"),
        ({"train_s": math.nan}, "train_s is above 0"),
        ({"phase_s": 1e9}, "phase_s is above 0 and at most a week"),
        ({"optimiser": Optimiser(name="sgd")}, "there is no strategy 'sgd'"),
        ({"optimiser": Optimiser(parameters={"name": 1.0})}, "fedavg has no parameter 'name'"),
        ({"optimiser": Optimiser(parameters={"rate": 1.0})}, "fedavg has no parameter 'rate'"),
        ({"optimiser": Optimiser(parameters={"learning_rate": math.nan})}, "learning_rate must be a number above 0"),
        ({"algorithm": Algorithm(name="moon")}, "there is no algorithm 'moon'"),
        ({"algorithm": Algorithm(name="fedprox")}, "fedprox needs mu, which has no default"),
        ({"algorithm": Algorithm(name="fedprox", parameters={"mu": -1.0})}, "mu must be a number of at least 0"),
        ({"algorithm": Algorithm(parameters={"name": 1.0})}, "fedavg has no parameter 'name'"),
        (
            {"algorithm": Algorithm(name="fednova"), "metrics": {"loss": 1.0}},
            "fednova needs the mean of local_steps over the participants: add metrics = { local_steps = BOUND }",
        ),
        (
            {"algorithm": FEDDYN, "optimiser": Optimiser(name="fedadam", parameters={"learning_rate": 1.0})},
            "feddyn says itself where the next model is, so its optimiser is fedavg with learning_rate 1; found",
        ),
        (
            {"algorithm": FEDDYN, "optimiser": Optimiser(parameters={"learning_rate": 0.5})},
            "found fedavg with {'learning_rate': 0.5}",
        ),
        ({"protocol": Ideal()}, "the coordinator sees every update in clear"),
        ({"protocol": Pairwise(corrupt=0.3), "minimum": 3}, "3 of 10 may be corrupt, so a minimum of 3 hides nobody"),
        ({"protocol": Pairwise(corrupt=0.3), "minimum": 5}, "can hold only 2 honest ones"),
        (
            {"protocol": Pairwise(graph="sparse", corrupt=0.4, drop_out=0.4)},
            "no sparse graph over 10 tolerates 4 corrupt",
        ),
        ({"cohort": 1, "protocol": Pairwise(corrupt=0.0), "i_know": KNOWN}, "masks need two"),
        ({"cohort": 500, "protocol": Pairwise(graph="sparse")}, 'say i_know = \\["sparse-graph"\\]'),
        ({"cohort": 2}, 'say i_know = \\["small-cohort"\\]'),
    ],
)
def test_refuses_with_a_reason(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(PlanError, match=why):
        Plan(**({"cohort": 10} | changes))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"corrupt": 0.5}, "corrupt is a fraction from 0 to below 0.5, not 0.5"),
        ({"corrupt": -0.1}, "corrupt is a fraction"),
        ({"corrupt": math.nan}, "corrupt is a fraction"),
        ({"corrupt": 10**400}, "corrupt is an integer of more than 64 bits"),
        ({"drop_out": 0.5}, "drop_out is a fraction"),
        ({"graph": "ring"}, 'graph is "complete" or "sparse", not "ring"'),
        ({"shard_size": 1}, "shard_size is 2 to 128, not 1"),
        ({"shard_size": 129}, "shard_size is 2 to 128"),
    ],
)
def test_refuses_masks_that_can_not_be(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(PlanError, match=why):
        Pairwise(**changes)


NUMBERS = st.one_of(
    st.integers(-3, 200),
    st.sampled_from([10**400, -(10**400), 2**63, 2**31, 2**53, 10**5000]),
    st.floats(allow_nan=True, allow_infinity=True),
    st.sampled_from([1e308, 5e-324, math.nan, math.inf, -0.0]),
)
WHOLE = st.one_of(st.integers(-3, 300), st.sampled_from([10**400, 2**63, 10**5, -(2**64)]))


@given(
    settings=st.fixed_dictionaries(
        {"cohort": WHOLE},
        optional={
            "minimum": WHOLE,
            "bits": WHOLE,
            "max_examples": WHOLE,
            "value_range": NUMBERS,
            "clip": NUMBERS,
            "join_s": NUMBERS,
            "train_s": NUMBERS,
            "phase_s": NUMBERS,
            "metrics": st.dictionaries(st.text(max_size=5), NUMBERS, max_size=3),
            "i_know": st.sampled_from([(), KNOWN]),
        },
    ),
    protocol=st.one_of(
        st.builds(dict), st.fixed_dictionaries({"corrupt": NUMBERS, "drop_out": NUMBERS, "shard_size": WHOLE})
    ),
    graph=st.sampled_from(["complete", "sparse", "\ud800"]),
    optimiser=st.tuples(
        st.sampled_from(["fedavg", "fedadam", "fedyogi", "name", "", "\ud800"]),
        st.dictionaries(
            st.sampled_from(["name", "learning_rate", "tau", "beta1", "self", "", "x"]), NUMBERS, max_size=3
        ),
    ),
    algorithm=st.tuples(
        st.sampled_from(["fedavg", "fedprox", "scaffold", "fednova", "feddyn", "name", "", "\ud800"]),
        st.dictionaries(st.sampled_from(["name", "mu", "alpha", "self", "", "x"]), NUMBERS, max_size=2),
    ),
)
def test_fuzz_absurd_numbers_raise_plan_error_and_nothing_else(
    settings: dict[str, Any],
    protocol: dict[str, Any],
    graph: str,
    optimiser: tuple[str, dict[str, Any]],
    algorithm: tuple[str, dict[str, Any]],
) -> None:
    """Whatever is not refused can be hashed, sent, read back and explained."""
    try:
        plan = Plan(
            protocol=Pairwise(graph=graph, **protocol),
            optimiser=Optimiser(name=optimiser[0], parameters=optimiser[1]),
            algorithm=Algorithm(name=algorithm[0], parameters=algorithm[1]),
            **settings,
        )
    except PlanError:
        return
    assert len(plan.fingerprint()) == 32
    assert plan.protection()
    assert plan.cohort_of(plan.cohort) == plan.cohort


# --- what a plan derives ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cohort", "shard_size", "minimum"),
    [(3, 128, 3), (4, 128, 3), (10, 128, 7), (128, 128, 86), (129, 128, 43), (1000, 128, 84), (10, 5, 4)],
)
def test_default_minimum_is_two_thirds_of_the_smallest_session(cohort: int, shard_size: int, minimum: int) -> None:
    plan = Plan(cohort=cohort, protocol=Pairwise(shard_size=shard_size, corrupt=0.0))
    assert plan.least == minimum


def test_corrupt_members_are_rounded_up() -> None:
    plan = Plan(cohort=10)
    assert [plan.corrupt_of(n) for n in (1, 9, 10, 11, 20)] == [1, 1, 1, 2, 2]
    assert Plan(cohort=10, protocol=Ideal(), i_know=KNOWN).corrupt_of(10) == 0


@pytest.mark.parametrize(
    ("present", "cohort"), [(0, 0), (2, 0), (3, 3), (8, 8), (9, 8), (11, 8), (12, 12), (16, 16), (17, 16), (99, 20)]
)
def test_cohort_of_those_who_are_there(present: int, cohort: int) -> None:
    """Shards of 8 with a minimum of 6, but at least 3: nine participants are one full shard, eleven too."""
    plan = Plan(cohort=20, minimum=6 if present > 7 else 3, protocol=Pairwise(shard_size=8, corrupt=0.0))
    assert plan.cohort_of(present) == cohort


@given(present=st.integers(0, 600), cohort=st.integers(3, 500), shard_size=st.integers(3, 128))
def test_every_cohort_that_a_plan_accepts_can_be_cut_into_sessions(present: int, cohort: int, shard_size: int) -> None:
    try:
        plan = Plan(cohort=cohort, protocol=Pairwise(shard_size=shard_size))
    except PlanError:
        return
    count = plan.cohort_of(present)
    assert count <= min(present, cohort)
    if count:
        sessions = make_sessions(Attempt(plan, 1, 1, b"m" * 32, 10, b"n" * 32, members(count)))
        sizes = [len(session.members) for session in sessions]
        assert sum(sizes) == count
        assert max(sizes) <= shard_size
        assert max(sizes) - min(sizes) <= 1
        assert min(sizes) >= plan.least


def test_fewer_participants_may_make_a_larger_session_and_the_plan_counts_on_it() -> None:
    """129 make shards of 64 and 65, but 128 make one of 128: there 13 may be corrupt, not 7."""
    with pytest.raises(PlanError, match="13 of 128 may be corrupt, so a minimum of 10 hides nobody"):
        Plan(cohort=129, minimum=10)
    with pytest.raises(PlanError, match="13 of which may collude, can hold only 1 honest"):
        Plan(cohort=129, minimum=14)
    assert Plan(cohort=129, minimum=16).cohort_of(128) == 128


def test_a_sparse_plan_has_no_cohort_where_there_is_no_graph() -> None:
    """Of four, one may be corrupt and one may leave: no graph with fewer than three neighbours each survives that."""
    plan = Plan(
        cohort=200,
        minimum=4,
        protocol=Pairwise(graph="sparse", corrupt=0.005, drop_out=0.1),
        i_know=(Risk.SPARSE_GRAPH,),
    )
    assert plan.sparse(200)[0] > 0
    assert plan.cohort_of(200) == 200
    assert plan.cohort_of(4) == 0
    with pytest.raises(RoundFailedError, match="TOO_FEW: no sparse graph over 4"):
        make_sessions(Attempt(plan, 1, 1, b"m" * 32, 10, b"n" * 32, members(4)))


def test_a_cohort_of_millions_takes_no_longer_than_a_small_one() -> None:
    """Nothing in a plan goes through participants or sessions one by one: ten million are 78,125 shards of 128."""
    plan = Plan(cohort=10_000_000, bits=64)
    assert plan.cohort_of(9_999_999) == 9_999_999
    assert plan.cohort_of(50) == 0
    assert plan.least == 86
    assert "at least 86 updates" in plan.protection()


def test_algorithms_fit_the_optimisers_that_their_papers_use() -> None:
    adam = Optimiser(name="fedadam", parameters={"learning_rate": 0.1})
    assert Plan(cohort=10, algorithm=Algorithm(name="scaffold"), optimiser=adam).algorithm.build().sums == 2
    assert Plan(cohort=10, algorithm=FEDDYN).algorithm.build().stateful
    assert Plan(cohort=10, algorithm=FEDDYN, optimiser=Optimiser(parameters={"learning_rate": 1})).optimiser.build()
    nova = Plan(cohort=10, algorithm=Algorithm(name="fednova"), metrics={"local_steps": 100.0})
    assert nova.algorithm.build().metrics == ("local_steps",)


def test_two_parties_are_told_that_they_learn_each_others_update() -> None:
    plan = Plan(cohort=2, protocol=Pairwise(corrupt=0.0), i_know=(Risk.SMALL_COHORT,))
    assert plan.least == 2
    assert plan.risks() == {
        Risk.SMALL_COHORT: "Two parties always learn each other's update from the sum: "
        "without your own, the other's is left."
    }
    assert "Two parties always learn each other's update" in plan.protection()


def test_protection_is_said_in_words() -> None:
    assert Plan(cohort=10).protection() == (
        "The coordinator sees only sums of at least 7 updates, even if it lies and 1 of 10 participants help it. "
        "A session of 10 survives 3 drop-outs. What the sum and the trained model reveal is not limited: "
        "that takes differential privacy."
    )
    assert Plan(cohort=10, protocol=Ideal(), i_know=KNOWN).protection().startswith("No protection")


def test_three_parties_need_no_acknowledgement_if_none_is_corrupt() -> None:
    assert Plan(cohort=3, protocol=Pairwise(corrupt=0.0)).risks() == {}


# --- fingerprint ------------------------------------------------------------------------------------------------


def test_fingerprint_is_a_hash_of_the_encoding_and_survives_the_wire() -> None:
    plan = Plan(cohort=10, metrics={"b": 1.0, "a": 2.0}, optimiser=Optimiser(name="fedavgm"))
    assert plan.fingerprint() == digest(b"ridotto/1 plan\x00" + plan.encode())
    again = msgspec.msgpack.decode(plan.encode(), type=Plan)
    assert again == plan
    assert again.fingerprint() == plan.fingerprint()
    assert Plan(cohort=10, metrics={"a": 2.0, "b": 1.0}, optimiser=Optimiser(name="fedavgm")).fingerprint() == (
        plan.fingerprint()
    )


def test_whole_numbers_are_the_same_plan_as_floats() -> None:
    """What crosses the wire as 1 comes back as 1.0, and the participant must find the coordinator's fingerprint."""
    whole, real = (
        Plan(
            cohort=10,
            clip=one,
            value_range=4 * one,
            metrics={"loss": one},
            phase_s=one,
            protocol=Pairwise(corrupt=0 * one),
            optimiser=Optimiser(parameters={"learning_rate": one}),
            algorithm=Algorithm(name="fedprox", parameters={"mu": one}),
        )
        for one in (1, 1.0)
    )
    assert whole.fingerprint() == real.fingerprint()
    assert msgspec.msgpack.decode(whole.encode(), type=Plan).fingerprint() == whole.fingerprint()


def test_refuses_an_optimiser_with_a_huge_number() -> None:
    with pytest.raises(PlanError, match="learning_rate is an integer of more than 64 bits"):
        Optimiser(parameters={"learning_rate": 10**400})


def test_refuses_an_algorithm_with_a_huge_number() -> None:
    with pytest.raises(PlanError, match="mu is an integer of more than 64 bits"):
        Algorithm(name="fedprox", parameters={"mu": 10**400})


@pytest.mark.parametrize(
    "changes",
    [{"cohort": 11}, {"minimum": 8}, {"bits": 33}, {"clip": 1.0}, {"phase_s": 31.0}, {"algorithm": FEDDYN}],
)
def test_fingerprint_differs_with_the_plan(changes: dict[str, Any]) -> None:
    assert Plan(**({"cohort": 10} | changes)).fingerprint() != Plan(cohort=10).fingerprint()


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"dp": "distributed-gaussian"}, "dp is one of the objects that docs/configuration.md lists, not 'distributed"),
        ({"dp": DistributedGaussian}, "dp is one of the objects .*, not DistributedGaussian itself"),
        ({"robust": "median"}, "robust is one of the objects"),
        ({"robust": BucketedMedian(2.5)}, "robust: BucketedMedian: Expected `int`, got `float`"),
        ({"compress": [Sample(0.5, scaled="no")]}, "compress: Sample: Expected `bool`, got `str`"),
    ],
)
def test_refuses_parts_of_a_wrong_kind(changes, why):
    with pytest.raises(PlanError, match=why):
        Plan(cohort=20, clip=1.0, max_examples=1, **changes)


@pytest.mark.parametrize("part", ["protocol", "algorithm", "optimiser"])
@pytest.mark.parametrize("value", ["oneshot", None, Pairwise])
def test_a_part_that_is_something_else_is_refused_with_its_name(part: str, value: object) -> None:
    with pytest.raises(PlanError, match=f"{part} is one of the objects that docs/configuration.md lists, not "):
        Plan(**{"cohort": 10, part: value})
