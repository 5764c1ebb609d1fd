"""Check a receipt offline, and say in words what it proves and what it does not."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from ridotto.core.machine import COORDINATOR
from ridotto.core.wire import sentence
from ridotto.crypto.seal import SignatureError, verify
from ridotto.errors import PeerProtocolError, PlanError
from ridotto.rounds.inclusion import Contributed
from ridotto.rounds.receipt import RECEIPT_CONTEXT, Receipt, SignedReceipt, SumReceipt, decode_receipt
from ridotto.rounds.record import SessionRecord, SignedRecord
from ridotto.secagg.session import CommitteeSession, Session, session_id
from ridotto.trust.committees import check_session, committee_sentences
from ridotto.trust.own import own_sentence

_SESSIONS: msgspec.msgpack.Decoder[Session] = msgspec.msgpack.Decoder(Session | CommitteeSession)

NOT_PROVED = (
    "Not proved: that the new model was made from these sums. Whoever is shown a sum, its salt and the plan can "
    "compute it again.",
    "Not proved: that contributions are honest, or come from different people. A participant that sends nonsense "
    "within its bounds is in the set like any other.",
    "Not proved: when this happened, or that there was no other attempt or receipt. Compare receipts with others.",
    "Not proved: that participants were chosen fairly, or that nobody was left out.",
)


def audit(data: bytes, coordinator: bytes | None = None, own: Sequence[Contributed] = ()) -> list[str]:
    """Check everything in a receipt and return sentences: what it proves first, then what it does not.

    data: as `encode_receipt` wrote it. coordinator: the key (32 bytes) that should have signed it, as the caller knows
    it from elsewhere. own: what participants kept of this attempt, with the proofs that they got.
    Raises DataError if this is no receipt, PeerProtocolError if anything in it does not hold.
    """
    signed = decode_receipt(data)
    said = _signature_sentences(signed, coordinator)
    if len({one.sid for one in signed.receipt.sums}) < len(signed.receipt.sums):
        raise _refuse("the receipt has two sums of one session")
    said += _record_sentences(signed)
    sessions = _sessions(signed)
    for place, receipt in enumerate(signed.receipt.sums):
        said += _sum_sentences(receipt, sessions[place] if sessions else None, signed.record)
    of_own = [own_sentence(signed.receipt, one) for one in own]
    said += [one for one, kept in zip(of_own, own, strict=True) if kept.inclusion is not None]
    denied = [one for one, kept in zip(of_own, own, strict=True) if kept.inclusion is None]
    return [*said, *_privacy_sentences(signed.record), *denied, *NOT_PROVED]


def _signature_sentences(signed: SignedReceipt, coordinator: bytes | None) -> list[str]:
    if coordinator is not None and signed.coordinator != coordinator.hex():
        raise _refuse(f"the receipt is signed by key {signed.coordinator[:16]}, not by {coordinator.hex()[:16]}")
    receipt = signed.receipt
    try:
        verify(bytes.fromhex(signed.coordinator), RECEIPT_CONTEXT, receipt.statement(), bytes.fromhex(signed.signature))
    except SignatureError as error:
        raise _refuse("the receipt bears no valid signature: it was changed, or not made by this key") from error
    whose = (
        "It is the key that you gave."
        if coordinator is not None
        else "The receipt does not prove whose key this is: compare it with the one that you know."
    )
    return [
        f"The coordinator with key {signed.coordinator} signed this receipt of round {receipt.round}, attempt "
        f"{receipt.attempt}. {whose}",
        _outcome(receipt),
    ]


def _outcome(receipt: Receipt) -> str:
    if not receipt.sums:
        return f"It says that this attempt opened no sum, under plan {receipt.plan}; the model stayed {receipt.model}."
    if receipt.model == receipt.model_before:
        return f"It says that the model stayed {receipt.model}, under plan {receipt.plan}."
    return f"It says that plan {receipt.plan} turned model {receipt.model_before} into model {receipt.model}."


def _record_sentences(signed: SignedReceipt) -> list[str]:
    """Check the record beside the receipt, if there is one."""
    if signed.record is None:
        return ["The record of the round is not here; the receipt holds its hash, so it can't be exchanged later."]
    record, receipt = signed.record.record, signed.receipt
    try:
        signed.record.check(bytes.fromhex(signed.coordinator))
    except SignatureError as error:
        raise _refuse("the record beside the receipt bears no valid signature of its coordinator") from error
    if record.statement().hex() != receipt.record:
        raise _refuse("the record beside the receipt is not the one that the receipt is about")
    found = (record.round, record.attempt, record.plan, record.model_before, record.model)
    if found != (receipt.round, receipt.attempt, receipt.plan, receipt.model_before, receipt.model):
        raise _refuse("the receipt and its record name different rounds, plans or models")
    opened = {part.sid: part for part in record.sessions if not part.failure}
    if set(opened) != {one.sid for one in receipt.sums} or len(opened) != len(receipt.sums):
        raise _refuse("the receipt and its record name different sums")
    for one in receipt.sums:
        if (one.count, one.shard) != (len(opened[one.sid].included), opened[one.sid].shard):
            raise _refuse("the receipt and its record name sets of different sizes")
    return [f"The record of the round is here, and the one that was signed; {len(record.lost)} were lost on the way."]


def _sessions(signed: SignedReceipt) -> list[Session]:
    """Check that the sessions beside the receipt are those whose ids it has, and of its plan and model."""
    if not signed.sessions:
        return []
    receipt = signed.receipt
    if len(signed.sessions) != len(receipt.sums):
        raise _refuse("the receipt has not one session for each of its sums")
    found = []
    for one, data in zip(receipt.sums, signed.sessions, strict=True):
        session = _session(data)
        if session_id(session).hex() != one.sid or (session.protocol, session.shard) != (one.protocol, one.shard):
            raise _refuse(f"the session beside sum {one.sid[:16]} is another one")
        about = (session.plan.hex(), session.model.hex(), session.round, session.attempt)
        if about != (receipt.plan, receipt.model_before, receipt.round, receipt.attempt):
            raise _refuse(f"session {one.sid[:16]} was of another plan, model, round or attempt than the receipt says")
        found.append(session)
    return found


def _session(data: bytes) -> Session:
    try:
        return _SESSIONS.decode(data)
    except (msgspec.MsgspecError, PlanError, UnicodeDecodeError, RecursionError, OverflowError) as error:
        raise _refuse(f"a session beside the receipt is malformed: {error}") from error


def _sum_sentences(receipt: SumReceipt, session: Session | None, record: SignedRecord | None) -> list[str]:
    said = [
        f"Session {receipt.sid[:16]} (shard {receipt.shard}, protocol {receipt.protocol}): one sum over "
        f"{receipt.count} contributions, with set root {receipt.root} and sum {receipt.sum}."
    ]
    if session is not None:
        said.append(_session_sentence(receipt, session, record))
    else:
        said.append(
            "The session's description is not here. A participant has it, and can check with it that this is about "
            "the plan and the model that it was shown."
        )
    if receipt.committee is None:
        said.append(
            "Nobody but the coordinator says here which set was summed; each participant can ask for a proof that its "
            "contribution was in it."
        )
    return said + committee_sentences(receipt)


def _session_sentence(receipt: SumReceipt, session: Session, record: SignedRecord | None) -> str:
    check_session(receipt, session)
    if record is not None:
        part = next(part for part in record.record.sessions if part.sid == receipt.sid)
        _check_names(part, session)
    return (
        f"The session's description is here and hashes to its id: {len(session.members)} participants were asked, "
        f"at least {session.minimum} had to be in the sum, with this plan and this model."
    )


def _check_names(part: SessionRecord, session: Session) -> None:
    names = {member.name for member in session.members}
    if len(set(part.included)) != len(part.included) or not set(part.included) <= names:
        raise _refuse(f"the record of session {part.sid[:16]} names participants that the session has not")


def _privacy_sentences(record: SignedRecord | None) -> list[str]:
    if record is None or record.record.privacy is None:
        return ["Not proved: any differential privacy. The receipt says nothing about noise."]
    # The words are the coordinator's: on one line, without what a terminal would obey.
    words = sentence(" ".join(str(record.record.privacy).split()))
    return [
        f"The coordinator says about privacy: {words} This is its word: the receipt does not prove that noise was "
        "added."
    ]


def _refuse(why: str) -> PeerProtocolError:
    return PeerProtocolError(COORDINATOR, why)
