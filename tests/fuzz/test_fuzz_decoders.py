"""One target per decoder: whatever bytes come in, what comes out is a value or the decoder's own refusal."""

from __future__ import annotations

import functools

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ridotto.core.fixedpoint import container
from ridotto.core.packing import pack, packed_size, unpack
from ridotto.core.tensors import read_metadata, read_model, write_model
from ridotto.core.vector import Field, Layout
from ridotto.core.wire import HEADER_LIMIT, PREFIX, Attached, Codec, Message, digest
from ridotto.crypto.identity import RequestAuthError, sign_request, verify_request
from ridotto.errors import DataError, PeerProtocolError, PlanError
from ridotto.rounds.messages import Announce, messages_of_all
from ridotto.rounds.plan import Plan
from ridotto.rounds.record import SignedRecord, sign_record
from ridotto.rounds.service import Enrolment, FederationInfo, Inbox, Problem, RunState
from ridotto.secagg.protocols import PROTOCOLS
from ridotto.secagg.session import Session
from tests.conformance.world import identity
from tests.fuzz.mutations import changed, examples, hostile, only_refuses, peak_of
from tests.rounds.federation import Federation, make_plan
from tests.rounds.test_record import make_record

pytestmark = pytest.mark.fuzz

CODEC = Codec(*messages_of_all(), attachment_limit=1 << 16)

CONSTANT = 1 << 20
"""What a decoder may allocate whatever the input: tables, caches, error messages."""

LAYOUT = Layout((Field("weight", (2, 3), "float32"), Field("b", (), "bfloat16")))
MODEL = write_model(np.arange(7, dtype=np.float32), LAYOUT, {"round": "1"})

BODY_ERRORS = (msgspec.MsgspecError, PlanError, UnicodeDecodeError, RecursionError, OverflowError)
"""What decoding a body may raise; the client turns each of them into PeerProtocolError."""


@functools.cache
def conversations() -> tuple[tuple[Message, bytes], ...]:
    """Return every message of one round of each protocol, with its frame."""
    found = []
    for protocol in sorted(PROTOCOLS):
        federation = Federation(make_plan(protocol=protocol), untrained={"p004": "no data"})
        federation.run()
        found += [
            (envelope.message, CODEC.encode(envelope.message, envelope.attachment)) for envelope in federation.sent
        ]
    kinds = {type(message) for message, _ in found}
    assert kinds == set(messages_of_all())
    # One of each kind is enough, and keeps the choice balanced.
    return tuple(next(pair for pair in found if type(pair[0]) is kind) for kind in messages_of_all())


FRAMES = [frame for _, frame in conversations()]
MESSAGES = [message for message, _ in conversations()]


# --- frames -----------------------------------------------------------------------------------------------------


@given(frame=hostile(FRAMES))
def test_fuzz_frames(frame: bytes) -> None:
    decoded = only_refuses(lambda: CODEC.decode(frame, "p000"))
    if decoded is not None:
        message, attachment = decoded
        assert isinstance(message, Attached) == (attachment is not None)
        assert CODEC.decode(CODEC.encode(message, attachment), "p000")[0] == message


@examples(200, 20_000)
@given(message=st.sampled_from(MESSAGES).flatmap(changed))
def test_fuzz_messages_with_a_changed_field(message: Message) -> None:
    header = only_refuses(lambda: msgspec.msgpack.encode(message), OverflowError, TypeError, UnicodeEncodeError)
    if isinstance(header, bytes):
        only_refuses(lambda: CODEC.decode(PREFIX.pack(1, len(header)) + header, "p000"))


@examples(60, 2_000)
@given(frame=hostile(FRAMES))
def test_fuzz_frames_cost_no_more_memory_than_they_have_bytes(frame: bytes) -> None:
    assert peak_of(lambda: only_refuses(lambda: CODEC.decode(frame, "p000"))) <= 2 * len(frame) + CONSTANT


def packed_list(head: bytes, element: bytes, count: int) -> bytes:
    """Frame a message whose last field is a list of `count` tiny elements."""
    header = head + b"\xdd" + count.to_bytes(4, "big") + element * count
    return PREFIX.pack(1, len(header)) + header


@pytest.mark.parametrize(
    ("kind", "element"), [("Survivors", b"\x01"), ("Delivery", b"\x90"), ("Evidence", b"\x90"), ("KeyBook", b"\xc0")]
)
def test_fuzz_long_lists_are_refused_before_they_are_built(kind: str, element: bytes) -> None:
    """Eight million elements of a byte would be 64 MB of tuple."""
    name = kind.encode()
    head = b"\x93" + bytes([0xA0 + len(name)]) + name + b"\xc4\x20" + b"s" * 32
    frame = packed_list(head, element, (HEADER_LIMIT - 200) // len(element))

    def decode() -> None:
        with pytest.raises(PeerProtocolError):
            CODEC.decode(frame, "p000")

    assert peak_of(decode) <= CONSTANT


def test_fuzz_a_header_that_claims_more_than_it_has_allocates_nothing() -> None:
    for claim in (b"\xdd\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"\xdb\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff"):
        frame = PREFIX.pack(1, 1 + len(claim)) + b"\x93" + claim

        def decode(frame: bytes = frame) -> None:
            with pytest.raises(PeerProtocolError):
                CODEC.decode(frame, "p000")

        assert peak_of(decode) <= CONSTANT


# --- plans, sessions, announcements -----------------------------------------------------------------------------


ANNOUNCE = next(message for message in MESSAGES if isinstance(message, Announce))
ENCODED = {
    Plan: [ANNOUNCE.plan.encode(), make_plan(protocol="ideal").encode()],
    Session: [msgspec.msgpack.encode(ANNOUNCE.session)],
    Announce: [msgspec.msgpack.encode(ANNOUNCE)],
}


@pytest.mark.parametrize("kind", ENCODED)
@given(data=st.data())
def test_fuzz_plans_sessions_and_announcements(kind: type, data: st.DataObject) -> None:
    encoded = data.draw(hostile(ENCODED[kind]))
    decoded = only_refuses(lambda: msgspec.msgpack.decode(encoded, type=kind), *BODY_ERRORS)
    if isinstance(decoded, Plan):
        assert len(decoded.fingerprint()) == 32
        assert decoded.protection()
    elif decoded is not None:
        assert isinstance(msgspec.msgpack.encode(decoded), bytes)


@given(text=hostile([msgspec.json.encode(make_plan()), msgspec.json.encode(make_plan(protocol="ideal"))]))
def test_fuzz_plans_in_json(text: bytes) -> None:
    plan = only_refuses(lambda: msgspec.json.decode(text, type=Plan), *BODY_ERRORS)
    assert plan is None or len(plan.fingerprint()) == 32


# --- bodies -----------------------------------------------------------------------------------------------------


INFO = FederationInfo(
    name="digits",
    coordinator="0" * 64,
    plan=make_plan(),
    protection="x",
    state=RunState.RUNNING,
    reason="",
    round=1,
    rounds=2,
    attempt=1,
    model="0" * 64,
    parameters=5,
    participants=5,
    present=3,
)
BODIES = {
    FederationInfo: INFO,
    Enrolment: Enrolment(name="p000", key="0" * 64, token="t"),
    Inbox: Inbox(attempt=1, state=RunState.RUNNING, reason="", after=0, frames=(FRAMES[0],)),
    Problem: Problem(type="about:blank#refused", title="t", status=409, detail="d"),
    SignedRecord: sign_record(make_record(), identity("coordinator")),
}


@pytest.mark.parametrize("kind", BODIES)
@pytest.mark.parametrize("form", ["json", "msgpack"])
@given(data=st.data())
def test_fuzz_bodies(kind: type, form: str, data: st.DataObject) -> None:
    codec = getattr(msgspec, form)
    body = data.draw(hostile([codec.encode(BODIES[kind])]))
    decoded = only_refuses(lambda: codec.decode(body, type=kind), *BODY_ERRORS)
    assert decoded is None or isinstance(decoded, kind)


@pytest.mark.parametrize("key", ["0" * 64 + "\n", "0" * 63, "0" * 65, "A" * 64, "0" * 63 + "g", ""])
def test_keys_in_hex_have_one_spelling(key: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"name": "p", "key": key}, Enrolment)


# --- models, vectors, requests ----------------------------------------------------------------------------------


@given(data=hostile([MODEL, write_model(np.zeros(0, np.float32), Layout(()))]))
def test_fuzz_models(data: bytes) -> None:
    read = only_refuses(lambda: read_model(data), DataError)
    if read is not None:
        vector, layout = read
        assert vector.nbytes <= len(data)
        assert read_metadata(data) is not None
        assert read_model(write_model(vector, layout))[1] == layout


@examples(60, 2_000)
@given(data=hostile([MODEL]))
def test_fuzz_models_cost_no_more_memory_than_they_have_bytes(data: bytes) -> None:
    assert peak_of(lambda: only_refuses(lambda: read_model(data), DataError)) <= 2 * len(data) + CONSTANT


@given(data=st.binary(max_size=80), bits=st.integers(-1, 70), length=st.one_of(st.integers(-2, 90), st.just(2**62)))
def test_fuzz_packed_vectors(data: bytes, bits: int, length: int) -> None:
    values = only_refuses(lambda: unpack(data, bits, length), DataError, PlanError)
    if values is not None:
        assert len(values) == length
        assert bytes(pack(values, bits)) == data


@given(bits=st.integers(8, 64), length=st.integers(0, 60), data=st.data())
def test_fuzz_packed_vectors_of_the_right_size(bits: int, length: int, data: st.DataObject) -> None:
    stream = data.draw(st.binary(min_size=packed_size(length, bits), max_size=packed_size(length, bits)))
    values = only_refuses(lambda: unpack(stream, bits, length), DataError)
    if values is not None:
        assert values.dtype == container(bits)
        assert bytes(pack(values, bits)) == stream


HEADER = sign_request(identity("p000"), "POST", "/v1/messages?attempt=3", 1_800_000_000, digest(b"frame"))


@given(
    header=hostile([HEADER.encode()]).map(lambda data: data.decode("latin-1")),
    method=st.one_of(st.just("POST"), st.text(max_size=4)),
    target=st.one_of(st.just("/v1/messages?attempt=3"), st.text(max_size=9)),
    body=st.one_of(st.just(digest(b"frame")), st.binary(max_size=40)),
    now=st.one_of(st.just(1_800_000_000.0), st.floats()),
)
def test_fuzz_requests(header: str, method: str, target: str, body: bytes, now: float) -> None:
    public = only_refuses(lambda: verify_request(header, method, target, body, now), RequestAuthError)
    if public is not None:
        assert (public, header) == (identity("p000").public, HEADER)
        assert (method, target, body) == ("POST", "/v1/messages?attempt=3", digest(b"frame"))
