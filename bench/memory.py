"""Peak memory of a process that runs the coordinator's half of a round, for more and more participants.

The participants are machines in this process, and cheap ones: they do not check signatures, agree on keys by a hash,
and leave out the pairwise masks, which add up to zero. What the coordinator receives has the same form and the same
size, its sum is the right one, and it does all of its own work.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from unittest.mock import patch

import msgspec
import numpy as np

from bench.federation import identity, names_of
from bench.half import READY, RESULT, read_record, write_record
from bench.ingest import CONNECTIONS, FLAT, Client, announced, peak_bytes, started
from bench.measure import Bar, Line, Lines
from ridotto.core.fixedpoint import container
from ridotto.core.machine import COORDINATOR, Effect, Machine, Send
from ridotto.core.rng import insecure_seeded_rng
from ridotto.core.wire import Codec
from ridotto.crypto import prg
from ridotto.crypto.seal import ExchangeKey
from ridotto.rounds.messages import Announce, Closed, messages_of_all
from ridotto.rounds.pipeline import Pipeline
from ridotto.rounds.plan import Ideal, Pairwise, Plan, Risk
from ridotto.secagg.pairwise import participant
from ridotto.secagg.protocols import PROTOCOLS

LENGTH = 1_000_000
SESSIONS = 64


def lines(quick: bool) -> Lines:
    counts = (10, 100) if quick else (10, 100, 1000)
    for protocol in ("ideal", "pairwise"):
        first: dict[str, int] = {}
        for count in counts:
            found = measure(protocol, count)
            first = first or found
            yield Line(
                what=f"memory: a round's coordinator half, {protocol}, n = {count:,}, d = {LENGTH:,}",
                ours=found["peak"] / 1e6,
                floor=first["peak"] / 1e6 if count > 10 else None,
                unit="MB",
                bar=Bar("ratio", FLAT) if count > 10 else None,
                notes=(f"before the round {found['empty'] / 1e6:.0f} MB",) if count == 10 else (),
            )

    for protocol in ("ideal", "oneshot"):
        one, many = (measure_sessions(protocol, sessions) for sessions in (1, SESSIONS))
        yield Line(
            what=f"memory: sums in files, {protocol}, {SESSIONS} sessions against 1, d = {LENGTH:,}",
            ours=many["peak"] / 1e6,
            floor=one["peak"] / 1e6,
            unit="MB",
            bar=Bar("ratio", FLAT),
            notes=(f"before the round {many['empty'] / 1e6:.0f} MB",),
        )

    floor = measure_service(10)
    for count in counts[1:]:
        yield Line(
            what=f"memory: coordinator process, pairwise over HTTP, n = {count:,} against 10",
            ours=measure_service(count) / 1e6,
            floor=floor / 1e6,
            unit="MB",
            bar=Bar("ratio", FLAT),
        )


def make_plan(protocol: str, count: int) -> Plan:
    if protocol == "ideal":
        return Plan(cohort=count, protocol=Ideal(), i_know=(Risk.NO_PROTECTION,))
    return Plan(cohort=count, protocol=Pairwise(), phase_s=3600)


def measure_service(count: int) -> int:
    """Run one pairwise round against a real coordinator over HTTP; return its peak memory in bytes."""
    plan = make_plan("pairwise", count)
    with cheap_participants(), tempfile.TemporaryDirectory() as folder:
        arguments = ("coordinator", folder, msgspec.json.encode(plan).decode(), str(LENGTH))
        with started(*arguments) as (process, where), ThreadPoolExecutor(CONNECTIONS) as pool:
            clients = [Client(where) for _ in range(CONNECTIONS)]
            announced(clients[0], plan)
            crowd, names = Crowd(plan), names_of(count)
            parts = [names[i::CONNECTIONS] for i in range(CONNECTIONS)]
            list(pool.map(partial(_take_part, crowd), clients, parts))
            return peak_bytes(process.pid)


def _take_part(crowd: Crowd, client: Client, names: list[str]) -> None:
    """Speak for some participants until the round is closed for all of them."""
    seen = dict.fromkeys(names, 0)
    while seen:
        for name in list(seen):
            frames = client.inbox(name, wait_s=0.01, attempt=1, after=seen[name]).frames
            for frame in frames:
                seen[name] += 1
                for effect in crowd.receive(name, frame):
                    if isinstance(effect, Send):
                        client.upload(name, *_framed(crowd.codec, effect))
                if crowd.is_closed(frame):
                    del seen[name]


def _framed(codec: Codec, send: Send) -> tuple[bytes, memoryview]:
    return codec.header(send.message), memoryview(send.attachment or b"")


def measure(protocol: str, count: int) -> dict[str, int]:
    """Run one round with its coordinator in a child process; return what that reports."""
    plan = make_plan(protocol, count)
    command = [sys.executable, "-m", "bench.half", msgspec.json.encode(plan).decode(), str(LENGTH)]
    with cheap_participants(), subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        crowd = Crowd(plan)
        while True:
            name, frame = read_record(child.stdout)
            if name == RESULT:
                break
            if name != READY:
                crowd.waiting.append((name, frame))
                continue
            sender, answer = next(crowd.answers)
            write_record(child.stdin, sender, answer)
            child.stdin.flush()
    result: dict[str, int] = json.loads(frame)
    if result["error"]:
        raise RuntimeError(f"the round failed: {result['error']}")
    return result


def measure_sessions(protocol: str, sessions: int) -> dict[str, int]:
    """Fold, open and add up the sums of so many sessions in a child process; return what that reports."""
    command = [sys.executable, "-m", "bench.sessions", protocol, str(sessions), str(LENGTH)]
    found: dict[str, int] = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    return found


class Crowd:
    """All participants; each says something only when the coordinator is ready to listen."""

    def __init__(self, plan: Plan) -> None:
        self.pipeline = Pipeline(plan, LENGTH)
        self.codec = Codec(*messages_of_all(), attachment_limit=1 << 30)
        self.machines: dict[str, Machine] = {}
        self.waiting: deque[tuple[str, bytes]] = deque()
        self.answers = self._answers()

    def _answers(self) -> Iterator[tuple[str, bytes]]:
        while True:
            name, frame = self.waiting.popleft()
            for effect in self.receive(name, frame):
                if isinstance(effect, Send):
                    yield name, self.codec.encode(effect.message, effect.attachment)

    def receive(self, name: str, frame: bytes) -> list[Effect]:
        message, _ = self.codec.decode(frame, COORDINATOR)
        match message:
            case Announce(session=session):
                half = PROTOCOLS[session.protocol].participant
                self.machines[name] = half(
                    session, name, identity(name), self._vector(), insecure_seeded_rng(1).child(name)
                )
                return self.machines[name].start(0.0)
            case Closed():
                return []
            case _:
                return self.machines[name].receive(COORDINATOR, message, 0.0)

    def is_closed(self, frame: bytes) -> bool:
        message, _ = self.codec.decode(frame, COORDINATOR)
        if isinstance(message, Closed) and message.reason:
            raise RuntimeError(f"the round failed: {message.reason}")
        return isinstance(message, Closed)

    def _vector(self) -> np.ndarray:
        """Return an update of zeros: it takes memory only when it is written to, which is when it is sent."""
        vector = np.zeros(self.pipeline.length, container(self.pipeline.plan.bits))
        vector[LENGTH:] = self.pipeline.lanes.write([1, 0])
        return vector


def cheap_participants() -> ExitStack:
    stack = ExitStack()
    stack.enter_context(patch.object(participant, "verify", lambda *_: None))
    stack.enter_context(patch.object(ExchangeKey, "agree", _agree_by_hash))
    stack.enter_context(
        patch.object(participant, "add_masks", lambda total, masks, sid: prg.add_masks(total, masks[:1], sid))
    )
    return stack


def _agree_by_hash(self: ExchangeKey, peer: bytes, sid: bytes, label: str, info: bytes, length: int = 32) -> bytes:
    return hashlib.sha256(b"".join(sorted((self.public, peer))) + sid + label.encode() + info).digest()[:length]
