"""Attacks on `pairwise` through models, keys and lists, one test each. Numbers are those of docs/threats.md."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ridotto.core.machine import COORDINATOR, Envelope
from ridotto.core.rng import OsRng
from ridotto.crypto.seal import ExchangeKey
from ridotto.errors import PeerProtocolError, PlanError
from ridotto.secagg.binding import CONSISTENCY_CONTEXT, KEYS_CONTEXT, keys_statement, survivors_statement
from ridotto.secagg.graph import complete_threshold
from ridotto.secagg.messages import (
    Box,
    Delivery,
    Evidence,
    KeyBook,
    KeyEntry,
    PublicKeys,
    Survivors,
    Unmask,
    Vote,
)
from ridotto.secagg.session import Member, session_id
from tests.conformance.test_sums import changed, kind_of
from tests.conformance.world import World, identity, make_session
from tests.secagg.attack import assert_exact, lying, participant

# --- 4.1 model inconsistency ------------------------------------------------------------------------------------


def test_4_1_participants_of_two_models_never_share_a_session() -> None:
    """One bit of the model differs: the sids differ, so keys signed in one session are refused in the other."""
    honest, other = make_session(), make_session(model=b"m" * 31 + b"n")
    assert session_id(honest) != session_id(other)
    world = World(
        honest, swap={"p001": lambda index: participant(other, index), "p002": lambda i: participant(other, i)}
    )
    finish = world.run()
    assert set(world.refused) == {"p001", "p002"}
    assert finish.error is None
    assert finish.result.included == ("p000", "p003", "p004")
    assert_exact(world, finish.result.included)


def test_4_1_the_coordinator_can_not_pass_keys_from_one_model_to_the_other() -> None:
    """It relabels a message of the other session with this session's id: the signature is over the true one."""
    honest, other = make_session(), make_session(model=b"m" * 31 + b"n")
    stolen = participant(other, 1).start(0.0)[0].message

    def lie(envelope: Envelope) -> Envelope:
        entries = tuple(
            KeyEntry(1, stolen.exchange, stolen.mask, stolen.signature) if entry.member == 1 else entry
            for entry in envelope.message.entries
        )
        return changed(envelope, entries=entries)

    world = World(honest, tamper=lying("KeyBook", lie))
    world.run()
    assert "keys of p001" in world.refused[COORDINATOR]
    assert not world.opened


# --- 4.3 sybils, 4.13 keys ----------------------------------------------------------------------------------------


def test_4_3_a_roster_with_one_key_under_two_names_is_refused() -> None:
    key = identity("p000").public
    with pytest.raises(PlanError, match="share one identity key"):
        make_session(members=(Member("p000", key), Member("p001", key), Member("p002", identity("p002").public)))


def test_4_3_an_identity_that_is_not_in_the_roster_is_refused() -> None:
    def lie(envelope: Envelope) -> Envelope:
        return dataclasses.replace(envelope, sender="sybil")

    world = World(make_session(), tamper=lying("PublicKeys", lie, sender="p001"))
    finish = world.run()
    assert world.refused["sybil"] == "is not a member of this session"
    assert "p001" not in finish.result.included


def test_4_13_somebody_elses_identity_is_refused() -> None:
    """p002 speaks as p001: the signature does not verify, and p001 itself still gets in."""

    def lie(envelope: Envelope) -> Envelope:
        return dataclasses.replace(envelope, sender="p001")

    world = World(make_session(), tamper=lying("PublicKeys", lie, sender="p002"))
    finish = world.run()
    assert "signature" in world.refused["p001"] or "different" in world.refused["p001"]
    assert finish.result.included == ("p000", "p001", "p003", "p004")


@pytest.mark.parametrize("field", ["exchange", "mask"])
def test_4_13_a_swapped_key_is_refused_by_everyone_who_is_shown_it(field: str) -> None:
    """The coordinator puts itself in the middle of one pair."""
    public = ExchangeKey.generate(OsRng()).public

    def lie(envelope: Envelope) -> Envelope:
        entries = tuple(
            KeyEntry(**({f: getattr(entry, f) for f in entry.__struct_fields__} | {field: public}))
            if entry.member == 1
            else entry
            for entry in envelope.message.entries
        )
        return changed(envelope, entries=entries)

    world = World(make_session(), tamper=lying("KeyBook", lie, to="p000"))
    finish = world.run()
    assert world.refused[COORDINATOR] == "the keys of p001 bear no valid signature"
    assert "p000" not in finish.result.included


def test_4_13_my_own_key_can_not_be_left_out_or_shown_twice() -> None:
    for lie in (
        lambda e: changed(e, entries=e.message.entries[1:]),
        lambda e: changed(e, entries=(*e.message.entries[:1], *e.message.entries)),
        lambda e: changed(e, entries=tuple(reversed(e.message.entries))),
    ):
        world = World(make_session(), tamper=lying("KeyBook", lie, to="p000"))
        world.run()
        assert COORDINATOR in world.refused


def test_low_order_keys_are_refused_from_their_owner() -> None:
    """Without this one participant's key of order 1 would make everybody's key agreement fail."""
    session = make_session()
    statement = keys_statement(session_id(session), 1, bytes(32), b"\x01" + bytes(31))
    signature = identity("p001").sign(KEYS_CONTEXT, statement)

    def lie(envelope: Envelope) -> Envelope:
        return changed(envelope, exchange=bytes(32), mask=b"\x01" + bytes(31), signature=signature)

    world = World(session, tamper=lying("PublicKeys", lie, sender="p001"))
    finish = world.run()
    assert world.refused["p001"] == "its keys are unusable"
    assert_exact(world, ("p000", "p002", "p003", "p004"))
    assert finish.error is None


def test_4_8_a_copy_of_somebody_elses_keys_is_refused() -> None:
    world = World(make_session(), tamper=lying("PublicKeys", lambda e: e, sender="p001"))
    world.run()
    keys = world.last("p000", "PublicKeys")
    sid = session_id(world.session)
    copied = PublicKeys(
        sid,
        keys.exchange,
        keys.mask,
        identity("p001").sign(KEYS_CONTEXT, keys_statement(sid, 1, keys.exchange, keys.mask)),
    )
    world = World(
        make_session(), tamper=lying("PublicKeys", lambda e: dataclasses.replace(e, message=copied), sender="p001")
    )
    world.run()
    assert world.refused["p001"] == "its keys are somebody else's, or twice the same"


# --- 4.5 equivocation -------------------------------------------------------------------------------------------


def test_4_5_two_survivor_lists_are_caught_and_nothing_is_opened() -> None:
    """Half the participants are told that p004 dropped out: both its secrets would be revealed if they believed it."""
    world = World(
        make_session(minimum=3),
        tamper=lambda e: (
            [changed(e, included=(0, 1, 2, 3))]
            if kind_of(e) == "Survivors" and e.to in ("p000", "p001", "p002")
            else [e]
        ),
    )
    finish = world.run()
    assert finish.error.code == "TOO_FEW"
    assert not world.opened
    assert not [e for e in world.sent if kind_of(e) == "Unmask"]


@given(
    lists=st.lists(st.sampled_from([(0, 1, 2, 3, 4), (0, 1, 2, 3), (1, 2, 3, 4), (0, 1, 2)]), min_size=5, max_size=5)
)
@settings(max_examples=60, deadline=None)
def test_4_5_no_split_of_lists_reveals_both_secrets_of_anyone(lists: list[tuple[int, ...]]) -> None:
    """Whatever the coordinator shows to whom, and even if it forwards every signature it has to everyone."""
    session = make_session()

    def tamper(envelope: Envelope) -> list[Envelope]:
        shown = int(envelope.to[1:]) if envelope.sender == COORDINATOR else -1
        return [changed(envelope, included=lists[shown])] if kind_of(envelope) == "Survivors" else [envelope]

    world = World(session, tamper=tamper)
    world.run()
    seeds: dict[int, int] = {}
    keys: dict[int, int] = {}
    for envelope in world.sent:
        if isinstance(envelope.message, Unmask):
            believed = lists[int(envelope.sender[1:])]
            for revealed in envelope.message.shares:
                kind = seeds if revealed.owner in believed else keys
                kind[revealed.owner] = kind.get(revealed.owner, 0) + 1
    threshold = complete_threshold(5, 0)
    assert not [o for o in range(5) if seeds.get(o, 0) >= threshold and keys.get(o, 0) >= threshold]


def test_4_5_evidence_below_the_threshold_is_refused() -> None:
    world = World(make_session(), tamper=lying("Evidence", lambda e: changed(e, votes=e.message.votes[:2]), to="p000"))
    world.run()
    assert world.refused[COORDINATOR] == "2 members vouch for its survivor list, 3 are needed"


def test_4_5_forged_and_repeated_votes_are_refused() -> None:
    forged = Vote(1, b"s" * 64)
    for votes in ((forged,), "twice"):

        def lie(envelope: Envelope, votes: object = votes) -> Envelope:
            own = envelope.message.votes
            return changed(envelope, votes=(own[0], own[0], own[0]) if votes == "twice" else (own[0], forged, *own[2:]))

        world = World(make_session(), tamper=lying("Evidence", lie, to="p000"))
        world.run()
        assert COORDINATOR in world.refused


def test_4_12_members_that_only_seem_to_be_there_do_not_count_towards_the_minimum() -> None:
    """Four of six are there, which is the threshold, and the minimum is six.

    The coordinator announced the same session before, let p004 and p005 leave it after they had shared, and so knows
    their mask keys of that time. It shows those again: six keys, six boxes, six survivors, and masks towards p004 and
    p005 that it can remove. The sum over the four that are there would be open if their four signatures were enough.
    """
    session = make_session(count=6, minimum=6, corrupt=1)
    sid, there = session_id(session), [participant(session, index) for index in range(4)]
    keys = [machine.start(0.0)[0].message for machine in (*there, participant(session, 4), participant(session, 5))]
    entries = tuple(KeyEntry(i, key.exchange, key.mask, key.signature) for i, key in enumerate(keys))
    shared = [machine.receive(COORDINATOR, KeyBook(sid, entries), 0.0)[0].message for machine in there]
    assert complete_threshold(6, 1) == len(there)
    votes = []
    for index, machine in enumerate(there):
        boxes = tuple(
            Box(owner, shared[owner].boxes[index - (owner < index)], b"c" * 32, b"c" * 32)
            if owner < len(there)
            else Box(owner, b"b" * 88, b"c" * 32, b"c" * 32)
            for owner in range(6)
            if owner != index
        )
        machine.receive(COORDINATOR, Delivery(sid, boxes), 0.0)
        votes.append(
            Vote(index, machine.receive(COORDINATOR, Survivors(sid, tuple(range(6))), 0.0)[0].message.signature)
        )
    for machine in there:
        with pytest.raises(PeerProtocolError, match="4 members vouch for its survivor list, 6 are needed"):
            machine.receive(COORDINATOR, Evidence(sid, tuple(votes)), 0.0)


def test_4_12_a_list_that_fewer_than_the_minimum_sign_is_not_opened() -> None:
    """The honest coordinator does not ask for what nobody would answer."""
    world = World(make_session(minimum=5), tamper=lying("Consistency", lambda e: None, sender="p004"))
    finish = world.run()
    assert str(finish.error) == "TOO_FEW: 4 sent Consistency, 5 are needed"
    assert not [e for e in world.sent if kind_of(e) in ("Evidence", "Unmask")]


def test_4_14_a_participant_answers_one_survivor_list_only() -> None:
    """Never both shares: after its answer a participant has forgotten what it held and refuses to be asked again."""
    world = World(make_session())
    world.run()
    machine = participant(world.session, 0)
    for envelope in world.sent:
        if envelope.to == "p000":
            machine.receive(COORDINATOR, envelope.message, 0.0)
        elif envelope.sender == "p000" and kind_of(envelope) == "PublicKeys":
            machine.start(0.0)
    sid = session_id(world.session)
    for message in (Survivors(sid, (0, 1, 2)), Evidence(sid, ())):
        with pytest.raises(PeerProtocolError, match="nothing more"):
            machine.receive(COORDINATOR, message, 1.0)


def test_4_14_a_late_vector_is_refused_once_the_owner_counts_as_dropped() -> None:
    world = World(
        make_session(),
        tamper=lambda e: (
            [dataclasses.replace(e, at=11.0)] if e.sender == "p002" and kind_of(e) == "Masked" else slowly(e)
        ),
    )
    finish = world.run()
    assert "late" in world.refused["p002"]
    assert "p002" not in finish.result.included
    assert world.folded.count("p002") == 0


def slowly(envelope: Envelope) -> list[Envelope]:
    """Let consistency signatures take two seconds, so that the session is still open when a late vector comes."""
    return [dataclasses.replace(envelope, at=envelope.at + 2.0) if kind_of(envelope) == "Consistency" else envelope]


def test_a_survivor_list_without_me_or_with_strangers_is_refused() -> None:
    for included, why in (((1, 2, 3, 4), "leaves me out"), ((0, 1), "the minimum is 3"), ((2, 1, 0), "sorted")):
        world = World(
            make_session(),
            tamper=lying("Survivors", lambda e, i=included: changed(e, included=i), to="p000"),
        )
        world.run()
        assert why in world.refused[COORDINATOR]


def test_a_survivor_that_shared_no_mask_with_me_is_refused() -> None:
    """p004's box never reached p000, so p000 did not mask towards it; calling it a survivor would spoil or leak."""

    def tamper(envelope: Envelope) -> list[Envelope]:
        if kind_of(envelope) == "Delivery" and envelope.to == "p000":
            return [changed(envelope, boxes=envelope.message.boxes[:-1])]
        return [envelope]

    world = World(make_session(), tamper=tamper)
    world.run()
    assert world.refused[COORDINATOR] == "its survivor list names members that shared no masks with me"


def test_consistency_signatures_are_over_session_book_and_list() -> None:
    """What a participant signs differs if any of the three does."""
    statements = {
        survivors_statement(sid, book, included)
        for sid in (b"s" * 32, b"t" * 32)
        for book in (b"b" * 32, b"c" * 32)
        for included in ((0, 1, 2), (0, 1, 3), (0, 1))
    }
    assert len(statements) == 12
    assert CONSISTENCY_CONTEXT != KEYS_CONTEXT
