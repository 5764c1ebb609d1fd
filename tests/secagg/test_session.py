"""What a session is, what its id covers, and which sessions can't be described."""

from __future__ import annotations

import hashlib

import msgspec
import pytest

from ridotto.core.rng import insecure_seeded_rng
from ridotto.core.wire import Codec
from ridotto.errors import LocalProtocolError, PeerProtocolError, PlanError
from ridotto.secagg.messages import PAIRWISE_MESSAGES, KeyBook, KeyEntry, PublicKeys, Survivors
from ridotto.secagg.pairwise import PairwiseParticipant
from ridotto.secagg.pairwise.group import form_group
from ridotto.secagg.session import Member, Session, Timeouts, index_of, session_id
from tests.conformance.world import identity, make_session, make_vector


def test_session_id_is_the_hash_of_its_encoding() -> None:
    """Spelled out, so that another implementation can follow: an array of the tag and the fields in order."""
    session = make_session(count=3)
    fields = [
        "Session",
        "pairwise",
        b"p" * 32,
        b"m" * 32,
        b"n" * 32,
        1,
        0,
        [[f"p00{i}", identity(f"p00{i}").public] for i in range(3)],
        session.length,
        32,
        3,
        0,
        0,
        0,
        0,
    ]
    expected = hashlib.sha256(b"ridotto/1 session\x00" + msgspec.msgpack.encode(fields)).digest()
    assert session_id(session) == expected


CHANGES: dict[str, object] = {
    "protocol": "ideal",
    "plan": b"P" * 32,
    "model": b"M" * 32,
    "nonce": b"N" * 32,
    "round": 2,
    "shard": 1,
    "members": make_session(count=6).members,
    "length": 100,
    "bits": 16,
    "minimum": 4,
    "corrupt": 1,
    "neighbours": 4,
    "threshold": 5,
    "attempt": 9,
}


@pytest.mark.parametrize("field", CHANGES)
def test_session_id_covers_every_field(field: str) -> None:
    session = make_session(neighbours=6, threshold=4)
    other = msgspec.structs.replace(session, **{field: CHANGES[field]})
    assert session_id(other) != session_id(session)


def test_every_field_is_in_the_list_above() -> None:
    assert set(CHANGES) == set(Session.__struct_fields__)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"members": make_session().members[::-1]}, "sorted by name"),
        ({"members": make_session().members[:1] * 2, "minimum": 1}, "each once"),
        ({"members": (Member("coordinator", b"k" * 32),), "minimum": 1}, "reserved name"),
        ({"members": (Member("self", b"k" * 32),), "minimum": 1}, "reserved name"),
        ({"members": (Member("a", b"k" * 32), Member("b", b"k" * 32)), "minimum": 2}, "share one identity key"),
        ({"minimum": 6}, "corrupt < minimum <= members"),
        ({"minimum": 2, "corrupt": 2}, "corrupt < minimum <= members"),
        ({"neighbours": 3, "threshold": 2}, "even number of neighbours"),
        ({"neighbours": 4, "threshold": 2}, "above half of it"),
        ({"neighbours": 4, "threshold": 5}, "not 4 and 5"),
        ({"neighbours": 0, "threshold": 2}, "not 0 and 2"),
        ({"neighbours": 4, "threshold": 0}, "not 4 and 0"),
    ],
)
def test_refuses_a_session_that_can_not_be(changes: dict[str, object], why: str) -> None:
    with pytest.raises(PlanError, match=why):
        make_session(**changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("field", [{"bits": 7}, {"bits": 65}, {"length": 0}, {"plan": b"p" * 31}, {"round": -1}])
def test_a_session_out_of_bounds_does_not_decode(field: dict[str, object]) -> None:
    encoded = msgspec.msgpack.encode(msgspec.structs.replace(make_session(), **field))  # type: ignore[arg-type]
    with pytest.raises(msgspec.ValidationError):
        msgspec.msgpack.decode(encoded, type=Session)


def test_index_of_finds_members_only() -> None:
    assert index_of(make_session(), "p002") == 2
    with pytest.raises(PeerProtocolError, match="mallory: is not a member of this session"):
        index_of(make_session(), "mallory")


@pytest.mark.parametrize("seconds", [(0, 1), (1, 0), (-1, 1), (float("nan"), 1)])
def test_timeouts_are_positive(seconds: tuple[float, float]) -> None:
    with pytest.raises(PlanError, match="timeouts are positive"):
        Timeouts(*seconds)


# --- the group that a key book makes ----------------------------------------------------------------------------


def entries(count: int) -> tuple[KeyEntry, ...]:
    return tuple(KeyEntry(i, bytes([i]) * 32, bytes([100 + i]) * 32, b"s" * 64) for i in range(count))


def test_a_sparse_session_uses_its_graph_while_that_is_safe() -> None:
    session = make_session(count=40, neighbours=10, threshold=8)
    group = form_group(session, b"s" * 32, entries(40))
    assert group.threshold == 8
    assert all(len(group.holders[member]) == 10 for member in range(40))
    assert all(group.neighbours(member) == group.holders[member] for member in range(40))


@pytest.mark.parametrize("present", [5, 11])
def test_a_sparse_graph_without_room_becomes_a_complete_one(present: int) -> None:
    group = form_group(make_session(count=40, neighbours=10, threshold=8), b"s" * 32, entries(present))
    assert group.threshold == present // 2 + 1
    assert group.holders[0] == tuple(range(present))
    assert group.neighbours(0) == tuple(range(1, present))


def test_a_sparse_graph_that_is_not_safe_for_those_present_becomes_a_complete_one() -> None:
    """With 10 of 20 corrupt, some neighbourhood of 10 is likely to have 2t - k = 6 corrupt ones."""
    session = make_session(count=40, minimum=11, corrupt=10, neighbours=10, threshold=8)
    assert form_group(session, b"s" * 32, entries(20)).threshold == (20 + 10) // 2 + 1


def test_a_participant_refuses_a_threshold_of_one() -> None:
    """A hostile coordinator shows a key book of one: each share would be the secret."""
    session = make_session(count=2, minimum=1)
    alone = PairwiseParticipant(session, "p000", identity("p000"), make_vector(session, 0), insecure_seeded_rng(1))
    keys = alone.start(0.0)[0].message
    assert isinstance(keys, PublicKeys)
    book = KeyBook(session_id(session), (KeyEntry(0, keys.exchange, keys.mask, keys.signature),))
    with pytest.raises(PeerProtocolError, match="1 holders can't share with a threshold of 1"):
        alone.receive("coordinator", book, 0.0)


def test_a_participant_refuses_a_vector_of_another_length() -> None:
    session = make_session()
    with pytest.raises(LocalProtocolError, match="the vector has 3 elements"):
        PairwiseParticipant(session, "p000", identity("p000"), make_vector(session, 0)[:3], insecure_seeded_rng(1))


# --- limits -----------------------------------------------------------------------------------------------------


def test_a_list_longer_than_any_session_is_refused_before_it_is_built() -> None:
    codec = Codec(*PAIRWISE_MESSAGES)
    long = Survivors(b"s" * 32, (0,) * 10_001)
    with pytest.raises(PeerProtocolError, match="length <= 10000"):
        codec.decode(codec.header(long), "coordinator")
