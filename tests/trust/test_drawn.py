"""Receipts of sessions whose committee is drawn from their own members: the auditor draws it again."""

from __future__ import annotations

import dataclasses

import msgspec
import pytest
from msgspec.structs import replace

from ridotto.errors import PeerProtocolError
from ridotto.rounds.receipt import encode_receipt, make_receipt, without_names
from ridotto.secagg.committee.drawn import setup_of
from ridotto.secagg.session import CommitteeSession, session_id
from ridotto.trust.audit import audit
from tests.secagg.committee.test_drawn import Drawn, drawn_session
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
