"""A round's receipt: one signed page that commits to everything that made a model.

The page itself tells nobody's part in a sum: it has the hashes of plan, models and record, and of each sum the root of
its set, a commitment to the sum and what the committee signed. It names the committee, and nobody else. So it can be
published. What names participants comes beside it, for those who may see the federation: the signed record, and the
sessions that the ids are hashes of. Without these the page holds as well.

The commitment to a sum is salted. A bare hash would let everybody test guesses about the exact sum, also under a plan
whose coordinator adds noise to it afterwards. Whoever is shown the sum and the salt checks both with `check_sum`.

docs/receipts.md has the format.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import msgspec

from ridotto.core.fixedpoint import IntVector
from ridotto.core.machine import COORDINATOR
from ridotto.core.packing import pack
from ridotto.core.wire import Bytes32, Count, Name, digest, sentence
from ridotto.crypto.seal import IdentityKey
from ridotto.errors import DataError, LocalProtocolError, PeerProtocolError, PlanError
from ridotto.rounds.record import SignedRecord
from ridotto.secagg.committee_roles.agreement import set_root
from ridotto.secagg.committee_roles.evidence import Evidence, SignedRelease
from ridotto.secagg.committee_roles.messages import PER_SEAT, SeatVote
from ridotto.secagg.session import Session, session_id

RECEIPT_CONTEXT = "round receipt"
RECEIPT_DOMAIN = b"ridotto/1 receipt\x00"
SUM_DOMAIN = b"ridotto/1 sum\x00"

LARGEST_RECEIPT = 64 << 20
"""Bytes: a thousand sessions of a thousand participants each, names included."""

MOST_SUMS = 10_000

SALT_BYTES = 32

Hex32 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
"""A key or a SHA-256 in hexadecimal."""

Hex64 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{128}\Z")]
"""An Ed25519 signature in hexadecimal."""


class CommitteeSignatures(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Repeat what a committee signed about one set.

    layout: what the session's context hashes besides its id; it names the members. book: root of their keys.
    """

    layout: Annotated[bytes, msgspec.Meta(max_length=1 << 20)]
    book: Bytes32
    acks: Annotated[tuple[SeatVote, ...], PER_SEAT]
    releases: Annotated[tuple[SignedRelease, ...], PER_SEAT]


class SumReceipt(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Commit to one sum that was opened.

    root, count: of its set. sum: see `commit_sum`. committee: None where the protocol has none.
    """

    sid: Hex32
    shard: Count
    protocol: Name
    root: Hex32
    count: Count
    sum: Hex32
    committee: CommitteeSignatures | None = None


class Receipt(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Commit to one attempt at a round.

    plan, model_before, model: SHA-256; `model` is `model_before` if the round failed. record: what was signed of the
    attempt's record (`RoundRecord.statement`). sums: those that were opened, by shard.
    """

    round: Count
    attempt: Count
    plan: Hex32
    model_before: Hex32
    model: Hex32
    record: Hex32
    sums: Annotated[tuple[SumReceipt, ...], msgspec.Meta(max_length=MOST_SUMS)]

    def statement(self) -> bytes:
        """Return what the coordinator signs: SHA-256 over the receipt's encoding."""
        return digest(RECEIPT_DOMAIN + msgspec.msgpack.encode(self, order="deterministic"))


class SignedReceipt(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Put a receipt under the coordinator's signature, perhaps with what names participants beside it.

    sessions: encodings of the sessions whose sums were opened, in the order of `receipt.sums`; none, or all.
    """

    receipt: Receipt
    coordinator: Hex32
    signature: Hex64
    record: SignedRecord | None = None
    sessions: Annotated[tuple[bytes, ...], msgspec.Meta(max_length=MOST_SUMS)] = ()


@dataclass(frozen=True)
class OpenedSum:
    """Hold what a coordinator knows about one sum that was opened.

    digests: participant -> SHA-256 of its contribution, of those in the set. sum: from `commit_sum`. evidence: as the
    session's machine published it, None for protocols without a committee.
    """

    session: Session
    digests: Mapping[int, bytes]
    sum: bytes
    evidence: Evidence | None = None


def commit_sum(total: IntVector, bits: int, salt: bytes) -> bytes:
    """Commit to an opened sum: SHA-256 of domain, salt and packed sum, 32 bytes.

    total: dtype `container(bits)`; only its value mod 2^bits counts. salt: 32 secret bytes, for this sum alone; kept by
    the coordinator.
    """
    if len(salt) != SALT_BYTES:
        raise LocalProtocolError(f"a salt has {SALT_BYTES} bytes, not {len(salt)}")
    reduced = total if bits == 8 * total.itemsize else total & total.dtype.type((1 << bits) - 1)
    return digest(b"".join((SUM_DOMAIN, salt, pack(reduced, bits))))


def check_sum(receipt: SumReceipt, total: IntVector, bits: int, salt: bytes) -> None:
    """Return if this is the sum that a receipt commits to. Raises PeerProtocolError if not."""
    if commit_sum(total, bits, salt).hex() != receipt.sum:
        raise PeerProtocolError(COORDINATOR, "its sum is not the one that its receipt commits to")


def make_receipt(record: SignedRecord, opened: Sequence[OpenedSum], identity: IdentityKey) -> SignedReceipt:
    """Make and sign the receipt of one attempt, with record and sessions beside it.

    record: signed by the same identity. opened: of that attempt.
    Raises LocalProtocolError if they do not belong together.
    """
    said, known = record.record, {part.sid: part for part in record.record.sessions}
    for one in opened:
        part = known.get(session_id(one.session).hex())
        if part is None or part.failure or len(part.included) != len(one.digests):
            raise LocalProtocolError("a sum is not one that the record says was opened")
    ordered = sorted(opened, key=lambda one: one.session.shard)
    receipt = Receipt(
        round=said.round,
        attempt=said.attempt,
        plan=said.plan,
        model_before=said.model_before,
        model=said.model,
        record=said.statement().hex(),
        sums=tuple(_sum_receipt(one) for one in ordered),
    )
    signature = identity.sign(RECEIPT_CONTEXT, receipt.statement())
    return SignedReceipt(
        receipt=receipt,
        coordinator=identity.public.hex(),
        signature=signature.hex(),
        record=record,
        sessions=tuple(msgspec.msgpack.encode(one.session) for one in ordered),
    )


def without_names(signed: SignedReceipt) -> SignedReceipt:
    """Return the receipt alone, to be published: it names the committees, and no participant as such."""
    return msgspec.structs.replace(signed, record=None, sessions=())


def encode_receipt(signed: SignedReceipt) -> bytes:
    """Return a receipt as JSON: what is written to a file and published."""
    return msgspec.json.format(msgspec.json.encode(signed), indent=1)


def decode_receipt(data: bytes) -> SignedReceipt:
    """Read a receipt. Raises DataError if it is none, or too long."""
    if len(data) > LARGEST_RECEIPT:
        raise DataError(f"a receipt has at most {LARGEST_RECEIPT} bytes, not {len(data)}")
    try:
        return _DECODER.decode(data)
    except (msgspec.MsgspecError, PlanError, UnicodeDecodeError, RecursionError, OverflowError) as error:
        raise DataError(f"this is not a receipt: {sentence(error)}") from error


def _sum_receipt(one: OpenedSum) -> SumReceipt:
    evidence = one.evidence
    if evidence is not None and (evidence.sid != session_id(one.session) or evidence.digests != one.digests):
        raise LocalProtocolError("the evidence is about another set")
    return SumReceipt(
        sid=session_id(one.session).hex(),
        shard=one.session.shard,
        protocol=one.session.protocol,
        root=set_root(one.digests).hex(),
        count=len(one.digests),
        sum=one.sum.hex(),
        committee=None
        if evidence is None
        else CommitteeSignatures(
            layout=evidence.layout, book=evidence.book, acks=evidence.acks, releases=evidence.releases
        ),
    )


_DECODER = msgspec.json.Decoder(SignedReceipt)
