"""compression.json, recomputed as docs/protocols/encoding.md and http.md have it; and what is refused, refused."""

from __future__ import annotations

import hashlib
import math
import struct
from statistics import median
from typing import Any

import numpy as np
import pytest

from ridotto.learn.compress.delta import apply_delta
from tests.vectors import plain
from tests.vectors.files import check_refusals, load

FILE = load("compression.json")


def child(nonce: bytes, place: int) -> bytes:
    """The seed of codec number `place`."""
    key = hashlib.blake2b(str(place).encode(), key=nonce, person=b"child", digest_size=32).digest()
    return hashlib.blake2b(bytes(8), key=key, person=b"stream").digest()[:32]


def octets(seed: bytes, label: str, count: int) -> bytes:
    return plain.stream(plain.hkdf(seed, b"ridotto/1 compress", label.encode(), 16), 0, count)


def words(seed: bytes, label: str, count: int) -> list[int]:
    return list(struct.unpack(f"<{count}I", octets(seed, label, 4 * count)))


def signs(seed: bytes, label: str, count: int) -> list[int]:
    data = octets(seed, label, math.ceil(count / 8))
    return [-1 if data[i // 8] >> (7 - i % 8) & 1 else 1 for i in range(count)]


def test_what_all_draw_alike() -> None:
    for row in FILE["draws"]:
        seed = child(bytes.fromhex(row["nonce"]), row["place"])
        assert seed.hex() == row["seed"]
        assert words(seed, "places", 6) == row["words of places"]
        assert [int(sign < 0) for sign in signs(seed, "first", 20)] == row["signs of first"]


def hadamard(values: list[float]) -> list[float]:
    """Entry i is the sum over j of v_j, negated where i and j have an odd number of ones in common, over sqrt(N)."""
    size = len(values)
    return [sum(v * (-1) ** (i & j).bit_count() for j, v in enumerate(values)) / math.sqrt(size) for i in range(size)]


def blocks(entries: int) -> list[tuple[str, int, int]]:
    size = 1 << (entries.bit_length() - 1)
    return [("first", 0, size)] + ([("last", entries - size, size)] if entries > size else [])


def encode(part: dict[str, Any], vector: list[float], seed: bytes) -> list[float]:
    found, d = list(vector), len(vector)
    match part["name"]:
        case "rotate":
            for label, begin, size in blocks(d):
                signed = [s * v for s, v in zip(signs(seed, label, size), found[begin:], strict=False)]
                found[begin : begin + size] = hadamard(signed)
        case "sample":
            return [vector[place] for place in places(part, d, seed)]
        case "count-sketch":
            found = [0.0] * (part["rows"] * part["columns"])
            for i, row, bucket, sign in buckets(part, d, seed):
                found[row * part["columns"] + bucket] += sign * vector[i]
        case "top-k":
            kept = sorted(range(d), key=lambda i: (-abs(vector[i]), i))[: math.ceil(part["fraction"] * d)]
            return [value if i in kept else 0.0 for i, value in enumerate(vector)]
    return found


def decode(part: dict[str, Any], mean: list[float], d: int, seed: bytes) -> list[float]:
    found = list(mean)
    match part["name"]:
        case "rotate":
            for label, begin, size in reversed(blocks(d)):
                turned = hadamard(found[begin : begin + size])
                found[begin : begin + size] = [s * v for s, v in zip(signs(seed, label, size), turned, strict=True)]
        case "sample":
            scale = d / len(mean) if part["scaled"] else 1.0
            where = dict(zip(places(part, d, seed), mean, strict=True))
            found = [scale * where.get(place, 0.0) for place in range(d)]
        case "count-sketch":
            rows: list[list[float]] = [[] for _ in range(d)]
            for i, row, bucket, sign in buckets(part, d, seed):
                rows[i].append(sign * mean[row * part["columns"] + bucket])
            found = [median(values) if part["median"] else sum(values) / len(values) for values in rows]
    return found


def places(part: dict[str, Any], d: int, seed: bytes) -> list[int]:
    drawn = words(seed, "places", d)
    return sorted(sorted(range(d), key=lambda i: (drawn[i], i))[: math.ceil(part["fraction"] * d)])


def buckets(part: dict[str, Any], d: int, seed: bytes) -> list[tuple[int, int, int, int]]:
    """Entry, row, bucket and sign, for every entry in every row."""
    found, columns = [], part["columns"]
    for row in range(part["rows"]):
        turns = words(seed, f"turns {row}", 2 * math.ceil(d / columns))
        for i, sign in enumerate(signs(seed, f"signs {row}", d)):
            run, place = divmod(i, columns)
            turn = (turns[2 * run] << 32 | turns[2 * run + 1]) % columns
            found.append((i, row, (turn + place) % columns, sign))
    return found


@pytest.mark.parametrize("row", FILE["codecs"], ids=lambda row: "-".join(part["name"] for part in row["compress"]))
def test_codecs(row: dict[str, Any]) -> None:
    vector, lengths, nonce = row["vector"], [], bytes.fromhex(row["nonce"])
    for place, part in enumerate(row["compress"]):
        lengths.append(len(vector))
        vector = encode(part, vector, child(nonce, place))
    assert vector == row["encoded"]
    for place, part in reversed(list(enumerate(row["compress"]))):
        vector = decode(part, vector, lengths[place], child(nonce, place))
    assert vector == row["decoded"]


def test_rotations_are_undone() -> None:
    turned = [row for row in FILE["codecs"] if [part["name"] for part in row["compress"]] == ["rotate"]]
    assert len(turned) == 2
    assert all(row["vector"] == row["decoded"] for row in turned)


def floats(values: list[float]) -> bytes:
    return struct.pack(f"<{len(values)}f", *values)


@pytest.mark.parametrize("row", FILE["deltas"], ids=lambda row: row["bits"])
def test_deltas(row: dict[str, Any]) -> None:
    data, old, bits = bytes.fromhex(row["delta"]), row["old"], row["bits"]
    before, after = (plain.sha256(b"ridotto/1 vector\x00", floats(row[name])) for name in ("old", "new"))
    assert (row["old_digest"], row["new_digest"]) == (before.hex(), after.hex())
    assert data[:80] == b"rdlt\x01" + bytes([bits, 0, 0]) + struct.pack("<Q", len(old)) + before + after
    steps = struct.unpack_from(f"<{math.ceil(len(old) / 1024)}f", data, 80)
    codes = data[80 + 4 * len(steps) :]
    assert len(codes) == math.ceil(len(old) * bits / 8)
    new = []
    for i, (value, code) in enumerate(zip(old, plain.unpacked(codes, bits, len(old)), strict=True)):
        step = np.float32(steps[i // 1024]) * np.float32(code - (2 ** (bits - 1) - 1))
        new.append(float(np.float32(step + np.float32(value))))
    assert new == row["new"]


def test_deltas_that_are_refused() -> None:
    old = np.array(FILE["deltas"][2]["old"], np.float32)
    check_refusals(FILE["delta_refusals"], lambda row: apply_delta(old, bytes.fromhex(row["delta"])))
