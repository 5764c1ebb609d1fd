"""The recorded sessions of `ideal` and `pairwise`, recomputed from the secrets in their files with nothing of ours."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from tests.vectors import plain
from tests.vectors.files import load

FILES = ("pairwise.json", "pairwise-sparse.json")


def said(file: dict[str, Any], kind: str) -> dict[int, list[Any]]:
    """Fields of the messages of a kind, by the member who sent them, or (of the coordinator) got them."""
    found = {}
    for row in file["messages"]:
        if row["kind"] == kind:
            members = [row["from"]] if row["from"] != "coordinator" else row["to"]
            found.update({int(name[1:]): plain.decode(row["header"])[1:] for name in members})
    return found


def attachments(file: dict[str, Any], kind: str) -> dict[int, bytes]:
    rows = (row for row in file["messages"] if row["kind"] == kind)
    return {int(row["from"][1:]): bytes.fromhex(row["attachment"]) for row in rows}


def session_of(file: dict[str, Any]) -> dict[str, Any]:
    fields = ("protocol", "plan", "model", "nonce", "round", "shard", "members", "length", "bits", "minimum")
    kind, *values = msgspec.msgpack.decode(bytes.fromhex(file["session"]))
    assert kind == "Session"
    names = (*fields, "corrupt", "neighbours", "threshold", "attempt")
    return dict(zip(names, values, strict=True))


def check_session(file: dict[str, Any]) -> None:
    encoding = bytes.fromhex(file["session"])
    assert file["sid"] == plain.sha256(b"ridotto/1 session\x00", encoding).hex()
    session = session_of(file)
    assert session["protocol"] == file["protocol"]
    identities = {name: plain.identity_of(private) for name, private in file["private_keys"].items()}
    assert dict(session["members"]) == identities


@pytest.mark.parametrize("name", ["ideal.json", "ideal-sparse.json"])
def test_ideal_sends_vectors_and_opens_their_sum(name: str) -> None:
    file = load(name)
    check_session(file)
    session = session_of(file)
    derived, bits = file["derivations"], session["bits"]
    assert bytes.fromhex(derived["hashed_to_sid"])[18:].hex() == file["session"]
    sent = attachments(file, "Plain")
    for member, (hashed, size, sid) in said(file, "Plain").items():
        vector = file["vectors"][f"p{member}"]
        assert plain.packed(vector, bits).hex() == derived["packed"][f"p{member}"]
        assert (hashed, size, sid.hex()) == (plain.sha256(sent[member]), len(sent[member]), file["sid"])
        assert sent[member].hex() == derived["sent"][f"p{member}"]
        assert read(sent[member], bits, session["length"]) == vector
        assert (sent[member] == plain.packed(vector, bits)) != file["sparse"]
    assert file["sum"] == [sum(column) % 2**bits for column in zip(*file["vectors"].values(), strict=True)]


def test_both_sparse_forms_are_sent() -> None:
    assert {data[0] % 2 for data in attachments(load("ideal-sparse.json"), "Plain").values()} == {0, 1}


def read(data: bytes, bits: int, length: int) -> list[int]:
    """A vector in either form, as the page on `ideal` has them."""
    if len(data) >= (length * bits + 7) // 8:
        return plain.unpacked(data, bits, length)
    head, rest = int.from_bytes(data[:8], "little"), data[8:]
    count, width = head >> 1, max(8, (length - 1).bit_length())
    size = (length + 7) // 8 if head % 2 else (count * width + 7) // 8
    flags = plain.unpacked(rest[:size], 1, length) if head % 2 else []
    places = [i for i, flag in enumerate(flags) if flag] if head % 2 else plain.unpacked(rest[:size], width, count)
    elements = plain.unpacked(rest[size:], bits, count)
    found = dict(zip(places, elements, strict=True))
    return [found.get(place, 0) for place in range(length)]


@pytest.fixture(params=FILES, name="file")
def _file(request: pytest.FixtureRequest) -> dict[str, Any]:
    return load(request.param)


def test_the_session_and_its_keys(file: dict[str, Any]) -> None:
    check_session(file)
    sid, members = bytes.fromhex(file["sid"]), session_of(file)["members"]
    for member, (named, exchange, mask, signature) in said(file, "PublicKeys").items():
        secrets = file["secrets"][f"p{member}"]
        assert named == sid
        assert (exchange, mask) == (plain.public_of(secrets["exchange"]), plain.public_of(secrets["mask"]))
        statement = sid + plain.be32(member) + exchange + mask
        plain.check_signature(members[member][1], "pairwise keys", statement, signature)
    derived = file["derivations"]["keys"]
    assert derived["context"] == "pairwise keys"
    first = said(file, "PublicKeys")[0]
    assert bytes.fromhex(derived["statement"]) == sid + plain.be32(0) + first[1] + first[2]


def test_the_book_its_root_and_its_graph(file: dict[str, Any]) -> None:
    sid, session = bytes.fromhex(file["sid"]), session_of(file)
    keys, (book,) = said(file, "PublicKeys"), {json.dumps(b, default=bytes.hex) for b in said(file, "KeyBook").values()}
    assert json.loads(book)[1] == [[m, *(field.hex() for field in keys[m][1:])] for m in sorted(keys)]
    hashed = b"".join(sid + plain.be32(m) + keys[m][1] + keys[m][2] for m in sorted(keys))
    root = plain.sha256(b"book\x00", sid, hashed)
    assert file["book"] == root.hex()
    holders = {f"p{m}": sorted(keys) for m in keys}
    threshold = (len(keys) + session["corrupt"]) // 2 + 1
    if session["neighbours"]:
        threshold, reach = session["threshold"], session["neighbours"] // 2
        circle = sorted(keys, key=lambda m: plain.sha256(root, plain.be32(m)))
        steps = [step for step in range(-reach, reach + 1) if step]
        near = {m: [circle[(place + step) % len(circle)] for step in steps] for place, m in enumerate(circle)}
        holders = {f"p{m}": sorted(near[m]) for m in keys}
    assert (file["holders"], file["threshold"]) == (holders, threshold)


def opened(file: dict[str, Any]) -> dict[tuple[int, int], tuple[bytes, bytes]]:
    """Both shares in every box that was handed out, by owner and holder, opened with the holder's secrets."""
    sid, book, keys = bytes.fromhex(file["sid"]), bytes.fromhex(file["book"]), said(file, "PublicKeys")
    found = {}
    for owner, (_, _, _, boxes, _) in said(file, "SealedShares").items():
        neighbours = [holder for holder in file["holders"][f"p{owner}"] if holder != owner]
        for holder, box in zip(neighbours, boxes, strict=True):
            info = plain.be32(min(owner, holder), max(owner, holder))
            private = file["secrets"][f"p{holder}"]["exchange"]
            agreed = plain.agree(private, keys[owner][1], sid, b"pairwise box", info)
            key = agreed[:16] if owner < holder else agreed[16:]
            shares = plain.open_box(key, box, sid + book + plain.be32(owner, holder))
            found[owner, holder] = shares[:36], shares[36:]
    return found


def test_boxes_open_and_hold_what_was_committed_to(file: dict[str, Any]) -> None:
    sid, shares = bytes.fromhex(file["sid"]), opened(file)
    for owner, (named, book, seed_commitment, _, commitments) in said(file, "SealedShares").items():
        secrets, holders = file["secrets"][f"p{owner}"], file["holders"][f"p{owner}"]
        assert (named, book.hex()) == (sid, file["book"])
        assert seed_commitment == plain.sha256(b"seed\x00", sid, plain.be32(owner), bytes.fromhex(secrets["seed"]))
        assert len(commitments) == 64 * len(holders)
        for place, holder in enumerate(holders):
            for kind, share in zip((b"seed", b"mask key"), shares.get((owner, holder), ()), strict=False):
                at = 64 * place + 32 * (kind != b"seed")
                expected = plain.sha256(b"share\x00", sid, plain.be32(owner, holder), kind, share)
                assert commitments[at : at + 32] == expected
        for place, name in enumerate(("seed", "mask")):
            held = {h + 1: pair[place] for (o, h), pair in shares.items() if o == owner}
            few = dict(list(held.items())[: file["threshold"]])
            assert plain.reconstruct(few).hex() == secrets[name]


def test_deliveries_are_the_boxes_of_others(file: dict[str, Any]) -> None:
    handed = said(file, "SealedShares")
    for holder, (_, boxes) in said(file, "Delivery").items():
        expected = []
        for owner in sorted(handed):
            holders = file["holders"][f"p{owner}"]
            if owner == holder or holder not in holders:
                continue
            place = holders.index(holder)
            box = handed[owner][3][[h for h in holders if h != owner].index(holder)]
            commitments = handed[owner][4][64 * place : 64 * place + 64]
            expected.append([owner, box, commitments[:32], commitments[32:]])
        assert boxes == expected


def masks_of(file: dict[str, Any], member: int) -> list[tuple[int, list[int]]]:
    """Sign and elements of every mask that a member adds: its own, and one with each neighbour that shared."""
    sid, session, keys = bytes.fromhex(file["sid"]), session_of(file), said(file, "PublicKeys")
    secrets, shape = file["secrets"][f"p{member}"], (session["bits"], session["length"])
    masks = [(1, plain.mask(bytes.fromhex(secrets["seed"]), sid, *shape))]
    for owner, *_ in said(file, "Delivery")[member][1]:
        info = plain.be32(min(owner, member), max(owner, member))
        seed = plain.agree(secrets["mask"], keys[owner][2], sid, b"pairwise mask", info)
        masks.append((1 if owner > member else -1, plain.mask(seed, sid, *shape)))
    return masks


def added(vector: list[int], masks: list[tuple[int, list[int]]], bits: int) -> list[int]:
    return [
        (element + sum(sign * mask[place] for sign, mask in masks)) % 2**bits for place, element in enumerate(vector)
    ]


def test_masked_vectors(file: dict[str, Any]) -> None:
    bits, sent = session_of(file)["bits"], attachments(file, "Masked")
    assert set(sent) == set(said(file, "Masked")) == {int(name[1:]) for name in file["included"]}
    for member, data in sent.items():
        masked = added(file["vectors"][f"p{member}"], masks_of(file, member), bits)
        assert plain.packed(masked, bits) == data
        assert said(file, "Masked")[member] == [plain.sha256(data), len(data), bytes.fromhex(file["sid"])]
    steps = file["derivations"]["masked"]
    assert [(row["sign"], row["elements"]) for row in steps["masks"]] == masks_of(file, 0)
    assert steps["word_bits"] == plain.container(bits)
    assert steps["sum"] == added(steps["vector"], masks_of(file, 0), steps["word_bits"])
    assert [value % 2**bits for value in steps["sum"]] == steps["reduced"]
    assert bytes.fromhex(steps["packed"]) == sent[0]
    for row in steps["masks"]:
        sid = bytes.fromhex(file["sid"])
        assert row["key"] == plain.hkdf(bytes.fromhex(row["seed"]), sid, b"mask", 16).hex()


def test_survivors_and_their_votes(file: dict[str, Any]) -> None:
    sid, members = bytes.fromhex(file["sid"]), session_of(file)["members"]
    included = [int(name[1:]) for name in file["included"]]
    assert all(fields == [sid, included] for fields in said(file, "Survivors").values())
    statement = sid + bytes.fromhex(file["book"]) + plain.be32(*included)
    assert file["derivations"]["consistency"]["statement"] == statement.hex()
    votes = {member: fields[1] for member, fields in said(file, "Consistency").items()}
    for member, signature in votes.items():
        plain.check_signature(members[member][1], "pairwise consistency", statement, signature)
    for _, shown in said(file, "Evidence").values():
        assert shown == [[member, votes[member]] for member in sorted(votes)]


def test_unmasking_reveals_one_share_of_each_owner(file: dict[str, Any]) -> None:
    shares, included = opened(file), {int(name[1:]) for name in file["included"]}
    for holder, (_, seed, revealed, unopened) in said(file, "Unmask").items():
        assert seed.hex() == file["secrets"][f"p{holder}"]["seed"]
        assert unopened == []
        for owner, share in revealed:
            if owner != holder:
                assert share == shares[owner, holder][owner not in included]
        owners = [owner for owner, _ in revealed]
        assert owners == sorted(owner for owner in said(file, "SealedShares") if holder in file["holders"][f"p{owner}"])


def test_the_sum_is_opened_with_what_was_revealed(file: dict[str, Any]) -> None:
    """Only messages are read here: what the coordinator has."""
    session, sid, keys = session_of(file), bytes.fromhex(file["sid"]), said(file, "PublicKeys")
    bits, length = session["bits"], session["length"]
    included, revealed = [int(name[1:]) for name in file["included"]], said(file, "Unmask")
    rebuilt = {}
    for owner in said(file, "SealedShares"):
        held = {h + 1: share for h, fields in revealed.items() for o, share in fields[2] if o == owner}
        rebuilt[owner] = plain.reconstruct(dict(sorted(held.items())[: file["threshold"]]))
    expected = [(-1, rebuilt[owner]) for owner in included]
    for owner in sorted(set(rebuilt) - set(included)):
        assert plain.public_of(rebuilt[owner].hex()) == keys[owner][2]
        for peer in [peer for peer in included if peer in file["holders"][f"p{owner}"] and peer != owner]:
            info = plain.be32(min(owner, peer), max(owner, peer))
            seed = plain.agree(rebuilt[owner].hex(), keys[peer][2], sid, b"pairwise mask", info)
            expected.append((-1 if peer < owner else 1, seed))
    opening = [(row["sign"], bytes.fromhex(row["seed"])) for row in file["derivations"]["opening"]]
    assert opening == expected
    vectors = [plain.unpacked(data, bits, length) for data in attachments(file, "Masked").values()]
    total = [sum(column) for column in zip(*vectors, strict=True)]
    total = added(total, [(sign, plain.mask(seed, sid, bits, length)) for sign, seed in expected], bits)
    inputs = [file["vectors"][f"p{member}"] for member in included]
    assert file["sum"] == total == [sum(column) % 2**bits for column in zip(*inputs, strict=True)]
    assert total[5] == len(included)


def test_a_pair_step_by_step(file: dict[str, Any]) -> None:
    sid, step, keys = bytes.fromhex(file["sid"]), file["derivations"]["pair"], said(file, "PublicKeys")
    peer, secrets = step["peer"], file["secrets"]["p0"]
    info = plain.be32(0, peer)
    boxes = plain.agree(secrets["exchange"], keys[peer][1], sid, b"pairwise box", info)
    shares = plain.open_box(boxes[:16], bytes.fromhex(step["box"]), bytes.fromhex(step["associated"]))
    assert step == {
        "peer": peer,
        "info": info.hex(),
        "boxes": boxes.hex(),
        "box_key": boxes[:16].hex(),
        "box_key_of_the_other_direction": boxes[16:].hex(),
        "mask_seed": plain.agree(secrets["mask"], keys[peer][2], sid, b"pairwise mask", info).hex(),
        "associated": (sid + bytes.fromhex(file["book"]) + info).hex(),
        "seed_share": shares[:36].hex(),
        "mask_share": shares[36:].hex(),
        "box": step["box"],
        "place_in_commitments": file["holders"]["p0"].index(peer),
        "commitment_to_seed_share": plain.sha256(b"share\x00", sid, info, b"seed", shares[:36]).hex(),
        "commitment_to_mask_share": plain.sha256(b"share\x00", sid, info, b"mask key", shares[36:]).hex(),
        "commitment_to_seed": said(file, "SealedShares")[0][2].hex(),
    }


def test_shares_of_given_coefficients(file: dict[str, Any]) -> None:
    step = file["derivations"]["shamir"]
    drawn = bytes.fromhex(step["drawn"])
    words = [int.from_bytes(drawn[i : i + 4], "little") % 2**31 for i in range(0, len(drawn), 4)]
    count = 9 * (step["threshold"] - 1)
    words, spare = words[:count], words[count:]
    words = [spare.pop(0) if word == plain.PRIME else word for word in words]
    assert spare == []
    rows = [words[9 * i : 9 * i + 9] for i in range(step["threshold"] - 1)]
    secret = bytes.fromhex(step["secret"])
    assert [plain.share_at(secret, rows, point).hex() for point in step["points"]] == step["shares"]
    some = {point: bytes.fromhex(share) for point, share in zip(step["points"][1:], step["shares"][1:], strict=True)}
    assert plain.reconstruct(some) == secret


def test_a_box_that_does_not_open_is_told_at_the_end(file: dict[str, Any]) -> None:
    row = file["complaint"]
    honest = plain.decode(file["messages"][row["message"]]["header"])
    _, _, seed, shares, unopened = plain.decode(row["answer"])
    owner = honest[2][1][0]  # type: ignore[index]
    assert unopened == [owner]
    assert owner not in [revealed[0] for revealed in shares]  # type: ignore[attr-defined]
    assert len(shares) == len(said(file, "Unmask")[0][2]) - 1  # type: ignore[arg-type]
    assert seed.hex() == file["secrets"]["p0"]["seed"]  # type: ignore[attr-defined]
