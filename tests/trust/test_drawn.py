"""Receipts of sessions whose committee is drawn from their own members: the auditor draws it again."""

from __future__ import annotations

import dataclasses

import msgspec
import pytest
from msgspec.structs import replace

from ridotto.core.wire import digest
from ridotto.errors import PeerProtocolError
from ridotto.rounds.inclusion import Contributed, prove_inclusion
from ridotto.rounds.receipt import RECEIPT_CONTEXT, CommitteeSignatures, encode_receipt, make_receipt, without_names
from ridotto.secagg.committee.drawn import setup_of
from ridotto.secagg.committee.setup import CONTEXT_DOMAIN
from ridotto.secagg.committee_roles.agreement import ACK_CONTEXT, ack_statement
from ridotto.secagg.committee_roles.messages import SeatVote
from ridotto.secagg.session import CommitteeSession, session_id
from ridotto.trust.audit import audit
from tests.secagg.committee.test_drawn import Drawn, drawn_session
from tests.secagg.committee_roles.world import identity
from tests.trust.world import COORDINATOR, close, make_record

CLOSED = close(Drawn(setup_of(drawn_session(6, 1))))
SIGNED = make_receipt(make_record([CLOSED]), [CLOSED.opened], COORDINATOR)


def test_a_drawn_committee_is_drawn_again() -> None:
    said = "\n".join(audit(encode_receipt(SIGNED)))
    assert "6 of its committee of 6 signed" in said
    assert "9 participants were asked" in said
    assert audit(encode_receipt(without_names(SIGNED)))


@pytest.mark.parametrize("seats", [4, 6])
def test_another_committee_than_the_drawn_is_refused(seats: int) -> None:
    """A coordinator that ran a session with members of its own choice, and says that they were drawn."""
    session = replace(CLOSED.opened.session, committee=seats, nonce=b"other..." * 4)
    assert isinstance(session, CommitteeSession)
    result = dataclasses.replace(CLOSED.result, sid=session_id(session))
    evidence = dataclasses.replace(CLOSED.opened.evidence, sid=session_id(session))
    opened = dataclasses.replace(CLOSED.opened, session=session, evidence=evidence)
    record = make_record([dataclasses.replace(CLOSED, opened=opened, result=result)])
    with pytest.raises(PeerProtocolError, match="not the one that its session draws"):
        audit(encode_receipt(make_receipt(record, [opened], COORDINATOR)))


def test_sessions_that_draw_no_committee_are_refused() -> None:
    session = replace(CLOSED.opened.session, committee=1000)
    data = msgspec.msgpack.encode(session)
    first = replace(SIGNED.receipt.sums[0], sid=session_id(session).hex())
    receipt = replace(SIGNED.receipt, sums=(first,))
    signature = COORDINATOR.sign("round receipt", receipt.statement()).hex()
    forged = replace(SIGNED, receipt=receipt, signature=signature, sessions=(data,), record=None)
    with pytest.raises(PeerProtocolError, match="no committee can be drawn"):
        audit(encode_receipt(forged))


def own_note() -> Contributed:
    """What a participant keeps: the session as it was shown, and what it sent."""
    session, digests = CLOSED.opened.session, CLOSED.opened.digests
    index = sorted(digests)[0]
    proof = prove_inclusion(session_id(session), digests, index)
    receipt = SIGNED.receipt
    return Contributed(
        name=session.members[index].name,
        attempt=receipt.attempt,
        session=session,
        contribution=digests[index].hex(),
        model=receipt.model,
        inclusion=proof,
    )


def resigned(**changes: object) -> bytes:
    """Return the published receipt with other fields in its sum, signed by its coordinator."""
    (one,) = SIGNED.receipt.sums
    receipt = replace(SIGNED.receipt, sums=(replace(one, **changes),))
    signature = COORDINATOR.sign(RECEIPT_CONTEXT, receipt.statement()).hex()
    return encode_receipt(without_names(replace(SIGNED, receipt=receipt, signature=signature)))


def test_a_participant_checks_the_committee_of_a_receipt_without_names() -> None:
    said = "\n".join(audit(resigned(), COORDINATOR.public, [own_note()]))
    assert "was in the set of session" in said


def made_up() -> CommitteeSignatures:
    """A committee of the coordinator's own keys under the members' names, who have all signed."""
    setup = setup_of(CLOSED.opened.session)
    keys = {seat.name: identity(f"evil {seat.name}") for seat in setup.roster.members}
    members = tuple(replace(seat, key=keys[seat.name].public) for seat in setup.roster.members)
    roster = replace(setup.roster, members=members)
    layout = msgspec.msgpack.encode((roster, setup.slots, setup.tail, 0.0))
    context, book = digest(CONTEXT_DOMAIN + setup.sid + layout), b"b" * 32
    (one,) = SIGNED.receipt.sums
    said = ack_statement(context, book, bytes.fromhex(one.root))
    acks = tuple(SeatVote(seat, keys[each.name].sign(ACK_CONTEXT, said)) for seat, each in enumerate(members))
    return CommitteeSignatures(layout=layout, book=book, acks=acks, releases=())


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"committee": None}, "not the one that its session draws"),
        ({"committee": made_up()}, "not the one that its session draws"),
        ({"protocol": "ideal", "committee": None}, "another protocol or shard"),
        ({"shard": 3}, "another protocol or shard"),
        ({"count": 2, "committee": None}, "below its own minimum"),
    ],
)
def test_a_participant_refuses_a_committee_that_its_session_does_not_draw(changes: dict[str, object], why: str) -> None:
    """What is published has no session beside it, and looks good: only who was shown the session can tell."""
    data = resigned(**changes)
    assert audit(data, COORDINATOR.public)
    for own in (own_note(), replace(own_note(), inclusion=None)):
        with pytest.raises(PeerProtocolError, match=why):
            audit(data, COORDINATOR.public, [own])


def test_a_receipt_with_two_sums_of_one_session_is_refused() -> None:
    (one,) = SIGNED.receipt.sums
    receipt = replace(SIGNED.receipt, sums=(one, replace(one, sum="00" * 32)))
    signature = COORDINATOR.sign(RECEIPT_CONTEXT, receipt.statement()).hex()
    with pytest.raises(PeerProtocolError, match="two sums of one session"):
        audit(encode_receipt(without_names(replace(SIGNED, receipt=receipt, signature=signature))))
