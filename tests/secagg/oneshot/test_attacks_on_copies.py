"""Attacks on `oneshot` through what was recorded: copies and replays. Numbers are those of docs/threats.md."""

from __future__ import annotations

import dataclasses

from msgspec.structs import replace

from ridotto.core.machine import COORDINATOR, Envelope
from tests.secagg.committee_roles.attack import assert_exact, changed, kind_of, lying
from tests.secagg.oneshot.attack import SMALL, resigned, transcript
from tests.secagg.oneshot.world import World, make_setup

# --- 4.8 copies, 4.9 replay -------------------------------------------------------------------------------------


def test_4_8_a_copy_of_somebody_elses_ciphertext_is_refused() -> None:
    setup = make_setup()
    stolen = next(one for one in transcript(setup).said("Contribution") if one.sender == "p000")

    def lie(envelope: Envelope) -> Envelope:
        copied = dataclasses.replace(stolen, sender="p001", message=replace(stolen.message))
        return resigned(setup, copied)

    world = World(setup, tamper=lying("Contribution", lie, ("p001",)))
    finish = world.run()
    assert world.refused["p001"] == "its ciphertext is somebody else's"
    assert_exact(world, finish, ("p000", "p002", "p003", "p004"))


def test_4_8_copied_parcels_open_at_no_honest_member() -> None:
    """p001 sends p000's parcels and key with a ciphertext of its own: the seals name p000 and the other ciphertext."""
    setup = make_setup()
    stolen = next(one for one in transcript(setup).said("Contribution") if one.sender == "p000").message

    def lie(envelope: Envelope) -> Envelope:
        return resigned(setup, envelope, parcels=stolen.parcels, public=stolen.public)

    world = World(setup, tamper=lying("Contribution", lie, ("p001",)))
    finish = world.run()
    assert finish.result.lost == {"p001": "its parcels do not open"}
    assert_exact(world, finish, ("p000", "p002", "p003", "p004"))


def test_4_8_a_member_refuses_one_ciphertext_of_two() -> None:
    def lie(envelope: Envelope) -> Envelope:
        first, second, *rest = envelope.message.parcels
        return changed(envelope, parcels=(first, replace(second, digest=first.digest), *rest))

    world = World(make_setup(), tamper=lying("Parcels", lie, to=("m000",)))
    assert_exact(world, world.run())
    assert world.refused[COORDINATOR] == "it delivered one ciphertext of two participants"


def test_4_9_what_was_recorded_is_refused_in_the_next_session() -> None:
    """The same members and participants, another nonce: every message of the first session, with the new sid on it."""
    first, second = transcript(make_setup()), make_setup(nonce=b"o" * 32)
    recorded = {(kind_of(one), one.sender): one for one in first.sent if one.sender != COORDINATOR}
    for kind in ("MemberKey", "Contribution", "Ack", "Release"):

        def lie(envelope: Envelope) -> Envelope:
            old = recorded[kind_of(envelope), envelope.sender]
            fields = {"sid": second.sid}
            if kind_of(envelope) == "Contribution":
                fields["book"] = envelope.message.book
            if kind_of(envelope) in ("Ack", "Release"):
                fields["root"] = envelope.message.root
            return dataclasses.replace(old, message=replace(old.message, **fields))

        world = World(second, tamper=lying(kind, lie))
        finish = world.run()
        assert finish.error.code in ("COMMITTEE_SHORT", "TOO_FEW")
        assert world.opened() is None


def test_4_9_messages_of_another_session_are_refused_by_everybody() -> None:
    for kind in ("MemberKey", "MemberBook", "Contribution", "Parcels", "Checked", "Included", "Ack", "Acks", "Release"):
        world = World(make_setup(**SMALL), tamper=lying(kind, lambda e: changed(e, sid=b"x" * 32)))
        finish = world.run()
        assert finish.error is not None
        assert any("belongs to another session" in why for why in world.refused.values())
