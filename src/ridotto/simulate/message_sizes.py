"""How many bytes each message of a round takes, measured by encoding messages of the same shape.

What a message holds does not matter to its size, only how many elements its lists have: keys, signatures and shares
are of fixed length. Small integers are the exception: MessagePack writes an index from 128 on with a byte more, from
256 on with two; `index_excess` says how many bytes a list of indices takes beyond what is measured here with zeros.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from ridotto.core.fixedpoint import IntVector
from ridotto.core.packing import packed_size
from ridotto.core.sparse_packing import sparse_size
from ridotto.core.vector import Layout
from ridotto.core.wire import PREFIX, Message, sentence
from ridotto.rounds.compression import TopK
from ridotto.rounds.messages import Announce, Closed
from ridotto.rounds.pipeline import Pipeline
from ridotto.rounds.plan import Plan
from ridotto.rounds.sessions import with_committee
from ridotto.secagg.messages import (
    COMMITMENTS_BYTES,
    Box,
    Consistency,
    Delivery,
    Evidence,
    KeyBook,
    KeyEntry,
    Masked,
    Plain,
    PublicKeys,
    Revealed,
    SealedShares,
    Survivors,
    Unmask,
    Vote,
)
from ridotto.secagg.session import Member, Session

Counts = NDArray[np.int64]
"""Numbers of things, one per session or per member."""

_HASH, _SIGNATURE, _SHARE, _SEALED = bytes(32), bytes(64), bytes(36), bytes(88)


def header_bytes(message: Message) -> int:
    """Return the length of a message's frame without its attachment."""
    return PREFIX.size + len(msgspec.msgpack.encode(message))


@lru_cache(maxsize=1 << 15)
def message_bytes(kind: type[Message], count: int = 0, own: int = 0) -> int:
    """Return the size of one of the messages of `pairwise` that bring no vector.

    count: elements of its list (boxes, in the case of SealedShares). own: 1 where an owner holds a share of its own
    secret, as in complete graphs, so that it commits to one more share than it seals.
    """
    return header_bytes(_sample(kind, count, own))


def sizes(kind: type[Message], counts: Counts, own: int = 0) -> Counts:
    """Return `message_bytes` for every element of `counts`."""
    distinct, place = np.unique(counts, return_inverse=True)
    found = np.array([message_bytes(kind, int(count), own) for count in distinct], np.int64)
    return found[place].reshape(np.shape(counts)) if found.size else np.zeros(np.shape(counts), np.int64)


def vector_bytes(plan: Plan, size: int | Layout) -> int:
    """Return the size of the message that brings a participant's vector, the packed vector included.

    Of plans that leave zeros out it is what may be said beforehand: with `TopK` all that is kept is not zero, and with
    `Ternary` everything.
    """
    packed = packed_bytes(plan, size)
    kind = Plain if plan.protocol_name == "ideal" else Masked
    return header_bytes(kind(digest=_HASH, size=packed, sid=_HASH)) + packed


def packed_bytes(plan: Plan, size: int | Layout) -> int:
    """Return the size of a participant's packed vector alone, as `vector_bytes` says."""
    pipeline = Pipeline(plan, size)
    packed = packed_size(pipeline.length, plan.bits)
    kept = next((part.fraction for part in plan.compress if isinstance(part, TopK)), None)
    if kept is not None:
        count = math.ceil(kept * pipeline.encoding.compressed) + pipeline.lanes.size
        packed = sparse_size(count, pipeline.length, plan.bits)
    return packed


def sparse_bytes(vector: IntVector, bits: int) -> int:
    """Return the size of the message that brings this vector where zeros are left out."""
    packed = sparse_size(int(np.count_nonzero(vector)), len(vector), bits)
    return header_bytes(Plain(digest=_HASH, size=packed, sid=_HASH)) + packed


def closed_bytes(reason: str) -> int:
    """Return the size of the message that ends a round."""
    return header_bytes(Closed(_HASH, _HASH, sentence(reason)))


def announce_bytes(
    plan: Plan, size: int | Layout, members: int, number: int, name_bytes: int, helpers: tuple[str, ...] = ()
) -> int:
    """Return the size of the announcement of a session with shard number 0.

    number: of the round. name_bytes: length of a member's name. helpers: names of the session's helpers.
    """
    # A round's number matters by its own size only: all of one size share an entry of the cache.
    width = len(msgspec.msgpack.encode(number))
    stand_in = {1: 0, 2: 1 << 7, 3: 1 << 8, 5: 1 << 16}.get(width, 1 << 32)
    return _announce_bytes(plan.encode(), size, members, stand_in, name_bytes, helpers)


@lru_cache(maxsize=256)
def _announce_bytes(
    encoded: bytes, size: int | Layout, members: int, number: int, name_bytes: int, helpers: tuple[str, ...]
) -> int:
    plan = msgspec.msgpack.decode(encoded, type=Plan)
    width = max(name_bytes, len(str(members)))
    roster = tuple(Member(f"{index:0{width}}", index.to_bytes(32, "big")) for index in range(members))
    neighbours, threshold = plan.sparse(members)
    session: Session = Session(
        protocol=plan.protocol_name,
        plan=_HASH,
        model=_HASH,
        nonce=_HASH,
        round=number,
        shard=0,
        members=roster,
        length=Pipeline(plan, size).length,
        bits=plan.bits,
        minimum=plan.least,
        corrupt=plan.corrupt_of(members),
        neighbours=neighbours,
        threshold=threshold,
        attempt=number,
    )
    seats = plan.seats(members)
    if seats:
        serving = [Member(name, place.to_bytes(32, "little")) for place, name in enumerate(helpers, 1 << 24)]
        session = with_committee(session, seats, Pipeline(plan, size), serving)
    # Numbered names may need more digits than the names that they stand for have letters.
    surplus = len(msgspec.msgpack.encode("x" * width)) - len(msgspec.msgpack.encode("x" * name_bytes))
    return header_bytes(Announce(plan, session, _SIGNATURE)) - surplus * members


def index_excess(indices: Counts) -> Counts:
    """Return, for each index, the bytes that MessagePack needs for it beyond the first."""
    return (indices >= 1 << 7).astype(np.int64) + (indices >= 1 << 8) + 2 * (indices >= 1 << 16)


def _sample(kind: type[Message], count: int, own: int) -> Message:
    built: dict[type[Message], Any] = {
        PublicKeys: lambda: PublicKeys(_HASH, _HASH, _HASH, _SIGNATURE),
        KeyBook: lambda: KeyBook(_HASH, (KeyEntry(0, _HASH, _HASH, _SIGNATURE),) * count),
        SealedShares: lambda: SealedShares(
            _HASH, _HASH, _HASH, (_SEALED,) * count, bytes(COMMITMENTS_BYTES * (count + own))
        ),
        Delivery: lambda: Delivery(_HASH, (Box(0, _SEALED, _HASH, _HASH),) * count),
        Survivors: lambda: Survivors(_HASH, (0,) * count),
        Consistency: lambda: Consistency(_HASH, _SIGNATURE),
        Evidence: lambda: Evidence(_HASH, (Vote(0, _SIGNATURE),) * count),
        Unmask: lambda: Unmask(_HASH, _HASH, (Revealed(0, _SHARE),) * count, ()),
    }
    message: Message = built[kind]()
    return message
