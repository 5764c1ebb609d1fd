"""Honest sessions of `committee`: exact sums, whoever leaves when, and what can't be set up."""

from __future__ import annotations

import numpy as np
import pytest
from msgspec.structs import replace

from ridotto.core.machine import COORDINATOR, SELF, Finish
from ridotto.errors import LocalProtocolError, PeerProtocolError, PlanError
from ridotto.secagg.committee import CommitteeCoordinator, CommitteeSetup
from ridotto.secagg.committee.masks import MaskedSum
from ridotto.secagg.committee.setup import deal
from ridotto.secagg.committee.tasks import Keep, SumMasks, Summed, Unmask
from ridotto.secagg.committee_roles.agreement import set_root
from ridotto.secagg.committee_roles.evidence import Evidence
from ridotto.secagg.committee_roles.keeper import InMemory
from ridotto.secagg.committee_roles.messages import MemberBook
from ridotto.secagg.committee_roles.tasks import Settle
from ridotto.secagg.session import Timeouts
from ridotto.secagg.tasks import Opened
from tests.secagg.committee.attack import HONEST
from tests.secagg.committee.world import World, make_setup
from tests.secagg.committee_roles.attack import assert_exact, faults_of, kind_of, silent
from tests.secagg.committee_roles.world import member


def everybody(world: World) -> tuple[str, ...]:
    return tuple(one.name for one in world.setup.session.members)


@pytest.mark.parametrize("bits", [8, 16, 20, 21, 28, 32, 64])
def test_the_sum_equals_the_plain_sum(bits: int) -> None:
    world = World(make_setup(3, bits=bits, minimum=2))
    finish = world.run()
    assert_exact(world, finish)
    assert finish.result.included == everybody(world)
    assert finish.result.lost == {}
    assert not world.router.refusals


@pytest.mark.parametrize(
    ("slots", "replicas", "corrupt"), [(2, 1, 1), (2, 2, 1), (2, 3, 1), (3, 1, 2), (4, 3, 2), (3, 5, 2)]
)
def test_committees_of_all_sizes(slots: int, replicas: int, corrupt: int) -> None:
    world = World(make_setup(3, slots=slots, replicas=replicas, corrupt=corrupt, minimum=2))
    assert_exact(world, world.run())
    assert len(world.said("MaskSum")) == slots * replicas
    assert len(world.kept) == slots


def test_vectors_of_many_chunks() -> None:
    """Masks are made in chunks of 1 MiB; a vector of 300,000 elements has two, and 1.2 MB."""
    world = World(make_setup(2, slots=2, replicas=1, length=260_000 + 30, minimum=2))
    world.codec.attachment_limit = 1 << 21
    assert_exact(world, world.run())


@pytest.mark.parametrize("gone", [("p000",), ("p004",), ("p000", "p003")])
def test_participants_who_never_speak_cost_nothing(gone: tuple[str, ...]) -> None:
    world = World(make_setup(), gone=gone)
    finish = world.run()
    assert_exact(world, finish)
    assert finish.result.lost == dict.fromkeys(gone, "sent no MaskedVector")


@pytest.mark.parametrize("kind", ["MemberKey", "Checked", "Ack", "MaskSum"])
def test_one_replica_of_each_slot_may_leave_at_any_step(kind: str) -> None:
    gone = tuple(sorted(HONEST.replica(slot) for slot in (0, 1)))
    world = World(make_setup(), tamper=silent(kind, *gone))
    assert_exact(world, world.run())
    assert faults_of(world) == dict.fromkeys(gone, f"sent no {kind}")


def test_one_replica_of_each_slot_is_enough_once_the_set_is_acknowledged() -> None:
    gone = tuple(HONEST.replica(slot, place) for slot in (0, 1) for place in (0, 1))
    world = World(make_setup(), tamper=silent("MaskSum", *gone))
    assert_exact(world, world.run())
    gone = tuple(HONEST.replica(1, place) for place in range(3))
    world = World(make_setup(), tamper=silent("MaskSum", *gone))
    finish = world.run()
    assert (finish.error.code, finish.error.blame) == ("SLOT_LOST", tuple(sorted(gone)))
    assert world.opened() is None


@pytest.mark.parametrize("kind", ["MemberKey", "Checked", "Ack"])
def test_a_slot_without_a_majority_ends_the_session_by_name(kind: str) -> None:
    gone = tuple(sorted(HONEST.replica(0, place) for place in (0, 2)))
    world = World(make_setup(), tamper=silent(kind, *gone))
    finish = world.run()
    assert (finish.error.code, finish.error.blame) == ("SLOT_LOST", gone)
    assert kind in finish.error.reason
    assert world.opened() is None
    assert not world.said("MaskSum")


def test_participants_and_members_may_say_that_they_leave() -> None:
    setup = make_setup()
    machine = CommitteeCoordinator(setup, Timeouts(100, 10))
    machine.start(0.0)
    world = World(setup)
    left = world.replica(0)
    assert machine.leave("p001", "battery", 0.0) == []
    machine.leave(left, "battery", 0.0)
    effects = []
    for one in setup.roster.members:
        if one.name != left:
            effects = machine.receive(one.name, world.member(one.name).start(0.0)[0].message, 0.0)
    books = [effect.to for effect in effects if isinstance(getattr(effect, "message", None), MemberBook)]
    assert len(books) == 5 + 4
    machine.leave("p004", "policy", 0.0)
    machine.leave("p003", "policy", 0.0)
    assert not [one for one in machine.leave("p002", "policy", 0.0) if isinstance(one, Finish)]
    finish = [effect for effect in machine.leave("p000", "policy", 0.0) if isinstance(effect, Finish)]
    assert finish[0].error.code == "TOO_FEW"
    assert finish[0].result.lost["p001"] == "battery"
    assert machine.leave("p000", "again", 0.0) == []
    with pytest.raises(PeerProtocolError):
        machine.leave("stranger", "", 0.0)


def test_every_message_twice_changes_nothing() -> None:
    world = World(make_setup(), tamper=lambda e: [e, e])
    assert_exact(world, world.run())


def test_a_participant_speaks_once_and_forgets() -> None:
    spoken = [one for one in HONEST.sent if one.sender.startswith("p")]
    assert [kind_of(one) for one in spoken] == ["MaskedVector"] * 5
    machine = HONEST.participant(0)
    book = HONEST.said("MemberBook")[0].message
    machine.receive(COORDINATOR, book, 0.0)
    with pytest.raises(PeerProtocolError, match="second time"):
        machine.receive(COORDINATOR, book, 0.0)


def test_a_participant_repeats_itself_for_the_same_vector_and_book_only() -> None:
    """Built again from its seed: the same message for the same book, other seeds for another book or vector."""
    book = HONEST.said("MemberBook")[0].message
    shorter = MemberBook(book.sid, book.entries[1:])
    one, again, other = (HONEST.participant(0).receive(COORDINATOR, shown, 0.0)[0] for shown in (book, book, shorter))
    assert one.message == again.message
    assert one.attachment == again.attachment
    assert not set(one.message.commitments) & set(other.message.commitments)
    changed = HONEST.participant(0)
    changed._vector = np.zeros(HONEST.setup.session.length, np.uint32)
    assert not set(changed.receive(COORDINATOR, book, 0.0)[0].message.commitments) & set(one.message.commitments)


def test_masked_vectors_of_zeros_look_uniform() -> None:
    """4.16: bytes of a masked vector of zeros by chi-square, 255 degrees of freedom; false alarms: 10^-6."""
    setup = make_setup(3, slots=2, replicas=1, length=100_000, minimum=2)
    world = World(setup)
    world.run()
    machine = world.participant(0)
    machine._vector = np.zeros(100_000, np.uint32)
    sent = machine.receive(COORDINATOR, world.said("MemberBook")[0].message, 0.0)[0]
    counts = np.bincount(np.frombuffer(sent.attachment, np.uint8), minlength=256)
    expected = 400_000 / 256
    assert ((counts - expected) ** 2 / expected).sum() < 373


def test_evidence_says_which_set_was_released_for() -> None:
    world = World(make_setup(), gone=("p003",))
    world.run()
    evidence = next(record for record in world.router.published if isinstance(record, Evidence))
    assert sorted(evidence.digests) == [0, 1, 2, 4]
    assert set_root(evidence.digests) == world.said("MaskSum")[0].message.root
    assert [vote.seat for vote in evidence.acks] == list(range(6))
    assert {release.digest for release in evidence.releases} == {task.digest for task in world.kept}


def test_the_tasks_come_in_order_and_a_sum_is_opened_once() -> None:
    world = World(make_setup())
    world.run()
    sid = world.setup.sid
    assert [task.removed for task in world.settled] == [()]
    with pytest.raises(LocalProtocolError, match="once"):
        world.sum.unmask(Unmask(sid, ()))
    with pytest.raises(LocalProtocolError, match="not kept"):
        world.sum.settle(Settle(sid, (("p000", b"d" * 32),)))
    with pytest.raises(LocalProtocolError, match="have not been kept"):
        World(make_setup()).sum.unmask(Unmask(sid, (b"d" * 32,)))
    machine = CommitteeCoordinator(world.setup, Timeouts(100, 10))
    machine.start(0.0)
    with pytest.raises(LocalProtocolError, match="nobody asked"):
        machine.receive(SELF, Opened(sid, 5, True), 0.0)
    with pytest.raises(LocalProtocolError, match="nobody asked"):
        world.member("m000").receive(SELF, Summed(sid, bytes(world.setup.size)), 0.0)


def test_a_restored_coordinator_goes_on_from_its_total() -> None:
    """The running sum is all that a driver keeps of the vectors that were folded, besides the vectors until settled."""
    first = World(make_setup())
    vectors = HONEST.said("MaskedVector")
    for one in vectors[:3]:
        first.sum.fold(one.sender, one.attachment)
    second = World(make_setup())
    kept = InMemory()
    for one in vectors[:3]:
        kept.keep(one.sender, one.attachment)
    second.sum = MaskedSum(len(first.sum.total), 32, lambda vector: (0, True), first.sum.total.copy(), kept)
    for one in vectors[3:]:
        second.sum.fold(one.sender, one.attachment)
    assert second.sum.total.sum(dtype=np.uint64) != 0
    second.sum.settle(Settle(second.setup.sid, tuple((one.sender, one.message.digest) for one in vectors)))
    assert not second.sum.total.any()


def test_a_coordinator_that_is_restored_between_any_two_tasks_opens_the_same_sum() -> None:
    """A new object for every task: all that lasts is in the total and with the keeper."""
    setup, kept = HONEST.setup, InMemory()
    total = np.zeros(setup.session.length, np.uint32)

    def restored() -> MaskedSum:
        return MaskedSum(setup.session.length, 32, lambda vector: (5, True), total, kept)

    for one in HONEST.said("MaskedVector"):
        part = restored()
        part.fold(one.sender, one.attachment)
        total = part.total.copy()
    restored().settle(Settle(setup.sid, ()))
    released = {setup.slots[int(one.sender[1:])]: one for one in HONEST.said("MaskSum")}
    for one in released.values():
        restored().keep(Keep(setup.sid, one.message.digest), one.attachment)
    last = restored()
    assert last.unmask(Unmask(setup.sid, tuple(one.message.digest for one in released.values()))).count == 5
    np.testing.assert_array_equal(last.opened, HONEST.opened())
    assert not len(kept)


@pytest.mark.parametrize("count", [3, 4, 5, 9])
def test_vectors_that_wait_to_be_added_together_are_in_the_total(count: int) -> None:
    part = MaskedSum(3, 32, lambda vector: (0, True))
    for place in range(count):
        part.fold(f"p{place}", np.array([1, place, 2**32 - 1], np.uint32).tobytes())
    assert part.total.tolist() == [count, sum(range(count)), 2**32 - count]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"slots": 2, "corrupt": 2}, "one must be left"),
        ({"slots": 1, "replicas": 3}, "one must be left"),
        ({"minimum": 1}, "honest"),
        ({"sigma": -1.0}, "noise"),
        ({"sigma": float("nan")}, "noise"),
        ({"sigma": float("inf")}, "noise"),
    ],
)
def test_setups_that_protect_nothing_are_refused(changes: dict[str, object], why: str) -> None:
    with pytest.raises(PlanError, match=why):
        make_setup(**changes)


def test_a_minimum_without_two_honest_is_refused() -> None:
    setup = make_setup()
    session = replace(setup.session, minimum=3, corrupt=2)
    with pytest.raises(PlanError, match="honest"):
        CommitteeSetup(session, setup.roster, setup.slots, setup.tail)


@pytest.mark.parametrize("slots", [(), (0,) * 5, (1,) * 6, (0, 0, 0, 2, 2, 2), (0, 0, 0, 1, 1, 2**60)])
def test_slots_without_seats_are_refused(slots: tuple[int, ...]) -> None:
    setup = make_setup()
    with pytest.raises(PlanError, match=r"every seat|one must be left"):
        CommitteeSetup(setup.session, setup.roster, slots, setup.tail)
    with pytest.raises(PlanError, match="no 7 slots"):
        deal(setup.roster, 7)


def test_nobody_is_participant_and_member() -> None:
    setup = make_setup()
    members = (member("m000"), *setup.session.members)
    with pytest.raises(PlanError, match="participants and committee members"):
        CommitteeSetup(replace(setup.session, members=members), setup.roster, setup.slots, setup.tail)


def test_slots_are_dealt_evenly_and_by_the_beacon() -> None:
    dealt = {make_setup(slots=3, replicas=2, corrupt=2, beacon=bytes([i]) * 32).slots for i in range(20)}
    assert len(dealt) > 10
    assert all(sorted(slots) == [0, 0, 1, 1, 2, 2] for slots in dealt)


def test_secrets_do_not_show_in_reprs() -> None:
    assert repr(Summed(b"s" * 32, b"secret!!")) == "Summed(8 bytes)"
    assert "secret" not in repr(SumMasks(b"s" * 32, b"c" * 32, (b"secret",), 5, 32))
