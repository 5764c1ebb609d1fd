"""Count what a party or the dealer does, and bound what one client may keep waiting.

`Watched` stands between a service and its machine. It sees names, sizes and times: what a party knows anyway, and no
word of what is computed. What it counted is shown as text that Prometheus reads, one number a line.
"""

from __future__ import annotations

import os
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ridotto.core.machine import Effect, Send
from ridotto.core.wire import Message
from ridotto.errors import PeerProtocolError, StorageError
from ridotto.infer.messages import Answer, Begin, BeginSealed, Dealt, Failed, Forget, Opening, Prepare, Ready
from ridotto.infer.service import Losing

PER_CLIENT = 64
"""Sessions that one client may keep waiting, unless somebody says otherwise: a quarter of what a party takes."""

RECENT = 1024
"""Latest times of which quantiles are shown."""

PREFIX = "ridotto_infer_"


@dataclass
class _Seen:
    """A session that is not over. client: whose. asked, begun: when, by the clock; begun is None while it waits."""

    client: str
    asked: float
    begun: float | None = None


class Watched:
    """Pass everything on to `machine`, and count.

    per_client: how many sessions of one client may wait at a time; one more is refused, by the client's name.
    clock: seconds, monotonic.
    """

    def __init__(
        self, machine: Losing, per_client: int = PER_CLIENT, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._machine, self._per_client, self._clock = machine, per_client, clock
        self._open: dict[bytes, _Seen] = {}
        self._waiting: Counter[str] = Counter()
        self._rounds: Counter[str] = Counter()
        self._round_bytes: Counter[str] = Counter()
        self._counts: Counter[tuple[str, str, str]] = Counter()
        self._times: dict[str, deque[float]] = {"offline": deque(maxlen=RECENT), "online": deque(maxlen=RECENT)}

    def start(self, now: float) -> list[Effect]:
        """Start the machine."""
        return self._sent(self._machine.start(now))

    def expire(self, now: float) -> list[Effect]:
        """Let the machine give up what is late."""
        return self._sent(self._machine.expire(now))

    def lose(self, name: str, why: str) -> list[Effect]:
        """Tell the machine that somebody is gone; a client's sessions go with it."""
        self._count("lost_total", "who", name)
        for session in [session for session, seen in self._open.items() if seen.client == name]:
            self._close(session)
        return self._sent(self._machine.lose(name, why))

    def receive(self, sender: str, message: Message, now: float) -> list[Effect]:
        """Pass a message on. Raises PeerProtocolError as the machine does, and for a session too many."""
        if isinstance(message, Prepare) and self._waiting[sender] >= self._per_client:
            raise PeerProtocolError(sender, f"keeps {self._per_client} sessions waiting, which is what one client may")
        if isinstance(message, Opening):
            # A round of a running query: nothing here may cost it time.
            self._rounds[sender] += 1
            self._round_bytes[sender] += message.values.nbytes
            return self._sent(self._machine.receive(sender, message, now))
        came = self._clock()
        effects = self._machine.receive(sender, message, now)
        self._note(sender, message, came)
        return self._sent(effects)

    def waiting(self) -> int:
        """Return how many sessions wait for their input, dealt or not."""
        return self._waiting.total()

    def text(self) -> str:
        """Return everything that was counted, in the text format of Prometheus."""
        lines = [
            f'{PREFIX}{name}{{{label}="{value}"}} {count}'
            for (name, label, value), count in sorted(self._counts.items())
        ]
        lines += [f'{PREFIX}rounds_total{{from="{name}"}} {count}' for name, count in self._rounds.items()]
        lines += [f'{PREFIX}round_bytes_total{{from="{name}"}} {count}' for name, count in self._round_bytes.items()]
        lines += [f'{PREFIX}sessions_waiting{{client="{name}"}} {n}' for name, n in sorted(self._waiting.items())]
        for phase, times in self._times.items():
            for quantile in (0.5, 0.95):
                if times:
                    at = sorted(times)[int(quantile * (len(times) - 1))]
                    lines.append(f'{PREFIX}{phase}_seconds{{quantile="{quantile}"}} {at:.6f}')
        return "\n".join([*lines, ""])

    def _note(self, sender: str, message: Message, came: float) -> None:
        self._count("received_total", "kind", type(message).__name__)
        self._count("received_bytes_total", "from", sender, _size(message))
        if isinstance(message, Prepare) and message.session not in self._open:
            self._open[message.session] = _Seen(sender, came)
            self._waiting[sender] += 1
        elif isinstance(message, Begin | BeginSealed) and message.session in self._open:
            seen = self._open[message.session]
            if seen.begun is None and seen.client == sender:
                seen.begun = came
                self._less(sender)
        elif isinstance(message, Forget) and message.item in self._open and self._open[message.item].client == sender:
            self._close(message.item)

    def _sent(self, effects: list[Effect]) -> list[Effect]:
        for effect in effects:
            if isinstance(effect, Send) and not isinstance(effect.message, Opening):
                self._count("sent_total", "kind", type(effect.message).__name__)
                self._count("sent_bytes_total", "to", effect.to, _size(effect.message))
                self._follow(effect.message)
        return effects

    def _follow(self, message: Message) -> None:
        match message:
            case Ready(session) if session in self._open:
                self._times["offline"].append(self._clock() - self._open[session].asked)
            case Answer(session) if session in self._open:
                seen = self._close(session)
                if seen.begun is not None:
                    self._times["online"].append(self._clock() - seen.begun)
            case Dealt(session) if session in self._open:
                self._times["offline"].append(self._clock() - self._close(session).asked)
            case Failed(session, blame):
                self._count("failed_total", "blame", blame)
                if session in self._open:
                    self._close(session)

    def _close(self, session: bytes) -> _Seen:
        seen = self._open.pop(session)
        if seen.begun is None:
            self._less(seen.client)
        return seen

    def _less(self, client: str) -> None:
        self._waiting[client] -= 1
        if not self._waiting[client]:
            del self._waiting[client]

    def _count(self, name: str, label: str, value: str, count: int = 1) -> None:
        self._counts[name, label, value] += count


def write_text(watched: Watched, path: Path) -> None:
    """Replace the file at `path` by what was counted; who reads it sees the old or the new, never half of one.

    Raises StorageError if it can't be written.
    """
    beside = path.with_name(f"{path.name}.new")
    try:
        beside.write_text(watched.text(), encoding="utf-8")
        os.replace(beside, path)
    except OSError as error:
        raise StorageError(f"the metrics can't be written to {path}: {error.strerror or error}") from error


def _size(message: Message) -> int:
    values: memoryview | None = getattr(message, "values", None)
    return 0 if values is None else values.nbytes
