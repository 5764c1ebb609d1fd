"""What every secure sum must do: the list that a new protocol joins by one line in `PROTOCOLS`."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ridotto.core.machine import COORDINATOR, SELF, Envelope
from ridotto.core.rng import insecure_seeded_rng
from ridotto.core.wire import Attached, Codec, Message, digest
from ridotto.errors import PeerProtocolError, RoundFailedError
from ridotto.secagg.protocols import PROTOCOLS
from ridotto.secagg.session import Session, Timeouts
from tests.conformance.world import World, identity, make_session, make_vector

HYBRID = ("oneshot hybrid", "committee hybrid")
"""Protocols with another seal than the usual one, as `make_session` takes them."""

ALL = pytest.mark.parametrize("protocol", [*sorted(PROTOCOLS), *HYBRID])

FROM_PARTICIPANTS = {
    "ideal": ["Plain"],
    "pairwise": ["PublicKeys", "SealedShares", "Masked", "Consistency", "Unmask"],
    "oneshot": ["Contribution"],
    "committee": ["MaskedVector"],
    "oneshot hybrid": ["Contribution"],
    "committee hybrid": ["MaskedVector"],
}
"""What participants send, in order, by protocol; those who also have a seat are tested in `tests/secagg/oneshot`."""

INPUTS = ("Plain", "Masked", "Contribution", "MaskedVector")
"""The messages that bring a vector."""

STEPS = [(protocol, kind) for protocol, kinds in FROM_PARTICIPANTS.items() for kind in kinds]


def kind_of(envelope: Envelope) -> str:
    return type(envelope.message).__name__


def changed(envelope: Envelope, **fields: object) -> Envelope:
    """Return the envelope with other fields in its message."""
    message = envelope.message
    values = {name: getattr(message, name) for name in message.__struct_fields__} | fields
    return dataclasses.replace(envelope, message=type(message)(**values))


def assert_exact(world: World, included: tuple[str, ...]) -> None:
    np.testing.assert_array_equal(world.opened_sum(), world.total(included))


@ALL
@pytest.mark.parametrize("bits", [8, 13, 16, 24, 32, 47, 64])
def test_opens_exactly_the_sum_of_all(protocol: str, bits: int) -> None:
    session = make_session(protocol, bits=bits)
    world = World(session)
    finish = world.run()
    assert finish.error is None
    assert finish.result.included == tuple(member.name for member in session.members)
    assert_exact(world, finish.result.included)


@ALL
def test_order_of_arrival_does_not_change_a_bit(protocol: str) -> None:
    sums = []
    for sign in (1, -1):
        world = World(
            make_session(protocol),
            tamper=lambda e, sign=sign: [
                dataclasses.replace(e, at=e.at + 0.5 + sign * 0.01 * sum(map(ord, e.sender)) % 1)
            ],
        )
        world.run()
        sums.append(world.opened_sum().tobytes())
    assert sums[0] == sums[1]


@pytest.mark.parametrize(("protocol", "kind"), STEPS)
@pytest.mark.parametrize("gone", [("p001",), ("p000", "p004")])
def test_survives_drop_outs_before_every_message(protocol: str, kind: str, gone: tuple[str, ...]) -> None:
    world = World(
        make_session(protocol, count=7), tamper=lambda e: [] if e.sender in gone and kind_of(e) == kind else [e]
    )
    finish = world.run()
    assert finish.error is None
    assert_exact(world, finish.result.included)
    assert set(finish.result.lost) == set(gone)
    input_came = FROM_PARTICIPANTS[protocol].index(kind) > max(
        i for i, name in enumerate(FROM_PARTICIPANTS[protocol]) if name in INPUTS
    )
    assert (set(gone) <= set(finish.result.included)) == input_came


@pytest.mark.parametrize(("protocol", "kind"), STEPS)
def test_fails_with_a_reason_and_opens_nothing_when_too_few_are_left(protocol: str, kind: str) -> None:
    gone = ("p001", "p002", "p003", "p004")
    world = World(make_session(protocol), tamper=lambda e: [] if e.sender in gone and kind_of(e) == kind else [e])
    finish = world.run()
    assert isinstance(finish.error, RoundFailedError)
    assert finish.error.code == "TOO_FEW"
    assert "1" in finish.error.reason
    assert not world.opened


@pytest.mark.parametrize(("protocol", "kind"), STEPS)
def test_takes_the_same_message_twice_and_counts_it_once(protocol: str, kind: str) -> None:
    world = World(make_session(protocol), tamper=lambda e: [e, e] if kind_of(e) == kind else [e])
    finish = world.run()
    assert finish.error is None
    assert_exact(world, finish.result.included)
    assert sorted(world.folded) == sorted(finish.result.included)


@pytest.mark.parametrize(("protocol", "kind"), STEPS)
def test_refuses_a_second_different_message_by_name(protocol: str, kind: str) -> None:
    def tamper(envelope: Envelope) -> list[Envelope]:
        if envelope.sender != "p002" or kind_of(envelope) != kind:
            return [envelope]
        return [envelope, contradicted(envelope)]

    world = World(make_session(protocol), tamper=tamper)
    finish = world.run()
    assert finish.error is None
    assert_exact(world, finish.result.included)
    assert "different" in world.refused["p002"]


@pytest.mark.parametrize(("protocol", "kind"), STEPS)
def test_refuses_a_late_message_by_name(protocol: str, kind: str) -> None:
    late = 500.0
    world = World(
        make_session(protocol),
        tamper=lambda e: [dataclasses.replace(e, at=late)] if e.sender == "p002" and kind_of(e) == kind else [e],
    )
    finish = world.run()
    assert finish.error is None
    assert_exact(world, finish.result.included)
    assert "p002" in finish.result.lost
    # After its end a machine hears nothing, so ask it directly.
    with pytest.raises(PeerProtocolError, match="late"):
        world.coordinator.receive("p002", world.last("p002", kind), late)


@pytest.mark.parametrize(("protocol", "kind"), STEPS)
def test_refuses_a_message_of_another_session(protocol: str, kind: str) -> None:
    world = World(
        make_session(protocol),
        tamper=lambda e: [changed(e, sid=b"x" * 32)] if e.sender == "p002" and kind_of(e) == kind else [e],
    )
    finish = world.run()
    assert "another session" in world.refused["p002"]
    assert finish.error is None
    assert_exact(world, finish.result.included)


@pytest.mark.parametrize(("protocol", "kind"), STEPS)
def test_refuses_a_message_of_a_recorded_session(protocol: str, kind: str) -> None:
    """Replay: what was recorded in one session is refused in the next, which differs in its nonce only."""
    first = World(make_session(protocol))
    first.run()
    recorded = first.last("p002", kind)
    second = World(
        make_session(protocol, nonce=b"N" * 32),
        tamper=lambda e: [replayed(e, recorded)] if e.sender == "p002" and kind_of(e) == kind else [e],
    )

    def replayed(envelope: Envelope, message: Message) -> Envelope:
        source = next(e for e in first.sent if e.message is message)
        return dataclasses.replace(envelope, message=message, attachment=source.attachment)

    finish = second.run()
    assert "another session" in second.refused["p002"]
    assert finish.error is None
    assert_exact(second, finish.result.included)


@ALL
def test_refuses_early_messages(protocol: str) -> None:
    kinds = FROM_PARTICIPANTS[protocol]
    world = World(make_session(protocol))
    world.run()
    fresh = PROTOCOLS[protocol.split(maxsplit=1)[0]].coordinator(world.session, Timeouts(100, 10))
    fresh.start(0.0)
    for kind in kinds[1:]:
        with pytest.raises(PeerProtocolError, match="early"):
            fresh.receive("p001", world.last("p001", kind), 0.0)


@ALL
def test_refuses_strangers_and_what_only_the_coordinator_says(protocol: str) -> None:
    world = World(make_session(protocol))
    world.run()
    fresh = PROTOCOLS[protocol.split(maxsplit=1)[0]].coordinator(world.session, Timeouts(100, 10))
    fresh.start(0.0)
    first = FROM_PARTICIPANTS[protocol][0]
    with pytest.raises(PeerProtocolError, match=r"mallory: is (not a member|no participant)"):
        fresh.receive("mallory", world.last("p001", first), 0.0)
    for envelope in world.sent:
        if envelope.sender == COORDINATOR:
            with pytest.raises(PeerProtocolError):
                fresh.receive("p001", envelope.message, 0.0)


@ALL
def test_participants_listen_to_the_coordinator_only(protocol: str) -> None:
    world = World(make_session(protocol))
    world.run()
    machine = fresh_participant(world.session, "p000")
    machine.start(0.0)
    for envelope in world.sent:
        for sender in ("p001", SELF):
            with pytest.raises(PeerProtocolError):
                machine.receive(sender, envelope.message, 0.0)


@pytest.mark.parametrize("kind", ["Plain", "Masked"])
@pytest.mark.parametrize("size", [0, 1, 35, 37, 4000])
def test_refuses_a_vector_of_the_wrong_length_by_name(kind: str, size: int) -> None:
    def tamper(envelope: Envelope) -> list[Envelope]:
        if envelope.sender != "p002" or not isinstance(envelope.message, Attached):
            return [envelope]
        vector = bytes(size)
        message = changed(envelope, digest=digest(vector), size=size)
        return [dataclasses.replace(message, attachment=vector)]

    world = World(make_session("ideal" if kind == "Plain" else "pairwise"), tamper=tamper)
    finish = world.run()
    assert "bytes, expected 36" in world.refused["p002"]
    assert "p002" not in finish.result.included
    assert_exact(world, finish.result.included)


@ALL
def test_a_vector_without_its_check_lanes_spoils_the_sum_and_is_noticed(protocol: str) -> None:
    """A participant can add anything; that it broke the encoding shows in the lanes, and no sum is passed on."""
    session = make_session(protocol)
    world = World(session, vectors={"p002": make_vector(session, 2) + 1})
    finish = world.run()
    assert isinstance(finish.error, RoundFailedError)
    assert finish.error.code == "CHECK_LANE"


@ALL
@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=300))
def test_random_bytes_never_get_past_the_codec(protocol: str, data: bytes) -> None:
    codec = Codec(*PROTOCOLS[protocol.split(maxsplit=1)[0]].messages, attachment_limit=1 << 20)
    with pytest.raises(PeerProtocolError):
        codec.decode(data, "p001")


@ALL
@settings(max_examples=150, deadline=None)
@given(choices=st.lists(st.tuples(st.integers(0, 200), st.integers(0, 4), st.integers(0, 2)), max_size=60))
def test_any_shuffle_of_honest_messages_raises_nothing_but_refusals(
    protocol: str, choices: list[tuple[int, int, int]]
) -> None:
    """Feed a coordinator and a participant honest messages in any order, from any sender, at any time."""
    world = honest_world(protocol)
    coordinator = PROTOCOLS[protocol.split(maxsplit=1)[0]].coordinator(world.session, Timeouts(100, 10))
    participant = fresh_participant(world.session, "p000")
    coordinator.start(0.0)
    participant.start(0.0)
    for pick, sender, hours in choices:
        envelope = world.sent[pick % len(world.sent)]
        now = 40.0 * hours
        with_refusals(lambda e=envelope, s=sender, t=now: coordinator.receive(f"p{s:03}", e.message, t))
        with_refusals(lambda e=envelope, t=now: participant.receive(COORDINATOR, e.message, t))
        coordinator.expire(now)


@ALL
def test_repeats_itself_bit_for_bit(protocol: str) -> None:
    """Replay rests on this: same arguments, same seed, same messages, tasks' answers too, give the same messages."""
    first = World(make_session(protocol))
    worlds = [first, World(make_session(protocol), drawn=first.drawn)]
    for world in worlds:
        world.run()
    for one, other in itertools.zip_longest(worlds[0].sent, worlds[1].sent):
        assert one.message == other.message
        assert bytes(one.attachment or b"") == bytes(other.attachment or b"")


def with_refusals(call: object) -> None:
    try:
        call()  # type: ignore[operator]
    except PeerProtocolError:
        return


def honest_world(protocol: str) -> World:
    if protocol not in _HONEST:
        _HONEST[protocol] = World(make_session(protocol))
        _HONEST[protocol].run()
    return _HONEST[protocol]


_HONEST: dict[str, World] = {}


def fresh_participant(session: Session, name: str) -> object:
    half = PROTOCOLS[session.protocol].participant
    index = [member.name for member in session.members].index(name)
    return half(session, name, identity(name), make_vector(session, index), insecure_seeded_rng(1).child(index))


def contradicted(envelope: Envelope) -> Envelope:
    """Return a message of the same kind and sender that says something else."""
    if isinstance(envelope.message, Attached):
        vector = bytes(envelope.message.size)
        return dataclasses.replace(changed(envelope, digest=digest(vector)), attachment=vector)
    others = {"signature": b"s" * 64, "seed_commitment": b"c" * 32, "seed": b"s" * 32}
    return changed(envelope, **{k: v for k, v in others.items() if k in envelope.message.__struct_fields__})
