"""Attacks on `oneshot` through shares, releases and vectors. Numbers are those of docs/threats.md."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from ridotto.core.machine import COORDINATOR, Effect, Envelope, Finish, Send
from ridotto.core.rng import insecure_seeded_rng
from ridotto.crypto.lattice import packed_shamir
from ridotto.crypto.lattice.kahe import generate_key
from ridotto.crypto.shamir import PRIME
from ridotto.secagg.committee_roles.keys import book_root
from ridotto.secagg.committee_roles.messages import MemberBook
from ridotto.secagg.oneshot import OneshotParticipant, OneshotSetup, participant
from ridotto.secagg.oneshot.binding import RELEASE_CONTEXT
from ridotto.secagg.oneshot.binding import release_statement as say_release
from tests.secagg.committee_roles.attack import assert_exact, changed, faults_of, kind_of, lying
from tests.secagg.committee_roles.world import identity, lanes_of, make_vector
from tests.secagg.oneshot.attack import transcript
from tests.secagg.oneshot.world import World, make_setup

# --- 4.6 bad seals and inconsistent shares -----------------------------------------------------------------------


def spoil_parcels(places: tuple[int, ...]) -> Callable[[Envelope], Envelope]:
    def lie(envelope: Envelope) -> Envelope:
        parcels = [bytes([p[0] ^ 1]) + p[1:] if i in places else p for i, p in enumerate(envelope.message.parcels)]
        return changed(envelope, parcels=tuple(parcels))

    return lie


@pytest.mark.parametrize("places", [(0,), (0, 1, 2), tuple(range(7))])
def test_4_6_a_participant_whose_seals_do_not_open_is_dropped_by_name(places: tuple[int, ...]) -> None:
    world = World(make_setup(), tamper=lying("Contribution", spoil_parcels(places), ("p002",)))
    finish = world.run()
    assert_exact(world, finish, ("p000", "p001", "p003", "p004"))
    certain = len(places) > world.setup.roster.corrupt
    assert finish.result.lost["p002"] == (
        "its parcels do not open" if certain else "a member could not open its parcel"
    )
    assert [name for name, _ in world.settled[0].removed] == ["p002"]


def test_4_6_so_many_bad_seals_that_too_few_are_left_end_the_session() -> None:
    world = World(make_setup(), tamper=lying("Contribution", spoil_parcels((0, 1, 2)), ("p000", "p001", "p002")))
    finish = world.run()
    assert (finish.error.code, finish.error.blame) == ("TOO_FEW", ("p000", "p001", "p002"))
    assert not world.said("Included")


def test_4_6_a_member_that_complains_about_everybody_is_set_aside() -> None:
    world = World(make_setup(8), tamper=lying("Checked", lambda e: changed(e, bad=tuple(range(8))), ("m001",)))
    finish = world.run()
    assert_exact(world, finish)
    assert len(finish.result.included) == 8
    assert faults_of(world) == {"m001": "complained about 8 participants"}


@pytest.mark.parametrize("bad", [(7,), (1, 0), (1, 1)])
def test_4_6_complaints_about_nobody_are_refused(bad: tuple[int, ...]) -> None:
    world = World(make_setup(), tamper=lying("Checked", lambda e: changed(e, bad=bad), ("m001",)))
    assert_exact(world, world.run())
    assert "complains about participants" in world.refused["m001"]


def inconsistent(count: int) -> Callable[..., list[bytes]]:
    """Share a key such that the first `count` members have shares of nothing."""
    real = packed_shamir.share_key

    def share(key: np.ndarray, sharing: packed_shamir.Sharing, seed: bytes) -> list[bytes]:
        shares = real(key, sharing, seed)
        wrong = [((np.frombuffer(one, "<u4").astype(np.int64) + 1) % PRIME).astype("<u4").tobytes() for one in shares]
        return wrong[:count] + shares[count:]

    return share


def with_one_liar(setup: OneshotSetup, monkeypatch: pytest.MonkeyPatch, **patches: object) -> World:
    """Run a session in which p001 uses other functions than the honest ones."""
    world = World(setup)
    book = transcript(setup).said("MemberBook")[0].message
    with monkeypatch.context() as patch:
        for name, value in patches.items():
            patch.setattr(participant, name, value)
        send = world.participant(1).receive(COORDINATOR, book, 0.0)[0]

    class Liar:
        def start(self, now: float) -> list[Effect]:
            return []

        def receive(self, sender: str, message: object, now: float) -> list[Effect]:
            return [send, Finish()] if isinstance(message, MemberBook) else []

        def expire(self, now: float) -> list[Effect]:
            return []

    assert isinstance(send, Send)
    world.swap = {"p001": Liar()}
    return world


def test_4_6_a_share_that_does_not_fit_is_corrected(monkeypatch: pytest.MonkeyPatch) -> None:
    world = with_one_liar(make_setup(), monkeypatch, share_key=inconsistent(1))
    finish = world.run()
    assert_exact(world, finish)
    assert faults_of(world) == {"m000": "its release does not fit the others'"}


def test_4_6_shares_of_no_key_never_give_a_wrong_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    world = with_one_liar(make_setup(), monkeypatch, share_key=inconsistent(3))
    finish = world.run()
    assert finish.error.code in ("COMMITTEE_SHORT", "NOISE_ANOMALY")
    assert world.opened() is None


def test_4_6_shares_of_another_key_are_seen_in_the_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    real = packed_shamir.share_key
    other = generate_key(b"o" * 32)
    world = with_one_liar(make_setup(), monkeypatch, share_key=lambda key, *rest: real(other, *rest))
    finish = world.run()
    assert finish.error.code == "NOISE_ANOMALY"
    assert world.opened() is None


def test_4_6_a_key_that_is_too_large_is_seen_in_the_sum_of_the_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    real = packed_shamir.share_key
    world = with_one_liar(make_setup(), monkeypatch, share_key=lambda key, *rest: real(key + 1000, *rest))
    finish = world.run()
    assert (finish.error.code, world.opened()) == ("NOISE_ANOMALY", None)


# --- wrong and missing releases ----------------------------------------------------------------------------------


def wrong_release(setup: OneshotSetup) -> Callable[[Envelope], Envelope]:
    """A corrupt member releases another sum, well-formed and signed."""

    def lie(envelope: Envelope) -> Envelope:
        book = book_root(setup.context, honest.said("MemberBook")[0].message)
        message, share = envelope.message, bytes(len(envelope.message.share))
        statement = say_release(setup.context, book, message.root, share)
        return changed(envelope, share=share, signature=identity(envelope.sender).sign(RELEASE_CONTEXT, statement))

    honest = transcript(setup)
    return lie


def test_wrong_releases_up_to_the_bound_are_corrected_and_named() -> None:
    setup = make_setup(committee=9, corrupt=3, pack=2)
    assert setup.sharing.correctable(9) == 2
    world = World(setup, tamper=lying("Release", wrong_release(setup), ("m002", "m007")))
    assert_exact(world, world.run())
    assert set(faults_of(world)) == {"m002", "m007"}


def test_wrong_releases_beyond_the_bound_fail_by_name() -> None:
    setup = make_setup(committee=9, corrupt=3, pack=2)
    world = World(setup, tamper=lying("Release", wrong_release(setup), ("m001", "m002", "m007")))
    finish = world.run()
    assert finish.error.code == "COMMITTEE_SHORT"
    assert world.opened() is None


def test_a_missing_release_makes_room_for_fewer_wrong_ones() -> None:
    setup = make_setup(committee=9, corrupt=3, pack=2)
    lie = lying("Release", wrong_release(setup), ("m002",))
    for gone in (("m000",), ("m000", "m001")):
        world = World(setup, tamper=lambda e, gone=gone: [] if kind_of(e) == "Release" and e.sender in gone else lie(e))
        assert_exact(world, world.run())
        assert faults_of(world)["m002"] == "its release does not fit the others'"


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"root": b"r" * 32}, "another set"),
        ({"share": bytes(8)}, "8 bytes"),
        ({"signature": b"s" * 64}, "does not hold"),
        ({"share": b"\xff" * 8192}, "does not hold"),
    ],
)
def test_malformed_releases_are_refused(fields: dict[str, object], why: str) -> None:
    world = World(make_setup(), tamper=lying("Release", lambda e: changed(e, **fields), ("m001",)))
    assert_exact(world, world.run())
    assert why in world.refused["m001"]


# --- 4.7 poisoned contributions ----------------------------------------------------------------------------------


def test_4_7_a_wrong_check_lane_opens_no_sum() -> None:
    """What a participant may add is bounded elsewhere; that its vector has the lanes of one is seen here."""
    setup = make_setup()
    for place in (0, 1):
        vector = make_vector(setup, 1)
        vector[setup.session.length - lanes_of(setup).size + place] += 1
        world = World(setup)
        rng = insecure_seeded_rng(1).child("p001")
        world.swap = {"p001": OneshotParticipant(setup, "p001", identity("p001"), vector, rng, setup.roster.members)}
        finish = world.run()
        assert finish.error.code == "CHECK_LANE"
