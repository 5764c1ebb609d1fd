"""Vectors of `ideal`: one session, dense or sparse, and refusals."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import msgspec
import numpy as np
from msgspec.structs import replace

from ridotto.core.fixedpoint import IntVector, container
from ridotto.core.machine import COORDINATOR, Machine
from ridotto.core.packing import pack, packed_size
from ridotto.core.sparse_packing import pack_shorter
from ridotto.core.wire import Codec, Message, digest
from ridotto.secagg.messages import IDEAL_MESSAGES
from ridotto.secagg.protocols import sum_protocol
from ridotto.secagg.session import SESSION_DOMAIN, Session, Timeouts, session_id
from vectors.common import BITS, LANES, PARTICIPANTS, identity_of, keys, make_session, rng_of, vector_of
from vectors.opened import OpenedSum
from vectors.recording import Recording, malformed

SPARSE_ENTRIES = 100
PLACES = {"p0": (3, 99), "p1": (3, 50, 51), "p2": tuple(range(0, 100, 3))}
"""Where the sparse vectors are not zero. The last has so many such places that a bit for each element is shorter."""


def session_of(sparse: bool) -> Session:
    """Return a session of three."""
    session = make_session("ideal")
    return replace(session, length=SPARSE_ENTRIES + LANES.size, shard=1) if sparse else session


def input_of(name: str, sparse: bool) -> IntVector:
    """Return a participant's vector; a sparse one has its place plus one where it is not zero."""
    vector = vector_of(name)
    if not sparse:
        return vector
    entries = np.zeros(SPARSE_ENTRIES, container(BITS))
    entries[list(PLACES[name])] = [place + 1 for place in PLACES[name]]
    return np.concatenate([entries, vector[-LANES.size :]])


def machine(name: str, sparse: bool) -> Machine:
    """Return a party as it is before the session."""
    session, protocol = session_of(sparse), sum_protocol("ideal", sparse)
    if name == COORDINATOR:
        return protocol.coordinator(session, Timeouts(100, 10))
    return protocol.participant(session, name, identity_of(name), input_of(name, sparse), rng_of(name))


@cache
def record(sparse: bool) -> tuple[Recording, OpenedSum]:
    """Run the session."""
    total = OpenedSum(session_of(sparse), LANES)
    recording = Recording(Codec(*IDEAL_MESSAGES, attachment_limit=1 << 16), lambda name: machine(name, sparse))
    recording.run((COORDINATOR, *PARTICIPANTS), total.perform)
    return recording, total


def build(sparse: bool = False) -> dict[str, object]:
    """Return everything that is in ideal.json, or in ideal-sparse.json."""
    recording, total = record(sparse)
    session = session_of(sparse)
    return {
        "protocol": "ideal",
        "page": "docs/protocols/ideal.md",
        "private_keys": keys(PARTICIPANTS),
        "session": msgspec.msgpack.encode(session).hex(),
        "sid": session_id(session).hex(),
        "sparse": sparse,
        "vectors": {name: input_of(name, sparse).tolist() for name in PARTICIPANTS},
        "derivations": derivations(sparse),
        "messages": recording.messages(),
        "sum": total.total.tolist(),
        "refusals": refusals(recording, sparse),
    }


def derivations(sparse: bool) -> dict[str, object]:
    """Return how the id and the bytes of vectors come about."""
    session = session_of(sparse)
    inputs = {name: input_of(name, sparse) for name in PARTICIPANTS}
    return {
        "hashed_to_sid": (SESSION_DOMAIN + msgspec.msgpack.encode(session)).hex(),
        "bits": BITS,
        "entries": session.length - LANES.size,
        "packed": {name: bytes(pack(vector, BITS)).hex() for name, vector in inputs.items()},
        "sent": {
            name: bytes((pack_shorter if sparse else pack)(vector, BITS)).hex() for name, vector in inputs.items()
        },
    }


def refusals(recording: Recording, sparse: bool) -> list[dict[str, object]]:
    """Return what is refused."""
    plain, second = recording.find("Plain"), recording.find("Plain", sender="p1")
    cases: list[tuple[str, int, Callable[[Any], Message] | bytes, str | None]] = [
        ("vector of another session", plain, lambda m: replace(m, sid=bytes(32)), None),
        ("digest of another vector", plain, lambda m: replace(m, digest=bytes(32)), None),
        ("size that is not that of the vector", plain, lambda m: replace(m, size=m.size - 1), None),
        ("vector of somebody who is no member", plain, lambda m: m, "p9"),
        ("second, different vector", second, lambda m: m, "p0"),
    ]
    frames = malformed(recording.codec.header(recording.sent[plain][0].message), "Plain")
    cases += [(name, plain, frame, None) for name, frame in frames.items() if frame]
    rows = [recording.refusal(name, at, COORDINATOR, lie, sender=sender) for name, at, lie, sender in cases]
    rows.append(recording.refusal("a vector, to a participant", plain, "p1", lambda m: m))
    honest: Any = recording.sent[plain][0].message
    size = packed_size(session_of(sparse).length, BITS)
    lengths = {"longer vector": size + 1} | ({} if sparse else {"shorter vector": size - 1})
    for name, length in lengths.items():
        lie = recording.codec.header(replace(honest, digest=digest(bytes(length)), size=length))
        rows.append(recording.refusal(name, plain, COORDINATOR, lie, attachment=bytes(length)))
    return rows
