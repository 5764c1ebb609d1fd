"""Vectors of what all protocols rest on: streams and masks, key agreement, seals, signatures, Merkle trees."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from ridotto.core.fixedpoint import container
from ridotto.crypto.prg import CHUNK_BYTES, Mask, add_masks, keystream, stream_key
from ridotto.crypto.seal import ExchangeKey, IdentityKey, open_sealed, seal, verify
from ridotto.crypto.shamir import PRIME, reconstruct
from ridotto.errors import RidottoError
from ridotto.secagg.committee_roles.merkle import check_proof, merkle_proof, merkle_root
from vectors.numbers import decimal

SEED, SID = bytes(range(32)), bytes(range(100, 132))
ORDER_8 = bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800")
LOW_ORDER = {
    "zero": bytes(32),
    "one": b"\x01" + bytes(31),
    "of order 8": ORDER_8,
    "p - 1": (2**255 - 20).to_bytes(32, "little"),
    "p, which is zero": (2**255 - 19).to_bytes(32, "little"),
    "p + 1, which is one": (2**255 - 18).to_bytes(32, "little"),
}
GROUP_ORDER = 2**252 + 27742317777372353535851937790883648493
"""Of Ed25519's base point."""


def build() -> dict[str, object]:
    """Return everything that is in crypto.json."""
    return {
        "pages": ["docs/protocols/pairwise.md", "docs/protocols/rounds.md", "docs/protocols/committee.md"],
        "streams": [stream(b"mask"), stream(b"another label"), stream("ümlaut".encode())],
        "masks": [mask(bits) for bits in (8, 12, 16, 21, 28, 32, 42, 64)],
        "agreements": [agreement("pairwise box", b"", 32), agreement("x", b"\x00info", 16), agreement("x", b"", 64)],
        "agreement_refusals": agreement_refusals(),
        "seals": [sealed(bytes(range(size)), b"a" * 16, size) for size in (0, 1, 72)]
        + [sealed(bytes(range(32)), b"k" * 32, 9)],
        "seal_refusals": seal_refusals(),
        "signatures": [signature("pairwise keys", b""), signature("request", b"GET\n/\n0\n"), signature("x", SID)],
        "signature_refusals": signature_refusals(),
        "share_refusals": share_refusals(),
        "trees": [tree(count) for count in (0, 1, 2, 3, 7)],
        "tree_refusals": tree_refusals(),
    }


def refused(act: Callable[[], object]) -> str:
    """Return why something is refused. Raises RuntimeError if it is not."""
    try:
        act()
    except RidottoError as error:
        return str(error)
    raise RuntimeError("what must be refused is not")


def stream(label: bytes) -> dict[str, object]:
    """Return the key of a stream, its beginning, and bytes across the ends of its first two chunks."""
    key = stream_key(SEED, SID, label.decode())
    windows = [(0, 64), (5, 3), (CHUNK_BYTES - 20, 40), (2 * CHUNK_BYTES - 1, 2), (3 * CHUNK_BYTES, 16)]
    return {
        "seed": SEED.hex(),
        "sid": SID.hex(),
        "label": label.decode(),
        "key": key.hex(),
        "bytes": [
            {"start": start, "bytes": keystream(key, start, length).tobytes().hex()} for start, length in windows
        ],
    }


def mask(bits: int) -> dict[str, object]:
    """Return the elements of a mask by width, at its beginning and where a chunk ends, and a sum with two masks."""
    dtype = container(bits)
    edge = CHUNK_BYTES // dtype.itemsize
    elements = np.zeros(edge + 3, dtype)
    add_masks(elements, [Mask(SEED, 1)], SID)
    start = np.arange(1, 6).astype(dtype)
    total = start.copy()
    add_masks(total, [Mask(SEED, 1), Mask(SID, -1)], SID)
    ring = dtype.type((1 << bits) - 1)
    return {
        "bits": bits,
        "word_bits": 8 * dtype.itemsize,
        "seed": SEED.hex(),
        "sid": SID.hex(),
        "label": "mask",
        "first": decimal(elements[:5], bits),
        "edge": edge,
        "around_the_edge": decimal(elements[edge - 2 :], bits),
        "vector": decimal(start, bits),
        "minus": SID.hex(),
        "vector_and_masks": decimal(total, bits),
        "reduced": decimal(total & ring, bits),
    }


def agreement(label: str, info: bytes, length: int) -> dict[str, object]:
    """Return the key that two agree on."""
    mine, theirs = ExchangeKey(bytes([1]) * 32), ExchangeKey(bytes([2]) * 32)
    return {
        "private": mine.to_bytes().hex(),
        "public": mine.public.hex(),
        "peer_private": theirs.to_bytes().hex(),
        "peer_public": theirs.public.hex(),
        "sid": SID.hex(),
        "label": label,
        "info": info.hex(),
        "key": mine.agree(theirs.public, SID, label, info, length).hex(),
    }


def agreement_refusals() -> list[dict[str, object]]:
    """Return public keys that give no secret."""
    mine = ExchangeKey(bytes([1]) * 32)
    keys = {**LOW_ORDER, "31 bytes": bytes([2]) * 31, "33 bytes": bytes([2]) * 33}
    return [
        {
            "name": name,
            "private": mine.to_bytes().hex(),
            "peer_public": public.hex(),
            "why": refused(partial(mine.agree, public, SID, "x", b"")),
        }
        for name, public in keys.items()
    ]


def sealed(plaintext: bytes, key: bytes, associated_bytes: int) -> dict[str, str]:
    """Return a sealed message."""
    associated = bytes([7]) * associated_bytes
    box = seal(key, plaintext, associated)
    return {"key": key.hex(), "plaintext": plaintext.hex(), "associated": associated.hex(), "box": box.hex()}


def seal_refusals() -> list[dict[str, object]]:
    """Return sealed messages that do not open."""
    key, associated = b"a" * 16, b"associated"
    box = seal(key, b"plaintext", associated)
    cases = {
        "another tag": (key, box[:-1] + bytes([box[-1] ^ 1]), associated),
        "another ciphertext": (key, bytes([box[0] ^ 1]) + box[1:], associated),
        "other associated bytes": (key, box, associated + b"\x00"),
        "another key": (b"b" * 16, box, associated),
        "a box that is cut off": (key, box[:-1], associated),
        "a box without a tag": (key, box[:9], associated),
        "an empty box": (key, b"", associated),
    }
    return [
        {
            "name": name,
            "key": case[0].hex(),
            "box": case[1].hex(),
            "associated": case[2].hex(),
            "why": refused(partial(open_sealed, *case)),
        }
        for name, case in cases.items()
    ]


def signature(context: str, message: bytes) -> dict[str, str]:
    """Return a signature and what it is over."""
    key = IdentityKey(bytes([3]) * 32)
    return {
        "private": key.to_bytes().hex(),
        "public": key.public.hex(),
        "context": context,
        "message": message.hex(),
        "signed": (b"ridotto/1 " + context.encode() + b"\x00" + message).hex(),
        "signature": key.sign(context, message).hex(),
    }


IDENTITY, UNREDUCED = (y.to_bytes(32, "little") for y in (1, 2**255 - 18))
"""Two ways to write the point whose every multiple is itself."""


def signature_refusals() -> list[dict[str, object]]:
    """Return signatures that do not hold."""
    key, other, message = IdentityKey(bytes([3]) * 32), IdentityKey(bytes([4]) * 32), b"message"
    good = key.sign("context", message)
    scalar = int.from_bytes(good[32:], "little") + GROUP_ORDER
    cases = {
        "another context": (key.public, "contexts", message, good),
        "a context that takes a byte of the message": (key.public, "contextm", message[1:], good),
        "another message": (key.public, "context", message + b"\x00", good),
        "another key": (other.public, "context", message, good),
        "one changed bit in the first half": (key.public, "context", message, bytes([good[0] ^ 1]) + good[1:]),
        "one changed bit in the second half": (key.public, "context", message, good[:-1] + bytes([good[-1] ^ 1])),
        "the scalar plus the group order": (key.public, "context", message, good[:32] + scalar.to_bytes(32, "little")),
        "zeros": (key.public, "context", message, bytes(64)),
        "63 bytes": (key.public, "context", message, good[:-1]),
        "65 bytes": (key.public, "context", message, good + b"\x00"),
        "a key of 31 bytes": (key.public[:-1], "context", message, good),
        "a key that is no point": (b"\x02" + bytes(31), "context", message, good),
        "a key of order one, whose signatures anybody makes": (IDENTITY, "context", message, IDENTITY + bytes(32)),
        "the same key, written another way": (UNREDUCED, "context", message, IDENTITY + bytes(32)),
    }
    return [
        {
            "name": name,
            "public": case[0].hex(),
            "context": case[1],
            "message": case[2].hex(),
            "signature": case[3].hex(),
            "why": refused(partial(verify, *case)),
        }
        for name, case in cases.items()
    ]


def share_refusals() -> list[dict[str, object]]:
    """Return shares that are malformed, or of no secret: a limb has 30 bits and a secret 256."""
    zero, one = bytes(36), (1).to_bytes(4, "little") + bytes(32)
    high = bytes(32) + (1 << 16).to_bytes(4, "little")
    cases: dict[str, dict[int, bytes]] = {
        "a share of 35 bytes": {1: zero[:-1], 2: zero},
        "a word that is the prime": {1: PRIME.to_bytes(4, "little") + bytes(32), 2: zero},
        "a word above the prime": {1: zero, 2: b"\xff" * 36},
        "a limb of 31 bits": {1: zero, 2: one},
        "a number of 257 bits": {1: high, 2: high},
    }
    return [
        {
            "name": name,
            "threshold": 2,
            "shares": [[point, share.hex()] for point, share in shares.items()],
            "why": refused(partial(reconstruct, shares, 2)),
        }
        for name, shares in cases.items()
    ]


def leaves_of(count: int) -> list[bytes]:
    """Return leaves of different lengths, the first of them empty."""
    return [bytes([place]) * place for place in range(count)]


def tree(count: int) -> dict[str, object]:
    """Return root and proofs of a list."""
    leaves = leaves_of(count)
    return {
        "leaves": [leaf.hex() for leaf in leaves],
        "root": merkle_root(leaves).hex(),
        "proofs": [[value.hex() for value in merkle_proof(leaves, place)] for place in range(count)],
    }


def tree_refusals() -> list[dict[str, object]]:
    """Return proofs that do not hold."""
    leaves = leaves_of(7)
    root, proof = merkle_root(leaves), merkle_proof(leaves, 6)
    nodes = merkle_proof(leaves, 0)
    cases = {
        "another leaf": (root, leaves[5], 6, 7, proof),
        "another place": (root, leaves[6], 5, 7, proof),
        "another count": (root, leaves[6], 6, 8, proof),
        "a place beyond the count": (root, leaves[6], 7, 7, proof),
        "a place below zero": (root, leaves[6], -1, 7, proof),
        "an empty list": (root, leaves[6], 0, 0, ()),
        "a hash too few": (root, leaves[6], 6, 7, proof[:-1]),
        "a hash too many": (root, leaves[6], 6, 7, (*proof, bytes(32))),
        "a hash of 31 bytes": (root, leaves[6], 6, 7, (*proof[:-1], proof[-1][:-1])),
        "hashes in the other order": (root, leaves[6], 6, 7, proof[::-1]),
        "an inner node as a leaf": (root, nodes[0] + nodes[1], 0, 2, nodes[2:]),
    }
    return [
        {
            "name": name,
            "root": root.hex(),
            "leaf": leaf.hex(),
            "index": index,
            "count": count,
            "proof": [value.hex() for value in shown],
            "why": refused(partial(check_proof, root, leaf, index, count, shown, "peer")),
        }
        for name, (root, leaf, index, count, shown) in cases.items()
    ]
