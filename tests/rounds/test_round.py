"""Whole rounds, both halves, through the router: what comes out, who is lost, who is refused and why."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest

from ridotto.core.machine import COORDINATOR, SELF, Envelope, Send
from ridotto.core.rng import insecure_seeded_rng
from ridotto.errors import ConsentError, DataError, RoundFailedError
from ridotto.rounds.messages import (
    Announce,
    Apply,
    Closed,
    Discard,
    Merge,
    Train,
    Trained,
)
from ridotto.rounds.pipeline import Pipeline
from ridotto.rounds.plan import Committee, Oneshot, Pairwise, Plan
from ridotto.rounds.policy import Policy
from ridotto.rounds.robustness import BucketedMedian
from ridotto.rounds.totals import TOTAL
from ridotto.secagg.messages import Masked, SealedShares, Unmask
from tests.rounds.federation import (
    Federation,
    assert_mean,
    examples_of,
    loss_of,
    make_plan,
    names,
)


def lost(*gone: str, kind: type = Masked) -> Callable[[Envelope], list[Envelope]]:
    return lambda e: [] if e.sender in gone and isinstance(e.message, kind) else [e]


# --- what comes out ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", ["ideal", "pairwise"])
def test_a_round_moves_the_model_by_the_weighted_mean(protocol: str) -> None:
    federation = Federation(make_plan(protocol=protocol))
    finish = federation.run()
    assert finish.error is None
    record = finish.result
    assert (record.participants, record.examples, record.saturated) == (5, 10 + 20 + 30 + 40 + 50, 0)
    assert record.model == federation.vault.model_digest.hex()
    assert_mean(federation, range(5))
    loss = sum(loss_of(i) * examples_of(i) for i in range(5)) / 150
    assert record.metrics["loss"] == pytest.approx(loss, abs=1e-4)
    assert {
        name: f.result.model.hex() for name, f in federation.finished.items() if name != COORDINATOR
    } == dict.fromkeys(names(5), record.model)


@pytest.mark.parametrize("gone", [(), ("p001",), ("p000", "p004")])
@pytest.mark.parametrize("bits", [16, 24, 32])
def test_pairwise_equals_ideal_bit_for_bit(gone: tuple[str, ...], bits: int) -> None:
    """The same updates, rounded with the same dice: the model that comes out is the same file."""
    models = []
    for protocol in ("ideal", "pairwise"):
        federation = Federation(make_plan(protocol=protocol, bits=bits), tamper=lambda e: drop_vectors(e, gone))
        finish = federation.run()
        assert finish.error is None
        assert finish.result.participants == 5 - len(gone)
        models.append(federation.vault.model_bytes)
    assert models[0] == models[1]


def drop_vectors(envelope: Envelope, gone: tuple[str, ...]) -> list[Envelope]:
    return [] if envelope.sender in gone and type(envelope.message).__name__ in ("Plain", "Masked") else [envelope]


def test_a_cohort_in_shards_gives_the_mean_over_all() -> None:
    federation = Federation(Plan(**shards_of_four()))
    finish = federation.run()
    assert finish.error is None
    assert sorted(session.members for session in finish.result.sessions) == [3, 4, 4]
    assert [session.shard for session in finish.result.sessions] == [0, 1, 2]
    assert finish.result.participants == 11
    assert_mean(federation, range(11))
    applied = [task for task in federation.tasks if isinstance(task, Apply)]
    assert [task.sids for task in applied] == [(TOTAL,)]
    merged = [task for task in federation.tasks if isinstance(task, Merge)]
    assert sorted(task.contributions for task in merged) == [3, 4, 4]
    assert len({task.sid for task in merged}) == 3


def shards_of_four() -> dict[str, object]:
    plan = make_plan(11, minimum=3)
    fields = msgspec.structs.asdict(plan)
    return fields | {"protocol": Pairwise(corrupt=0.0, shard_size=4)}


def test_a_session_that_fails_costs_its_shard_only() -> None:
    """Shard 1 is p001, p004, p007, p010; two of them leave, the minimum is 3."""
    federation = Federation(Plan(**shards_of_four()), tamper=lost("p001", "p004"))
    finish = federation.run()
    assert finish.error is None
    failed = finish.result.sessions[1]
    assert failed.failure == "TOO_FEW: 2 sent Masked, 3 are needed"
    assert failed.lost == {"p001": "sent no Masked", "p004": "sent no Masked"}
    assert [session.failure for session in finish.result.sessions if session.shard != 1] == ["", ""]
    assert finish.result.participants == 7
    assert_mean(federation, [0, 2, 3, 5, 6, 8, 9])
    discarded = [task.sid.hex() for task in federation.tasks if isinstance(task, Discard)]
    assert discarded == [failed.sid]


@pytest.mark.parametrize("lane", [0, 1], ids=["count", "zero"])
@pytest.mark.parametrize("protocol", [Pairwise, Oneshot, Committee])
def test_a_sum_whose_check_lanes_are_wrong_never_reaches_the_total(
    protocol: Any, lane: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """p004 of shard 1 puts another number into a lane; the sum is opened, found wrong, and thrown away."""
    real = Pipeline.encode

    def encode(self: Pipeline, update: Any, examples: int, *rest: Any, **named: Any) -> Any:
        vector = real(self, update, examples, *rest, **named)
        vector[self.entries + lane] += examples == examples_of(4)
        return vector

    monkeypatch.setattr(Pipeline, "encode", encode)
    federation = Federation(make_plan(11, protocol=protocol(corrupt=0.0, shard_size=4), minimum=3))
    finish = federation.run()
    assert finish.error is None
    assert [session.failure.partition(":")[0] for session in finish.result.sessions] == ["", "CHECK_LANE", ""]
    failed = bytes.fromhex(finish.result.sessions[1].sid)
    assert [task.sid for task in federation.tasks if isinstance(task, Discard)] == [failed]
    assert failed not in [task.sid for task in federation.tasks if isinstance(task, Merge)]
    assert finish.result.participants == 7
    assert_mean(federation, [0, 2, 3, 5, 6, 8, 9])


def test_sums_that_a_rule_looks_at_stay_apart() -> None:
    plan = make_plan(12, minimum=2, clip=8.0, max_examples=1, robust=BucketedMedian(groups=3))
    federation = Federation(plan)
    finish = federation.run()
    assert finish.error is None
    assert not any(isinstance(task, Merge | Discard) for task in federation.tasks)
    (applied,) = [task for task in federation.tasks if isinstance(task, Apply)]
    assert [sid.hex() for sid in applied.sids] == [session.sid for session in finish.result.sessions]


def test_a_round_without_a_sum_fails_and_leaves_the_model() -> None:
    federation = Federation(make_plan(), tamper=lost("p000", "p001", "p002"))
    before = federation.vault.model_bytes
    finish = federation.run()
    assert isinstance(finish.error, RoundFailedError)
    assert finish.error.code == "ROUND_FAILED"
    assert finish.result.failure == "TOO_FEW: 2 sent Masked, 3 are needed"
    assert finish.result.model == finish.result.model_before
    assert federation.vault.model_bytes == before
    closed = [e.message for e in federation.sent if isinstance(e.message, Closed)]
    assert {message.reason for message in closed} == {finish.result.failure}
    assert not any(isinstance(task, Apply) for task in federation.tasks)


def test_who_broke_a_session_is_blamed_and_the_retry_without_it_succeeds() -> None:
    def spoil(envelope: Envelope) -> list[Envelope]:
        if envelope.sender == "p002" and isinstance(envelope.message, SealedShares):
            message = msgspec.structs.replace(envelope.message, boxes=tuple(b"x" * 88 for _ in envelope.message.boxes))
            return [dataclasses.replace(envelope, message=message)]
        return lost("p002")(envelope)

    federation = Federation(make_plan(), tamper=spoil)
    finish = federation.run()
    assert isinstance(finish.error, RoundFailedError)
    assert finish.error.blame == ("p002",)
    assert finish.result.blamed == ("p002",)
    assert finish.result.sessions[0].failure.startswith("BAD_SHARES")
    retry = federation.run([name for name in names(5) if name not in finish.result.blamed])
    assert retry.error is None
    assert retry.result.attempt == 2
    assert_mean(federation, [0, 1, 3, 4])


def test_sums_that_make_no_model_fail_the_round() -> None:
    """A learning rate that overflows float32: the vault says so, the machine closes, the model stays."""
    plan = make_plan()
    plan = msgspec.structs.replace(plan, optimiser=type(plan.optimiser)(parameters={"learning_rate": 1e300}))
    federation = Federation(plan)
    with np.errstate(over="ignore", invalid="ignore"):
        finish = federation.run()
    assert isinstance(finish.error, RoundFailedError)
    assert "NaN or infinite" in finish.result.failure
    assert not federation.vault.model.any()


# --- who does not take part -------------------------------------------------------------------------------------


def test_declining_is_remembered_with_its_reason_and_costs_nothing() -> None:
    federation = Federation(make_plan(), untrained={"p001": "no data today"})
    finish = federation.run()
    assert finish.error is None
    assert finish.result.lost == {"p001": "declined: no data today"}
    assert finish.result.finished == 0.0
    assert isinstance(federation.finished["p001"].error, DataError)
    assert_mean(federation, [0, 2, 3, 4])


@pytest.mark.parametrize(
    ("trained", "why"),
    [
        (Trained(np.full(5, np.nan, np.float32), 10, {"loss": 0.0}), "NaN or infinite"),
        (Trained(np.zeros(5, np.float32), 0, {"loss": 0.0}), "no examples"),
        (Trained(np.zeros(5, np.float32), 10, {}), "the plan asks for metric 'loss'; training reported none"),
        (Trained(np.zeros(5, np.float32), 10, {"loss": float("nan")}), "metric 'loss' is nan"),
        (Trained(np.zeros(4, np.float32), 10, {"loss": 0.0}), "this model needs"),
    ],
)
def test_an_update_that_does_not_fit_is_declined(trained: Trained, why: str) -> None:
    federation = Federation(make_plan(), updates={"p001": trained})
    finish = federation.run()
    assert why in finish.result.lost["p001"]
    assert why in str(federation.finished["p001"].error)
    assert finish.result.participants == 4


def test_a_policy_that_says_no_ends_in_a_decline_and_trains_nothing() -> None:
    federation = Federation(make_plan(), policies={"p001": Policy(min_participants=4, min_corrupt=0.0)})
    finish = federation.run()
    assert "min_participants = 4" in finish.result.lost["p001"]
    assert isinstance(federation.finished["p001"].error, ConsentError)
    assert sum(isinstance(task, Train) for task in federation.tasks) == 4


# --- replay -----------------------------------------------------------------------------------------------------


def test_a_machine_that_is_built_again_and_told_the_same_repeats_itself_bit_for_bit() -> None:
    federation = Federation(make_plan())
    federation.run()
    first = [e for e in federation.sent if e.sender == "p000"]
    again = federation.participant("p000")
    effects = again.start(0.0)
    for envelope in federation.sent:
        if envelope.to != "p000":
            continue
        effects += again.receive(COORDINATOR, envelope.message, 1.0)
        if isinstance(envelope.message, Announce):
            effects += again.receive(SELF, federation.trained("p000"), 1.0)
    second = [effect for effect in effects if isinstance(effect, Send)]
    assert [e.message for e in first] == [send.message for send in second]
    assert [bytes(e.attachment or b"") for e in first] == [bytes(send.attachment or b"") for send in second]


def test_an_update_travels_masked_and_only_one_share_per_owner_is_revealed() -> None:
    federation = Federation(make_plan())
    federation.run()
    plain = Federation(make_plan(protocol="ideal"))
    plain.run()
    vectors = {
        kind: bytes(next(e.attachment for e in f.sent if e.sender == "p000" and e.attachment is not None))
        for kind, f in (("masked", federation), ("plain", plain))
    }
    assert vectors["masked"] != vectors["plain"]
    for envelope in federation.sent:
        if isinstance(envelope.message, Unmask):
            owners = [revealed.owner for revealed in envelope.message.shares]
            assert len(owners) == len(set(owners)) == 5


def test_participants_of_one_plan_and_seed_draw_different_keys() -> None:
    """The name is in the stream's label, and so is the attempt: no key is ever used twice."""
    federation = Federation(make_plan())
    assert insecure_seeded_rng(1).child("p000", 1).bytes(32) != insecure_seeded_rng(1).child("p001", 1).bytes(32)
    federation.run()
    first = {e.message.exchange for e in federation.sent if type(e.message).__name__ == "PublicKeys"}
    federation.run()
    second = {e.message.exchange for e in federation.sent if type(e.message).__name__ == "PublicKeys"}
    assert len(first | second) == 10
