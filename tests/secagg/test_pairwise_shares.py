"""Attacks on `pairwise` through shares, sizes and masks, one test each. Numbers are those of docs/threats.md."""

from __future__ import annotations

import numpy as np
import pytest

from ridotto.core.machine import COORDINATOR, Envelope
from ridotto.core.rng import insecure_seeded_rng
from ridotto.crypto.prg import stream_key
from ridotto.errors import PlanError, RoundFailedError
from ridotto.secagg.messages import (
    Delivery,
    KeyBook,
    SealedShares,
)
from ridotto.secagg.pairwise import PairwiseParticipant
from tests.conformance.test_sums import changed, kind_of
from tests.conformance.world import World, identity, make_session, make_vector
from tests.secagg.attack import assert_exact, lying, participant

# --- 4.6 bad seals and shares -----------------------------------------------------------------------------------


def test_4_6_a_forged_share_is_refused_by_name_and_the_sum_is_exact() -> None:
    def lie(envelope: Envelope) -> Envelope:
        shares = envelope.message.shares
        forged = type(shares[0])(shares[0].owner, bytes(36))
        return changed(envelope, shares=(forged, *shares[1:]))

    world = World(make_session(), tamper=lying("Unmask", lie, sender="p002"))
    finish = world.run()
    assert world.refused["p002"] == "its share of p000's seed is forged"
    assert finish.error is None
    assert_exact(world, finish.result.included)


def test_4_6_a_false_own_seed_is_refused_by_name() -> None:
    world = World(make_session(), tamper=lying("Unmask", lambda e: changed(e, seed=b"x" * 32), sender="p002"))
    finish = world.run()
    assert world.refused["p002"] == "its self-mask seed is not the one that it committed to"
    assert_exact(world, finish.result.included)


def test_4_6_boxes_that_do_not_open_cost_nothing_while_their_owner_stays() -> None:
    """A survivor reveals its own seed, so bad shares of it matter only if it leaves."""

    def lie(envelope: Envelope) -> Envelope:
        return changed(envelope, boxes=tuple(b"x" * 88 for _ in envelope.message.boxes))

    world = World(make_session(), tamper=lying("SealedShares", lie, sender="p002"))
    finish = world.run()
    assert finish.error is None
    assert_exact(world, finish.result.included)


def test_4_6_who_shares_badly_and_leaves_is_blamed_by_name() -> None:
    def tamper(envelope: Envelope) -> list[Envelope]:
        if envelope.sender == "p002" and isinstance(envelope.message, SealedShares):
            return [changed(envelope, boxes=tuple(b"x" * 88 for _ in envelope.message.boxes))]
        return [] if envelope.sender == "p002" and kind_of(envelope) == "Masked" else [envelope]

    world = World(make_session(), tamper=tamper)
    finish = world.run()
    assert isinstance(finish.error, RoundFailedError)
    assert finish.error.code == "BAD_SHARES"
    assert finish.error.blame == ("p002",)
    assert not world.opened


def test_4_6_a_commitment_that_was_exchanged_on_the_way_is_noticed_by_the_holder() -> None:
    def lie(envelope: Envelope) -> Envelope:
        box = envelope.message.boxes[0]
        other = type(box)(box.owner, box.sealed, b"c" * 32, box.mask_share)
        return changed(envelope, boxes=(other, *envelope.message.boxes[1:]))

    world = World(make_session(), tamper=lying("Delivery", lie, to="p004"))
    finish = world.run()
    assert world.last("p004", "Unmask").unopened == (0,)
    assert finish.error is None
    assert_exact(world, finish.result.included)


def test_4_8_a_box_for_somebody_else_does_not_open() -> None:
    """Boxes bind session, key book, owner and holder: the coordinator can't redirect them."""

    def lie(envelope: Envelope) -> Envelope:
        boxes = envelope.message.boxes
        swapped = (
            type(boxes[0])(boxes[0].owner, boxes[1].sealed, boxes[1].seed_share, boxes[1].mask_share),
            *boxes[1:],
        )
        return changed(envelope, boxes=swapped)

    world = World(make_session(), tamper=lying("Delivery", lie, to="p004"))
    world.run()
    assert world.last("p004", "Unmask").unopened == (0,)


# --- 4.12 small cohorts -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("message", ["KeyBook", "Delivery", "Survivors"])
def test_4_12_a_participant_refuses_to_hide_among_fewer_than_the_minimum(message: str) -> None:
    def lie(envelope: Envelope) -> Envelope:
        match envelope.message:
            case KeyBook():
                return changed(envelope, entries=envelope.message.entries[:3])
            case Delivery():
                return changed(envelope, boxes=envelope.message.boxes[:2])
            case _:
                return changed(envelope, included=(0, 1, 2))

    world = World(make_session(minimum=4), tamper=lying(message, lie, to="p000"))
    world.run()
    assert COORDINATOR in world.refused


def test_4_12_a_session_that_hides_nobody_can_not_be_described() -> None:
    with pytest.raises(PlanError, match="corrupt < minimum <= members"):
        make_session(minimum=2, corrupt=2)
    with pytest.raises(PlanError, match="corrupt < minimum <= members"):
        make_session(count=3, minimum=4)


# --- 4.16 masks, secrets in texts -----------------------------------------------------------------------------


def test_4_16_a_masked_vector_of_zeros_looks_uniform() -> None:
    """Chi-square over 256 byte values, 1e5 bytes; false-alarm rate 1e-6 (the seed is fixed, so it never flickers)."""
    session = make_session(length=25_000 + 4)
    vectors = {member.name: np.zeros(session.length, np.uint32) for member in session.members}
    world = World(session, vectors=vectors)
    world.run()
    sent = next(e.attachment for e in world.sent if kind_of(e) == "Masked")
    counts = np.bincount(np.frombuffer(bytes(sent), np.uint8), minlength=256)
    expected = counts.sum() / 256
    statistic = float(((counts - expected) ** 2 / expected).sum())
    # The 1 - 1e-6 quantile of chi-square with 255 degrees of freedom is 375.
    assert statistic < 375


def test_4_16_masks_differ_between_sessions_pairs_and_labels() -> None:
    keys = {
        stream_key(seed, sid, label) for seed in (b"a" * 32, b"b" * 32) for sid in (b"s", b"t") for label in ("m", "n")
    }
    assert len(keys) == 8


def test_4_16_no_mask_covers_two_vectors_whatever_happens_to_the_seed() -> None:
    """A state file that was put back before training ended brings the same seed and, perhaps, another update."""
    session = make_session()
    machines = [
        PairwiseParticipant(session, "p000", identity("p000"), make_vector(session, index), insecure_seeded_rng(1))
        for index in (0, 0, 1)
    ]
    keys = [machine.start(0.0)[0].message for machine in machines]
    seeds = [machine.__dict__["_seed"] for machine in machines]
    assert keys[0] == keys[1]
    assert seeds[0] == seeds[1]
    assert not {keys[0].mask, keys[0].exchange} & {keys[2].mask, keys[2].exchange}
    assert seeds[0] != seeds[2]


def test_no_secret_is_in_any_repr() -> None:
    world = World(make_session())
    world.run()
    machine = participant(world.session, 0)
    seed, exchange = machine.__dict__["_seed"], machine.__dict__["_exchange"]
    opening = world.coordinator.__dict__["_opening"]
    for shown in (repr(machine), repr(exchange), repr(opening), repr(world.router.published)):
        assert seed.hex() not in shown
        assert repr(seed) not in shown
        assert exchange.to_bytes().hex() not in shown
