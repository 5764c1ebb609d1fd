"""Vectors of what is left of a round: its signed record, its receipt, proofs of having been in a sum."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache, partial
from typing import Any

import msgspec
from msgspec.structs import replace

from ridotto.core.machine import COORDINATOR
from ridotto.crypto.seal import IdentityKey
from ridotto.rounds.inclusion import Inclusion, check_inclusion, prove_inclusion
from ridotto.rounds.receipt import OpenedSum, SignedReceipt, commit_sum, encode_receipt, make_receipt, without_names
from ridotto.rounds.record import RoundRecord, SignedRecord, session_record, sign_record
from ridotto.secagg.committee_roles.evidence import Evidence
from ridotto.secagg.session import Session
from ridotto.trust.audit import audit
from vectors import committee, ideal
from vectors.common import BITS, PARTICIPANTS, identity_of
from vectors.crypto import refused
from vectors.recording import Recording

SALTS = (bytes(range(32)), bytes(range(32, 64)))
"""Of the two sums. A coordinator keeps them to itself."""


def coordinator() -> IdentityKey:
    """Return the identity that signs."""
    return identity_of(COORDINATOR)


@cache
def sums() -> tuple[tuple[Session, Recording, list[int], OpenedSum], ...]:
    """Return two recorded sessions of one round: committee.json is shard 0, ideal-sparse.json is shard 1."""
    with_committee, masked, _ = committee.record()
    in_clear, added = ideal.record(True)
    evidence = next(record for record in with_committee.published if isinstance(record, Evidence))
    plain: dict[int, Any] = {PARTICIPANTS.index(e.sender): e.message for e, _ in in_clear.sent}
    session, other = committee.SETUP.session, ideal.session_of(True)
    if masked.opened is None:
        raise RuntimeError("the recorded session opened no sum")
    totals = masked.opened, added.total
    commitments = [commit_sum(total, BITS, salt) for total, salt in zip(totals, SALTS, strict=True)]
    opened = OpenedSum(session, evidence.digests, commitments[0], evidence)
    clear = OpenedSum(other, {place: message.digest for place, message in plain.items()}, commitments[1])
    return (session, with_committee, totals[0].tolist(), opened), (other, in_clear, totals[1].tolist(), clear)


@cache
def receipt() -> SignedReceipt:
    """Return the receipt of the round that both sessions are of."""
    return make_receipt(signed_record(), [opened for *_, opened in sums()], coordinator())


def signed_record() -> SignedRecord:
    """Return the round's record."""
    (first, *_), _ = sums()
    parts = tuple(
        session_record(recording.finished[COORDINATOR].result, session.shard, len(session.members), "", ())
        for session, recording, *_ in sums()
    )
    record = RoundRecord(
        round=first.round,
        attempt=1,
        plan=first.plan.hex(),
        protocol="committee",
        model_before=first.model.hex(),
        model="ab" * 32,
        started=1_750_000_000.25,
        finished=1_750_000_100.0,
        sessions=parts,
        participants=6,
        examples=120,
        metrics={"loss": 0.5, "accuracy": 0.75},
    )
    return sign_record(record, coordinator())


def build() -> dict[str, object]:
    """Return everything that is in receipts.json."""
    record, signed = signed_record(), receipt()
    return {
        "pages": ["docs/receipts.md", "docs/protocols/rounds.md"],
        "private_keys": {COORDINATOR: coordinator().to_bytes().hex()},
        "record": _tree(record),
        "record_encoding": msgspec.msgpack.encode(record.record, order="deterministic").hex(),
        "record_statement": record.record.statement().hex(),
        "record_refusals": record_refusals(),
        "receipt": _tree(signed),
        "receipt_encoding": msgspec.msgpack.encode(signed.receipt, order="deterministic").hex(),
        "receipt_statement": signed.receipt.statement().hex(),
        "receipt_refusals": receipt_refusals(),
        "sums": [
            {"bits": BITS, "salt": salt.hex(), "sum": total, "commitment": opened.sum.hex()}
            for salt, (_, _, total, opened) in zip(SALTS, sums(), strict=True)
        ],
        "inclusions": [inclusion(opened, place) for *_, opened in sums() for place in opened.digests],
        "inclusion_refusals": inclusion_refusals(),
    }


def _tree(value: SignedRecord | SignedReceipt) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(msgspec.json.encode(value))
    return found


def changed(tree: dict[str, Any], at: list[str | int], put: object) -> dict[str, Any]:
    """Return a tree of JSON with another value at one place."""
    copy: dict[str, Any] = json.loads(json.dumps(tree))
    part: Any = copy
    for step in at[:-1]:
        part = part[step]
    part[at[-1]] = put
    return copy


def record_refusals() -> list[dict[str, object]]:
    """Return records whose signature does not hold: the honest one with another value at one place."""
    tree = _tree(signed_record())
    other = identity_of("p0").public.hex()
    cases: dict[str, tuple[list[str | int], object]] = {
        "another model": (["record", "model"], "cd" * 32),
        "somebody in the sum who was not": (["record", "sessions", 0, "included"], ["p0", "p1"]),
        "another metric": (["record", "metrics", "loss"], 0.25),
        "the key of somebody else": (["coordinator"], other),
        "a signature of one changed digit": (["signature"], _other_digit(tree["signature"])),
        "a signature that is not hexadecimal": (["signature"], "x" * 128),
    }
    rows: list[dict[str, object]] = []
    for name, (at, put) in cases.items():
        lie = msgspec.json.decode(json.dumps(changed(tree, at, put)), type=SignedRecord)
        rows.append({"name": name, "at": at, "put": put, "why": refused(partial(lie.check, coordinator().public))})
    return rows


def _other_digit(text: str) -> str:
    return ("1" if text[0] == "0" else "0") + text[1:]


def receipt_refusals() -> list[dict[str, object]]:
    """Return receipts that an audit refuses. names: whether record and sessions lie beside it."""
    full, alone = _tree(receipt()), _tree(without_names(receipt()))
    cases: dict[str, tuple[bool, list[str | int], object]] = {
        "another model": (False, ["receipt", "model"], "cd" * 32),
        "another root": (False, ["receipt", "sums", 0, "root"], "00" * 32),
        "a signature of one changed digit": (False, ["signature"], _other_digit(full["signature"])),
        "the key of somebody else": (False, ["coordinator"], identity_of("p0").public.hex()),
        "an unknown key": (False, ["more"], 1),
        "a hash in capitals": (False, ["receipt", "plan"], full["receipt"]["plan"].upper()),
        "a record that was changed": (True, ["record", "record", "examples"], 121),
        "a session too few": (True, ["sessions"], full["sessions"][:1]),
        "the sessions in another order": (True, ["sessions"], full["sessions"][::-1]),
        "a session that can't be read": (True, ["sessions", 0], "AAAA"),
        "an acknowledgement of another seat": (False, ["receipt", "sums", 0, "committee", "acks", 0, 0], 1),
    }
    rows: list[dict[str, object]] = []
    for name, (names, at, put) in cases.items():
        data = json.dumps(changed(full if names else alone, at, put)).encode()
        why = refused(partial(audit, data, coordinator().public))
        rows.append({"name": name, "names": names, "at": at, "put": put, "why": why})
    return rows + resigned_refusals()


def resigned_refusals() -> list[dict[str, object]]:
    """Return receipts that the coordinator has signed itself, and that say what its committee did not."""
    honest = receipt().receipt
    first, second = honest.sums
    committee_of: Any = first.committee
    cases: Mapping[str, Any] = {
        "a set that the committee did not acknowledge": replace(first, root="00" * 32),
        "fewer acknowledgements than a quorum": replace(
            first, committee=replace(committee_of, acks=committee_of.acks[:1])
        ),
        "keys that the committee did not have": replace(first, committee=replace(committee_of, book=bytes(32))),
        "another session": replace(first, sid="00" * 32),
    }
    rows: list[dict[str, object]] = []
    for name, lie in cases.items():
        said = replace(honest, sums=(lie, second))
        signature = coordinator().sign("round receipt", said.statement()).hex()
        signed = SignedReceipt(receipt=said, coordinator=coordinator().public.hex(), signature=signature)
        why = refused(partial(audit, encode_receipt(signed), coordinator().public))
        rows.append({"name": name, "receipt": _tree(signed), "why": why})
    return rows


def inclusion(opened: OpenedSum, place: int) -> dict[str, object]:
    """Return the proof that a participant's contribution is in a sum."""
    sid = receipt().receipt.sums[opened.session.shard].sid
    proof = prove_inclusion(bytes.fromhex(sid), opened.digests, place)
    return {
        "sid": sid,
        "participant": opened.session.members[place].name,
        "contribution": opened.digests[place].hex(),
        "index": proof.index,
        "proof": [value.hex() for value in proof.proof],
        "message": msgspec.msgpack.encode(proof).hex(),
    }


def inclusion_refusals() -> list[dict[str, object]]:
    """Return proofs that p0 of the first session refuses."""
    session, _, _, opened = sums()[0]
    good = prove_inclusion(bytes.fromhex(receipt().receipt.sums[0].sid), opened.digests, 0)
    mine = opened.digests[0]
    cases: dict[str, tuple[bytes, Inclusion]] = {
        "another contribution": (opened.digests[1], good),
        "another place": (mine, replace(good, index=1)),
        "the proof of somebody else": (mine, prove_inclusion(good.sid, opened.digests, 1)),
        "a hash too few": (mine, replace(good, proof=good.proof[:-1])),
        "another session": (mine, replace(good, sid=bytes(32))),
    }
    return [
        {
            "name": name,
            "contribution": contribution.hex(),
            "message": msgspec.msgpack.encode(proof).hex(),
            "why": refused(partial(check_inclusion, receipt().receipt, session, "p0", contribution, proof)),
        }
        for name, (contribution, proof) in cases.items()
    ]
