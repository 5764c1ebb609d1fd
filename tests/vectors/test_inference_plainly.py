"""inference.json, recomputed as docs/protocols/inference.md has it; and what it says is refused, refused."""

from __future__ import annotations

import hashlib
import struct
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from ridotto.errors import PeerProtocolError
from ridotto.infer.fixed import Fixed
from ridotto.infer.graph import Architecture
from ridotto.infer.messages import INFER_MESSAGES, words_from
from tests.vectors import plain
from tests.vectors.files import check_refusals, integers, load
from vectors import inference

FILE = load("inference.json")


def words(seed: bytes, session: bytes, label: str, start: int, count: int) -> list[int]:
    key = plain.hkdf(seed, session, label.encode(), 16)
    return list(struct.unpack(f"<{count}Q", plain.stream(key, 8 * start, 8 * count)))


def test_every_message_is_there_and_framed() -> None:
    assert {row["kind"] for row in FILE["messages"]} == {kind.__name__ for kind in INFER_MESSAGES}
    for row in FILE["messages"]:
        frame = bytes.fromhex(row["frame"])
        version, length, size = struct.unpack_from("<BIQ", frame)
        header, values = frame[13 : 13 + length], frame[13 + length :]
        kind, *fields = msgspec.msgpack.decode(header)
        assert (version, kind, size) == (1, row["kind"], len(values))
        assert not values or b"" in fields
        (message,) = inference.read(frame)
        assert inference.frame_of(message) == frame
        assert bytes(getattr(message, "values", b"")) == values


def test_frames_that_are_refused() -> None:
    assert len({row["name"] for row in FILE["refusals"]}) == len(FILE["refusals"])
    for row in FILE["refusals"]:
        with pytest.raises(PeerProtocolError) as refused:
            inference.read(bytes.fromhex(row["frame"]))
        assert refused.value.why == row["why"]


@pytest.mark.parametrize("row", FILE["words"], ids=lambda row: row["compared_bits"])
def test_words(row: dict[str, Any]) -> None:
    f, k = row["fraction_bits"], row["compared_bits"]
    assert row["limit"] == 2.0 ** (k - 2 - f)
    assert integers(row["words"]) == [round(value * 2**f) % 2**64 for value in row["values"]]
    assert integers(row["wide"]) == [round(value * 2 ** (2 * f)) % 2**64 for value in row["values"]]


def test_numbers_that_are_refused() -> None:
    def act(row: dict[str, Any]) -> None:
        if "value" in row:
            Fixed().encode([row["value"]], "values")
        else:
            words_from(memoryview(bytes.fromhex(row["values"])), row["count"], "peer", "its share")

    check_refusals(FILE["word_refusals"], act)


def test_shares() -> None:
    row = FILE["shares"]
    mine = words(bytes.fromhex(row["seed"]), bytes.fromhex(row["session"]), row["label"], 0, 4)
    both = [(a + b) % 2**64 for a, b in zip(mine, integers(row["party_1"]), strict=True)]
    assert both == integers(row["secret"])


def test_streams_and_large_requests() -> None:
    row, place, large = FILE["streams"], 0, 0
    seed, session = bytes.fromhex(row["seed"]), bytes.fromhex(row["session"])
    for request in row["requests"]:
        count, label, start = request["count"], row["label"], place
        if count >= 2**15:
            large += 1
            label, start = f"{label} {large}", 0
        else:
            place += count
        shown = min(count, 3)
        assert words(seed, session, label, start, shown) == integers(request["first"])
        assert words(seed, session, label, start + count - 1, 1) == [int(request["last"])]
    assert large == 2


def test_what_is_dealt() -> None:
    row = FILE["dealing"]
    session = bytes.fromhex(row["session"])
    zero, one = (words(bytes.fromhex(seed), session, "dealt", 0, 11) for seed in row["seeds"])
    secret = integers(row["secret"])
    assert integers(row["random"]) == [(a + b) % 2**64 for a, b in zip(zero[:3], one[:3], strict=True)]
    assert integers(row["random_bits"]) == [a ^ b for a, b in zip(zero[3:5], one[3:5], strict=True)]
    corrections = [(s - a) % 2**64 for s, a in zip(secret, zero[5:8], strict=True)]
    corrections += [s ^ a for s, a in zip(secret, zero[8:11], strict=True)]
    assert integers(row["to_party_0"]) == secret
    assert integers(row["to_party_1"]) == corrections + secret
    for name, requests in (("walk", 5), ("empty_walk", 0), ("walk_of_the_first_request", 1)):
        steps = b"".join(kind.encode() + count.to_bytes(8, "big") for kind, count in row["requests"][:requests])
        assert row[name] == plain.sha256(b"ridotto/1 infer walk\x00", steps).hex()


def test_hashed_blocks() -> None:
    cipher = Cipher(algorithms.AES(hashlib.sha256(b"ridotto/1 fixed-key AES").digest()[:16]), modes.ECB())
    blocks = bytes.fromhex(FILE["blocks"]["blocks"])
    hashed = cipher.encryptor().update(blocks)
    assert FILE["blocks"]["hashes"] == bytes(a ^ b for a, b in zip(hashed, blocks, strict=True)).hex()


@pytest.mark.parametrize("kind", ["architecture", "plan"])
def test_architectures_and_plans(kind: str) -> None:
    for row in FILE[kind + "s"]:
        encoding = msgspec.msgpack.encode(row["tree"])
        assert row["encoding"] == encoding.hex()
        assert row["digest"] == plain.sha256(f"ridotto/1 infer {kind}".encode() + b"\x00", encoding).hex()
        if kind == "architecture":
            assert Architecture.decode(encoding).digest().hex() == row["digest"]
    assert FILE["plans"][0]["tree"][1][0] == FILE["architectures"][0]["tree"][1]
