"""receipts.json, recomputed as docs/receipts.md has it; and what it says is refused, refused."""

from __future__ import annotations

import base64
import json
from typing import Any

import msgspec

from ridotto.rounds.inclusion import Inclusion, check_inclusion
from ridotto.rounds.receipt import decode_receipt
from ridotto.rounds.record import SignedRecord
from ridotto.secagg.session import Session
from ridotto.trust.audit import audit
from tests.vectors import plain
from tests.vectors.files import check_refusals, load
from vectors.receipts import changed

FILE = load("receipts.json")
PUBLIC = plain.identity_of(FILE["private_keys"]["coordinator"])


def fields_in_order(record: dict[str, Any]) -> dict[str, Any]:
    """A record as its page has it: keys in the order of the page, but sorted where their order means nothing."""
    part = ("sid", "shard", "members", "included", "lost", "failure", "blamed", "excluded")
    whole = (
        *("round", "attempt", "plan", "protocol", "model_before", "model", "started", "finished", "sessions"),
        *("participants", "examples", "saturated", "metrics", "failure", "clip", "clipped", "privacy", "epsilon_left"),
    )
    found = {name: record[name] for name in whole}
    found["metrics"] = dict(sorted(record["metrics"].items()))
    found["sessions"] = [{name: one[name] for name in part} for one in record["sessions"]]
    for one in found["sessions"]:
        one["lost"] = dict(sorted(one["lost"].items()))
    return found


def test_the_record() -> None:
    signed = FILE["record"]
    encoding = msgspec.msgpack.encode(fields_in_order(signed["record"]))
    assert encoding.hex() == FILE["record_encoding"]
    statement = plain.sha256(b"ridotto/1 record\x00", encoding)
    assert (FILE["record_statement"], signed["coordinator"]) == (statement.hex(), PUBLIC.hex())
    plain.check_signature(PUBLIC, "round record", statement, bytes.fromhex(signed["signature"]))


def test_records_that_are_refused() -> None:
    def act(row: dict[str, Any]) -> None:
        lie = json.dumps(changed(FILE["record"], row["at"], row["put"]))
        msgspec.json.decode(lie, type=SignedRecord).check(PUBLIC)

    check_refusals(FILE["record_refusals"], act)


def votes(tree: Any) -> Any:
    """Signatures and digests in the lists of a committee, which have no names, out of their base64."""
    if isinstance(tree, dict):
        lists = {
            name: [[row[0], *map(base64.b64decode, row[1:])] for row in value]
            for name, value in tree.items()
            if name in ("acks", "releases")
        }
        return {name: lists.get(name, votes(value)) for name, value in tree.items()}
    return [votes(value) for value in tree] if isinstance(tree, list) else tree


def in_page_order(receipt: dict[str, Any]) -> dict[str, Any]:
    """The signed part with its keys in the order of the page, and the byte strings that it hashes."""
    found: dict[str, Any] = votes(receipt)
    assert list(found) == ["round", "attempt", "plan", "model_before", "model", "record", "sums"]
    for one in found["sums"]:
        assert list(one) == ["sid", "shard", "protocol", "root", "count", "sum", "committee"]
        if one["committee"] is not None:
            assert list(one["committee"]) == ["layout", "book", "acks", "releases"]
            for name in ("layout", "book"):
                one["committee"][name] = base64.b64decode(one["committee"][name])
    return found


def test_the_receipt() -> None:
    signed = FILE["receipt"]
    encoding = msgspec.msgpack.encode(in_page_order(signed["receipt"]))
    assert encoding.hex() == FILE["receipt_encoding"]
    statement = plain.sha256(b"ridotto/1 receipt\x00", encoding)
    assert FILE["receipt_statement"] == statement.hex()
    plain.check_signature(PUBLIC, "round receipt", statement, bytes.fromhex(signed["signature"]))
    assert signed["receipt"]["record"] == FILE["record_statement"]
    assert signed["record"] == FILE["record"]
    said = audit(json.dumps(signed).encode(), PUBLIC)
    assert said[0].startswith(f"The coordinator with key {PUBLIC.hex()} signed this receipt of round 1")


def test_sums_and_their_commitments() -> None:
    sessions = [load(name) for name in ("committee.json", "ideal-sparse.json")]
    for row, one, session in zip(FILE["sums"], FILE["receipt"]["receipt"]["sums"], sessions, strict=True):
        packed = plain.packed(row["sum"], row["bits"])
        commitment = plain.sha256(b"ridotto/1 sum\x00", bytes.fromhex(row["salt"]), packed).hex()
        assert row["commitment"] == one["sum"] == commitment
        assert (row["sum"], one["sid"]) == (session["sum"], session["sid"])


def test_what_the_committee_signed() -> None:
    """Its signatures are over context, book and root; the layout names the members."""
    one = FILE["receipt"]["receipt"]["sums"][0]
    committee, file = votes(one["committee"]), load("committee.json")
    layout, book = (base64.b64decode(one["committee"][name]) for name in ("layout", "book"))
    assert layout.hex() == file["layout"]
    context, root = bytes.fromhex(file["context"]), bytes.fromhex(one["root"])
    keys = [member[1] for member in msgspec.msgpack.decode(layout)[0][0]]
    assert [name for name, _ in msgspec.msgpack.decode(layout)[0][0]] == file["members"]
    for seat, signature in committee["acks"]:
        plain.check_signature(keys[seat], "committee set", context + book + root, signature)
    assert len(committee["acks"]) == len(keys)


def test_proofs_of_having_been_in_a_sum() -> None:
    sums = FILE["receipt"]["receipt"]["sums"]
    for row in FILE["inclusions"]:
        one = next(one for one in sums if one["sid"] == row["sid"])
        rows = [other for other in FILE["inclusions"] if other["sid"] == row["sid"]]
        leaves = [plain.be32(int(other["participant"][1:])) + bytes.fromhex(other["contribution"]) for other in rows]
        assert (one["count"], one["root"]) == (len(leaves), plain.merkle_root(leaves).hex())
        proof = [bytes.fromhex(value) for value in row["proof"]]
        message = ["Inclusion", bytes.fromhex(row["sid"]), row["index"], proof]
        assert msgspec.msgpack.encode(message).hex() == row["message"]
        assert climb(plain.sha256(b"\x00", leaves[row["index"]]), row["index"], len(leaves), proof).hex() == one["root"]


def climb(value: bytes, index: int, count: int, proof: list[bytes]) -> bytes:
    """The root that a proof leads to: RFC 6962, from the leaf up."""
    if count == 1:
        assert proof == []
        return value
    split = 1 << (count - 1).bit_length() - 1
    if index < split:
        return plain.sha256(b"\x01", climb(value, index, split, proof[:-1]), proof[-1])
    return plain.sha256(b"\x01", proof[-1], climb(value, index - split, count - split, proof[:-1]))


def test_receipts_that_are_refused() -> None:
    alone = FILE["receipt"] | {"record": None, "sessions": []}

    def act(row: dict[str, Any]) -> None:
        lie = row.get("receipt") or changed(FILE["receipt"] if row["names"] else alone, row["at"], row["put"])
        audit(json.dumps(lie).encode(), PUBLIC)

    check_refusals(FILE["receipt_refusals"], act)


def test_proofs_that_are_refused() -> None:
    session = msgspec.msgpack.decode(bytes.fromhex(load("committee.json")["session"]), type=Session)
    receipt = decode_receipt(json.dumps(FILE["receipt"]).encode()).receipt

    def act(row: dict[str, Any]) -> None:
        proof = msgspec.msgpack.decode(bytes.fromhex(row["message"]), type=Inclusion)
        check_inclusion(receipt, session, "p0", bytes.fromhex(row["contribution"]), proof)

    check_refusals(FILE["inclusion_refusals"], act)
