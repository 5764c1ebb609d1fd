"""Vectors of encrypted inference: frames, words, streams, what a dealer deals, architectures and plans."""

from __future__ import annotations

from functools import partial

import msgspec
import numpy as np

from ridotto.core.wire import Message, digest
from ridotto.crypto.fixed_key import hash_blocks
from ridotto.errors import PeerProtocolError
from ridotto.infer.fixed import Fixed, share
from ridotto.infer.frames import PREFIX, Reader, encode
from ridotto.infer.graph import Architecture, Conv2d, Flatten, Linear, MaxPool2d, Relu
from ridotto.infer.messages import (
    Answer,
    Begin,
    BeginSealed,
    Dealt,
    DealtModel,
    Failed,
    Forget,
    Hello,
    ModelSeed,
    NewModel,
    Opening,
    Prepare,
    Ready,
    ShareInput,
    ShareModel,
    words_from,
)
from ridotto.infer.program import Plan
from ridotto.infer.streams import LARGE, Dealing, Stream, Walk
from vectors.crypto import refused
from vectors.numbers import decimal
from vectors.pairwise_steps import GivenBytes

SESSION, MODEL, TENSOR, SEED = digest(b"session"), digest(b"model"), digest(b"tensor"), bytes(range(32))
VALUES = memoryview(bytes(range(24)))
NOTHING = memoryview(b"")
FIXED = Fixed()

ARCHITECTURES = (
    Architecture((4,), (Linear("first", 4, 3), Relu("relu"), Linear("last", 3, 2))),
    Architecture(
        (1, 6, 6),
        (
            Conv2d("conv", 1, 2, (3, 3)),
            Relu("relu"),
            MaxPool2d("pool", (2, 2), (2, 2)),
            Flatten("flat"),
            Linear("last", 8, 3),
        ),
    ),
)


def build() -> dict[str, object]:
    """Return everything that is in inference.json."""
    return {
        "protocol": "inference",
        "page": "docs/protocols/inference.md",
        "messages": [message_row(message) for message in messages()],
        "refusals": refusals(),
        "words": [words(fixed) for fixed in (FIXED, Fixed(8, 17))],
        "word_refusals": word_refusals(),
        "shares": shares(),
        "streams": stream(),
        "dealing": dealing(),
        "blocks": blocks(),
        "architectures": [architecture_row(one) for one in ARCHITECTURES],
        "plans": [plan_row(plan) for plan in plans()],
    }


def messages() -> tuple[Message, ...]:
    """Return a message of every kind, with every value that may be left out once there and once not."""
    shape = ARCHITECTURES[0].encode()
    return (
        NewModel(MODEL, shape, FIXED),
        NewModel(MODEL, shape, FIXED, SEED),
        ShareModel(MODEL, shape, FIXED, SEED, NOTHING),
        ShareModel(MODEL, shape, FIXED, None, VALUES, True),
        ModelSeed(MODEL, SEED),
        DealtModel(MODEL, SESSION, SEED, VALUES),
        ShareInput(TENSOR, (2, 4), SEED, NOTHING),
        Prepare(SESSION, MODEL, 2, "class"),
        Prepare(SESSION, MODEL, 300, "logits", "fss", SEED),
        Dealt(SESSION, MODEL, TENSOR, SEED, VALUES),
        Hello(SESSION, MODEL, TENSOR),
        Ready(SESSION),
        Begin(SESSION, TENSOR),
        BeginSealed(SESSION, VALUES),
        Opening(SESSION, 3, VALUES),
        Answer(SESSION, 16, 1000, VALUES, 0.25),
        Forget(TENSOR),
        Failed(SESSION, "party1", "its digest is another one"),
    )


def frame_of(message: Message) -> bytes:
    """Return a message as it travels."""
    return b"".join(bytes(piece) for piece in encode(message))


def message_row(message: Message) -> dict[str, str]:
    """Return a message's kind and frame."""
    return {"kind": type(message).__name__, "frame": frame_of(message).hex()}


def read(frame: bytes) -> list[Message]:
    """Return the messages in some bytes of a peer. Raises PeerProtocolError, naming it, for what is no frame."""
    reader = Reader("peer", max(len(frame), 1))
    reader.space()[: len(frame)] = frame
    return list(reader.filled(len(frame)))


def refusals() -> list[dict[str, object]]:
    """Return frames that are refused."""
    hello, opening = frame_of(Hello(SESSION, MODEL, TENSOR)), frame_of(Opening(SESSION, 3, VALUES))
    header = opening[PREFIX.size : -len(VALUES)]
    inside = header[:-2] + b"\xc4\x18" + bytes(VALUES)
    cases = {
        "another version": b"\x02" + hello[1:],
        "a header that is too long": PREFIX.pack(1, 1 << 30, 0) + hello[PREFIX.size :],
        "values that are too long": PREFIX.pack(1, len(header), 1 << 60) + header,
        "values of a message that has none": PREFIX.pack(1, len(hello) - PREFIX.size, 1) + hello[PREFIX.size :] + b"x",
        "values inside the header": PREFIX.pack(1, len(inside), 0) + inside,
        "an unknown message": hello.replace(b"Hello", b"Hallo"),
        "a session of 31 bytes": _framed(["Ready", SESSION[:-1]]),
        "a field too many": _framed(["Ready", SESSION, 0]),
        "a field too few": _framed(["Hello", SESSION, MODEL]),
        "a batch of nobody": _framed(["Prepare", SESSION, MODEL, 0, "class"]),
        "an output that does not exist": _framed(["Prepare", SESSION, MODEL, 1, "all"]),
        "numbers without room": _framed(["NewModel", MODEL, ARCHITECTURES[0].encode(), [20, 9], None]),
        "a round below zero": _framed(["Opening", SESSION, -1, b""]),
        "a name with a space": _framed(["Failed", SESSION, "party 1", "no"]),
    }
    rows: list[dict[str, object]] = []
    for name, frame in cases.items():
        try:
            read(frame)
        except PeerProtocolError as error:
            rows.append({"name": name, "frame": frame.hex(), "why": error.why})
    if len(rows) < len(cases):
        raise RuntimeError("what must be refused is not")
    return rows


def _framed(tree: object) -> bytes:
    header = msgspec.msgpack.encode(tree)
    return PREFIX.pack(1, len(header), 0) + header


def words(fixed: Fixed) -> dict[str, object]:
    """Return numbers as words, with f and with 2 f fractional bits."""
    values = [0.0, 1.0, -1.0, 0.1, -0.1, 0.5 / 2**fixed.fraction_bits, 1.5 / 2**fixed.fraction_bits, 100.25]
    return {
        "fraction_bits": fixed.fraction_bits,
        "compared_bits": fixed.compared_bits,
        "limit": fixed.limit,
        "values": values,
        "words": decimal(fixed.encode(values, "values").tolist(), 64),
        "wide": decimal(fixed.encode(values, "values", 2).tolist(), 64),
    }


def word_refusals() -> list[dict[str, object]]:
    """Return what is no number of the default encoding, and words of another count."""
    rows: list[dict[str, object]] = [
        {"name": name, "value": value, "why": refused(partial(FIXED.encode, [value], "values"))}
        for name, value in {"a number at the limit": FIXED.limit, "one below zero": -2.0 * FIXED.limit}.items()
    ]
    why = refused(partial(words_from, VALUES, 4, "peer", "its share"))
    return [*rows, {"name": "words of another count", "values": bytes(VALUES).hex(), "count": 4, "why": why}]


def shares() -> dict[str, object]:
    """Split words: party 0 gets a seed, party 1 what is left."""
    secret = np.array([0, 1, 2**64 - 1, 12345], np.uint64)
    seed, rest = share(secret, GivenBytes(SEED), SESSION, "input")
    return {
        "seed": seed.hex(),
        "session": SESSION.hex(),
        "label": "input",
        "secret": decimal(secret.tolist(), 64),
        "party_1": decimal(rest.tolist(), 64),
    }


def stream() -> dict[str, object]:
    """Read a stream by requests: those of `LARGE` words or more have streams of their own."""
    source = Stream(SEED, SESSION, "dealt")
    taken = [source.words(count) for count in (3, LARGE, 2, LARGE + 1, 5000, 2)]
    return {
        "seed": SEED.hex(),
        "session": SESSION.hex(),
        "label": "dealt",
        "requests": [
            {"count": len(part), "first": decimal(part[:3].tolist(), 64), "last": decimal(part[-1:].tolist(), 64)[0]}
            for part in taken
        ],
    }


def dealing() -> dict[str, object]:
    """Deal one secret of each kind, and say what was sent."""
    given = bytes(range(64))
    dealt, secret = Dealing(GivenBytes(given), SESSION), np.array([5, 6, 2**64 - 1], np.uint64)
    random, bits = dealt.random(3), dealt.random_bits(2)
    dealt.share(secret)
    dealt.share_bits(secret)
    dealt.publish(secret)
    zero, one = dealt.messages()
    empty, walk = Walk(), Walk()
    walk.add(b"r", 3)
    return {
        "session": SESSION.hex(),
        "seeds": [seed.hex() for seed in dealt.seeds],
        "requests": [["r", 3], ["r", 2], ["s", 3], ["s", 3], ["p", 3]],
        "random": decimal(random.tolist(), 64),
        "random_bits": decimal(bits.tolist(), 64),
        "secret": decimal(secret.tolist(), 64),
        "to_party_0": decimal(zero.tolist(), 64),
        "to_party_1": decimal(one.tolist(), 64),
        "walk": dealt.walk.digest().hex(),
        "empty_walk": empty.digest().hex(),
        "walk_of_the_first_request": walk.digest().hex(),
    }


def blocks() -> dict[str, str]:
    """Hash blocks with AES under the fixed key."""
    source = np.arange(8, dtype=np.uint64).reshape(4, 2) * np.uint64(0x0123456789ABCDEF)
    hashes = hash_blocks(source)
    return {"blocks": source.astype("<u8").tobytes().hex(), "hashes": hashes.astype("<u8").tobytes().hex()}


def architecture_row(architecture: Architecture) -> dict[str, object]:
    """Return an architecture as a tree, its encoding and its hash."""
    encoding = architecture.encode()
    tree = msgspec.msgpack.decode(encoding)
    return {"tree": tree, "encoding": encoding.hex(), "digest": architecture.digest().hex()}


def plans() -> tuple[Plan, ...]:
    """Return plans of queries."""
    return (
        Plan(ARCHITECTURES[0], FIXED, 1, "class"),
        Plan(ARCHITECTURES[1], Fixed(8, 17), 300, "logits", "fss", "malicious"),
    )


def plan_row(plan: Plan) -> dict[str, object]:
    """Return a plan as a tree, and its hash."""
    encoding = msgspec.msgpack.encode((plan.FORMAT, plan))
    return {"tree": msgspec.msgpack.decode(encoding), "encoding": encoding.hex(), "digest": plan.digest().hex()}
