"""A closed round for tests of receipts: real sessions of two protocols, and the record that says so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ridotto.crypto.seal import IdentityKey
from ridotto.rounds.receipt import OpenedSum, SignedReceipt, commit_sum, make_receipt
from ridotto.rounds.record import RoundRecord, SignedRecord, session_record, sign_record
from ridotto.secagg.committee_roles.evidence import Evidence
from tests.secagg.committee import world as committee
from tests.secagg.oneshot import world as oneshot
from tests.secagg.oneshot.world import identity

SALT = b"salt" * 8
COORDINATOR: IdentityKey = identity("coordinator")


@dataclass(frozen=True)
class Closed:
    """One session that ended well, and what its coordinator knows about it."""

    world: Any
    opened: OpenedSum
    result: Any


def close(world: Any) -> Closed:
    result = world.run().result
    evidence = next(one for one in world.router.published if isinstance(one, Evidence))
    session = world.setup.session
    total = commit_sum(world.opened(), session.bits, SALT)
    return Closed(world, OpenedSum(session, evidence.digests, total, evidence), result)


def close_all() -> list[Closed]:
    """Two shards of one round: p003 of the first never spoke. A round has one protocol; here are both."""
    first = committee.World(committee.make_setup(), gone=("p003",))
    return [close(first), close(oneshot.World(oneshot.make_setup(shard=1)))]


def make_record(closed: list[Closed], **changes: object) -> SignedRecord:
    fields: dict[str, object] = {
        "round": 1,
        "attempt": 2,
        "plan": b"p".hex() * 32,
        "protocol": "committee",
        "model_before": b"m".hex() * 32,
        "model": b"n".hex() * 32,
        "started": 1.0,
        "finished": 2.0,
        "sessions": tuple(
            session_record(one.result, one.opened.session.shard, len(one.opened.session.members), "", ())
            for one in closed
        ),
    } | changes
    return sign_record(RoundRecord(**fields), COORDINATOR)  # type: ignore[arg-type]


CLOSED = close_all()
RECORD = make_record(CLOSED)
SIGNED: SignedReceipt = make_receipt(RECORD, [one.opened for one in CLOSED], COORDINATOR)
