"""Attacks on `committee` through what was recorded: copies and replays. Numbers are those of docs/threats.md."""

from __future__ import annotations

import dataclasses

import pytest
from msgspec.structs import replace

from ridotto.core.machine import COORDINATOR, Envelope
from ridotto.errors import PeerProtocolError
from tests.secagg.committee.attack import HONEST, resigned, transcript
from tests.secagg.committee.world import World, make_setup
from tests.secagg.committee_roles.attack import assert_exact, changed, lying

OTHERS = ("p000", "p002", "p003", "p004")


def stolen_from(name: str) -> Envelope:
    return next(one for one in HONEST.said("MaskedVector") if one.sender == name)


def test_4_8_a_copy_of_somebody_elses_vector_is_refused() -> None:
    def lie(envelope: Envelope) -> Envelope:
        return resigned(make_setup(), dataclasses.replace(stolen_from("p000"), sender="p001"))

    world = World(make_setup(), tamper=lying("MaskedVector", lie, ("p001",)))
    finish = world.run()
    assert world.refused["p001"] == "its vector is somebody else's"
    assert_exact(world, finish, OTHERS)


@pytest.mark.parametrize("fields", [("parcels", "public"), ("parcels", "public", "commitments")])
def test_4_8_copied_parcels_open_at_no_honest_member(fields: tuple[str, ...]) -> None:
    """p001 sends p000's parcels and key with a vector of its own: the seals name p000 and the other vector."""
    stolen = {field: getattr(stolen_from("p000").message, field) for field in fields}
    world = World(make_setup(), tamper=lying("MaskedVector", lambda e: resigned(make_setup(), e, **stolen), ("p001",)))
    finish = world.run()
    assert finish.result.lost == {"p001": "its seeds do not open"}
    assert_exact(world, finish, OTHERS)


def test_4_8_copied_commitments_are_of_no_use() -> None:
    stolen = stolen_from("p000").message.commitments
    world = World(
        make_setup(), tamper=lying("MaskedVector", lambda e: resigned(make_setup(), e, commitments=stolen), ("p001",))
    )
    finish = world.run()
    assert finish.result.lost == {"p001": "its seeds do not open"}
    assert_exact(world, finish, OTHERS)


def test_4_8_a_member_refuses_one_vector_of_two() -> None:
    def lie(envelope: Envelope) -> Envelope:
        first, second, *rest = envelope.message.parcels
        return changed(envelope, parcels=(first, replace(second, digest=first.digest), *rest))

    world = World(make_setup(), tamper=lying("SeedParcels", lie, to=("m000",)))
    assert_exact(world, world.run())
    assert world.refused[COORDINATOR] == "it delivered one vector of two participants"


@pytest.mark.parametrize("kind", ["MemberKey", "MaskedVector", "Ack", "MaskSum"])
def test_4_9_what_was_recorded_is_refused_in_the_next_session(kind: str) -> None:
    """The same members and participants, another nonce: every message of the first session, with the new sid on it."""
    first, second = transcript(make_setup()), make_setup(nonce=b"o" * 32)
    recorded = {one.sender: one for one in first.said(kind)}

    def lie(envelope: Envelope) -> Envelope:
        old = recorded[envelope.sender]
        kept = {"MaskedVector": ("book",), "Ack": ("root",), "MaskSum": ("root",)}.get(kind, ())
        fields = {field: getattr(envelope.message, field) for field in kept}
        return dataclasses.replace(old, message=replace(old.message, sid=second.sid, **fields))

    world = World(second, tamper=lying(kind, lie))
    finish = world.run()
    assert finish.error.code in ("SLOT_LOST", "TOO_FEW")
    assert world.opened() is None


@pytest.mark.parametrize(
    "kind",
    ["MemberKey", "MemberBook", "MaskedVector", "SeedParcels", "Checked", "Included", "Ack", "Acks", "MaskSum"],
)
def test_4_9_messages_of_another_session_are_refused_by_everybody(kind: str) -> None:
    world = World(make_setup(), tamper=lying(kind, lambda e: changed(e, sid=b"x" * 32)))
    finish = world.run()
    assert finish.error is not None
    assert any("belongs to another session" in why for why in world.refused.values())


def test_4_9_a_member_that_starts_anew_opens_nothing_of_before() -> None:
    """A stateless member after a restart has another key: what was sealed for the old one opens no more."""
    fresh = World(make_setup(), seed=2).member("m000")
    fresh.start(0.0)
    book = HONEST.said("MemberBook")[0].message
    with pytest.raises(PeerProtocolError, match="does not show my key"):
        fresh.receive(COORDINATOR, book, 0.0)
