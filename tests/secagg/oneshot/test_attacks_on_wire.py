"""Attacks on `oneshot` through order, sizes and bytes. Numbers are those of docs/threats.md."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from ridotto.core.machine import COORDINATOR, Envelope
from ridotto.core.wire import digest
from ridotto.errors import PeerProtocolError
from ridotto.secagg.committee_roles.messages import Checked
from ridotto.secagg.oneshot import OneshotCoordinator
from ridotto.secagg.session import Timeouts
from tests.secagg.oneshot.attack import (
    HONEST,
    SMALL,
    assert_exact,
    kind_of,
    lying,
    resigned,
    transcript,
)
from tests.secagg.oneshot.world import World, make_setup

# --- 4.15 order, 4.20 sizes and fuzzing ---------------------------------------------------------------------------


def test_4_15_the_order_of_arrival_changes_nothing() -> None:
    def delayed(envelope: Envelope) -> list[Envelope]:
        wait = 0.0
        if kind_of(envelope) == "Contribution":
            wait = float(9 - int(envelope.sender[1:]))
        return [dataclasses.replace(envelope, at=envelope.at + wait)]

    one, other = World(make_setup()), World(make_setup(), tamper=delayed)
    assert_exact(one, one.run())
    assert_exact(other, other.run())
    np.testing.assert_array_equal(one.sum.total, other.sum.total)


def test_4_20_wrong_sizes_are_refused_before_anything_is_folded() -> None:
    setup = make_setup()
    for attachment in (b"", bytes(setup.shape.size - 1), bytes(setup.shape.size + 1)):

        def lie(envelope: Envelope, attachment: bytes = attachment) -> Envelope:
            message = replace(envelope.message, digest=digest(attachment), size=len(attachment))
            return resigned(setup, dataclasses.replace(envelope, message=message, attachment=attachment))

        world = World(setup, tamper=lying("Contribution", lie, ("p001",)))
        finish = world.run()
        assert f"its ciphertext has {len(attachment)} bytes" in world.refused["p001"]
        assert_exact(world, finish, ("p000", "p002", "p003", "p004"))


@pytest.mark.parametrize("parcels", [(), (b"p" * 8208,) * 6, (b"p" * 8208,) * 8, (b"p" * 8207,) * 7])
def test_4_20_wrong_numbers_or_sizes_of_parcels_are_refused(parcels: tuple[bytes, ...]) -> None:
    world = World(
        make_setup(), tamper=lying("Contribution", lambda e: resigned(make_setup(), e, parcels=parcels), ("p001",))
    )
    world.run()
    assert "did not seal 7 parcels of 8208 bytes" in world.refused["p001"]


SMALL_SETUP = make_setup(3, minimum=2, **SMALL)
SPOKEN = len(transcript(SMALL_SETUP).sent)


@given(which=st.integers(0, SPOKEN - 1), place=st.integers(0, 1 << 14), flip=st.integers(1, 255))
@settings(max_examples=60)
def test_4_20_any_changed_byte_is_refused_or_harmless(which: int, place: int, flip: int) -> None:
    """One byte of one frame: nothing but a PeerProtocolError leaves `receive`, and no wrong sum is opened."""
    seen = 0

    def tamper(envelope: Envelope) -> list[Envelope]:
        nonlocal seen
        seen += 1
        if seen - 1 != which:
            return [envelope]
        frame = bytearray(world.codec.encode(envelope.message, envelope.attachment))
        frame[place % len(frame)] ^= flip
        try:
            message, attachment = world.codec.decode(frame, envelope.sender)
        except PeerProtocolError:
            return []
        return [dataclasses.replace(envelope, message=message, attachment=attachment)]

    world = World(SMALL_SETUP, tamper=tamper)
    finish = world.run()
    if finish.error is None:
        assert_exact(world, finish)


@given(data=st.data())
@settings(max_examples=60)
def test_4_20_any_message_in_any_state_is_taken_or_refused(data: st.DataObject) -> None:
    """Messages of an honest session in any order, from anybody, to a coordinator, a member and a participant."""
    world = HONEST
    names = [COORDINATOR, *(one.name for one in (*world.setup.session.members, *world.setup.roster.members)), "nobody"]
    machines = [OneshotCoordinator(world.setup, Timeouts(100, 10)), world.member("m000"), world.participant(0)]
    for machine in machines:
        machine.start(0.0)
    picks = data.draw(st.lists(st.tuples(st.integers(0, len(world.sent) - 1), st.sampled_from(names)), max_size=12))
    blamed = {"nobody"}
    for place, sender in picks:
        for machine in machines:
            try:
                machine.receive(sender, world.sent[place].message, 0.0)
            except PeerProtocolError as refusal:
                blamed.add(refusal.peer)
    assert blamed <= {*names}


def test_messages_out_of_their_place_are_refused_by_name() -> None:
    world = HONEST
    machine = OneshotCoordinator(world.setup, Timeouts(100, 10))
    machine.start(0.0)
    release = world.said("Release")[0]
    with pytest.raises(PeerProtocolError, match="too early"):
        machine.receive(release.sender, release.message, 0.0)
    with pytest.raises(PeerProtocolError, match="takes no Parcels"):
        machine.receive("m000", world.said("Parcels")[0].message, 0.0)
    with pytest.raises(PeerProtocolError, match="no committee member"):
        machine.receive("p000", Checked(world.setup.sid, ()), 0.0)
    for other in (world.member("m000"), world.participant(0)):
        with pytest.raises(PeerProtocolError, match="only the coordinator"):
            other.receive("p001", release.message, 0.0)
        with pytest.raises(PeerProtocolError, match="came where MemberBook belongs"):
            other.receive(COORDINATOR, release.message, 0.0)
