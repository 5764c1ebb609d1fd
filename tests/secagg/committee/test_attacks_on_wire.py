"""Attacks on `committee` through order, sizes and bytes. Numbers are those of docs/threats.md."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from ridotto.core.machine import Envelope
from ridotto.core.packing import pack
from ridotto.core.rng import insecure_seeded_rng
from ridotto.core.wire import digest
from ridotto.errors import LocalProtocolError
from ridotto.secagg.committee import CommitteeParticipant
from tests.secagg.committee.attack import HONEST, resigned, transcript
from tests.secagg.committee.world import World, make_setup
from tests.secagg.committee_roles.attack import (
    assert_exact,
    change_one_byte,
    changed,
    kind_of,
    lying,
    reasons,
    say_anything,
    say_out_of_place,
)
from tests.secagg.committee_roles.world import identity, make_vector

OTHERS = ("p000", "p002", "p003", "p004")


def test_4_15_the_order_of_arrival_changes_nothing() -> None:
    def delayed(envelope: Envelope) -> list[Envelope]:
        wait = float(9 - int(envelope.sender[1:])) if kind_of(envelope) in ("MaskedVector", "MaskSum") else 0.0
        return [dataclasses.replace(envelope, at=envelope.at + wait)]

    one, other = World(make_setup()), World(make_setup(), tamper=delayed)
    assert_exact(one, one.run())
    assert_exact(other, other.run())
    np.testing.assert_array_equal(one.opened(), other.opened())


@pytest.mark.parametrize("size", [0, HONEST.setup.size - 1, HONEST.setup.size + 1])
def test_4_20_wrong_sizes_are_refused_before_anything_is_folded(size: int) -> None:
    attachment = bytes(size)

    def lie(envelope: Envelope) -> Envelope:
        message = replace(envelope.message, digest=digest(attachment), size=size)
        return resigned(make_setup(), dataclasses.replace(envelope, message=message, attachment=attachment))

    world = World(make_setup(), tamper=lying("MaskedVector", lie, ("p001",)))
    finish = world.run()
    assert f"its vector has {size} bytes" in world.refused["p001"]
    assert_exact(world, finish, OTHERS)


@pytest.mark.parametrize(
    "fields",
    [
        {"parcels": ()},
        {"parcels": (b"p" * 48,) * 5},
        {"parcels": (b"p" * 48,) * 7},
        {"commitments": ()},
        {"commitments": (b"c" * 32,) * 3},
    ],
)
def test_4_20_wrong_numbers_of_parcels_or_commitments_are_refused(fields: dict[str, object]) -> None:
    lie = lying("MaskedVector", lambda e: resigned(make_setup(), e, **fields), ("p001",))
    world = World(make_setup(), tamper=lie)
    assert_exact(world, world.run(), OTHERS)
    assert "did not seal 6 seeds of 2 slots" in world.refused["p001"]


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"public": b"\x01" + bytes(31)}, "its key is unusable"),
        ({"book": b"x" * 32}, "it was shown another book of members"),
    ],
)
def test_signed_vectors_that_do_not_fit_are_refused(fields: dict[str, bytes], why: str) -> None:
    lie = lying("MaskedVector", lambda e: resigned(make_setup(), e, **fields), ("p001",))
    world = World(make_setup(), tamper=lie)
    assert_exact(world, world.run(), OTHERS)
    assert world.refused["p001"] == why


def test_set_padding_is_dropped_as_if_it_were_not_there() -> None:
    """Elements of 21 bits leave bits in the last byte. What a liar writes there is in no sum, and stops nothing."""
    world = World(make_setup(3, bits=21, minimum=2))
    vector = make_vector(world.setup, 0)
    spoiled = bytearray(pack(vector, 21))
    assert spoiled[-1] >> 7 == 0
    spoiled[-1] |= 0x80
    world.sum.fold("p000", bytes(spoiled))
    np.testing.assert_array_equal(world.sum.total, vector)


def test_a_late_vector_is_refused_and_not_folded() -> None:
    """The participant has 100 seconds and takes 105; the committee is slow enough for the session to last that long."""

    def slow(envelope: Envelope) -> list[Envelope]:
        wait = {"MaskedVector": 105.0 if envelope.sender == "p001" else 0.0, "Checked": 9.0}.get(kind_of(envelope), 0.0)
        return [dataclasses.replace(envelope, at=envelope.at + wait)]

    world = World(make_setup(), tamper=slow)
    finish = world.run()
    assert_exact(world, finish, OTHERS)
    assert finish.result.lost == {"p001": "sent no MaskedVector"}
    assert world.refused["p001"] == "its MaskedVector came too late"


@pytest.mark.parametrize("kind", ["MaskedVector", "MaskSum"])
def test_a_second_different_message_is_refused(kind: str) -> None:
    sender = {"MaskedVector": "p001", "MaskSum": "m001"}[kind]

    def twice(envelope: Envelope) -> list[Envelope]:
        both = kind_of(envelope) == kind and envelope.sender == sender
        return [envelope, changed(envelope, signature=b"s" * 64)] if both else [envelope]

    world = World(make_setup(), tamper=twice)
    assert_exact(world, world.run(), ("p000", "p001", "p002", "p003", "p004"))
    assert world.refused[sender] == f"sent a second, different {kind}"


@pytest.mark.parametrize("kind", ["signature", "order", "commitments"])
def test_members_refuse_parcels_that_the_coordinator_changed(kind: str) -> None:
    def lie(envelope: Envelope) -> Envelope:
        first, *rest = envelope.message.parcels
        parcels = {
            "signature": (replace(first, signature=b"s" * 64), *rest),
            "order": (*rest, first),
            "commitments": (replace(first, commitments=first.commitments[:1]), *rest),
        }
        return changed(envelope, parcels=parcels[kind])

    world = World(make_setup(), tamper=lying("SeedParcels", lie, to=("m000",)))
    assert_exact(world, world.run())
    whys = {
        "signature": "the contribution of p000 bears no valid signature",
        "order": "its parcels are not sorted by participant",
        "commitments": "the contribution of p000 has not one commitment per slot",
    }
    assert ("m000", whys[kind]) in reasons(world)


SMALL_SETUP = make_setup(3, slots=2, replicas=2, minimum=2)
SPOKEN = len(transcript(SMALL_SETUP).sent)


@given(which=st.integers(0, SPOKEN - 1), place=st.integers(0, 1 << 12), flip=st.integers(1, 255))
@settings(max_examples=100)
def test_4_20_any_changed_byte_is_refused_or_harmless(which: int, place: int, flip: int) -> None:
    change_one_byte(lambda tamper: World(SMALL_SETUP, tamper=tamper), which, place, flip)


@given(data=st.data())
@settings(max_examples=100)
def test_4_20_any_message_in_any_state_is_taken_or_refused(data: st.DataObject) -> None:
    say_anything(HONEST, data)


def test_messages_out_of_their_place_are_refused_by_name() -> None:
    say_out_of_place(HONEST, HONEST.said("MaskSum")[0])


def test_a_vector_of_another_length_is_the_callers_fault() -> None:
    setup = make_setup()
    vector = np.zeros(setup.session.length - 1, np.uint32)
    with pytest.raises(LocalProtocolError, match="elements"):
        CommitteeParticipant(setup, "p000", identity("p000"), vector, insecure_seeded_rng(1), setup.roster.members)
