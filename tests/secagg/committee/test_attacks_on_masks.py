"""Attacks on `committee` through seeds, masks and vectors. Numbers are those of docs/threats.md."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ridotto.core.machine import Envelope
from ridotto.core.rng import insecure_seeded_rng
from ridotto.core.wire import digest
from ridotto.crypto import seal
from ridotto.crypto.seal import verify
from ridotto.errors import RoundFailedError
from ridotto.secagg.committee import CommitteeParticipant
from ridotto.secagg.committee.binding import RELEASE_CONTEXT, release_statement
from ridotto.secagg.committee.coordinator import Disagreement
from ridotto.secagg.committee.replicas import agreed_masks, settle_slots
from ridotto.secagg.committee_roles import seals
from tests.secagg.committee.attack import HONEST, other_masks, resigned
from tests.secagg.committee.world import World, make_setup
from tests.secagg.committee_roles.attack import assert_exact, changed, faults_of, lying, silent
from tests.secagg.committee_roles.world import identity, lanes_of, make_vector

OTHERS = ("p000", "p001", "p003", "p004")
ONE_SLOT = HONEST.setup.replicas[0]

# --- 4.6 bad seals and inconsistent seeds -----------------------------------------------------------------------


def spoil_parcels(places: tuple[int, ...]) -> Callable[[Envelope], Envelope]:
    def lie(envelope: Envelope) -> Envelope:
        parcels = [bytes([p[0] ^ 1]) + p[1:] if i in places else p for i, p in enumerate(envelope.message.parcels)]
        return changed(envelope, parcels=tuple(parcels))

    return lie


@pytest.mark.parametrize("places", [(0,), (0, 1), ONE_SLOT, tuple(range(6))])
def test_4_6_a_participant_whose_seals_do_not_open_is_dropped_by_name(places: tuple[int, ...]) -> None:
    world = World(make_setup(), tamper=lying("MaskedVector", spoil_parcels(places), ("p002",)))
    finish = world.run()
    assert_exact(world, finish, OTHERS)
    certain = len(places) > world.setup.roster.corrupt
    assert finish.result.lost["p002"] == ("its seeds do not open" if certain else "a member could not open its seed")
    assert [name for name, _ in world.settled[0].removed] == ["p002"]
    assert not faults_of(world)


def test_4_6_one_bad_seal_among_a_hundred_costs_one_contribution() -> None:
    world = World(make_setup(100), tamper=lying("MaskedVector", spoil_parcels((0,)), ("p002",)))
    finish = world.run()
    assert_exact(world, finish)
    assert len(finish.result.included) == 99


@pytest.mark.parametrize("seats", [(ONE_SLOT[0],), ONE_SLOT])
def test_4_6_other_seeds_than_were_committed_to_are_dropped_by_name(
    seats: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """p002 seals well-formed seeds for some replicas that are not those of its mask: they would release other sums."""
    world = World(make_setup())
    book = HONEST.said("MemberBook")[0].message
    calls = iter(range(6))
    with monkeypatch.context() as patch:
        other = lambda key, seed, said: seal.seal(key, b"o" * 32 if next(calls) in seats else seed, said)  # noqa: E731
        patch.setattr(seals, "seal", other)
        message = world.participant(2).receive("coordinator", book, 0.0)[0].message
    world.tamper = lying("MaskedVector", lambda e: dataclasses.replace(e, message=message), ("p002",))
    finish = world.run()
    assert_exact(world, finish, OTHERS)
    assert "p002" in finish.result.lost
    assert not [record for record in world.router.published if isinstance(record, Disagreement)]


def test_4_6_so_many_bad_seals_that_too_few_are_left_end_the_session() -> None:
    lie = lying("MaskedVector", spoil_parcels((0, 1, 2)), ("p000", "p001", "p002"))
    world = World(make_setup(), tamper=lie)
    finish = world.run()
    assert (finish.error.code, finish.error.blame) == ("TOO_FEW", ("p000", "p001", "p002"))
    assert not world.said("Included")


def test_4_6_a_member_that_complains_about_everybody_is_set_aside() -> None:
    world = World(make_setup(8), tamper=lying("Checked", lambda e: changed(e, bad=tuple(range(8))), ("m001",)))
    finish = world.run()
    assert_exact(world, finish)
    assert len(finish.result.included) == 8
    assert faults_of(world) == {"m001": "complained about 8 participants"}


complaints = st.dictionaries(st.integers(0, 5), st.sets(st.integers(0, 20)), min_size=6, max_size=6)


@given(complaints=complaints, silent=st.sampled_from([None, 0, 1, 2, 3, 4, 5]))
def test_4_6_whatever_members_complain_a_majority_of_every_slot_is_left(
    complaints: dict[int, set[int]], silent: int | None
) -> None:
    setup = HONEST.setup
    heard = {seat: bad for seat, bad in complaints.items() if seat != silent}
    verdict = settle_slots(setup, heard)
    for slot, replicas in enumerate(setup.replicas):
        assert len(set(replicas) & (set(heard) - verdict.aside)) >= setup.majority(slot)
    # Who is left can release: it holds the seeds of everybody who is left.
    for seat in set(heard) - verdict.aside:
        assert heard[seat] <= verdict.dropped


@pytest.mark.parametrize("bad", [(7,), (1, 0), (1, 1)])
def test_4_6_complaints_about_nobody_are_refused(bad: tuple[int, ...]) -> None:
    world = World(make_setup(), tamper=lying("Checked", lambda e: changed(e, bad=bad), ("m001",)))
    assert_exact(world, world.run())
    assert "complains about participants" in world.refused["m001"]


# --- replicas that release other masks --------------------------------------------------------------------------


def test_one_replica_that_releases_other_masks_is_outvoted_and_proved_to() -> None:
    world = World(make_setup())
    liar = world.replica(1, 2)
    world.tamper = lying("MaskSum", other_masks(world), (liar,))
    assert_exact(world, world.run())
    assert faults_of(world) == {liar: "released other masks than its slot's majority"}
    proof = next(record for record in world.router.published if isinstance(record, Disagreement))
    assert (proof.slot, proof.second[0]) == (1, liar)
    assert proof.first[1].digest != proof.second[1].digest
    for name, message in (proof.first, proof.second):
        said = release_statement(proof.context, proof.book, message.root, message.digest)
        verify(identity(name).public, RELEASE_CONTEXT, said, message.signature)


def test_replicas_that_disagree_without_a_majority_open_nothing() -> None:
    """One of two replies is a lie, and nothing tells which: no sum is better than a wrong one."""
    world = World(make_setup())
    liar, gone = world.replica(1, 2), world.replica(1, 1)
    lie = lying("MaskSum", other_masks(world), (liar,))
    world.tamper = lambda e: lie(e) if silent("MaskSum", gone)(e) else []
    finish = world.run()
    assert (finish.error.code, world.opened()) == ("REPLICA_DISAGREE", None)
    assert "slot 1 released 2 different sums" in finish.error.reason
    assert [record for record in world.router.published if isinstance(record, Disagreement)]


def test_agreed_masks_need_more_than_the_corrupt() -> None:
    setup = make_setup(slots=3, replicas=5, corrupt=2)
    a, b = b"a" * 32, b"b" * 32
    good = {seat: a for slot in (1, 2) for seat in setup.replicas[slot]}
    first = setup.replicas[0]
    assert agreed_masks(setup, good | {first[0]: b}) == ((b, a, a), frozenset())
    masks, wrong = agreed_masks(setup, good | dict(zip(first, (a, a, a, b, b), strict=True)))
    assert (masks, wrong) == ((a, a, a), frozenset(first[3:]))
    for split in ((a, a, b, b), (a, b), (a, a, b)):
        with pytest.raises(RoundFailedError, match="REPLICA_DISAGREE"):
            agreed_masks(setup, good | dict(zip(first, split, strict=False)))


def test_a_whole_slot_that_lies_is_seen_in_the_lanes_where_it_touches_them() -> None:
    """All replicas of a slot release zeros together. What they do to entries alone nobody sees: docs say so."""
    world = World(make_setup())
    zeros = other_masks(world, lambda masks: bytes(len(masks)))
    world.tamper = lying("MaskSum", zeros, tuple(world.replica(1, place) for place in range(3)))
    assert world.run().error.code == "CHECK_LANE"


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"root": b"r" * 32}, "another set"),
        ({"signature": b"s" * 64}, "no valid signature"),
    ],
)
def test_malformed_releases_are_refused(fields: dict[str, object], why: str) -> None:
    world = World(make_setup(), tamper=lying("MaskSum", lambda e: changed(e, **fields), ("m001",)))
    assert_exact(world, world.run())
    assert why in world.refused["m001"]


def test_masks_of_another_size_are_refused_and_not_kept() -> None:
    def lie(envelope: Envelope) -> Envelope:
        masks = bytes(3)
        return dataclasses.replace(changed(envelope, digest=digest(masks), size=3), attachment=masks)

    world = World(make_setup(), tamper=lying("MaskSum", lie, ("m001",)))
    assert_exact(world, world.run())
    assert world.refused["m001"] == "its masks have 3 bytes, expected 36"
    assert len(world.kept) == 2


# --- 4.7 poisoned contributions ---------------------------------------------------------------------------------


@pytest.mark.parametrize("place", [0, 1])
def test_4_7_a_wrong_check_lane_opens_no_sum(place: int) -> None:
    """What a participant may add is bounded elsewhere; that its vector has the lanes of one is seen here."""
    setup = make_setup()
    vector = make_vector(setup, 1)
    vector[setup.session.length - lanes_of(setup).size + place] += 1
    world = World(setup)
    rng = insecure_seeded_rng(1).child("p001")
    world.swap = {"p001": CommitteeParticipant(setup, "p001", identity("p001"), vector, rng, setup.roster.members)}
    assert world.run().error.code == "CHECK_LANE"


def test_4_7_rubbish_in_place_of_a_vector_opens_no_sum() -> None:
    rubbish = b"r" * HONEST.setup.size

    def lie(envelope: Envelope) -> Envelope:
        said = dataclasses.replace(envelope, attachment=rubbish)
        return resigned(make_setup(), said, digest=digest(rubbish))

    world = World(make_setup(), tamper=lying("MaskedVector", lie, ("p001",)))
    finish = world.run()
    # The seals are bound to the vector that they came with, so its sender is found out before anything is opened.
    assert finish.result.lost == {"p001": "its seeds do not open"}
    assert_exact(world, finish)
