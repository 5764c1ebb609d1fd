"""Attacks on `oneshot` through order, sizes and bytes. Numbers are those of docs/threats.md."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from ridotto.core.machine import Envelope
from ridotto.core.wire import digest
from tests.secagg.committee_roles.attack import (
    assert_exact,
    change_one_byte,
    kind_of,
    lying,
    say_anything,
    say_out_of_place,
)
from tests.secagg.oneshot.attack import HONEST, SMALL, resigned, transcript
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
    change_one_byte(lambda tamper: World(SMALL_SETUP, tamper=tamper), which, place, flip)


@given(data=st.data())
@settings(max_examples=60)
def test_4_20_any_message_in_any_state_is_taken_or_refused(data: st.DataObject) -> None:
    say_anything(HONEST, data)


def test_messages_out_of_their_place_are_refused_by_name() -> None:
    say_out_of_place(HONEST, HONEST.said("Release")[0])
