"""Vectors of the messages around a secure sum, and what participant and coordinator refuse of them."""

from __future__ import annotations

from functools import cache
from typing import Any

import msgspec
from msgspec.structs import replace

from ridotto.core.machine import COORDINATOR, Machine
from ridotto.core.rng import insecure_seeded_rng
from ridotto.core.wire import PREFIX, VERSION, Codec, Message, digest
from ridotto.errors import PeerProtocolError
from ridotto.rounds.messages import ANNOUNCE_CONTEXT, Announce, Closed, Decline, messages_of_all
from ridotto.rounds.plan import Plan, Risk
from ridotto.rounds.policy import Policy
from ridotto.rounds.round import CoordinatorRound, ParticipantRound
from ridotto.rounds.sessions import Attempt, make_sessions
from ridotto.secagg.messages import Survivors
from ridotto.secagg.session import Member, Session, session_id
from vectors.common import identity_of, member, rng_of
from vectors.plans import PLANS
from vectors.recording import malformed

CODEC = Codec(*messages_of_all(), attachment_limit=1 << 16)
PLAN = PLANS["small cohort"]
ANYTHING = Policy(protocols=("pairwise", "ideal"), min_participants=1, min_corrupt=0.0, i_know=tuple(Risk))


@cache
def attempt() -> Attempt:
    """Return an attempt with a cohort of four."""
    members = tuple(member(f"p{index}") for index in range(4))
    return Attempt(PLAN, 1, 1, digest(b"model"), 10, digest(b"nonce"), members)


def session() -> Session:
    """Return its only session."""
    return make_sessions(attempt())[0]


def announce(plan: Plan = PLAN, /, **changes: Any) -> Announce:
    """Return an announcement, signed as the coordinator does, of the session with these changes."""
    changed = replace(session(), **changes)
    return Announce(plan, changed, identity_of(COORDINATOR).sign(ANNOUNCE_CONTEXT, session_id(changed)))


def machine(name: str) -> Machine:
    """Return a party at the beginning of the attempt."""
    if name == COORDINATOR:
        return CoordinatorRound(attempt(), identity_of(COORDINATOR))
    return ParticipantRound(name, identity_of(name), ANYTHING, identity_of(COORDINATOR).public, rng_of(name))


def honest() -> dict[str, Message]:
    """Return one message of every kind."""
    sid = session_id(session())
    return {
        "an announcement": announce(),
        "no": Decline(sid, "the battery is low: grüße"),
        "the end": Closed(sid, digest(b"next model")),
        "the end of a failed round": Closed(sid, digest(b"model"), "too few"),
    }


def messages() -> list[dict[str, object]]:
    """Return honest messages as they stand in the file."""
    return [
        {"name": name, "kind": type(message).__name__, "header": CODEC.header(message).hex()}
        for name, message in honest().items()
    ]


def refusals() -> list[dict[str, object]]:
    """Return frames that are refused, by whom, whom they are from, and who is blamed."""
    rows = [refusal(name, "p0", COORDINATOR, frame) for name, frame in to_participants().items()]
    rows += [refusal(name, COORDINATOR, sender, frame) for name, (sender, frame) in to_the_coordinator().items()]
    header = CODEC.header(honest()["an announcement"])
    rows += [refusal(name, "p0", COORDINATOR, frame) for name, frame in malformed(header, "Announce").items()]
    return [*rows, refusal("an announcement from a participant", "p0", "p1", header)]


def refusal(name: str, to: str, sender: str, frame: bytes) -> dict[str, object]:
    """Return what happens when a frame comes first of all. Raises RuntimeError if it is not refused."""
    party = machine(to)
    party.start(0.0)
    try:
        party.receive(sender, CODEC.decode(frame, sender)[0], 0.0)
    except PeerProtocolError as error:
        spoken = {"name": name, "from": sender, "to": to, "frame": frame.hex()}
        return {**spoken, "blames": error.peer, "why": error.why}
    raise RuntimeError(f"{name} is not refused")


def to_participants() -> dict[str, bytes]:
    """Return announcements, and ends, that p0 refuses."""
    good, stranger = announce(), insecure_seeded_rng(9).bytes(32)
    others = tuple(one for one in session().members if one.name != "p0")
    rekeyed = (Member("p0", stranger), *others)
    fifth = Member("p9", stranger)
    lies: dict[str, Message] = {
        "no signature": replace(good, signature=bytes(64)),
        "the signature of a participant": replace(good, signature=_signed_by("p1")),
        "a signature for another purpose": replace(good, signature=_signed_by(COORDINATOR, "announcement")),
        "a session that was changed after it was signed": replace(good, session=replace(session(), nonce=bytes(32))),
        "a session of another plan": announce(plan=digest(b"plan")),
        "another plan than the session's": announce(PLANS["defaults"]),
        "another protocol": announce(protocol="ideal"),
        "another width": announce(bits=31),
        "a smaller minimum": announce(minimum=2, corrupt=0),
        "a sparse graph that the plan does not have": announce(neighbours=2, threshold=2),
        "more members than the plan allows": announce(members=(*session().members, fifth)),
        "a roster without me": announce(members=others),
        "a roster with another key of mine": announce(members=rekeyed),
        "a plan that does not say how much noise": _with_plan(_without_noise()),
        "the end of another session": Closed(bytes(32), digest(b"model")),
        "a message of the sum before there is an update": Survivors(session_id(session()), (0, 1, 2)),
    }
    frames = {name: CODEC.header(message) for name, message in lies.items()}
    return frames | {name: _framed(tree) for name, tree in trees().items()}


def trees() -> dict[str, list[object]]:
    """Return announcements that can't be read: their fields are no plan or no session."""
    kind, plan, fields, signature = msgspec.msgpack.decode(CODEC.header(announce())[PREFIX.size :])
    members = fields[7]
    changed: dict[str, tuple[object, object]] = {
        "a plan with an unknown key": ({**plan, "more": 1}, fields),
        "a plan that takes a risk and does not say so": ({**plan, "i_know": []}, fields),
        "members out of order": (plan, [*fields[:7], members[::-1], *fields[8:]]),
        "a member twice": (plan, [*fields[:7], [members[0], *members], *fields[8:]]),
        "two members with one key": (plan, [*fields[:7], [members[0], ["p1", members[0][1]]], *fields[8:]]),
        "a member with the coordinator's name": (plan, [*fields[:7], [["coordinator", bytes(32)]], *fields[8:]]),
        "a name with a slash": (plan, [*fields[:7], [["p/0", bytes(32)], *members], *fields[8:]]),
        "a key of 31 bytes": (plan, [*fields[:7], [["a", bytes(31)], *members], *fields[8:]]),
        "a session without members": (plan, [*fields[:7], [], *fields[8:]]),
        "a length of zero": (plan, [*fields[:8], 0, *fields[9:]]),
        "elements of 65 bits": (plan, [*fields[:9], 65, *fields[10:]]),
        "as many corrupt as the minimum": (plan, [*fields[:10], 2, 2, 0, 0]),
        "an odd number of neighbours": (plan, [*fields[:12], 3, 2]),
        "a threshold of half the neighbours": (plan, [*fields[:12], 2, 1]),
        "a session with a field too many": (plan, [*fields, 0]),
        "a session with a field too few": (plan, fields[:7]),
        "a session of another kind": (plan, ["Sessions", *fields[1:]]),
    }
    return {name: [kind, *parts, signature] for name, parts in changed.items()}


def to_the_coordinator() -> dict[str, tuple[str, bytes]]:
    """Return what the coordinator refuses, and from whom it comes."""
    sid = session_id(session())
    good = CODEC.header(Decline(sid, "no"))
    return {
        "a no from somebody outside the cohort": ("p9", good),
        "a no to another session": ("p1", CODEC.header(Decline(bytes(32), "no"))),
        "a reason with a line break": ("p1", _framed(["Decline", sid, "no\nyes"])),
        "a reason of 1,001 characters": ("p1", _framed(["Decline", sid, "n" * 1001])),
        "a reason that is no UTF-8": ("p1", good[:-1] + b"\xff"),
        "a sid of 31 bytes": ("p1", _framed(["Decline", sid[:-1], "no"])),
        "a sid that is text": ("p1", _framed(["Decline", sid.hex(), "no"])),
        "no reason": ("p1", _framed(["Decline", sid])),
        "a field too many": ("p1", _framed(["Decline", sid, "no", 1])),
        "a map": ("p1", _framed({"sid": sid, "reason": "no"})),
        "what only the coordinator says": ("p1", CODEC.header(Closed(sid, sid))),
    }


def accepted() -> list[dict[str, object]]:
    """Return frames that are not as we write them, and are read as those that are."""
    end, good = CODEC.header(honest()["the end of a failed round"]), CODEC.header(announce())
    brief = CODEC.header(honest()["the end"])
    tree = msgspec.msgpack.decode(good[PREFIX.size :])
    kind, plan, fields, signature = tree
    # Fields that are what they are by default may be left out at the end.
    early_fields = [*fields[:-1], 0]
    early = _framed([kind, plan, early_fields, signature])
    left_out = {name: value for name, value in plan.items() if name in ("cohort", "minimum", "i_know")}
    cases = {
        "a longer form of an array's length": (end, _reframed(b"\xdc\x00\x04" + end[PREFIX.size + 1 :])),
        "a longer form of a string's length": (end, _reframed(end[PREFIX.size :].replace(b"\xa7too", b"\xd9\x07too"))),
        "an end without a reason, which is empty then": (brief, _reframed(b"\x93" + brief[PREFIX.size + 1 : -1])),
        "a plan without what is its default": (good, _framed([kind, left_out, fields, signature])),
        "a plan in another order": (good, _framed([kind, dict(reversed(plan.items())), fields, signature])),
        "a session of no attempt in particular": (early, _framed([kind, plan, early_fields[:-1], signature])),
    }
    rows: list[dict[str, object]] = []
    for name, (same, frame) in cases.items():
        if CODEC.header(CODEC.decode(frame, "peer")[0]) != same or frame == same:
            raise RuntimeError(f"{name} is read as something else")
        rows.append({"name": name, "frame": frame.hex(), "read_as": same.hex()})
    return rows


def _reframed(encoding: bytes) -> bytes:
    return PREFIX.pack(VERSION, len(encoding)) + encoding


def _framed(tree: object) -> bytes:
    return _reframed(msgspec.msgpack.encode(tree))


def _signed_by(name: str, context: str = ANNOUNCE_CONTEXT) -> bytes:
    return identity_of(name).sign(context, session_id(session()))


def _without_noise() -> Plan:
    plan = PLANS["distributed gaussian"]
    dp: Any = plan.dp
    return replace(plan, dp=replace(dp, noise_multiplier=None, epsilon=8.0))


def _with_plan(plan: Plan) -> Message:
    return announce(plan, plan=plan.fingerprint())
