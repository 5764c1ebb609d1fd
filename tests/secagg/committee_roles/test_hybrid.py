"""Attacks on sessions whose parcels are sealed under X25519 and ML-KEM-768 together, in both protocols."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from ridotto.core.machine import COORDINATOR, SELF, Do, Envelope
from ridotto.crypto.kem import encapsulate
from ridotto.errors import LocalProtocolError, PeerProtocolError
from ridotto.secagg.committee_roles.keys import book_root, signed_key
from ridotto.secagg.committee_roles.messages import MemberBook, MemberEntry
from ridotto.secagg.committee_roles.seals import encapsulate_all
from ridotto.secagg.committee_roles.tasks import Encapsulate, Encapsulated
from tests.secagg.committee import world as committee
from tests.secagg.committee_roles.attack import (
    assert_exact,
    at_acknowledgement,
    change_one_byte,
    changed,
    faults_of,
    lying,
    reasons,
    say_anything,
)
from tests.secagg.committee_roles.world import SeatedWorld, Tamper, identity
from tests.secagg.oneshot import world as oneshot

KEM_PUBLIC, KEM_CIPHERTEXT = 1184, 1088
LOW_ORDER = b"\x01" + bytes(31)
OTHERS = ("p000", "p001", "p003", "p004")
WORLDS: dict[str, Any] = {"committee": committee, "oneshot": oneshot}
SPOKEN = {"committee": "MaskedVector", "oneshot": "Contribution"}
BOTH = pytest.mark.parametrize("name", WORLDS)


def make(name: str, **fields: Any) -> SeatedWorld:
    return WORLDS[name].World(WORLDS[name].make_setup(seal="hybrid"), **fields)


def ran(name: str) -> SeatedWorld:
    if name not in _HONEST:
        _HONEST[name] = make(name)
        _HONEST[name].run()
    return _HONEST[name]


_HONEST: dict[str, SeatedWorld] = {}


def with_parcels(name: str, change: Callable[[tuple[bytes, ...]], tuple[bytes, ...]]) -> SeatedWorld:
    """Run a session in which p002 sends other parcels; signatures do not cover them."""
    lie = lambda e: changed(e, parcels=change(e.message.parcels))  # noqa: E731
    return make(name, tamper=lying(SPOKEN[name], lie, ("p002",)))


@BOTH
def test_an_honest_session_opens_the_sum(name: str) -> None:
    world = make(name)
    assert_exact(world, world.run(), ("p000", "p001", "p002", "p003", "p004"))
    assert not world.router.refusals
    assert {len(key.message.public) for key in world.said("MemberKey")} == {KEM_PUBLIC + 32}


@BOTH
def test_the_context_names_the_seal(name: str) -> None:
    setups = [WORLDS[name].make_setup(seal=seal) for seal in ("x25519", "hybrid")]
    assert setups[0].sid == setups[1].sid
    assert setups[0].context != setups[1].context
    assert setups[1].layout.endswith(b"\xa6hybrid")


# --- 4.13 keys ----------------------------------------------------------------------------------------------------


@BOTH
def test_4_13_a_swapped_ml_kem_key_is_refused_by_everyone_who_is_shown_it(name: str) -> None:
    """The coordinator puts a key of its own beside a member's X25519 key, to open the traffic when that is broken."""
    other = ran(name).said("MemberKey")[1].message.public[:KEM_PUBLIC]

    def lie(envelope: Envelope) -> Envelope:
        first, *rest = envelope.message.entries
        return changed(envelope, entries=(replace(first, public=other + first.public[KEM_PUBLIC:]), *rest))

    world = make(name, tamper=lying("MemberBook", lie, to=("p000", "m001")))
    assert_exact(world, world.run(), ("p001", "p002", "p003", "p004"))
    for party in ("p000", "m001"):
        assert (party, "the key of m000 bears no valid signature") in reasons(world)


def with_key(name: str, public: bytes) -> SeatedWorld:
    """Run a session in which m001 signs and shows this key."""
    setup = ran(name).setup
    message = signed_key(identity("m001"), setup.sid, setup.context, 1, public)
    world = make(name, tamper=lying("MemberKey", lambda e: dataclasses.replace(e, message=message), ("m001",)))
    world.run()
    return world


def shown_to_a_participant(world: SeatedWorld, public: bytes) -> tuple[Any, MemberBook]:
    """Return a participant, and a book of a coordinator and a corrupt m001 with this key in it."""
    setup = world.setup
    message = signed_key(identity("m001"), setup.sid, setup.context, 1, public)
    book = world.said("MemberBook")[0].message
    entries = tuple(entry for entry in book.entries if entry.seat != 1)
    return world.participant(0), MemberBook(
        book.sid, (entries[0], MemberEntry(1, public, message.signature), *entries[1:])
    )


@BOTH
def test_4_13_a_low_order_x25519_part_is_refused_beside_a_good_ml_kem_part(name: str) -> None:
    public = ran(name).said("MemberKey")[1].message.public[:KEM_PUBLIC] + LOW_ORDER
    world = with_key(name, public)
    assert world.refused["m001"] == "its key is unusable"
    machine, book = shown_to_a_participant(world, public)
    task = machine.receive(COORDINATOR, book, 0.0)[0].task
    with pytest.raises(PeerProtocolError, match="unusable key of m001"):
        machine.receive(SELF, encapsulate_all(task), 0.0)
    # The machine is as it was: it takes the honest book, and says what it would have said.
    honest = world.said("MemberBook")[0].message
    task = machine.receive(COORDINATOR, honest, 0.0)[0].task
    sent = machine.receive(SELF, world.drawn["p000"], 0.0)[0]
    assert task.book == world.drawn["p000"].book
    assert sent.message == next(one.message for one in world.said(SPOKEN[name]) if one.sender == "p000")


@BOTH
def test_4_13_an_ml_kem_part_that_is_none_is_refused_by_everybody(name: str) -> None:
    public = b"\xff" * KEM_PUBLIC + ran(name).said("MemberKey")[1].message.public[KEM_PUBLIC:]
    world = with_key(name, public)
    assert "none of ML-KEM-768" in world.refused["m001"]
    machine, book = shown_to_a_participant(world, public)
    with pytest.raises(PeerProtocolError, match=r"the key of m001 is unusable: .* none of ML-KEM-768"):
        machine.receive(COORDINATOR, book, 0.0)
    assert isinstance(machine.receive(COORDINATOR, world.said("MemberBook")[0].message, 0.0)[0], Do)


@BOTH
def test_4_21_a_key_without_its_ml_kem_part_is_refused_by_everybody(name: str) -> None:
    """A downgrade: whoever takes the ML-KEM part away could open the traffic later."""
    public = ran(name).said("MemberKey")[1].message.public[KEM_PUBLIC:]
    world = with_key(name, public)
    assert world.refused["m001"] == "the key of m001 is unusable: a key for hybrid has 1216 bytes, not 32"
    machine, book = shown_to_a_participant(world, public)
    with pytest.raises(PeerProtocolError, match="has 1216 bytes, not 32"):
        machine.receive(COORDINATOR, book, 0.0)


@BOTH
def test_4_21_a_book_of_the_same_session_under_x25519_alone_is_refused(name: str) -> None:
    """Another downgrade: members were told another seal than the participants, whose context is not theirs."""
    weaker = WORLDS[name].World(WORLDS[name].make_setup())
    weaker.run()
    with pytest.raises(PeerProtocolError, match="the key of m000 is unusable"):
        make(name).participant(0).receive(COORDINATOR, weaker.said("MemberBook")[0].message, 0.0)


# --- 4.6 parcels ----------------------------------------------------------------------------------------------------


def flip(place: int) -> Callable[[tuple[bytes, ...]], tuple[bytes, ...]]:
    """Change one byte in every parcel."""
    mask = 1 << 8 * place
    return lambda parcels: tuple((int.from_bytes(one, "little") ^ mask).to_bytes(len(one), "little") for one in parcels)


def rotate_ciphertexts(parcels: tuple[bytes, ...]) -> tuple[bytes, ...]:
    """Give every member the ciphertext of another one, and its own sealed secret."""
    others = (*parcels[1:], parcels[0])
    return tuple(other[:KEM_CIPHERTEXT] + own[KEM_CIPHERTEXT:] for own, other in zip(parcels, others, strict=True))


@BOTH
@pytest.mark.parametrize(
    "change",
    [
        flip(0),
        flip(KEM_CIPHERTEXT - 1),
        flip(KEM_CIPHERTEXT),
        flip(KEM_CIPHERTEXT + 32),
        rotate_ciphertexts,
        lambda parcels: (*parcels[1:], parcels[0]),
        lambda parcels: tuple(bytes(KEM_CIPHERTEXT) + one[KEM_CIPHERTEXT:] for one in parcels),
    ],
    ids=["first byte", "last byte", "sealed", "further on", "ciphertexts of others", "parcels of others", "zeros"],
)
def test_4_6_parcels_that_do_not_open_drop_their_sender_and_nobody_else(name: str, change: Any) -> None:
    """Implicit rejection: ML-KEM gives some secret for each of these, and the seal does not open under it."""
    world = with_parcels(name, change)
    assert_exact(world, world.run(), OTHERS)
    assert not world.router.refusals
    assert not faults_of(world)


@BOTH
def test_4_6_a_ciphertext_made_anew_for_the_right_member_does_not_open_either(name: str) -> None:
    """Who knows the members' public keys can encapsulate another secret, but not seal under what comes of it."""
    publics = [entry.public[:KEM_PUBLIC] for entry in ran(name).said("MemberBook")[0].message.entries]

    def change(parcels: tuple[bytes, ...]) -> tuple[bytes, ...]:
        return tuple(encapsulate(key)[1] + one[KEM_CIPHERTEXT:] for key, one in zip(publics, parcels, strict=True))

    world = with_parcels(name, change)
    assert_exact(world, world.run(), OTHERS)


@BOTH
@pytest.mark.parametrize("cut", [1, KEM_CIPHERTEXT])
def test_4_20_a_parcel_of_another_size_is_refused_by_the_coordinator(name: str, cut: int) -> None:
    world = with_parcels(name, lambda parcels: (*parcels[:-1], parcels[-1][cut:]))
    assert_exact(world, world.run(), OTHERS)
    assert "parcel" in world.refused["p002"]


@BOTH
def test_4_20_a_parcel_of_another_size_that_the_coordinator_delivers_is_told(name: str) -> None:
    def lie(envelope: Envelope) -> Envelope:
        first, *rest = envelope.message.parcels
        return changed(envelope, parcels=(replace(first, sealed=first.sealed[KEM_CIPHERTEXT:]), *rest))

    world = make(name, tamper=lying(WORLDS[name].World.delivery, lie, to=("m000",)))
    world.run()
    assert world.said("Checked")[0].message.bad == (0,)
    assert not world.router.refusals


# --- the participant's task ------------------------------------------------------------------------------------------


def asked(name: str) -> tuple[Any, Encapsulate]:
    """Return a participant that has seen the book of the honest session, and its task."""
    machine = ran(name).participant(0)
    effects = machine.receive(COORDINATOR, ran(name).said("MemberBook")[0].message, 0.0)
    assert len(effects) == 1
    return machine, effects[0].task


@BOTH
def test_built_again_and_given_the_same_secrets_it_says_the_same(name: str) -> None:
    world = ran(name)
    machine, task = asked(name)
    assert task.book == book_root(world.setup.context, world.said("MemberBook")[0].message)
    sent = machine.receive(SELF, world.drawn["p000"], 0.0)[0]
    honest = next(one for one in world.said(SPOKEN[name]) if one.sender == "p000")
    assert (sent.message, bytes(sent.attachment)) == (honest.message, bytes(honest.attachment))


@BOTH
def test_given_other_secrets_it_seals_the_same_anew(name: str) -> None:
    """A driver that did not keep them sends a second message, which is refused; nothing is sealed twice under a key."""
    world = ran(name)
    machine, task = asked(name)
    sent = machine.receive(SELF, encapsulate_all(task), 0.0)[0].message
    honest = next(one.message for one in world.said(SPOKEN[name]) if one.sender == "p000")
    assert replace(sent, parcels=honest.parcels) == honest
    assert not set(sent.parcels) & set(honest.parcels)
    doubled = lambda e: [e, dataclasses.replace(e, message=sent)] if e.message == honest else [e]  # noqa: E731
    again = make(name, tamper=doubled, drawn=world.drawn)
    assert_exact(again, again.run(), ("p000", "p001", "p002", "p003", "p004"))
    assert "a second, different" in again.refused["p000"]


@BOTH
def test_takes_no_other_secrets_than_it_asked_for(name: str) -> None:
    machine, task = asked(name)
    answer = encapsulate_all(task)
    for other, why in (
        (replace(answer, book=b"x" * 32), "another book"),
        (replace(answer, sid=b"x" * 32), "another book"),
        (replace(answer, drawn=answer.drawn[1:]), "were encapsulated for"),
    ):
        with pytest.raises(LocalProtocolError, match=why):
            machine.receive(SELF, other, 0.0)
    with pytest.raises(PeerProtocolError, match="a second time"):
        machine.receive(COORDINATOR, ran(name).said("MemberBook")[0].message, 0.0)
    with pytest.raises(PeerProtocolError, match="came where MemberBook belongs"):
        machine.receive(COORDINATOR, answer, 0.0)
    assert len(machine.receive(SELF, answer, 0.0)) == 2
    with pytest.raises(LocalProtocolError, match="nobody asked for"):
        machine.receive(SELF, answer, 0.0)


@BOTH
def test_secrets_that_nobody_asked_for_are_refused(name: str) -> None:
    answer = Encapsulated(b"s" * 32, b"r" * 32, ())
    with pytest.raises(LocalProtocolError, match="nobody asked for"):
        ran(name).participant(0).receive(SELF, answer, 0.0)


@BOTH
def test_a_member_forgets_its_keys_when_it_has_opened_its_parcels(name: str) -> None:
    for machine in at_acknowledgement(ran(name), ["m000"]).values():
        assert machine._keys is None


# --- 4.20 anything ----------------------------------------------------------------------------------------------------


@BOTH
@settings(max_examples=40, deadline=None)
@given(which=st.integers(0, 60), place=st.integers(0, 20_000), mask=st.integers(1, 255))
def test_4_20_one_byte_changed_anywhere_is_refused_or_harmless(name: str, which: int, place: int, mask: int) -> None:
    def attacked(tamper: Tamper) -> SeatedWorld:
        return make(name, tamper=tamper)

    change_one_byte(attacked, which, place, mask)


@BOTH
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_4_20_honest_messages_in_any_order_raise_nothing_but_refusals(name: str, data: st.DataObject) -> None:
    say_anything(ran(name), data)
