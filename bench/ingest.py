"""Uploads of 4 MB to a real coordinator over loopback, against copying the same bytes through a socket.

Protocol `ideal`, because its round is one upload per participant and nothing else. What is measured is the CPU time of
the coordinator's process from the first upload to the last answer: HTTP, signature, SHA-256, sum, commit. An upload is
answered once it is durable. Linux, for /proc.
"""

from __future__ import annotations

import http.client
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from bench.encode import make_update
from bench.federation import identity, names_of
from bench.measure import Bar, Line, Lines
from ridotto.core.machine import COORDINATOR
from ridotto.core.packing import pack
from ridotto.core.rng import insecure_seeded_rng
from ridotto.core.wire import Codec, digest
from ridotto.crypto.identity import sign_request
from ridotto.rounds.dice import SeededDice
from ridotto.rounds.messages import Announce, messages_of_all
from ridotto.rounds.pipeline import Pipeline
from ridotto.rounds.plan import Ideal, Plan, Risk
from ridotto.rounds.service import INBOX_PATH, MESSAGES_PATH, PARTICIPANTS_PATH, Enrolment, Inbox
from ridotto.secagg.messages import Plain
from ridotto.secagg.session import session_id

LENGTH = 1_000_000
CONNECTIONS = 8
"""Uploads under way at once. The coordinator commits together what has come in, as it does with a real cohort."""

FLAT = 1.25
"""Flat: the peak grows by at most a quarter from 10 participants to the most."""


@dataclass(frozen=True)
class Found:
    """What one process spent on `size` bytes, and its highest memory."""

    size: int
    cpu: float
    wall: float
    peak: int

    @property
    def rate(self) -> float:
        return self.size / self.cpu / 1e6


def lines(quick: bool) -> Lines:
    counts = (10, 100) if quick else (10, 100, 1000)
    floor = measure_raw(500)
    found = {count: measure(count) for count in counts}
    yield Line(
        what="ingest: 4 MB updates over HTTP, per core of the coordinator",
        ours=found[100].rate,
        floor=floor.rate,
        wall=found[100].wall / 100,
        unit="MB/s",
        bar=Bar("at least", 300.0),
        notes=("floor: a raw loopback socket; wall: per upload, with the clients on the same machine",),
    )
    for count in counts[1:]:
        yield Line(
            what=f"memory: coordinator process, ideal over HTTP, n = {count:,} against 10",
            ours=found[count].peak / 1e6,
            floor=found[10].peak / 1e6,
            unit="MB",
            bar=Bar("ratio", FLAT),
        )


def measure(count: int) -> Found:
    """Let `count` participants upload one update each."""
    plan = Plan(cohort=count, protocol=Ideal(), i_know=(Risk.NO_PROTECTION,))
    encoded = msgspec.json.encode(plan).decode()
    with (
        tempfile.TemporaryDirectory() as folder,
        started("coordinator", folder, encoded, str(LENGTH)) as (process, where),
    ):
        clients = [Client(where) for _ in range(CONNECTIONS)]
        head, packed = prepare(plan, announced(clients[0], plan))
        busy, begin = cpu_seconds(process.pid), time.perf_counter()
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            parts = [names_of(count)[i::CONNECTIONS] for i in range(CONNECTIONS)]
            list(pool.map(lambda client, names: [client.upload(name, head, packed) for name in names], clients, parts))
        wall = time.perf_counter() - begin
        return Found(len(packed) * count, cpu_seconds(process.pid) - busy, wall, peak_bytes(process.pid))


def announced(client: Client, plan: Plan) -> Announce:
    """Make the whole cohort present and return what is announced then."""
    names = names_of(plan.cohort)
    for name in names:
        client.enrol(name)
    for name in names:
        client.inbox(name, wait_s=0)
    while not (frames := client.inbox(names[0], wait_s=1).frames):
        time.sleep(0.01)
    message, _ = Codec(*messages_of_all()).decode(frames[0], COORDINATOR)
    assert isinstance(message, Announce)
    return message


def prepare(plan: Plan, announce: Announce) -> tuple[bytes, memoryview]:
    """Return header and vector of an upload; everybody's is the same."""
    update = make_update(LENGTH)
    packed = pack(Pipeline(plan, LENGTH).encode(update, 1, {}, SeededDice(insecure_seeded_rng(1))), plan.bits)
    message = Plain(digest=digest(packed), size=len(packed), sid=session_id(announce.session))
    return Codec(Plain).header(message), packed


class Client:
    """One connection that speaks for any participant, with as little work as possible."""

    def __init__(self, where: str) -> None:
        self.http = http.client.HTTPConnection(where, timeout=120)
        self.http.connect()

    def enrol(self, name: str) -> None:
        body = msgspec.json.encode(Enrolment(name=name, key=identity(name).public.hex()))
        self._ask("POST", name, PARTICIPANTS_PATH, body, (body,))

    def inbox(self, name: str, wait_s: float, attempt: int = 0, after: int = 0) -> Inbox:
        body = self._ask("GET", name, f"{INBOX_PATH}?attempt={attempt}&after={after}&wait={wait_s:g}", b"", ())
        return msgspec.msgpack.decode(body, type=Inbox)

    def upload(self, name: str, head: bytes, packed: memoryview) -> None:
        self._ask("POST", name, f"{MESSAGES_PATH}?attempt=1", head, (head, packed))

    def _ask(self, method: str, name: str, target: str, signed: bytes, parts: tuple[bytes | memoryview, ...]) -> bytes:
        self.http.putrequest(method, target, skip_accept_encoding=True)
        signature = sign_request(identity(name), method, target, int(time.time()), digest(signed))
        self.http.putheader("Authorization", signature)
        self.http.putheader("Content-Length", str(sum(map(len, parts))))
        self.http.endheaders()
        for part in parts:
            self.http.sock.sendall(part)
        response = self.http.getresponse()
        body = response.read()
        if response.status >= 300:
            raise RuntimeError(f"{method} {target}: {response.status} {body[:500]!r}")
        return body


def measure_raw(count: int) -> Found:
    """Send the same bytes to a process that only copies them."""
    data = bytes(4 * LENGTH)
    with started("raw") as (process, where):
        host, port = where.split(":")
        with socket.create_connection((host, int(port))) as connection:
            busy, begin = cpu_seconds(process.pid), time.perf_counter()
            for _ in range(count):
                connection.sendall(len(data).to_bytes(8, "big"))
                connection.sendall(data)
                connection.recv(1)
            wall = time.perf_counter() - begin
            return Found(len(data) * count, cpu_seconds(process.pid) - busy, wall, peak_bytes(process.pid))


@contextmanager
def started(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run `bench.server`; yield the process and its host:port."""
    command = [sys.executable, "-m", "bench.server", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process, urlsplit(process.stdout.readline().strip()).netloc
        finally:
            process.terminate()


def cpu_seconds(pid: int) -> float:
    """Return user and system time of a process and all its threads (ticks of 10 ms)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak_bytes(pid: int) -> int:
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) * 1024
