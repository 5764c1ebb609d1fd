"""A round of very many participants through sharded `oneshot`, every machine real: `python -m bench.shards --help`.

Shard after shard, as many at a time as there are processes: its participants encode and encrypt an update each, its
committee is drawn from them, its coordinator folds, collects and opens. The sums of the shards go up a tree. Each
shard's sum is compared with the plain sum of its encoded vectors, which must be equal in every bit.

Identities are made anew for every shard and are not counted. Training is not part of it.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from bench.machine import describe
from ridotto.core.fixedpoint import IntVector, container
from ridotto.core.machine import COORDINATOR, Buffer, Effect, Envelope, Finish, Machine, Router
from ridotto.core.rng import insecure_seeded_rng
from ridotto.core.wire import Attached, Codec, Message
from ridotto.crypto.seal import IdentityKey
from ridotto.rounds.ciphers import shape_of
from ridotto.rounds.dice import SeededDice
from ridotto.rounds.pipeline import Pipeline
from ridotto.rounds.plan import Oneshot, Plan
from ridotto.rounds.sessions import Attempt, make_sessions
from ridotto.rounds.totals import add_up
from ridotto.secagg.committee_roles.roster import SEAT_SUFFIX, seat_name
from ridotto.secagg.committee_roles.tasks import Settle
from ridotto.secagg.oneshot.ciphersum import SessionSum
from ridotto.secagg.oneshot.messages import ONESHOT_MESSAGES
from ridotto.secagg.oneshot.tasks import OpenCiphers
from ridotto.secagg.protocols import PROTOCOLS
from ridotto.secagg.session import Member, Timeouts
from ridotto.secagg.tasks import Fold

ENTRIES = 10_000
LARGER = (100_000, 1_000_000, 10_000_000)
ROLES = ("participant", "seat", "coordinator")


@dataclass
class Shard:
    """What one shard came to. cpu_s: by role. sent: bytes by role, of messages and vectors together."""

    members: int
    seats: int
    total: IntVector
    exact: bool
    cpu_s: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    sent: Counter[str] = field(default_factory=Counter)
    peak_bytes: int = 0


class Timed:
    """Count the CPU seconds of a machine under its role."""

    def __init__(self, machine: Machine, role: str, tally: defaultdict[str, float]) -> None:
        self._machine, self._role, self._tally = machine, role, tally

    def start(self, now: float) -> list[Effect]:
        return self._count(lambda: self._machine.start(now))

    def receive(self, sender: str, message: Message, now: float) -> list[Effect]:
        return self._count(lambda: self._machine.receive(sender, message, now))

    def expire(self, now: float) -> list[Effect]:
        return self._count(lambda: self._machine.expire(now))

    def _count(self, call: Callable[[], list[Effect]]) -> list[Effect]:
        before = time.process_time()
        try:
            return call()
        finally:
            self._tally[self._role] += time.process_time() - before


def make_plan(arguments: argparse.Namespace) -> Plan:
    protocol = Oneshot(corrupt=arguments.corrupt, committee=arguments.committee, pack=arguments.pack)
    return Plan(cohort=arguments.participants, protocol=protocol, value_range=0.25, max_examples=1)


def run_shard(plan: Plan, entries: int, number: int, members: int) -> Shard:
    """Run one shard with all of its machines."""
    rng = insecure_seeded_rng(1).child("shard", number)
    keys = {f"p{place:04}": IdentityKey.generate(rng.child("key", place)) for place in range(members)}
    roster = tuple(Member(name, key.public) for name, key in keys.items())
    nonce = rng.bytes(32)
    (session,) = make_sessions(Attempt(plan, 1, 1, b"m" * 32, entries, nonce, roster))
    pipeline, protocol = Pipeline(plan, entries), PROTOCOLS["oneshot"]
    shard = Shard(members, plan.seats(members), np.zeros(pipeline.length, container(plan.bits)), exact=False)
    plain = np.zeros(pipeline.length, container(plan.bits))
    generator = np.random.default_rng(number)
    machines: dict[str, Machine] = {}
    for place, (name, key) in enumerate(keys.items()):
        update = generator.normal(0, 0.05, entries).astype(np.float32)
        before = time.process_time()
        vector = pipeline.encode(update, 1, {}, SeededDice(rng.child("dice", place)))
        shard.cpu_s["participant"] += time.process_time() - before
        plain += vector
        machine = protocol.participant(session, name, key, vector, rng.child("participant", place))
        machines[name] = Timed(machine, "participant", shard.cpu_s)
        seat = protocol.member(session, name, key, rng.child("seat", place))
        if seat is not None:
            machines[seat_name(name)] = Timed(seat, "seat", shard.cpu_s)
    machines[COORDINATOR] = Timed(protocol.coordinator(session, Timeouts(600, 60)), "coordinator", shard.cpu_s)
    driver = _Driver(pipeline, shard)
    finish: Finish = Router(machines, driver.perform, driver.link).run()[COORDINATOR]
    opened = driver.sum.opened
    if finish.error is not None or opened is None:
        raise SystemExit(f"shard {number} failed: {finish.error}")
    mask = plain.dtype.type((1 << plan.bits) - 1)
    shard.total, shard.exact = opened, bool(np.array_equal(opened & mask, plain & mask))
    shard.peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return shard


class _Driver:
    """Carry out the coordinator's tasks, and count bytes."""

    def __init__(self, pipeline: Pipeline, shard: Shard) -> None:
        self.sum = SessionSum(shape_of(pipeline), self._read_lanes)
        self._pipeline, self._shard = pipeline, shard
        self._codec = Codec(*ONESHOT_MESSAGES)

    def link(self, envelope: Envelope) -> Iterable[Envelope]:
        message = envelope.message
        size = len(self._codec.header(message)) + (message.size if isinstance(message, Attached) else 0)
        role = "seat" if envelope.sender.endswith(SEAT_SUFFIX) else "participant"
        self._shard.sent["coordinator" if envelope.sender == COORDINATOR else role] += size
        yield envelope

    def perform(self, owner: str, task: object, attachment: Buffer | None) -> Message | None:
        before = time.process_time()
        try:
            match task:
                case Fold(_, sender) if attachment is not None:
                    self.sum.fold(sender, attachment)
                    return None
                case Settle():
                    self.sum.settle(task)
                    return None
                case OpenCiphers():
                    return self.sum.open(task)
        finally:
            self._shard.cpu_s["coordinator"] += time.process_time() - before
        raise SystemExit(f"{owner} asks for {type(task).__name__}")

    def _read_lanes(self, total: IntVector) -> tuple[int, bool]:
        lanes = self._pipeline.read_lanes(total)
        return lanes.count, lanes.zero


def tree_sum(totals: list[IntVector]) -> IntVector:
    """Add sums up in pairs, level by level, as coordinators of coordinators would."""
    level = totals
    while len(level) > 1:
        level = [add_up(level[place : place + 2]) for place in range(0, len(level), 2)]
    return level[0]


def main() -> None:
    arguments = parse()
    plan = make_plan(arguments)
    shards = plan.sessions_of(arguments.participants)
    sizes = [len(range(number, arguments.participants, shards)) for number in range(shards)]
    print(describe())
    print(f"{arguments.participants:,} participants, d = {arguments.d:,}, {shards} shards, {plan.protocol}", flush=True)
    begin = time.perf_counter()
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(arguments.processes, mp_context=context) as pool:
        running = [pool.submit(run_shard, plan, arguments.d, number, size) for number, size in enumerate(sizes)]
        done = []
        for number, one in enumerate(running, 1):
            done.append(one.result())
            if number % 10 == 0 or number == shards:
                print(f"  {number} of {shards} shards, {time.perf_counter() - begin:.0f} s", flush=True)
    total = tree_sum([shard.total for shard in done])
    result = Pipeline(plan, arguments.d).decode(total & total.dtype.type((1 << plan.bits) - 1))
    wall = time.perf_counter() - begin
    report(arguments, done, wall, result.participants)


def report(arguments: argparse.Namespace, done: list[Shard], wall: float, counted: int) -> None:
    """Print what was measured, per unit, and what follows for more participants under which assumptions."""
    count = sum(shard.members for shard in done)
    seats = sum(shard.seats for shard in done)
    cpu = {role: sum(shard.cpu_s[role] for shard in done) for role in ROLES}
    sent = sum((shard.sent for shard in done), Counter())
    exact = all(shard.exact for shard in done) and counted == count
    print(f"every shard's sum equals the plain one: {'yes' if exact else 'NO'}; contributions counted: {counted:,}")
    print(f"wall {wall:.0f} s on {arguments.processes} processes, CPU {sum(cpu.values()):.0f} s")
    peak = max(shard.peak_bytes for shard in done)
    print(f"memory of one process at most {peak / 1e6:.0f} MB")
    each = {"participant": count, "seat": seats, "coordinator": count}
    for role in ROLES:
        per = "participant" if role == "coordinator" else role
        print(
            f"  {role:<12} {1e3 * cpu[role] / each[role]:9.3f} ms and {sent[role] / each[role] / 1e3:9.1f} kB sent "
            f"per {per}"
        )
    print(f"extrapolated, {arguments.processes} cores that have nothing else to do:")
    for larger in LARGER:
        factor = larger / count
        minutes = sum(cpu.values()) * factor / arguments.processes / 60
        print(
            f"  {larger:>10,} participants: {minutes:8.1f} minutes for all machines; coordinator alone "
            f"{cpu['coordinator'] * factor / 60:6.1f} core-minutes, "
            f"{(sent['participant'] + sent['seat']) * factor / 1e9:,.0f} GB received, "
            f"{sent['coordinator'] * factor / 1e9:,.0f} GB sent"
        )
    print(
        "assumptions: shards are independent and of one size, so everything grows with their number. Left out: the\n"
        "network, the tree's additions (one vector per shard), training. In one process a contribution's signature, a\n"
        "book and a choice of seats are checked once for all machines; devices do so each: `python -m bench oneshot`"
    )


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.shards", description=__doc__.splitlines()[0])
    parser.add_argument("--participants", type=int, default=100_000)
    parser.add_argument("--d", type=int, default=ENTRIES, help="entries of an update")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--corrupt", type=float, default=0.02, help="of a session's participants")
    parser.add_argument("--committee", type=int, default=64)
    parser.add_argument("--pack", default="3x28")
    return parser.parse_args()


if __name__ == "__main__":
    main()
