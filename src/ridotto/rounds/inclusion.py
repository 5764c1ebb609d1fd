"""Prove to a participant that its contribution was in a set, without telling who else was.

A proof is the hashes beside the way from the participant's leaf to the root that the receipt commits to and, with a
committee, its members signed. It tells how many are in the set and at which place the participant is among them, and
nothing about the others: their leaves are hashed together with the SHA-256 of what they sent, which is masked or
encrypted. (In `ideal` vectors are sent in clear. There, whoever gets a proof could test a guess about the whole vector
of one other participant.)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import msgspec

from ridotto.core.machine import COORDINATOR
from ridotto.core.wire import Bytes32, Count, Message, Name, Text, sentence
from ridotto.errors import DataError, LocalProtocolError, PeerProtocolError, PlanError
from ridotto.rounds.receipt import Hex32, Receipt, SumReceipt
from ridotto.secagg.binding import number
from ridotto.secagg.committee_roles.agreement import set_leaves
from ridotto.secagg.committee_roles.merkle import check_proof, merkle_proof
from ridotto.secagg.messages import LARGEST_GROUP, Index
from ridotto.secagg.session import CommitteeSession, Session, index_of, session_id

LARGEST_CONTRIBUTED = 4 << 20
"""Bytes: a session of `LARGEST_GROUP` members takes a quarter of it."""


class Inclusion(Message, frozen=True):
    """Coordinator: prove that a participant's contribution is at place `index` of its session's set."""

    sid: Bytes32
    index: Index
    proof: Annotated[tuple[Bytes32, ...], msgspec.Meta(max_length=LARGEST_GROUP.bit_length())]


class Contributed(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Keep what one participant needs to check a receipt against: a note first, and with the answer a proof.

    session: as it was shown. contribution: SHA-256 of what was sent. model: the one that the coordinator said came out;
    None if it said nothing, because the participant left or was late. inclusion: the proof. denied: what the
    coordinator said in place of a proof.
    """

    name: Name
    attempt: Count
    session: Session | CommitteeSession
    contribution: Hex32
    model: Hex32 | None = None
    inclusion: Inclusion | None = None
    denied: Text = ""


def encode_contributed(own: Contributed) -> bytes:
    """Return what a participant keeps as JSON. It names everybody in the session."""
    return msgspec.json.format(msgspec.json.encode(own), indent=1)


def decode_contributed(data: bytes) -> Contributed:
    """Read what a participant kept. Raises DataError if it is no such thing, or too long."""
    if len(data) > LARGEST_CONTRIBUTED:
        raise DataError(f"a participant's proof has at most {LARGEST_CONTRIBUTED} bytes, not {len(data)}")
    try:
        return _DECODER.decode(data)
    except (msgspec.MsgspecError, PlanError, UnicodeDecodeError, RecursionError, OverflowError) as error:
        raise DataError(f"this is not a participant's proof: {sentence(error)}") from error


def prove_inclusion(sid: bytes, digests: Mapping[int, bytes], participant: int) -> Inclusion:
    """Make a participant's proof. digests: participant -> SHA-256 of its contribution, of those in the set.

    Raises LocalProtocolError if it is not in the set.
    """
    if participant not in digests:
        raise LocalProtocolError(f"participant {participant} is not in the set")
    index = sorted(digests).index(participant)
    return Inclusion(sid, index, merkle_proof(set_leaves(digests), index))


def check_inclusion(receipt: Receipt, session: Session, me: str, contribution: bytes, proof: Inclusion) -> SumReceipt:
    """Return the sum that a participant's contribution is in.

    receipt: one that `audit` has found good. session: as the participant was shown it, when it took part. contribution:
    SHA-256 of what it sent. The session binds plan and model, so it is these that the receipt is about.
    Raises PeerProtocolError, blaming the coordinator, if receipt or proof are about something else or do not hold.
    """
    sid = session_id(session)
    found = next((one for one in receipt.sums if one.sid == sid.hex()), None)
    if found is None or proof.sid != sid:
        raise PeerProtocolError(COORDINATOR, "its receipt or proof is not about this session")
    if (receipt.plan, receipt.model_before) != (session.plan.hex(), session.model.hex()):
        raise PeerProtocolError(COORDINATOR, "its receipt names another plan or model than it has shown me")
    leaf = number(index_of(session, me)) + contribution
    check_proof(bytes.fromhex(found.root), leaf, proof.index, found.count, proof.proof, COORDINATOR)
    return found


_DECODER = msgspec.json.Decoder(Contributed)
