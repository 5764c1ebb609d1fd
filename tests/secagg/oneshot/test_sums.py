"""Honest sessions of `oneshot`: exact sums, whoever leaves when, with and without numba."""

from __future__ import annotations

import numpy as np
import pytest
from msgspec.structs import replace

from ridotto.core.machine import COORDINATOR, SELF, Finish
from ridotto.core.wire import digest
from ridotto.crypto.lattice.loops import Loops, PlainLoops
from ridotto.errors import LocalProtocolError, PeerProtocolError, PlanError
from ridotto.secagg.committee_roles.agreement import set_root
from ridotto.secagg.committee_roles.evidence import Evidence, MemberFaults
from ridotto.secagg.committee_roles.messages import MemberBook
from ridotto.secagg.committee_roles.tasks import Settle
from ridotto.secagg.oneshot import OneshotCoordinator, OneshotParticipant, OneshotSetup
from ridotto.secagg.oneshot.messages import Release
from ridotto.secagg.oneshot.tasks import Decrypted, OpenCiphers
from ridotto.secagg.session import Timeouts
from tests.secagg.committee_roles.attack import assert_exact, kind_of
from tests.secagg.committee_roles.world import member
from tests.secagg.oneshot.world import World, make_setup


def everybody(world: World) -> tuple[str, ...]:
    return tuple(one.name for one in world.setup.session.members)


@pytest.mark.parametrize("bits", [8, 16, 20, 21, 28, 32, 64])
def test_the_sum_equals_the_plain_sum(bits: int) -> None:
    world = World(make_setup(3, bits=bits, minimum=2))
    finish = world.run()
    assert_exact(world, finish)
    assert finish.result.included == everybody(world)
    assert finish.result.lost == {}
    assert not world.refused


def test_the_committee_of_the_specification() -> None:
    """64 members, 24 corrupt, 21 secrets a polynomial: shares of 784 bytes."""
    world = World(make_setup(4, committee=64, corrupt=24, pack=21, bits=21))
    finish = world.run()
    assert_exact(world, finish)
    releases = world.said("Release")
    assert len(releases) == 64
    assert {len(one.message.share) for one in releases} == {784}


@pytest.mark.parametrize(("committee", "corrupt", "pack"), [(3, 1, 1), (5, 2, 1), (7, 2, 2), (16, 5, 6)])
def test_committees_of_all_sizes(committee: int, corrupt: int, pack: int) -> None:
    world = World(make_setup(3, committee=committee, corrupt=corrupt, pack=pack, minimum=2))
    assert_exact(world, world.run())


def test_numpy_alone_gives_the_same_bytes() -> None:
    """A device without numba takes part like any other: every message is the same, bit for bit."""
    plain, loops = PlainLoops(), Loops()
    assert loops.load()
    one, other = (World(make_setup(3, bits=21), loops=choice) for choice in (plain, loops))
    assert_exact(one, one.run())
    assert_exact(other, other.run())
    for left, right in zip(one.sent, other.sent, strict=True):
        assert left.message == right.message
        assert left.attachment == right.attachment


@pytest.mark.parametrize("gone", [("p000",), ("p004",), ("p000", "p003")])
def test_participants_who_never_speak_cost_nothing(gone: tuple[str, ...]) -> None:
    world = World(make_setup(), gone=gone)
    finish = world.run()
    assert_exact(world, finish)
    assert finish.result.lost == dict.fromkeys(gone, "sent no Contribution")


@pytest.mark.parametrize("kind", ["MemberKey", "Checked", "Ack", "Release"])
def test_members_may_leave_at_any_step(kind: str) -> None:
    """Two of seven stop speaking: five are needed, and five are left."""
    silent = ("m000", "m006")
    world = World(make_setup(), tamper=lambda e: [] if kind_of(e) == kind and e.sender in silent else [e])
    finish = world.run()
    assert_exact(world, finish)
    faults = [record for record in world.router.published if isinstance(record, MemberFaults)]
    assert faults[-1].faults == tuple((name, f"sent no {kind}") for name in silent)


@pytest.mark.parametrize("kind", ["MemberKey", "Checked", "Ack"])
def test_too_few_members_end_the_session_by_name(kind: str) -> None:
    silent = ("m000", "m003", "m006")
    world = World(make_setup(), tamper=lambda e: [] if kind_of(e) == kind and e.sender in silent else [e])
    finish = world.run()
    assert finish.error.code == "COMMITTEE_SHORT"
    assert finish.error.blame == silent
    assert world.opened() is None


def test_four_of_seven_releases_are_enough_and_three_are_not() -> None:
    for silent, code in ((("m000", "m003", "m006"), None), (("m000", "m001", "m003", "m006"), "COMMITTEE_SHORT")):
        world = World(
            make_setup(), tamper=lambda e, silent=silent: [] if kind_of(e) == "Release" and e.sender in silent else [e]
        )
        finish = world.run()
        assert (finish.error.code if finish.error else None) == code


def test_participants_and_members_may_say_that_they_leave() -> None:
    setup = make_setup()
    machine = OneshotCoordinator(setup, Timeouts(100, 10))
    machine.start(0.0)
    assert machine.leave("p001", "battery", 0.0) == []
    machine.leave("m003", "battery", 0.0)
    world = World(setup)
    effects = []
    for one in setup.roster.members:
        if one.name != "m003":
            effects = machine.receive(one.name, world.member(one.name).start(0.0)[0].message, 0.0)
    books = [effect.to for effect in effects if isinstance(getattr(effect, "message", None), MemberBook)]
    assert sorted(books) == ["m000", "m001", "m002", "m004", "m005", "m006", "p000", "p002", "p003", "p004"]
    machine.leave("p004", "policy", 0.0)
    finish = machine.leave("p003", "policy", 0.0)
    assert not [effect for effect in finish if isinstance(effect, Finish)]
    finish = [effect for effect in machine.leave("p002", "policy", 0.0) if isinstance(effect, Finish)]
    assert finish == []
    finish = [effect for effect in machine.leave("p000", "policy", 0.0) if isinstance(effect, Finish)]
    assert finish[0].error.code == "TOO_FEW"
    assert finish[0].result.lost["p001"] == "battery"
    with pytest.raises(PeerProtocolError):
        machine.leave("stranger", "", 0.0)


def test_every_message_twice_changes_nothing() -> None:
    world = World(make_setup(), tamper=lambda e: [e, e])
    assert_exact(world, world.run())


def test_a_participant_speaks_once_and_forgets() -> None:
    world = World(make_setup())
    world.run()
    spoken = [one for one in world.sent if one.sender.startswith("p")]
    assert [kind_of(one) for one in spoken] == ["Contribution"] * 5
    machine = world.participant(0)
    book = world.said("MemberBook")[0].message
    machine.receive(COORDINATOR, book, 0.0)
    with pytest.raises(PeerProtocolError, match="second time"):
        machine.receive(COORDINATOR, book, 0.0)


def test_a_participant_repeats_itself_for_the_same_vector_and_book_only() -> None:
    """Built again from its seed: the same message for the same book, another key and other noise for another book."""
    world = World(make_setup(), gone=("m005",))
    world.run()
    book = world.said("MemberBook")[0].message
    shorter = MemberBook(book.sid, book.entries[1:])
    one, again, other = (world.participant(0).receive(COORDINATOR, shown, 0.0)[0] for shown in (book, book, shorter))
    assert one == again
    assert one.message.public != other.message.public
    assert one.attachment != other.attachment
    vector = np.zeros(world.setup.session.length, np.uint32)
    changed = world.participant(0)
    changed._vector = vector
    assert changed.receive(COORDINATOR, book, 0.0)[0].message.public != one.message.public


def test_members_traffic_does_not_depend_on_the_length() -> None:
    sizes = []
    for length in (100, 40_000):
        world = World(make_setup(3, length=length, minimum=2))
        assert_exact(world, world.run())
        to_members = [one for one in world.sent if one.to.startswith("m") or one.sender.startswith("m")]
        sizes.append(sum(len(world.codec.header(one.message)) for one in to_members))
        assert all(one.attachment is None for one in to_members)
    assert sizes[0] == sizes[1]


def test_the_tasks_come_in_order_and_the_set_is_settled_once() -> None:
    world = World(make_setup())
    world.run()
    assert [task.removed for task in world.settled] == [()]
    with pytest.raises(LocalProtocolError, match="once"):
        world.sum.open(OpenCiphers(world.setup.sid, bytes(4 * 4096), 5, b"c" * 32))
    with pytest.raises(LocalProtocolError, match="not kept"):
        world.sum.settle(Settle(world.setup.sid, (("p000", b"d" * 32),)))
    machine = OneshotCoordinator(world.setup, Timeouts(100, 10))
    machine.start(0.0)
    with pytest.raises(LocalProtocolError, match="nobody asked"):
        machine.receive(SELF, Decrypted(world.setup.sid, 5, True, True), 0.0)


@pytest.mark.parametrize("changes", [{"corrupt": 3, "pack": 2}, {"pack": 0}, {"corrupt": 4}])
def test_committees_that_can_not_hold_a_key_are_refused(changes: dict[str, int]) -> None:
    with pytest.raises(PlanError):
        make_setup(**({"committee": 4, "corrupt": 1, "pack": 1} | changes))


@pytest.mark.parametrize(("minimum", "corrupt"), [(1, 0), (2, 1), (4, 3)])
def test_a_minimum_without_two_honest_is_refused(minimum: int, corrupt: int) -> None:
    setup = make_setup()
    with pytest.raises(PlanError, match="honest"):
        OneshotSetup(replace(setup.session, minimum=minimum, corrupt=corrupt), setup.roster, 2, setup.tail)


def test_nobody_is_participant_and_member() -> None:
    setup = make_setup()
    members = (member("m000"), *setup.session.members)
    with pytest.raises(PlanError, match="participants and committee members"):
        OneshotSetup(replace(setup.session, members=members), setup.roster, 2, setup.tail)


def test_secrets_do_not_show_in_reprs() -> None:
    assert repr(Release(b"s" * 32, b"r" * 32, b"secret!!", b"x" * 64)) == "Release(8 bytes)"
    assert "key" not in repr(OpenCiphers(b"s" * 32, b"key", 3, b"c" * 32)).replace("OpenCiphers", "")
    assert isinstance(World(make_setup()).participant(0), OneshotParticipant)


def test_evidence_says_which_set_was_released_for() -> None:
    world = World(make_setup(), gone=("p003",))
    world.run()
    evidence = next(record for record in world.router.published if isinstance(record, Evidence))
    assert set_root(evidence.digests) == world.said("Release")[0].message.root
    assert [vote.seat for vote in evidence.acks] == list(range(7))
    assert [one.digest for one in evidence.releases] == [digest(one.message.share) for one in world.said("Release")]
