"""crypto.json, recomputed with nothing of ours; and what it says is refused, refused."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ridotto.crypto.seal import ExchangeKey, open_sealed, verify
from ridotto.crypto.shamir import reconstruct
from ridotto.secagg.committee_roles.merkle import check_proof
from tests.vectors import plain
from tests.vectors.files import check_refusals, integers, load

FILE = load("crypto.json")


def octets(row: dict[str, Any], *names: str) -> tuple[bytes, ...]:
    return tuple(bytes.fromhex(row[name]) for name in names)


@pytest.mark.parametrize("row", FILE["streams"], ids=lambda row: row["label"])
def test_streams(row: dict[str, Any]) -> None:
    seed, sid, key = octets(row, "seed", "sid", "key")
    assert key == plain.hkdf(seed, sid, row["label"].encode(), 16)
    for window in row["bytes"]:
        expected = bytes.fromhex(window["bytes"])
        assert plain.stream(key, window["start"], len(expected)) == expected


def test_a_chunk_is_gcm_of_zeros() -> None:
    """What the page says in brackets: the first bytes of chunk 3 are GCM with nonce 3."""
    key, (window,) = bytes.fromhex(FILE["streams"][0]["key"]), FILE["streams"][0]["bytes"][-1:]
    assert window["start"] == 3 << 20
    assert AESGCM(key).encrypt((3).to_bytes(12, "big"), bytes(16), None)[:16].hex() == window["bytes"]


@pytest.mark.parametrize("row", FILE["masks"], ids=lambda row: row["bits"])
def test_masks(row: dict[str, Any]) -> None:
    seed, sid, minus = octets(row, "seed", "sid", "minus")
    key, width = plain.hkdf(seed, sid, b"mask", 16), row["word_bits"]
    assert width == plain.container(row["bits"])
    assert row["edge"] * width == 8 << 20
    assert integers(row["first"]) == plain.mask(seed, sid, row["bits"], 5)
    start = (row["edge"] - 2) * width // 8
    edge = plain.stream(key, start, 5 * width // 8)
    assert integers(row["around_the_edge"]) == plain.unpacked(edge, width, 5)
    plus, less = plain.mask(seed, sid, row["bits"], 5), plain.mask(minus, sid, row["bits"], 5)
    total = [(v + p - m) % 2**width for v, p, m in zip(integers(row["vector"]), plus, less, strict=True)]
    assert integers(row["vector_and_masks"]) == total
    assert integers(row["reduced"]) == [value % 2 ** row["bits"] for value in total]


@pytest.mark.parametrize("row", FILE["agreements"], ids=lambda row: row["label"])
def test_agreements(row: dict[str, Any]) -> None:
    public, peer, sid, info, key = octets(row, "public", "peer_public", "sid", "info", "key")
    assert (plain.public_of(row["private"]), plain.public_of(row["peer_private"])) == (public, peer)
    label = row["label"].encode()
    assert plain.agree(row["private"], peer, sid, label, info, len(key)) == key
    assert plain.agree(row["peer_private"], public, sid, label, info, len(key)) == key


def test_agreements_that_are_refused() -> None:
    def act(row: dict[str, Any]) -> None:
        private, public = octets(row, "private", "peer_public")
        with pytest.raises(ValueError, match=r"."):
            plain.agree(row["private"], public, b"sid", b"x", b"")
        ExchangeKey(private).agree(public, b"sid", "x", b"")

    check_refusals(FILE["agreement_refusals"], act)


@pytest.mark.parametrize("row", FILE["seals"], ids=lambda row: len(row["box"]))
def test_seals(row: dict[str, Any]) -> None:
    key, plaintext, associated, box = octets(row, "key", "plaintext", "associated", "box")
    assert AESGCM(key).encrypt(bytes(12), plaintext, associated) == box


def test_seals_that_are_refused() -> None:
    def act(row: dict[str, Any]) -> None:
        key, box, associated = octets(row, "key", "box", "associated")
        with pytest.raises(InvalidTag):
            plain.open_box(key, box, associated)
        open_sealed(key, box, associated)

    check_refusals(FILE["seal_refusals"], act)


@pytest.mark.parametrize("row", FILE["signatures"], ids=lambda row: row["context"])
def test_signatures(row: dict[str, Any]) -> None:
    private, message, signed, signature = octets(row, "private", "message", "signed", "signature")
    assert signed == b"ridotto/1 " + row["context"].encode() + b"\x00" + message
    assert Ed25519PrivateKey.from_private_bytes(private).sign(signed) == signature
    assert plain.identity_of(row["private"]).hex() == row["public"]


def test_signatures_that_are_refused() -> None:
    def act(row: dict[str, Any]) -> None:
        public, message, signature = octets(row, "public", "message", "signature")
        with pytest.raises((InvalidSignature, ValueError)):
            plain.check_signature(public, row["context"], message, signature)
        verify(public, row["context"], message, signature)

    check_refusals(FILE["signature_refusals"], act)


def test_shares_that_are_refused() -> None:
    def act(row: dict[str, Any]) -> None:
        reconstruct({point: bytes.fromhex(share) for point, share in row["shares"]}, row["threshold"])

    check_refusals(FILE["share_refusals"], act)


@pytest.mark.parametrize("row", FILE["trees"], ids=lambda row: len(row["leaves"]))
def test_trees(row: dict[str, Any]) -> None:
    leaves = [bytes.fromhex(leaf) for leaf in row["leaves"]]
    assert row["root"] == plain.merkle_root(leaves).hex()
    for place, proof in enumerate(row["proofs"]):
        assert proof == [value.hex() for value in beside(leaves, place)]


def beside(leaves: list[bytes], place: int) -> list[bytes]:
    """The roots of what lies beside the way from a leaf up."""
    if len(leaves) == 1:
        return []
    split = max(2**power for power in range(10) if 2**power < len(leaves))
    left, right = leaves[:split], leaves[split:]
    if place < split:
        return [*beside(left, place), plain.merkle_root(right)]
    return [*beside(right, place - split), plain.merkle_root(left)]


def test_proofs_that_are_refused() -> None:
    def act(row: dict[str, Any]) -> None:
        root, leaf = octets(row, "root", "leaf")
        proof = [bytes.fromhex(value) for value in row["proof"]]
        check_proof(root, leaf, row["index"], row["count"], proof, "peer")

    check_refusals(FILE["tree_refusals"], act)
