"""What a receipt says about one participant's own contribution."""

from __future__ import annotations

from ridotto.core.machine import COORDINATOR
from ridotto.errors import PeerProtocolError
from ridotto.rounds.inclusion import Contributed, check_inclusion
from ridotto.rounds.receipt import Receipt
from ridotto.secagg.session import session_id
from ridotto.trust.committees import check_session


def own_sentence(receipt: Receipt, own: Contributed) -> str:
    """Check a receipt that `audit` has found good against what a participant kept; say what that proves.

    Raises PeerProtocolError, blaming the coordinator, if they are about something else or do not hold.
    """
    session = own.session
    found = (receipt.round, receipt.attempt, receipt.plan, receipt.model_before)
    if found != (session.round, own.attempt, session.plan.hex(), session.model.hex()):
        raise _refuse(f"the receipt is about another round, attempt, plan or model than {own.name} took part in")
    if own.model is not None and own.model != receipt.model:
        raise _refuse(
            f"the receipt says that model {receipt.model[:16]} came out, {own.name} was told {own.model[:16]}"
        )
    of_session = next((one for one in receipt.sums if one.sid == session_id(session).hex()), None)
    if of_session is not None:
        # What was published has no sessions beside it; here is one, so the committee is looked at as well.
        check_session(of_session, session)
    if own.inclusion is None:
        why = f" The coordinator said: {own.denied.rstrip('.')}." if own.denied else ""
        return f"Not proved: that a contribution of {own.name} was in a sum.{why}"
    found_sum = check_inclusion(receipt, session, own.name, bytes.fromhex(own.contribution), own.inclusion)
    return (
        f"The contribution of {own.name} (SHA-256 {own.contribution}) was in the set of session {found_sum.sid[:16]}, "
        f"one of {found_sum.count}, under the plan and the model that {own.name} was shown."
    )


def _refuse(why: str) -> PeerProtocolError:
    return PeerProtocolError(COORDINATOR, why)
