"""committee.json and oneshot.json, recomputed with nothing of ours as far as no lattice is needed."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey

from tests.vectors import plain
from tests.vectors.files import load

DOMAINS = {"committee": b"ridotto/1 committee\x00", "oneshot": b"ridotto/1 oneshot R96\x00"}
FILES = {name: load(f"{name}.json") for name in ("committee", "committee-hybrid", "oneshot")}


@pytest.fixture(params=FILES, name="file")
def _file(request: pytest.FixtureRequest) -> dict[str, Any]:
    return FILES[request.param]


def identities(file: dict[str, Any]) -> dict[str, bytes]:
    return {name: plain.identity_of(private) for name, private in file["private_keys"].items()}


def said(file: dict[str, Any], kind: str) -> list[tuple[str, list[str], list[Any], bytes]]:
    """Sender, receivers, fields and attachment of each message of a kind."""
    return [
        (row["from"], row["to"], plain.decode(row["header"])[1:], bytes.fromhex(row.get("attachment", "")))
        for row in file["messages"]
        if row["kind"] == kind
    ]


def test_session_pool_and_choice(file: dict[str, Any]) -> None:
    sid, layout = bytes.fromhex(file["sid"]), bytes.fromhex(file["layout"])
    assert sid == plain.sha256(b"ridotto/1 session\x00", bytes.fromhex(file["session"]))
    assert file["context"] == plain.sha256(DOMAINS[file["protocol"]], sid, layout).hex()
    pool, beacon = {name: bytes.fromhex(key) for name, key in file["pool"]}, bytes.fromhex(file["beacon"])
    assert pool.items() <= identities(file).items()
    root = plain.merkle_root([key + name.encode() for name, key in sorted(pool.items())])
    ranks = {name: plain.sha256(b"ridotto/1 choice\x00", root, beacon, key) for name, key in pool.items()}
    members = sorted(sorted(ranks, key=ranks.__getitem__)[: len(file["members"])])
    assert members == file["members"]
    shown, _, shown_root, shown_beacon = msgspec.msgpack.decode(layout)[0]
    assert (shown, shown_root, shown_beacon) == ([[name, pool[name]] for name in members], root, beacon)


def test_how_slots_are_dealt() -> None:
    file = FILES["committee"]
    (members, _, root, beacon), slots, *_ = msgspec.msgpack.decode(bytes.fromhex(file["layout"]))
    keys = [key for _, key in members]
    order = sorted(range(len(keys)), key=lambda seat: plain.sha256(b"ridotto/1 slots\x00", root, beacon, keys[seat]))
    assert slots == file["slots"] == [order.index(seat) % 2 for seat in range(len(keys))]


def test_sets(file: dict[str, Any]) -> None:
    for row in file["sets"]:
        leaves = [plain.be32(participant) + bytes.fromhex(digest) for participant, digest in row["set"]]
        assert row["root"] == plain.merkle_root(leaves).hex()
        assert len(row["proofs"]) == len(leaves)


@pytest.mark.parametrize("name", ["committee", "oneshot"])
def test_parcels_of_given_secrets(name: str) -> None:
    file = FILES[name]
    step, context = file["derivations"], bytes.fromhex(file["context"])
    book, digest = (bytes.fromhex(step[name]) for name in ("book", "digest"))
    public = plain.public_of(step["member_exchange_private"])
    info = book + plain.be32(step["participant"], step["seat"])
    label = f"{file['protocol']} parcel".encode()
    key = plain.agree(step["participant_exchange_private"], public, context, label, info, 16)
    assert step["parcel_key"] == key.hex()
    opened = plain.open_box(key, bytes.fromhex(step["parcel"]), digest)
    assert opened.hex() == step.get("plaintext", step["seed"])


def test_hybrid_parcels_open_with_the_members_two_keys() -> None:
    """Every parcel of the session, as its member opens it: FIPS 203 of the library, and the rest by hand."""
    file = FILES["committee-hybrid"]
    context, secrets = bytes.fromhex(file["context"]), file["derivations"]["member_secrets"]
    shown = {sender: fields[1] for sender, _, fields, _ in said(file, "MemberKey")}
    entries = said(file, "MemberBook")[0][2][1]
    opened = 0
    for sender, _, (digest, _, _, book, public, commitments, _, parcels), _ in said(file, "MaskedVector"):
        participant, kept = int(sender[1:]), file["encapsulated"][sender]
        assert kept["book"] == book.hex()
        for (seat, _, _), parcel, (secret, ciphertext) in zip(entries, parcels, kept["drawn"], strict=True):
            member = file["members"][seat]
            private = bytes.fromhex(secrets[member])
            kem = MLKEM768PrivateKey.from_seed_bytes(private[32:])
            assert shown[member] == kem.public_key().public_bytes_raw() + plain.public_of(private[:32].hex())
            assert (parcel[:1088].hex(), kem.decapsulate(parcel[:1088]).hex()) == (ciphertext, secret)
            info = book + plain.be32(participant, seat) + public + plain.sha256(parcel[:1088])
            before = bytes.fromhex(secret)
            key = plain.agree(private[:32].hex(), public, context, b"committee parcel", info, 16, before)
            seed = plain.open_box(key, parcel[1088:], digest)
            slot = file["slots"][seat]
            numbers = plain.be32(participant, slot)
            assert commitments[slot] == plain.sha256(b"committee seed\x00", context, numbers, seed)
            opened += 1
    assert opened == 18


def test_the_layout_names_hybrid_seals() -> None:
    """Session, committee and slots are those of committee.json; the context is not."""
    plainer, hybrid = FILES["committee"], FILES["committee-hybrid"]
    layouts = [msgspec.msgpack.decode(bytes.fromhex(file["layout"])) for file in (plainer, hybrid)]
    assert layouts[1] == [*layouts[0], "hybrid"]
    assert plainer["sid"] == hybrid["sid"]
    assert plainer["context"] != hybrid["context"]


def test_seeds_masks_and_noise() -> None:
    file = FILES["committee"]
    step, context = file["derivations"], bytes.fromhex(file["context"])
    seed, root = bytes.fromhex(step["seed"]), bytes.fromhex(step["root"])
    numbers = plain.be32(step["participant"], step["slot"])
    assert step["commitment"] == plain.sha256(b"committee seed\x00", context, numbers, seed).hex()
    assert step["mask_key"] == plain.hkdf(seed, context, b"committee mask", 16).hex()
    assert step["mask_of_8_elements_of_32_bits"] == plain.mask(seed, context, 32, 8, b"committee mask")
    noise = plain.sha256(b"committee noise\x00", context, plain.be32(1), root, seed, seed)
    assert step["noise_seed_of_two_times_this_seed"] == noise.hex()


def test_every_signature_of_the_session(file: dict[str, Any]) -> None:
    context, protocol, known = bytes.fromhex(file["context"]), file["protocol"], identities(file)
    statements = b""
    for sender, _, (_, public, signature), _ in said(file, "MemberKey"):
        seat = plain.be32(file["members"].index(sender))
        plain.check_signature(known[sender], "committee key", context + seat + public, signature)
        statements += context + seat + public
    book = plain.sha256(b"members\x00", statements)
    contributed = {}
    for sender, _, fields, _ in said(file, "MaskedVector") + said(file, "Contribution"):
        digest, _, _, seen, public, *rest = fields
        commitments = b"".join(rest[0]) if protocol == "committee" else b""
        statement = book + plain.be32(int(sender[1:])) + public + digest + commitments
        plain.check_signature(known[sender], f"{protocol} contribution", context + statement, rest[-2])
        assert seen == book
        whole = plain.sha256(b"committee vector\x00", digest, commitments) if commitments else digest
        contributed[int(sender[1:])] = whole
    root = plain.merkle_root([plain.be32(one) + contributed[one] for one in sorted(contributed)])
    for sender, _, (_, acknowledged, signature), _ in said(file, "Ack"):
        assert acknowledged == root
        plain.check_signature(known[sender], "committee set", context + book + root, signature)
    for sender, _, (*_, share, signature), _ in said(file, "Release"):
        released = context + book + root + plain.sha256(share)
        plain.check_signature(known[sender], "oneshot release", released, signature)
    for sender, _, (digest, *_, signature), _ in said(file, "MaskSum"):
        plain.check_signature(known[sender], "committee release", context + book + root + digest, signature)


@pytest.mark.parametrize("name", ["committee", "committee-hybrid"])
def test_the_sum_is_what_is_left_without_one_sum_of_masks_for_each_slot(name: str) -> None:
    file, bits = FILES[name], 20
    count = len(file["sum"])
    vectors = [plain.unpacked(data, bits, count) for *_, data in said(file, "MaskedVector")]
    masks = {
        file["slots"][file["members"].index(sender)]: plain.unpacked(data, bits, count)
        for sender, *_, data in said(file, "MaskSum")
    }
    assert len(masks) == 2
    columns = zip(*vectors, strict=True)
    taken = zip(*masks.values(), strict=True)
    assert file["sum"] == [(sum(a) - sum(b)) % 2**bits for a, b in zip(columns, taken, strict=True)]
