"""Downloads: the next model as a quantised difference from one that the participant holds.

    head      "rdlt" | 1 | bits | 0 0 | entries, uint64 | SHA-256 of the old model | SHA-256 of the new one    80 bytes
    scales    float32 for every block of 1,024 entries: its step
    codes     k + L in `bits` bits for every entry, L = 2^(bits - 1) - 1; least significant bit first, zeros at the end

All numbers are little-endian. The new model is old + step * k, one float32 product and one float32 sum, so server and
participant arrive at the same bits on every machine. For that, *the server must go on with this model*, not with the
one that it meant to send: `encode_delta` returns both the bytes and the model that they stand for. Rounding is random
and unbiased. Two hashes make mistakes visible: a delta for another model is refused before it is looked at, and the
result is compared with what the server had. Hashes are of the vector's bytes (`model_digest`), not of a model file.

A participant that missed rounds holds an older model. It applies the deltas of those rounds one after the other, or
fetches the whole model where that is shorter. A delta straight from the older model would lead to other bits.

Source: Amiri et al., "Federated Learning With Quantized Global Model Updates", 2020, where the server sends the
quantised change of the global model. The hashes and the blocks are ours.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ridotto.core.machine import Buffer
from ridotto.core.packing import pack, packed_size, unpack
from ridotto.core.rng import SEED_BYTES, Rng
from ridotto.core.vector import Vector, require_finite
from ridotto.core.wire import digest
from ridotto.crypto.prg import dither
from ridotto.errors import DataError
from ridotto.learn.compress.codec import require_count

MAGIC = b"rdlt\x01"
HEAD = struct.Struct("<5sBxxQ32s32s")
DOMAIN = b"ridotto/1 vector\x00"

SMALLEST, LARGEST = 2, 16
"""Bits of an entry."""

BLOCK = 1024
"""Entries that share a step: layers differ in size by orders of magnitude. Costs 4 / 1,024 bytes an entry."""

Codes = NDArray[np.unsignedinteger[Any]]
"""k + L, in uint8 up to 8 bits, else in uint16."""


class Delta(NamedTuple):
    """Hold a delta's bytes, and the model that old model and bytes make: float32, shape (d,)."""

    data: bytes
    model: Vector


def model_digest(model: Vector) -> bytes:
    """Return SHA-256, 32 bytes, by which deltas name a model: of its float32 entries, little-endian."""
    return digest(DOMAIN + np.ascontiguousarray(model, "<f4").tobytes())


def delta_size(entries: int, bits: int) -> int:
    """Return the bytes of a delta."""
    return HEAD.size + 4 * -(-entries // BLOCK) + packed_size(entries, bits)


def encode_delta(old: Vector, new: Vector, bits: int, rng: Rng) -> Delta:
    """Quantise new - old, by the server, once for all participants that hold `old`.

    old, new: float32, shape (d,), finite. bits: 2 to 16 for an entry. rng: rounds; it need not be secret. What
    rounding lost, new - delta.model, is unbiased, and may be added to the next `new` to lose nothing in the long run.
    Raises DataError if the vectors do not fit, PlanError for bits out of range.
    """
    count = require_count("delta", SMALLEST, LARGEST, bits=bits)
    for model in (old, new):
        if model.dtype != np.float32 or model.shape != old.shape or model.ndim != 1 or not len(model):
            raise DataError(f"a delta is between float32 vectors of one shape, not {model.dtype} {model.shape}")
        require_finite(model)
    with np.errstate(over="ignore"):
        change = new - old
    require_finite(change)
    limit = (1 << (count - 1)) - 1
    peaks = np.maximum.reduceat(np.abs(change), np.arange(0, len(change), BLOCK))
    scales = np.divide(peaks, np.float32(limit), dtype=np.float32)
    codes: Codes = _quantise(change, scales, limit, rng).astype(np.uint8 if count <= 8 else np.uint16)
    model = _apply(old, scales, codes, limit)
    head = HEAD.pack(MAGIC, count, len(old), model_digest(old), model_digest(model))
    return Delta(head + scales.astype("<f4").tobytes() + _pack(codes, count), model)


def split_deltas(data: Buffer) -> Iterator[bytes]:
    """Yield the deltas that stand in `data` one behind the other. Raises DataError where what follows is none."""
    view, begin = memoryview(data), 0
    while begin < len(view):
        bits, entries, _, _ = _head(bytes(view[begin : begin + HEAD.size]))
        end = begin + delta_size(entries, bits)
        if end > len(view):
            raise DataError(f"a delta of {end - begin} bytes is announced, and {len(view) - begin} are left")
        yield bytes(view[begin:end])
        begin = end


def apply_delta(old: Vector, data: bytes) -> Vector:
    """Return the new model, float32, shape (d,), by the participant: the bits of the server's `Delta.model`.

    old: the model that the participant holds. data: from a server that is not trusted to send what makes sense.
    Raises DataError if the delta is for another model, is malformed, or leads to another model than it names.
    """
    bits, entries, base, result = _head(data)
    if base != model_digest(old) or entries != len(old):
        raise DataError(
            f"the delta starts from model {base.hex()[:16]}, here is {model_digest(old).hex()[:16]}; fetch the whole "
            "model instead"
        )
    if len(data) != delta_size(entries, bits):
        raise DataError(f"a delta of {entries} entries of {bits} bits has {delta_size(entries, bits)} bytes")
    split = HEAD.size + 4 * -(-entries // BLOCK)
    scales = np.frombuffer(data[HEAD.size : split], "<f4").astype(np.float32)
    limit = (1 << (bits - 1)) - 1
    codes = _unpack(data[split:], bits, entries)
    if not np.isfinite(scales).all() or (scales < 0).any() or int(codes.max()) > 2 * limit:
        raise DataError("a step of the delta is not a finite number of at least 0, or a code is beyond the last one")
    model = _apply(old, scales, codes, limit)
    if model_digest(model) != result:
        raise DataError("the delta leads to another model than the one that it names")
    return model


def _head(data: bytes) -> tuple[int, int, bytes, bytes]:
    """Return (bits, entries, old digest, new digest)."""
    if len(data) < HEAD.size:
        raise DataError(f"a delta begins with {HEAD.size} bytes, found {len(data)}")
    magic, bits, entries, base, result = HEAD.unpack(data[: HEAD.size])
    if magic != MAGIC or data[6:8] != b"\x00\x00" or not SMALLEST <= bits <= LARGEST or not entries:
        raise DataError("the bytes are no delta of this version")
    return bits, entries, base, result


def _quantise(change: Vector, scales: Vector, limit: int, rng: Rng) -> NDArray[np.float32]:
    """Return k + L: rounded at random such that step * k has the change as its expectation."""
    steps = np.repeat(np.where(scales > 0, scales, np.float32(1)), BLOCK)[: len(change)]
    scaled = np.clip(change / steps, -limit, limit) + np.float64(limit)
    uniform = dither(rng.bytes(SEED_BYTES), len(change)) / 2.0**32
    codes: NDArray[np.float32] = np.floor(scaled + uniform)
    return codes


def _apply(old: Vector, scales: Vector, codes: Codes, limit: int) -> Vector:
    """Return old + step * k. Two operations of IEEE 754 for an entry, never fused: the same bits everywhere."""
    change = codes.astype(np.float32)
    np.subtract(change, np.float32(limit), out=change)
    # Where a liar's step is huge; what is not finite is refused right after.
    with np.errstate(over="ignore", invalid="ignore"):
        np.multiply(change, np.repeat(scales, BLOCK)[: len(codes)], out=change)
        np.add(change, old, out=change)
    require_finite(change)
    return change


def _pack(codes: Codes, bits: int) -> bytes:
    if bits >= 8:
        return bytes(pack(codes, bits))
    return np.packbits(
        np.unpackbits(codes[:, None], axis=1, count=bits, bitorder="little"), bitorder="little"
    ).tobytes()


def _unpack(data: bytes, bits: int, entries: int) -> Codes:
    if bits >= 8:
        return unpack(data, bits, entries)
    stream = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")
    if stream[entries * bits :].any():
        raise DataError("the bits after the last code of a delta are padding and must be zero")
    return np.packbits(stream[: entries * bits].reshape(-1, bits), axis=1, bitorder="little")[:, 0]
