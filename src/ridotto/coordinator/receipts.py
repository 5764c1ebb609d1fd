"""Receipts of attempts: what is collected while one runs, the files that come of it when it has ended, and proofs.

What is collected is a function of the attempt's log, but for the salts, which are in it (`Seal`).
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import msgspec

from ridotto.coordinator.blobs import Blobs, receipt_name
from ridotto.coordinator.store import StoredOpening, StoredReceipt
from ridotto.core.wire import Bytes32, digest
from ridotto.crypto.seal import IdentityKey
from ridotto.errors import LocalProtocolError
from ridotto.rounds.inclusion import Inclusion, prove_inclusion
from ridotto.rounds.receipt import LARGEST_RECEIPT, OpenedSum, encode_receipt, make_receipt, without_names
from ridotto.rounds.record import RoundRecord, SignedRecord
from ridotto.secagg.committee_roles.evidence import Evidence
from ridotto.secagg.committee_roles.tasks import Settle
from ridotto.secagg.session import Session
from ridotto.secagg.tasks import Fold

FULL, PUBLIC = "full", "public"

_log = logging.getLogger(__name__)


class Seal(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Keep the commitment to a sum that was just opened, and its salt. In the log before the answer that says so."""

    sid: Bytes32
    salt: Bytes32
    commitment: Bytes32

    def __repr__(self) -> str:
        return f"Seal({self.sid.hex()[:16]})"


@dataclass
class Collected:
    """Collect what the receipt of one attempt needs. digests: sid -> name -> SHA-256 of what is in the sum."""

    digests: defaultdict[bytes, dict[str, bytes]] = field(default_factory=lambda: defaultdict(dict))
    evidence: dict[bytes, Evidence] = field(default_factory=dict)
    seals: dict[bytes, Seal] = field(default_factory=dict)

    def fold(self, task: Fold) -> None:
        """Note a contribution that goes into a sum."""
        self.digests[task.sid][task.sender] = task.digest

    def settle(self, task: Settle) -> None:
        """Note what is taken out of a sum again."""
        for name, _ in task.removed:
            del self.digests[task.sid][name]

    def show(self, published: object) -> None:
        """Note what a committee signed."""
        if isinstance(published, Evidence):
            self.evidence[published.sid] = published

    def opened(self, record: RoundRecord, sessions: Mapping[bytes, Session]) -> list[OpenedSum]:
        """Return the sums that were opened, in the order of the record."""
        sids = [bytes.fromhex(part.sid) for part in record.sessions if not part.failure]
        return [self._opened(sid, sessions[sid]) for sid in sids]

    def _opened(self, sid: bytes, session: Session) -> OpenedSum:
        if sid not in self.seals:
            raise LocalProtocolError("a sum was opened and nobody committed to it")
        own = self.digests[sid]
        digests = {index: own[member.name] for index, member in enumerate(session.members) if member.name in own}
        return OpenedSum(session, digests, self.seals[sid].commitment, self.evidence.get(sid))


class _Leaf(msgspec.Struct, frozen=True, array_like=True):
    """Keep who is at one place of a session's set, with the SHA-256 of its contribution."""

    participant: int
    name: str
    digest: bytes


def write_receipt(
    blobs: Blobs,
    record: SignedRecord,
    collected: Collected,
    sessions: Mapping[bytes, Session],
    identity: IdentityKey,
) -> tuple[StoredReceipt, tuple[StoredOpening, ...]]:
    """Write the receipt of an attempt that ended; return what makes it count, once that is committed with the record.

    sessions: of the attempt, by sid. Raises StorageError if the files can't be written.
    """
    about = record.record
    sums = collected.opened(about, sessions)
    signed = make_receipt(record, sums, identity)
    full, public = encode_receipt(signed), encode_receipt(without_names(signed))
    if len(full) > LARGEST_RECEIPT:
        _log.warning(
            "the receipt of attempt %d has %d bytes with names, more than an audit reads; it is kept without",
            about.attempt,
            len(full),
        )
        full = public
    stored = StoredReceipt(about.attempt, about.round, digest(full), digest(public))
    full_name, public_name = receipt_names(stored)
    blobs.write(full_name, full)
    blobs.write(public_name, public)
    sids = [bytes.fromhex(part.sid) for part in about.sessions if not part.failure]
    return stored, tuple(
        StoredOpening(sid, about.round, collected.seals[sid].salt, _leaves(one))
        for sid, one in zip(sids, sums, strict=True)
    )


def receipt_names(stored: StoredReceipt) -> tuple[str, str]:
    """Return the blobs of a receipt: with names, and without."""
    forms = ((FULL, stored.full), (PUBLIC, stored.public))
    full, public = (receipt_name(stored.round, stored.attempt, form, sha256) for form, sha256 in forms)
    return full, public


def all_receipt_names(stored: Iterable[StoredReceipt]) -> list[str]:
    """Return the blobs of all receipts: what a sweep leaves."""
    return [name for one in stored for name in receipt_names(one)]


def proof_for(opening: StoredOpening, name: str) -> Inclusion | None:
    """Return the proof that this participant's contribution is in a sum, None if it is not."""
    leaves = msgspec.msgpack.decode(opening.leaves, type=list[_Leaf])
    own = next((leaf.participant for leaf in leaves if leaf.name == name), None)
    if own is None:
        return None
    return prove_inclusion(opening.sid, {leaf.participant: leaf.digest for leaf in leaves}, own)


def _leaves(one: OpenedSum) -> bytes:
    members = one.session.members
    return msgspec.msgpack.encode([_Leaf(index, members[index].name, sha256) for index, sha256 in one.digests.items()])
