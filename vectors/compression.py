"""Vectors of what participants draw alike to compress updates, and of models that travel as differences.

The numbers are such that no float32 is rounded on the way, so that no machine gives others.
"""

from __future__ import annotations

from functools import partial

import msgspec
import numpy as np

from ridotto.core.wire import digest
from ridotto.learn.compress.codec import Shared
from ridotto.learn.compress.delta import Delta, apply_delta, encode_delta, model_digest
from ridotto.rounds.compression import Compression, CountSketch, Rotate, Sample, TopK, build_chain
from ridotto.rounds.dice import NoDice
from vectors.crypto import refused
from vectors.pairwise_steps import GivenBytes

NONCE = digest(b"nonce")


def build() -> dict[str, object]:
    """Return everything that is in compression.json."""
    return {
        "pages": ["docs/protocols/encoding.md", "docs/protocols/http.md"],
        "draws": [draws(place) for place in (0, 1)],
        "codecs": [
            coded(16, Rotate()),
            coded(20, Rotate()),
            coded(20, Sample(fraction=0.25)),
            coded(20, Sample(fraction=0.25, scaled=False)),
            coded(20, Rotate(), Sample(fraction=0.2)),
            coded(20, CountSketch(rows=2, columns=8)),
            coded(20, CountSketch(rows=3, columns=4, median=True)),
            coded(20, TopK(fraction=0.3)),
        ],
        "deltas": [delta_row(entries, bits) for entries, bits in ((3, 2), (1030, 5), (5, 8), (7, 11), (4, 16))],
        "delta_refusals": delta_refusals(),
    }


def draws(place: int) -> dict[str, object]:
    """Return what codec number `place` of a plan draws under two labels."""
    child = Shared(NONCE).child(place)
    words = child.words("places", 6).tolist()
    signs = (child.signs("first", 20) >> 31).tolist()
    return {
        "nonce": NONCE.hex(),
        "place": place,
        "seed": child.seed.hex(),
        "words of places": words,
        "signs of first": signs,
    }


def coded(entries: int, *parts: Compression) -> dict[str, object]:
    """Return a vector as a plan with these codecs sends it, and what is made of it again."""
    codec, shared = build_chain(parts, None), Shared(NONCE)
    vector = np.array([(7 * place) % 11 - 5 for place in range(entries)], np.float32)
    encoded = codec.encode(vector, shared, NoDice()).vector
    return {
        "compress": [msgspec.to_builtins(part) for part in parts],
        "nonce": NONCE.hex(),
        "vector": vector.tolist(),
        "encoded": encoded.tolist(),
        "decoded": codec.decode(encoded, entries, shared).tolist(),
    }


def make_delta(entries: int, bits: int) -> tuple[np.ndarray, Delta]:
    """Return an old model, and what leads from it to a new one."""
    old = np.array([place / 8 for place in range(entries)], np.float32)
    change = np.array([((5 * place) % 7 - 3) / 4 for place in range(entries)], np.float32)
    change[: entries // 2] *= np.float32(0.001)
    return old, encode_delta(old, old + change, bits, GivenBytes(bytes(range(32))))


def delta_row(entries: int, bits: int) -> dict[str, object]:
    """Return a delta, and the models between which it leads."""
    old, delta = make_delta(entries, bits)
    return {
        "bits": bits,
        "old": old.tolist(),
        "old_digest": model_digest(old).hex(),
        "delta": delta.data.hex(),
        "new": delta.model.tolist(),
        "new_digest": model_digest(delta.model).hex(),
    }


def delta_refusals() -> list[dict[str, object]]:
    """Return deltas that a participant with the third of the old models refuses. They have 5 entries of 8 bits."""
    old, (good, _) = make_delta(5, 8)
    short = make_delta(7, 11)[1].data
    cases = {
        "another model": short,
        "another result": good[:48] + bytes(32) + good[80:],
        "another version": good[:4] + b"\x02" + good[5:],
        "another kind of file": b"x" + good[1:],
        "a width of one bit": good[:5] + b"\x01" + good[6:],
        "a width of 17 bits": good[:5] + b"\x11" + good[6:],
        "a reserve that is not zero": good[:6] + b"\x01" + good[7:],
        "no entries": good[:8] + bytes(8) + good[16:],
        "more entries than there are": good[:8] + (2**40).to_bytes(8, "little") + good[16:],
        "a byte too few": good[:-1],
        "a byte too many": good + b"\x00",
        "less than a head": good[:79],
        "a step that is no number": good[:80] + b"\x00\x00\xc0\x7f" + good[84:],
        "a step that is infinite": good[:80] + b"\x00\x00\x80\x7f" + good[84:],
        "a step below zero": good[:83] + bytes([good[83] | 0x80]) + good[84:],
        "a code beyond the last": good[:84] + b"\xff" + good[85:],
    }
    return [
        {"name": name, "delta": data.hex(), "why": refused(partial(apply_delta, old, data))}
        for name, data in cases.items()
    ]
