"""A whole round in one process: the real machines of both halves, the real frames, given updates for training."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterable
from functools import cache

import numpy as np

from bench.fold import make_vault
from ridotto.core.machine import COORDINATOR, Buffer, Envelope, Finish, Machine, Router
from ridotto.core.rng import insecure_seeded_rng
from ridotto.core.wire import Codec, Message
from ridotto.crypto.seal import IdentityKey
from ridotto.rounds.messages import Apply, Discard, Merge, Train, Trained, messages_of_all
from ridotto.rounds.plan import Plan
from ridotto.rounds.policy import Policy
from ridotto.rounds.round import Attempt, CoordinatorRound, ParticipantRound
from ridotto.secagg.messages import Masked
from ridotto.secagg.session import Member
from ridotto.secagg.tasks import Fold, Open


@cache
def identity(name: str) -> IdentityKey:
    return IdentityKey.generate(insecure_seeded_rng(zlib.crc32(name.encode())))


def names_of(count: int) -> list[str]:
    return [f"p{index:05}" for index in range(count)]


def make_attempt(plan: Plan, model: bytes, length: int) -> Attempt:
    members = tuple(Member(name, identity(name).public) for name in names_of(plan.cohort))
    return Attempt(plan, number=1, attempt=1, model=model, parameters=length, nonce=bytes(32), members=members)


class Federation:
    """Run one round. Every message crosses the wire as a frame; up and down count the bytes per participant.

    lost: participants that leave just before they would send their masked vector.
    """

    def __init__(self, plan: Plan, length: int, lost: Iterable[str] = ()) -> None:
        self.plan = plan
        self.vault = make_vault(plan, length)
        self.update = np.random.default_rng(1).normal(0, 0.01, length).astype(np.float32)
        self.lost = frozenset(lost)
        self._left: set[str] = set()
        self.up: Counter[str] = Counter()
        self.down: Counter[str] = Counter()
        attempt = make_attempt(plan, self.vault.model_digest, length)
        own = IdentityKey.generate(insecure_seeded_rng(0))
        rng, policy = insecure_seeded_rng(2), Policy(min_participants=plan.least, min_corrupt=0.0)
        machines: dict[str, Machine] = {
            name: ParticipantRound(name, identity(name), policy, own.public, rng.child(name))
            for name in names_of(plan.cohort)
        }
        machines[COORDINATOR] = CoordinatorRound(attempt, own)
        self.codec = Codec(*messages_of_all(), attachment_limit=1 << 30)
        self.router = Router(machines, self._perform, self._link)
        # The coordinator encodes what goes to everybody once, as a real one does.
        self._broadcast: tuple[Message | None, bytes] = (None, b"")

    def run(self) -> Finish:
        return self.router.run()[COORDINATOR]

    def _link(self, envelope: Envelope) -> Iterable[Envelope]:
        if envelope.sender in self.lost and isinstance(envelope.message, Masked):
            self._left.add(envelope.sender)
        if {envelope.sender, envelope.to} & self._left:
            return
        frame = self._frame(envelope)
        message, attachment = self.codec.decode(frame, envelope.sender)
        if envelope.sender == COORDINATOR:
            self.down[envelope.to] += len(frame)
        else:
            self.up[envelope.sender] += len(frame)
        yield Envelope(envelope.sender, envelope.to, message, attachment, envelope.at)

    def _frame(self, envelope: Envelope) -> bytes:
        if self._broadcast[0] is envelope.message:
            return self._broadcast[1]
        frame = self.codec.encode(envelope.message, envelope.attachment)
        if envelope.attachment is None:
            self._broadcast = (envelope.message, frame)
        return frame

    def _perform(self, owner: str, task: object, attachment: Buffer | None) -> Message | None:
        match task:
            case Train():
                return Trained(self.update, 600, {})
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
