"""The coordinator's half of one round in a process of its own, over its standard input and output: see memory.py.

    python -m bench.half PLAN.json LENGTH

It writes (name, frame) for every message, then an empty name when it is ready for the next frame, and last the name
"result" with its memory as JSON.
"""

from __future__ import annotations

import json
import re
import struct
import sys
from pathlib import Path
from typing import IO

import msgspec

from bench.federation import make_attempt
from bench.fold import make_vault
from ridotto.core.machine import SELF, Buffer, Do, Effect, Finish, Send
from ridotto.core.rng import insecure_seeded_rng
from ridotto.core.wire import Codec, Message
from ridotto.crypto.seal import IdentityKey
from ridotto.rounds.messages import Apply, Discard, Merge, messages_of_all
from ridotto.rounds.plan import Plan
from ridotto.rounds.round import CoordinatorRound
from ridotto.secagg.tasks import Fold, Open

HEAD = struct.Struct("<HI")
READY, RESULT = "", "result"


def write_record(stream: IO[bytes], name: str, frame: Buffer) -> None:
    encoded = name.encode()
    stream.write(HEAD.pack(len(encoded), len(frame)) + encoded)
    stream.write(frame)


def read_record(stream: IO[bytes]) -> tuple[str, bytes]:
    head = stream.read(HEAD.size)
    if len(head) < HEAD.size:
        raise EOFError("the other process ended")
    name, frame = HEAD.unpack(head)
    return stream.read(name).decode(), stream.read(frame)


def memory(field: str) -> int:
    """Return `VmRSS` (now) or `VmHWM` (the highest so far) in bytes. Linux."""
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


class Half:
    def __init__(self, plan: Plan, length: int, out: IO[bytes]) -> None:
        own = IdentityKey.generate(insecure_seeded_rng(0))
        self.vault = make_vault(plan, length)
        self.empty = memory("VmRSS")
        self.machine = CoordinatorRound(make_attempt(plan, self.vault.model_digest, length), own)
        self.codec = Codec(*messages_of_all(), attachment_limit=1 << 30)
        self.out = out
        self.finish: Finish | None = None

    def receive(self, sender: str, frame: bytes) -> None:
        message, attachment = self.codec.decode(frame, sender)
        self.carry_out(self.machine.receive(sender, message, 0.0), attachment)

    def carry_out(self, effects: list[Effect], attachment: Buffer | None = None) -> None:
        for effect in effects:
            match effect:
                case Send(to, message):
                    write_record(self.out, to, self.codec.encode(message))
                case Do(task):
                    result = self.perform(task, attachment)
                    if result is not None:
                        self.carry_out(self.machine.receive(SELF, result, 0.0))
                case Finish():
                    self.finish = effect

    def perform(self, task: object, attachment: Buffer | None) -> Message | None:
        match task:
            case Fold(sid=sid):
                assert attachment is not None
                self.vault.fold(sid, attachment)
                return None
            case Merge() | Discard():
                self.vault.close(task)
                return None
            case Open() | Apply():
                return self.vault.perform(task)
        raise AssertionError(f"unknown task {task}")


def main() -> None:
    plan, length = msgspec.json.decode(sys.argv[1], type=Plan), int(sys.argv[2])
    half = Half(plan, length, sys.stdout.buffer)
    half.carry_out(half.machine.start(0.0))
    while half.finish is None:
        write_record(half.out, READY, b"")
        half.out.flush()
        half.receive(*read_record(sys.stdin.buffer))
    error = half.finish.error
    result = {"empty": half.empty, "peak": memory("VmHWM"), "error": str(error) if error else ""}
    write_record(half.out, RESULT, json.dumps(result).encode())
    half.out.flush()


if __name__ == "__main__":
    main()
