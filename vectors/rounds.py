"""Vectors of what is around a secure sum: plans, sessions, who is in which, announcements, updates, committees."""

from __future__ import annotations

from functools import partial
from typing import Any

import msgspec
import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from ridotto.core.wire import digest
from ridotto.errors import PlanError
from ridotto.rounds.pipeline import Pipeline
from ridotto.rounds.plan import Pairwise, Plan
from ridotto.rounds.sessions import Attempt, make_sessions
from ridotto.secagg.committee_roles.choice import choose, pool_root
from ridotto.secagg.committee_roles.drawn import drawn_roster
from ridotto.secagg.session import SESSION_DOMAIN, CommitteeSession, Member, Session, session_id
from vectors.announcements import accepted, messages, refusals
from vectors.common import keys, member
from vectors.crypto import refused
from vectors.numbers import decimal
from vectors.plans import PLANS

DEALT = (
    "ideal",
    "shards of pairwise",
    "bucketed median",
    "oneshot",
    "oneshot, hybrid seals",
    "oneshot with helpers",
    "committee",
)
"""Plans whose cohorts are cut into sessions here."""

PARAMETERS = 10
"""Of the model whose updates are summed."""


def build() -> dict[str, object]:
    """Return everything that is in rounds.json."""
    return {
        "page": "docs/protocols/rounds.md",
        "plans": [plan_row(name, plan) for name, plan in PLANS.items()],
        "plan_refusals": plan_refusals(),
        "sessions": [session_row(session) for session in sessions()],
        "rounds": [dealt(name) for name in DEALT],
        "private_keys": keys(("coordinator", *(f"p{index}" for index in range(4)))),
        "messages": messages(),
        "accepted": accepted(),
        "refusals": refusals(),
        "updates": [update(plan) for plan in UPDATED],
        "committees": committees(),
        "committee_refusals": committee_refusals(),
        "drawn": drawn(),
    }


def plan_row(name: str, plan: Plan) -> dict[str, object]:
    """Return a plan as a tree, its encoding and its hash. Numbers with a point are float64 in the encoding."""
    encoding = plan.encode()
    tree = msgspec.msgpack.decode(encoding)
    return {"name": name, "plan": tree, "encoding": encoding.hex(), "fingerprint": plan.fingerprint().hex()}


def plan_refusals() -> list[dict[str, object]]:
    """Return trees that are no plans."""
    tree = msgspec.msgpack.decode(PLANS["defaults"].encode())
    cases: dict[str, dict[str, object]] = {
        "an unknown key": {"coort": 10},
        "a cohort of nobody": {"cohort": 0},
        "a sum that may wrap": {"bits": 8, "value_range": 100.0},
        "a sum of one": {"cohort": 1},
        "an unacknowledged risk": {"protocol": {"name": "ideal"}},
        "a protocol that does not exist": {"protocol": {"name": "plain"}},
        "a key of another protocol": {"protocol": {"name": "ideal", "corrupt": 0.1}, "i_know": ["no-protection"]},
        "a number that is text": {"bits": "32"},
        "an unknown seal": {"protocol": {"name": "oneshot", "seal": "kyber"}},
        "noise without a clip": {"dp": {"name": "central-gaussian", "delta": 1e-6, "noise_multiplier": 1.0}},
        "an unknown risk": {"i_know": ["everything"]},
    }
    return [
        {"name": name, "plan": changes, "why": _unreadable(msgspec.msgpack.encode({**tree, **changes}))}
        for name, changes in cases.items()
    ]


def _unreadable(encoding: bytes) -> str:
    try:
        msgspec.msgpack.decode(encoding, type=Plan)
    except (msgspec.MsgspecError, PlanError) as error:
        return str(error)
    raise RuntimeError("what must be refused is not")


def sessions() -> list[Session]:
    """Return a session of every kind."""
    values: dict[str, Any] = {
        "protocol": "pairwise",
        "plan": digest(b"plan"),
        "model": digest(b"model"),
        "nonce": digest(b"nonce"),
        "round": 300,
        "shard": 70_000,
        "members": tuple(member(f"p{index}") for index in range(7)),
        "length": 2**33,
        "bits": 21,
        "minimum": 5,
        "corrupt": 1,
    }
    return [
        Session(**{**values, "protocol": "ideal", "corrupt": 0, "round": 1, "shard": 0, "length": 128}),
        Session(**{**values, "attempt": 301}),
        Session(**{**values, "corrupt": 0, "neighbours": 4, "threshold": 3}),
        CommitteeSession(**{**values, "protocol": "oneshot", "committee": 5, "tail": 6}),
        CommitteeSession(
            **{**values, "protocol": "committee", "committee": 4, "tail": 6, "helpers_corrupt": 1, "sigma": 2.5},
            seal="hybrid",
            helpers=tuple(member(f"h{index}") for index in range(5)),
        ),
    ]


def session_row(session: Session) -> dict[str, object]:
    """Return a session as a tree, its encoding, and its id."""
    encoding = msgspec.msgpack.encode(session)
    return {
        "kind": type(session).__name__,
        "session": _tree(session),
        "encoding": encoding.hex(),
        "hashed": (SESSION_DOMAIN + encoding).hex(),
        "sid": session_id(session).hex(),
    }


def _tree(session: Session) -> dict[str, object]:
    tree: dict[str, object] = {}
    for name in type(session).__struct_fields__:
        value = getattr(session, name)
        tree[name] = value.hex() if isinstance(value, bytes) else value
        if name in ("members", "helpers"):
            tree[name] = [[one.name, one.key.hex()] for one in value]
    return tree


def attempt_of(plan: Plan) -> Attempt:
    """Return an attempt with a full cohort, in an order that is not that of the names."""
    order = [(7 * index + 3) % plan.cohort for index in range(plan.cohort)]
    members = tuple(member(f"p{index}") for index in order)
    keys = {} if plan.helpers is None else plan.helpers.keys
    helpers = tuple(member(name) for name in sorted(keys, reverse=True))
    return Attempt(plan, 2, 3, digest(b"model"), PARAMETERS, digest(b"nonce"), members, helpers=helpers)


def dealt(name: str) -> dict[str, object]:
    """Return the sessions of an attempt: what follows from plan, cohort and nonce."""
    attempt = attempt_of(PLANS[name])
    return {
        "plan": name,
        "round": attempt.number,
        "attempt": attempt.attempt,
        "model": attempt.model.hex(),
        "nonce": attempt.nonce.hex(),
        "parameters": attempt.parameters,
        "cohort": [[one.name, one.key.hex()] for one in attempt.members],
        "sessions": [session_row(session) for session in make_sessions(attempt)],
    }


class _GivenDice:
    def __init__(self, given: NDArray[np.uint32]) -> None:
        self._given = given

    def words(self, count: int) -> NDArray[np.uint32]:
        return self._given[:count]


UPDATED = (
    Plan(cohort=10),
    Plan(cohort=9, protocol=Pairwise(corrupt=0.0), bits=20, value_range=1.0, max_examples=50),
    Plan(cohort=10, bits=40, metrics={"loss": 10.0, "accuracy": 1.0}, max_examples=7),
)


def update(plan: Plan) -> dict[str, object]:
    """Return an update as the integers that a secure sum takes."""
    values = np.array([0.5, -0.5, 0.1, -0.1, 5.0, -1e-3, 0.0, 1.0, -1.0, 1e-8], np.float32)
    dice = np.arange(PARAMETERS, dtype=np.uint32) * np.uint32(0x1999_9999)
    metrics = {"loss": 2.5, "accuracy": -0.25}
    pipeline = Pipeline(plan, PARAMETERS)
    return {
        "plan": msgspec.msgpack.decode(plan.encode()),
        "update": values.tolist(),
        "examples": 30,
        "metrics": metrics,
        "dice": dice.tolist(),
        "vector": decimal(pipeline.encode(values, 30, metrics, _GivenDice(dice)), plan.bits),
    }


BEACON = b"beacon.." * 4


def committees() -> list[dict[str, object]]:
    """Return committees that are chosen from pools."""
    rows: list[dict[str, object]] = []
    for count, size, corrupt, beacon in (
        (7, 6, 1, BEACON),
        (7, 6, 1, BEACON[::-1]),
        (3, 3, 1, BEACON),
        (20, 5, 2, b""),
    ):
        pool = [member(f"m{index}") for index in range(count)]
        roster = choose(pool, beacon, size, corrupt)
        rows.append(
            {
                "pool": [[one.name, one.key.hex()] for one in pool],
                "beacon": beacon.hex(),
                "size": size,
                "corrupt": corrupt,
                "root": pool_root(pool).hex(),
                "members": [one.name for one in roster.members],
                "quorum": roster.quorum,
            }
        )
    return rows


def committee_refusals() -> list[dict[str, object]]:
    """Return pools that give no committee."""
    pool = [member(f"m{index}") for index in range(4)]
    cases: dict[str, tuple[list[Member], int, int]] = {
        "a pool that is too small": (pool, 5, 1),
        "a committee of nobody": (pool, 0, 1),
        "a name twice": ([*pool, replace(pool[0], key=bytes(32))], 3, 1),
        "a key twice": ([*pool, replace(pool[0], name="m9")], 3, 1),
        "a committee that can't agree": (pool, 3, 3),
    }
    return [
        {
            "name": name,
            "pool": [[one.name, one.key.hex()] for one in candidates],
            "beacon": BEACON.hex(),
            "size": size,
            "corrupt": corrupt,
            "why": refused(partial(choose, candidates, BEACON, size, corrupt)),
        }
        for name, (candidates, size, corrupt) in cases.items()
    ]


def drawn() -> list[dict[str, object]]:
    """Return committees that are drawn from the members of a session, and from its helpers."""
    members, served = (found for found in sessions() if isinstance(found, CommitteeSession))
    every = [
        members,
        replace(members, nonce=digest(b"another nonce"), committee=7, corrupt=0),
        served,
        replace(served, shard=0, committee=3, helpers_corrupt=2),
    ]
    return [
        {
            "session": msgspec.msgpack.encode(session).hex(),
            "members": [one.name for one in drawn_roster(session).members],
            "corrupt": drawn_roster(session).corrupt,
        }
        for session in every
    ]
