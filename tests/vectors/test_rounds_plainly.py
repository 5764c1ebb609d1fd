"""rounds.json, recomputed as docs/protocols/rounds.md has it; and what it says is refused, refused."""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import msgspec
import pytest

from ridotto.core.machine import COORDINATOR
from ridotto.errors import PeerProtocolError, PlanError
from ridotto.rounds.messages import ROUND_MESSAGES
from ridotto.rounds.plan import Plan
from ridotto.secagg.committee_roles.choice import choose
from ridotto.secagg.session import Member
from tests.vectors import plain
from tests.vectors.files import check_refusals, integers, load
from vectors import announcements

FILE = load("rounds.json")
PLANS = {row["name"]: row["plan"] for row in FILE["plans"]}

PARTS: dict[str, tuple[str, ...]] = {
    "ideal": (),
    "pairwise": ("corrupt", "drop_out", "graph", "shard_size"),
    "oneshot": ("corrupt", "committee", "helpers", "shard_size", "pack", "seal"),
    "committee": ("corrupt", "helpers", "replicas", "shard_size", "seal"),
    "distributed-gaussian": ("delta", "epsilon", "metrics_epsilon", "noise_multiplier", "relation"),
    "distributed-skellam": ("delta", "epsilon", "metrics_epsilon", "noise_multiplier", "relation"),
    "committee-gaussian": ("delta", "epsilon", "metrics_epsilon", "noise_multiplier", "relation"),
    "central-gaussian": ("delta", "epsilon", "metrics_epsilon", "noise_multiplier", "relation"),
    "banded-gaussian": (
        *("delta", "epsilon", "metrics_epsilon", "noise_multiplier", "relation"),
        *("bands", "participations", "separation"),
    ),
    "local-gaussian": ("delta", "epsilon", "metrics_epsilon", "noise_multiplier"),
    "privunit": ("delta", "epsilon", "metrics_epsilon", "report_epsilon"),
    "clip": ("norm", "per_layer"),
    "adaptive-clip": ("norm", "quantile", "step", "deviation"),
    "rotate": (),
    "sample": ("fraction", "scaled"),
    "count-sketch": ("rows", "columns", "median"),
    "low-rank": ("rank", "scaled"),
    "top-k": ("fraction",),
    "ternary": (),
    "quantize": ("bits", "alignment", "reach"),
    "error-feedback": (),
    "norm-bound": ("groups",),
    "bucketed-median": ("groups",),
    "rule": ("rule", "parameters", "groups"),
}
"""What the page says each map in a plan holds behind its `name`, in order."""


def parts(tree: object) -> Iterator[dict[str, Any]]:
    """Every map with a name inside a plan, but for algorithm and optimiser, whose names are not the kind."""
    if isinstance(tree, list):
        for value in tree:
            yield from parts(value)
    elif isinstance(tree, dict):
        if "name" in tree and tuple(tree) != ("name", "parameters"):
            yield tree
        for value in tree.values():
            yield from parts(value)


@pytest.mark.parametrize("row", FILE["plans"], ids=lambda row: row["name"])
def test_plans(row: dict[str, Any]) -> None:
    """The tree is in the order of its keys, so encoding it anew shows order and types."""
    encoding = msgspec.msgpack.encode(row["plan"])
    assert encoding.hex() == row["encoding"]
    assert plain.sha256(b"ridotto/1 plan\x00", encoding).hex() == row["fingerprint"]
    for part in parts(row["plan"]):
        assert tuple(part) == ("name", *PARTS[part["name"]])
    for name in ("metrics", "algorithm", "optimiser"):
        table = row["plan"][name].get("parameters", {}) if name != "metrics" else row["plan"][name]
        assert list(table) == sorted(table)
    assert msgspec.msgpack.decode(encoding, type=Plan).fingerprint().hex() == row["fingerprint"]


def test_every_part_of_a_plan_is_in_one() -> None:
    found = {part["name"] for row in FILE["plans"] for part in parts(row["plan"])}
    assert found == set(PARTS)
    fields = {name for row in FILE["plans"] for name, value in row["plan"].items() if value not in (None, [], {})}
    assert fields == set(Plan.__struct_fields__)


def test_plans_that_are_refused() -> None:
    for row in FILE["plan_refusals"]:
        with pytest.raises((msgspec.ValidationError, PlanError)) as refused:
            msgspec.msgpack.decode(msgspec.msgpack.encode({**PLANS["defaults"], **row["plan"]}), type=Plan)
        assert str(refused.value) == row["why"]


def check_session(row: dict[str, Any]) -> dict[str, Any]:
    """Encode a session from its tree, and hash it."""
    tree: dict[str, Any] = row["session"]
    values = [
        bytes.fromhex(value)
        if name in ("plan", "model", "nonce")
        else [[who, bytes.fromhex(key)] for who, key in value]
        if name in ("members", "helpers")
        else value
        for name, value in tree.items()
    ]
    encoding = msgspec.msgpack.encode([row["kind"], *values])
    assert encoding.hex() == row["encoding"]
    assert row["hashed"] == (b"ridotto/1 session\x00" + encoding).hex()
    assert row["sid"] == plain.sha256(b"ridotto/1 session\x00", encoding).hex()
    return tree


@pytest.mark.parametrize("row", FILE["sessions"], ids=lambda row: row["session"]["protocol"])
def test_sessions(row: dict[str, Any]) -> None:
    tree = check_session(row)
    assert tree["members"] == sorted(tree["members"])


def limb_bits(bits: int, count: int) -> int:
    return int(((2**bits - 1) // count + 1).bit_length() - 1)


def lanes_of(plan: dict[str, Any], entries: int, summed: int) -> list[int]:
    """How many elements each value takes: weight, cut off, clipped if there is a clip without noise, metrics."""
    clipped = [1] if plan["clip"] is not None and plan["dp"] is None else []
    metric = [plan["max_examples"] << 20] * len(plan["metrics"])
    most = [plan["max_examples"], entries, *clipped, *metric]
    return [max(1, math.ceil(value.bit_length() / limb_bits(plan["bits"], summed))) for value in most]


@pytest.mark.parametrize("row", FILE["rounds"], ids=lambda row: row["plan"])
def test_how_a_cohort_is_dealt(row: dict[str, Any]) -> None:
    plan, fingerprint = next((p["plan"], p["fingerprint"]) for p in FILE["plans"] if p["name"] == row["plan"])
    names, shards = [name for name, _ in row["cohort"]], len(row["sessions"])
    groups = [sorted(names[shard::shards]) for shard in range(shards)]
    robust = plan["robust"] is not None
    if robust:
        domain, nonce = b"ridotto/1 robust groups\x00", bytes.fromhex(row["nonce"])
        dealt = sorted(names, key=lambda name: plain.sha256(domain, nonce, name.encode()))
        groups = [sorted(dealt[shard::shards]) for shard in range(shards)]
    smallest, largest = len(names) // shards, -(-len(names) // shards)
    summed = largest if robust else plan["cohort"]
    tail = 1 + math.ceil(64 / plan["bits"]) + sum(lanes_of(plan, row["parameters"], summed))
    for shard, (found, group) in enumerate(zip(row["sessions"], groups, strict=True)):
        session = check_session(found)
        assert [name for name, _ in session["members"]] == group
        expected = {
            "protocol": plan["protocol"]["name"],
            "plan": fingerprint,
            "model": row["model"],
            "nonce": row["nonce"],
            "round": row["round"],
            "shard": shard,
            "length": row["parameters"] + tail,
            "bits": plan["bits"],
            "minimum": plan["minimum"] or min(smallest, max(3, math.ceil(smallest * 2 / 3))),
            "corrupt": math.ceil(plan["protocol"].get("corrupt", 0) * len(group)),
            "neighbours": 0,
            "threshold": 0,
            "attempt": row["attempt"],
        }
        assert {name: session[name] for name in expected} == expected
        if "committee" in session:
            check_seats(session, plan["protocol"], tail)


def check_seats(session: dict[str, Any], protocol: dict[str, Any], tail: int) -> None:
    """Helpers have the seats where the plan names some: at most those of all slots, or as many as it says."""
    asked = protocol["helpers"]
    helpers = sorted([name, key] for name, key in asked["keys"].items()) if asked else []
    full = (asked["corrupt"] + 1) * protocol["replicas"] if "replicas" in protocol else protocol["committee"]
    assert session["committee"] == min(full, len(helpers) if helpers else len(session["members"]))
    assert (session["helpers"], session["helpers_corrupt"]) == (helpers, asked["corrupt"] if asked else 0)
    assert (session["tail"], session["sigma"]) == (tail, 0.0)


def test_messages_and_the_signature_of_an_announcement() -> None:
    assert {row["kind"] for row in FILE["messages"]} == {kind.__name__ for kind in ROUND_MESSAGES}
    for row in FILE["messages"]:
        kind, *fields = plain.decode(row["header"])
        assert kind == row["kind"]
        if kind == "Announce":
            _, session, signature = fields
            sid = plain.sha256(b"ridotto/1 session\x00", msgspec.msgpack.encode(session))
            public = plain.identity_of(FILE["private_keys"]["coordinator"])
            plain.check_signature(public, "announce", sid, signature)  # type: ignore[arg-type]
            assert session[2] == bytes.fromhex(  # type: ignore[index]
                next(plan["fingerprint"] for plan in FILE["plans"] if plan["name"] == "small cohort")
            )
        frame = bytes.fromhex(row["header"])
        assert announcements.CODEC.header(announcements.CODEC.decode(frame, "peer")[0]) == frame


def test_frames_that_are_read_as_others() -> None:
    for row in FILE["accepted"]:
        message, _ = announcements.CODEC.decode(bytes.fromhex(row["frame"]), "peer")
        assert announcements.CODEC.header(message).hex() == row["read_as"] != row["frame"]


def test_frames_that_are_refused_and_the_honest_one_taken_after_them() -> None:
    assert len({row["name"] for row in FILE["refusals"]}) == len(FILE["refusals"])
    kinds = {kind.__name__.encode() for kind in ROUND_MESSAGES}
    assert {kind for kind in kinds for row in FILE["refusals"] if kind in bytes.fromhex(row["frame"])} == kinds
    honest = {row["name"]: bytes.fromhex(row["header"]) for row in FILE["messages"]}
    for row in FILE["refusals"]:
        machine = announcements.machine(row["to"])
        machine.start(0.0)
        frame = bytes.fromhex(row["frame"])
        with pytest.raises(PeerProtocolError) as refused:
            machine.receive(row["from"], announcements.CODEC.decode(frame, row["from"])[0], 0.0)
        assert (refused.value.peer, refused.value.why) == (row["blames"], row["why"]), row["name"]
        sender, good = ("p1", "no") if row["to"] == COORDINATOR else (COORDINATOR, "an announcement")
        machine.receive(sender, announcements.CODEC.decode(honest[good], sender)[0], 0.0)


@pytest.mark.parametrize("row", FILE["updates"], ids=lambda row: row["plan"]["bits"])
def test_updates(row: dict[str, Any]) -> None:
    plan, values = row["plan"], row["update"]
    bits, n, most = plan["bits"], plan["cohort"], plan["max_examples"]
    weight, fraction, limit = min(row["examples"], most), 0, 0
    for f in range(150):
        reach = math.ceil(Fraction(plan["value_range"]) * 2**f)
        if n * reach < 2 ** (bits - 1) and reach <= 2**52:
            fraction, limit = f, reach
    vector, cut = [], 0
    for value, dither in zip(values, row["dice"], strict=True):
        real = value * (weight / most * 2.0**fraction)
        cut += abs(real) > limit
        vector.append((round(Fraction(min(max(real, -limit), limit)) * 2**32) + dither >> 32) % 2**bits)
    told = [weight, cut]
    for name in sorted(plan["metrics"]):
        bound = plan["metrics"][name]
        told.append(round((row["metrics"][name] + bound) / (2 * bound) * 2**20) * weight)
    width, limbs = limb_bits(bits, n), lanes_of(plan, len(values), n)
    lanes = [(value >> (width * i)) % 2**width for value, count in zip(told, limbs, strict=True) for i in range(count)]
    assert integers(row["vector"]) == [*vector, 1, *[0] * math.ceil(64 / bits), *lanes]


def chosen(pool: list[tuple[str, bytes]], beacon: bytes, size: int) -> tuple[bytes, list[str]]:
    """Root and members, as the page on `committee` says."""
    root = plain.merkle_root([key + name.encode() for name, key in sorted(pool)])
    ranks = {name: plain.sha256(b"ridotto/1 choice\x00", root, beacon, key) for name, key in pool}
    return root, sorted(sorted(ranks, key=ranks.__getitem__)[:size])


@pytest.mark.parametrize("row", FILE["committees"], ids=lambda row: f"{row['size']} of {len(row['pool'])}")
def test_committees(row: dict[str, Any]) -> None:
    pool = [(name, bytes.fromhex(key)) for name, key in row["pool"]]
    root, members = chosen(pool, bytes.fromhex(row["beacon"]), row["size"])
    assert (row["root"], row["members"]) == (root.hex(), members)
    assert row["quorum"] == (row["size"] + row["corrupt"]) // 2 + 1


def test_committees_that_are_refused() -> None:
    def act(row: dict[str, Any]) -> None:
        pool = [Member(name, bytes.fromhex(key)) for name, key in row["pool"]]
        choose(pool, bytes.fromhex(row["beacon"]), row["size"], row["corrupt"])

    check_refusals(FILE["committee_refusals"], act)


def test_committees_that_are_drawn_from_a_session() -> None:
    for row in FILE["drawn"]:
        _, *fields = msgspec.msgpack.decode(bytes.fromhex(row["session"]))
        nonce, shard, members, corrupt, committee = fields[3], fields[5], fields[6], fields[10], fields[14]
        helpers, helpers_corrupt, _, seal = fields[16:]
        assert seal in ("x25519", "hybrid")
        pool = [tuple(helper) for helper in helpers] or [(name + "/member", key) for name, key in members]
        named = plain.sha256(b"ridotto/1 helpers\x00", nonce, shard.to_bytes(4, "big"))
        assert row["members"] == chosen(pool, named if helpers else nonce, committee)[1]
        assert row["corrupt"] == (helpers_corrupt if helpers else max(1, corrupt))
    assert len(FILE["drawn"]) == 4
