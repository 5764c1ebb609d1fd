"""The machine of one attempt at a round, as a function of its description and its log.

Live and in replay the same methods run: `begin`, then one of `receive`, `expire` and `seal` per log row. What a step
asks for comes back as a `Step`. Messages are numbered by their place in `Step.sent`, so replay gives every participant
the same frames under the same numbers.

Tasks are kept apart. A `Fold` belongs to the message that brought the vector, a `Merge` to the answer that says that a
sum holds: what they do to the sums is committed with that message. An `Open` or `Apply` is kept in `pending` until its
answer was received; so those whose answer is not in the log are carried out again after a restart.
"""

from __future__ import annotations

import functools
import heapq
import operator
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from ridotto.coordinator.receipts import Collected, Seal
from ridotto.coordinator.refusals import RefusalError, RefusalKind
from ridotto.coordinator.store import LogRow, RowKind
from ridotto.core.machine import SELF, Do, Effect, Finish, Publish, Send, Wake
from ridotto.core.wire import PREFIX, Codec, Message, digest
from ridotto.crypto.seal import IdentityKey
from ridotto.errors import LocalProtocolError, PeerProtocolError, StorageError
from ridotto.rounds.messages import Applied, Apply, Discard, Merge, NotApplied, messages_of_all
from ridotto.rounds.record import RoundRecord
from ridotto.rounds.round import Attempt, CoordinatorRound
from ridotto.rounds.vault import Opening
from ridotto.secagg.committee.tasks import Keep, Unmask
from ridotto.secagg.committee_roles.tasks import Settle
from ridotto.secagg.oneshot.tasks import Decrypted, OpenCiphers
from ridotto.secagg.session import Session
from ridotto.secagg.tasks import Fold, Open, Opened

LONGEST_TALK = 16
"""Messages of one device that one session takes. `pairwise` needs five; without a limit, a liar could fill the log
with one refusal to take part after another."""

_KINDS: tuple[type[Message], ...] = (*messages_of_all(), Opened, Decrypted, Applied, NotApplied)
_codec = Codec(*_KINDS)
_decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(functools.reduce(operator.or_, _KINDS))


class Description(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Keep what an attempt is about, so that its machine can be built again. started: unix seconds."""

    attempt: Attempt
    started: float


@dataclass
class Step:
    """Hold what one input led to.

    row: to be logged; None if the input was a repetition. folds, keeps: of the attachment that came with the message.
    settled, ended: to be carried out after the folds, in this order. sent: (name, frame), in order. published: for
    watchers. record: of the attempt, if it has ended.
    """

    row: LogRow | None = None
    folds: list[Fold] = field(default_factory=list)
    keeps: list[Keep] = field(default_factory=list)
    settled: list[Settle] = field(default_factory=list)
    ended: list[Merge | Discard] = field(default_factory=list)
    sent: list[tuple[str, bytes]] = field(default_factory=list)
    published: list[Any] = field(default_factory=list)
    record: RoundRecord | None = None


class LiveAttempt:
    """Run one attempt.

    pending: tasks to be carried out, oldest first. record: how the attempt ended, or None. now: of the last input.
    merged: contributions that belong into the round's total by now. collected: what its receipt will need.
    """

    def __init__(self, description: Description, identity: IdentityKey) -> None:
        self.description = description
        self.members = frozenset(member.name for member in description.attempt.members)
        self.pending: deque[Opening | Apply] = deque()
        self.record: RoundRecord | None = None
        self.merged = 0
        self.collected = Collected()
        self.now = description.started
        self._machine = CoordinatorRound(description.attempt, identity)
        self._seq = 0
        self._seen: set[bytes] = set()
        self._talk: Counter[tuple[str, bytes]] = Counter()
        self._wakes: list[float] = []
        self._encoded: tuple[Message, bytes] | None = None

    @property
    def sessions(self) -> Mapping[bytes, Session]:
        """Return the attempt's sessions by their sid."""
        return self._machine.sessions

    @property
    def next_wake(self) -> float | None:
        """Return when the machine wants to be woken, in seconds of the attempt's clock."""
        return self._wakes[0] if self._wakes and self.record is None else None

    def begin(self) -> Step:
        """Announce. Called once, before anything else; it is not in the log."""
        return self._step(None, self._machine.start(self.now))

    def receive(self, sender: str, message: Message, frame: bytes, now: float) -> Step:
        """Take a message. frame: its prefix and header.

        A message that was taken before is answered with an empty step, whatever has happened since: it is in the log.
        Raises PeerProtocolError if the machine refuses it, RefusalError if the attempt is over; nothing changed then.
        """
        mark = digest(sender.encode() + b"\x00" + frame)
        if mark in self._seen:
            return Step()
        if self.record is not None:
            raise RefusalError(RefusalKind.ATTEMPT_OVER, "the attempt was closed; the inbox says how it ended")
        # A helper has several sessions; a message that names one of which its sender is not is refused by the machine.
        talk = sender, getattr(message, "sid", b"")
        if sender != SELF and self._talk[talk] >= LONGEST_TALK:
            raise PeerProtocolError(sender, f"sent more than {LONGEST_TALK} messages in one session")
        if sender == SELF and isinstance(message, Opened) and message.zero and message.sid not in self.collected.seals:
            raise LocalProtocolError("a sum was opened and nobody committed to it")
        effects = self._machine.receive(sender, message, now)
        self._seen.add(mark)
        self._talk[talk] += 1
        if sender == SELF:
            self.pending.popleft()
        return self._step(LogRow(self._seq, now, RowKind.RECEIVE, sender, frame), effects)

    def answer(self, message: Message, now: float) -> Step:
        """Take the result of the oldest pending task."""
        return self.receive(SELF, message, _codec.header(message), now)

    def seal(self, seal: Seal, now: float) -> Step:
        """Note the commitment to a sum that was just opened; its answer follows."""
        self.collected.seals[seal.sid] = seal
        return self._step(LogRow(self._seq, now, RowKind.SEAL, frame=msgspec.msgpack.encode(seal)), [])

    def expire(self, now: float) -> Step:
        """Notice that time has passed."""
        while self._wakes and self._wakes[0] <= now:
            heapq.heappop(self._wakes)
        return self._step(LogRow(self._seq, now, RowKind.EXPIRE), self._machine.expire(now))

    def replay(self, row: LogRow) -> Step:
        """Take an input from the log.

        Raises StorageError if it is not the next one or the machine refuses it: the log is not of this attempt.
        """
        if row.seq != self._seq:
            raise StorageError(f"the log of attempt {self.description.attempt.attempt} has no row {self._seq}")
        if row.kind is RowKind.EXPIRE:
            return self.expire(row.now)
        try:
            if row.kind is RowKind.SEAL:
                return self.seal(msgspec.msgpack.decode(row.frame, type=Seal), row.now)
            message = _decoder.decode(row.frame[PREFIX.size :])
            return self.receive(row.sender, message, row.frame, row.now)
        except (msgspec.MsgspecError, PeerProtocolError, RefusalError) as error:
            found = f"row {row.seq} of the log of attempt {self.description.attempt.attempt} does not fit: {error}"
            raise StorageError(found) from error

    def _step(self, row: LogRow | None, effects: list[Effect]) -> Step:
        if row is not None:
            self._seq += 1
            self.now = row.now
        step = Step(row)
        for effect in effects:
            match effect:
                case Send(to, message):
                    step.sent.append((to, self._encode(message)))
                case Do(Fold() as task):
                    step.folds.append(task)
                    self.collected.fold(task)
                case Do(Keep() as task):
                    step.keeps.append(task)
                case Do(Settle() as task):
                    step.settled.append(task)
                    self.collected.settle(task)
                case Do(Merge() | Discard() as task):
                    step.ended.append(task)
                    self.merged += task.contributions if isinstance(task, Merge) else 0
                case Do(Open() | OpenCiphers() | Unmask() | Apply() as task):
                    self.pending.append(task)
                case Wake(at):
                    heapq.heappush(self._wakes, at)
                case Publish(record):
                    step.published.append(record)
                    self.collected.show(record)
                case Finish(RoundRecord() as record):
                    self.record = step.record = record
                case _:
                    raise LocalProtocolError(f"a coordinator's driver can't carry out {type(effect).__name__}")
        return step

    def _encode(self, message: Message) -> bytes:
        """Encode a message; one that goes to many is encoded once, and all outboxes share its bytes."""
        if self._encoded is None or self._encoded[0] is not message:
            self._encoded = (message, _codec.header(message))
        return self._encoded[1]
