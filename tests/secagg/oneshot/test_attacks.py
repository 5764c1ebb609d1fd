"""Attacks on `oneshot`, one test each. Numbers are those of docs/threats.md."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from ridotto.core.machine import COORDINATOR, Effect, Envelope, Finish, Send
from ridotto.core.rng import insecure_seeded_rng
from ridotto.core.wire import digest
from ridotto.crypto.lattice import packed_shamir
from ridotto.crypto.lattice.kahe import generate_key
from ridotto.crypto.seal import ExchangeKey, verify
from ridotto.crypto.shamir import PRIME
from ridotto.errors import PeerProtocolError
from ridotto.secagg.committee_roles.agreement import ACK_CONTEXT, Equivocation, ack_statement, set_root, sign_ack
from ridotto.secagg.committee_roles.keys import book_root
from ridotto.secagg.committee_roles.messages import Ack, Acks, Checked, Included, MemberBook, SeatVote
from ridotto.secagg.oneshot import OneshotCoordinator, OneshotParticipant, OneshotSetup, participant
from ridotto.secagg.oneshot.binding import CONTRIBUTION_CONTEXT, RELEASE_CONTEXT, contribution_statement
from ridotto.secagg.oneshot.binding import release_statement as say_release
from ridotto.secagg.oneshot.coordinator import MemberFaults
from ridotto.secagg.oneshot.messages import Parcels, Release
from ridotto.secagg.session import Timeouts
from tests.secagg.oneshot.world import World, identity, lanes_of, make_pool, make_setup, make_vector, member

SMALL = {"committee": 3, "corrupt": 1, "pack": 1}


def kind_of(envelope: Envelope) -> str:
    return type(envelope.message).__name__


def changed(envelope: Envelope, **fields: object) -> Envelope:
    return dataclasses.replace(envelope, message=replace(envelope.message, **fields))


def lying(kind: str, lie: Callable[[Envelope], Envelope], sender: tuple[str, ...] = (), to: tuple[str, ...] = ()):
    """Return a network in which one kind of message, from or to somebody, is changed."""

    def tamper(envelope: Envelope) -> list[Envelope]:
        meant = (not sender or envelope.sender in sender) and (not to or envelope.to in to)
        return [lie(envelope)] if kind_of(envelope) == kind and meant else [envelope]

    return tamper


def assert_exact(world: World, finish: Finish, included: tuple[str, ...] | None = None) -> None:
    assert finish.error is None
    if included is not None:
        assert finish.result.included == included
    np.testing.assert_array_equal(world.opened(), world.total(finish.result.included))


def faults_of(world: World) -> dict[str, str]:
    return dict(
        fault for record in world.router.published if isinstance(record, MemberFaults) for fault in record.faults
    )


def reasons(world: World) -> list[tuple[str, str]]:
    """Return who refused something, and why."""
    return [(name, refusal.why) for name, refusal in world.router.refusals]


def resigned(setup: OneshotSetup, envelope: Envelope, **fields: object) -> Envelope:
    """Change a contribution and sign it anew, as its sender can."""
    message = replace(envelope.message, **fields)
    place = [one.name for one in setup.session.members].index(envelope.sender)
    statement = contribution_statement(setup.context, message.book, place, message.public, message.digest)
    signature = identity(envelope.sender).sign(CONTRIBUTION_CONTEXT, statement)
    return dataclasses.replace(envelope, message=replace(message, signature=signature))


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


# --- 4.5 equivocation -------------------------------------------------------------------------------------------


def transcript(setup: OneshotSetup) -> World:
    world = World(setup)
    world.run()
    return world


def at_acknowledgement(world: World, names: list[str]) -> dict[str, object]:
    """Bring members to the point where they wait for the set."""
    machines = {}
    for name in names:
        machine = world.member(name)
        machine.start(0.0)
        machine.receive(COORDINATOR, next(one.message for one in world.said("MemberBook") if one.to == name), 0.0)
        machine.receive(COORDINATOR, next(one.message for one in world.said("Parcels") if one.to == name), 0.0)
        machines[name] = machine
    return machines


SETS = ((0, 1, 2, 3, 4), (0, 1, 2, 3), (1, 2, 3, 4))
HONEST = transcript(make_setup(committee=5, corrupt=2, pack=1))


@given(shown=st.lists(st.sampled_from(SETS), min_size=3, max_size=3), order=st.permutations(range(3)))
@settings(max_examples=40)
def test_4_5_whatever_the_coordinator_shows_to_whom_at_most_one_set_is_released(
    shown: list[tuple[int, ...]], order: list[int]
) -> None:
    """Five members, two corrupt who sign and release what the coordinator likes. It tries every set on everybody."""
    setup, context = HONEST.setup, HONEST.setup.context
    book = book_root(context, HONEST.said("MemberBook")[0].message)
    digests = {parcel.participant: parcel.digest for parcel in HONEST.said("Parcels")[0].message.parcels}
    honest = ["m000", "m001", "m002"]
    machines = at_acknowledgement(HONEST, honest)
    votes: dict[bytes, list[SeatVote]] = {}
    for participants in SETS:
        root = set_root({index: digests[index] for index in participants})
        for seat in (3, 4):
            ack = sign_ack(identity(f"m00{seat}"), setup.sid, context, book, root)
            votes.setdefault(root, []).append(SeatVote(seat, ack.signature))
    for seat, name in enumerate(honest):
        ack = machines[name].receive(COORDINATOR, Included(setup.sid, shown[seat]), 0.0)[0].message
        votes[ack.root].append(SeatVote(seat, ack.signature))
        with pytest.raises(PeerProtocolError, match="came where Acks belongs"):
            machines[name].receive(COORDINATOR, Included(setup.sid, SETS[0]), 0.0)
    released = set()
    for place in order:
        for root, given_votes in votes.items():
            acks = Acks(setup.sid, tuple(sorted(given_votes, key=lambda vote: vote.seat)))
            try:
                effects = machines[honest[place]].receive(COORDINATOR, acks, 0.0)
            except PeerProtocolError:
                continue
            assert effects[0].message.root == root
            released.add(root)
    assert len(released) <= 1
    needed = setup.roster.quorum - 2
    assert bool(released) == any(shown.count(one) >= needed for one in SETS)


def test_4_5_two_sets_shown_open_nothing() -> None:
    """Half of the committee is told that p004 is not in it."""
    world = World(
        make_setup(),
        tamper=lying("Included", lambda e: changed(e, participants=(0, 1, 2, 3)), to=("m000", "m001", "m002")),
    )
    finish = world.run()
    assert finish.error.code == "COMMITTEE_SHORT"
    assert not world.said("Release")
    assert {world.refused[name] for name in ("m000", "m001", "m002")} == {"it acknowledged another set"}


def test_4_5_a_member_that_acknowledges_two_sets_is_proved_to() -> None:
    setup = make_setup()
    honest = transcript(setup)
    book = book_root(setup.context, honest.said("MemberBook")[0].message)
    second = sign_ack(identity("m003"), setup.sid, setup.context, book, b"r" * 32)

    def tamper(envelope: Envelope) -> list[Envelope]:
        both = kind_of(envelope) == "Ack" and envelope.sender == "m003"
        return [envelope, dataclasses.replace(envelope, message=second)] if both else [envelope]

    world = World(setup, tamper=tamper)
    assert_exact(world, world.run())
    proof = next(record for record in world.router.published if isinstance(record, Equivocation))
    assert (proof.member, proof.first.root == proof.second.root) == ("m003", False)
    for ack in (proof.first, proof.second):
        verify(identity("m003").public, ACK_CONTEXT, ack_statement(proof.context, proof.book, ack.root), ack.signature)


def test_4_5_a_forged_second_acknowledgement_proves_nothing() -> None:
    forged = Ack(make_setup().sid, b"r" * 32, b"s" * 64)
    world = World(
        make_setup(),
        tamper=lambda e: (
            [e, dataclasses.replace(e, message=forged)] if kind_of(e) == "Ack" and e.sender == "m003" else [e]
        ),
    )
    assert_exact(world, world.run())
    assert "m003" in world.refused
    assert not [record for record in world.router.published if isinstance(record, Equivocation)]


@pytest.mark.parametrize("lie", ["short", "unsorted", "forged"])
def test_4_5_acknowledgements_that_do_not_hold_are_refused(lie: str) -> None:
    def change(envelope: Envelope) -> Envelope:
        votes = envelope.message.votes
        forged = (*votes[:2], SeatVote(2, b"s" * 64), *votes[3:])
        return changed(envelope, votes={"short": votes[:4], "unsorted": votes[::-1], "forged": forged}[lie])

    world = World(make_setup(), tamper=lying("Acks", change, to=("m000",)))
    assert_exact(world, world.run())
    assert "acknowledg" in world.refused[COORDINATOR]


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


# --- 4.11 overlapping sums, 4.12 small cohorts --------------------------------------------------------------------


def test_4_11_a_member_releases_once() -> None:
    world = transcript(make_setup())
    machine = at_acknowledgement(world, ["m000"])["m000"]
    machine.receive(COORDINATOR, world.said("Included")[0].message, 0.0)
    acks = world.said("Acks")[0].message
    assert isinstance(machine.receive(COORDINATOR, acks, 0.0)[0].message, Release)
    for again in (acks, world.said("Included")[0].message, world.said("Parcels")[0].message):
        with pytest.raises(PeerProtocolError, match="nothing more belongs"):
            machine.receive(COORDINATOR, again, 0.0)


def test_4_11_parcels_are_opened_once() -> None:
    world = transcript(make_setup())
    machine = at_acknowledgement(world, ["m000"])["m000"]
    parcels = next(one.message for one in world.said("Parcels") if one.to == "m000")
    with pytest.raises(PeerProtocolError, match="Parcels came where Included belongs"):
        machine.receive(COORDINATOR, Parcels(parcels.sid, parcels.parcels[:3]), 0.0)


@pytest.mark.parametrize("kind", ["Parcels", "Included"])
def test_4_12_members_refuse_sets_below_the_minimum(kind: str) -> None:
    field = {"Parcels": "parcels", "Included": "participants"}[kind]
    world = World(make_setup(), tamper=lying(kind, lambda e: changed(e, **{field: getattr(e.message, field)[:2]})))
    finish = world.run()
    assert "the minimum is 3" in world.refused[COORDINATOR]
    assert finish.error.code == "COMMITTEE_SHORT"
    assert not world.said("Release")


def test_4_12_too_few_contributions_open_nothing() -> None:
    world = World(make_setup(), gone=("p000", "p001", "p002"))
    finish = world.run()
    assert finish.error.code == "TOO_FEW"
    assert not world.said("Parcels")


@pytest.mark.parametrize("participants", [(0, 1, 2, 7), (2, 1, 0), (0, 1, 1, 2), (0, 1, 2, 4)])
def test_4_12_sets_of_others_than_was_delivered_are_refused(participants: tuple[int, ...]) -> None:
    world = World(
        make_setup(),
        gone=("p004",),
        tamper=lying("Included", lambda e: changed(e, participants=participants), to=("m000",)),
    )
    assert_exact(world, world.run())
    assert "its set" in world.refused[COORDINATOR]


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
