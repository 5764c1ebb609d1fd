"""Attacks on `oneshot` through models, names, committees and keys. Numbers are those of docs/threats.md."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
from msgspec.structs import replace

from ridotto.core.machine import COORDINATOR, Envelope
from ridotto.core.rng import insecure_seeded_rng
from ridotto.crypto.seal import ExchangeKey
from ridotto.errors import PeerProtocolError
from ridotto.secagg.committee_roles.keys import book_root
from ridotto.secagg.oneshot import OneshotParticipant, OneshotSetup
from tests.secagg.committee_roles.attack import assert_exact, changed, faults_of, lying, reasons
from tests.secagg.committee_roles.world import identity, make_pool, make_vector, member
from tests.secagg.oneshot.world import World, make_setup

# --- 4.1 model inconsistency ------------------------------------------------------------------------------------


def test_4_1_participants_of_two_models_never_share_a_sum() -> None:
    """One bit of the model differs: other keys, seals and signatures; the committee of one model refuses the other."""
    honest, other = make_setup(), make_setup(model=b"m" * 31 + b"n")
    assert honest.context != other.context
    world = World(honest)
    world.swap = {name: world.participant(index, other) for index, name in ((1, "p001"), (2, "p002"))}
    finish = world.run()
    assert world.refused[COORDINATOR] == "its MemberBook belongs to another session"
    assert_exact(world, finish, ("p000", "p003", "p004"))


def test_4_1_a_relabelled_contribution_of_another_model_is_refused() -> None:
    """Members who sign keys for both models, and a coordinator that changes the sid: the signature is over the true."""
    honest, other = make_setup(), make_setup(model=b"m" * 31 + b"n")
    elsewhere = World(other)
    elsewhere.run()
    stolen = next(one for one in elsewhere.said("Contribution") if one.sender == "p001")
    book = World(honest)
    book.run()
    root = book_root(honest.context, book.said("MemberBook")[0].message)
    lie = lambda e: dataclasses.replace(  # noqa: E731
        e, message=replace(stolen.message, sid=honest.sid, book=root), attachment=stolen.attachment
    )
    world = World(honest, tamper=lying("Contribution", lie, ("p001",)))
    finish = world.run()
    assert world.refused["p001"] == "its contribution bears no valid signature"
    assert_exact(world, finish, ("p000", "p002", "p003", "p004"))


def test_4_1_a_member_of_another_model_is_refused() -> None:
    world = World(make_setup())
    world.swap = {"m001": world.member("m001", make_setup(model=b"x" * 32))}
    assert_exact(world, world.run())
    assert "m001" in world.refused


# --- 4.3 sybils, 4.4 chosen committee, 4.13 keys ------------------------------------------------------------------


def test_4_3_an_identity_that_is_not_in_the_roster_is_refused() -> None:
    world = World(
        make_setup(), tamper=lying("Contribution", lambda e: dataclasses.replace(e, sender="sybil"), ("p001",))
    )
    finish = world.run()
    assert world.refused["sybil"] == "is no participant of this session"
    assert "p001" not in finish.result.included


def test_4_4_a_hand_picked_committee_is_refused_by_the_participant() -> None:
    setup, pool = make_setup(), make_pool(40)
    vector, rng = make_vector(setup, 0), insecure_seeded_rng(1)
    with pytest.raises(PeerProtocolError, match="not the one that the beacon chooses"):
        OneshotParticipant(setup, "p000", identity("p000"), vector, rng, pool)


@pytest.mark.parametrize("change", ["swap", "beacon", "corrupt"])
def test_4_4_any_change_of_the_committee_is_refused(change: str) -> None:
    setup = make_setup()
    roster, pool = setup.roster, setup.roster.members
    changes: dict[str, dict[str, object]] = {
        "swap": {"members": (*roster.members[:-1], member("z000"))},
        "beacon": {"beacon": b"c" * 32},
        "corrupt": {"pool": b"r" * 32},
    }
    other = OneshotSetup(setup.session, replace(roster, **changes[change]), setup.pack, setup.tail)
    arguments = ("p000", identity("p000"), make_vector(setup, 0), insecure_seeded_rng(1), pool)
    if change == "beacon":
        # The whole pool serves, so every beacon chooses it; but keys and seals are bound to the beacon.
        OneshotParticipant(other, *arguments)
        assert other.context != setup.context
        return
    with pytest.raises(PeerProtocolError, match="committee"):
        OneshotParticipant(other, *arguments)


def test_4_13_a_swapped_member_key_is_refused_by_everyone_who_is_shown_it() -> None:
    public = ExchangeKey.generate(insecure_seeded_rng(9)).public

    def lie(envelope: Envelope) -> Envelope:
        first, *rest = envelope.message.entries
        return changed(envelope, entries=(replace(first, public=public), *rest))

    world = World(make_setup(), tamper=lying("MemberBook", lie, to=("p000", "m001")))
    finish = world.run()
    assert ("p000", "the key of m000 bears no valid signature") in reasons(world)
    assert ("m001", "the key of m000 bears no valid signature") in reasons(world)
    assert_exact(world, finish, ("p001", "p002", "p003", "p004"))
    assert faults_of(world)["m001"] == "sent no Checked"


@pytest.mark.parametrize(
    ("lie", "why"),
    [
        (lambda entries: tuple(reversed(entries)), "not a sorted list"),
        (lambda entries: entries[:4], "4 members, 5 are needed"),
        (lambda entries: (*entries, entries[-1]), "not a sorted list"),
    ],
)
def test_4_13_books_that_are_short_or_unsorted_are_refused(lie: Callable[..., object], why: str) -> None:
    world = World(
        make_setup(), tamper=lying("MemberBook", lambda e: changed(e, entries=lie(e.message.entries)), to=("p000",))
    )
    world.run()
    assert why in world.refused[COORDINATOR]


def test_4_13_a_member_refuses_a_book_without_its_key() -> None:
    world = World(
        make_setup(), tamper=lying("MemberBook", lambda e: changed(e, entries=e.message.entries[1:]), to=("m000",))
    )
    assert_exact(world, world.run())
    assert ("m000", "its book does not show my key") in reasons(world)


def test_4_13_low_order_and_repeated_member_keys_are_refused() -> None:
    world = World(make_setup(), tamper=lying("MemberKey", lambda e: changed(e, public=bytes(32)), ("m000",)))
    assert_exact(world, world.run())
    assert "m000" in world.refused
