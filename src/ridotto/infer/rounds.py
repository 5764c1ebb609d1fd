"""Carry one party's half of a protocol round by round: greet, compare plans, then one message a round each way."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np

from ridotto.core.machine import Effect, Send
from ridotto.errors import PeerProtocolError
from ridotto.infer.kernels.plain import Words
from ridotto.infer.messages import Hello, Opening, buffer, words_from
from ridotto.infer.streams import WORD_BYTES


class Conversation:
    """Run a generator that yields what this party sends, against the peer's messages of one session.

    peer: its name. session: of both. plan: digest that both must have. first_size: words of the first message, known
    before the first one is made: the peer may be one message ahead, and no more.
    """

    def __init__(self, peer: str, session: bytes, plan: bytes, first_size: int | None) -> None:
        self.rounds = 0
        self.sent_bytes = 0
        self.greeted = False
        self.result: Any = None
        self.done = False
        self._peer, self._session, self._plan = peer, session, plan
        self._walk = b""
        self._now = 0.0
        self._sent_at: deque[float] = deque(maxlen=2)
        self._shortest: float | None = None
        self._expected = first_size
        self._early: Words | None = None
        self._half: Any = None
        self._shape: tuple[int, ...] = ()

    def hello(self, walk: bytes) -> Send:
        """Return this side's greeting. walk: digest of the material that was read."""
        self._walk = walk
        return Send(self._peer, Hello(self._session, self._plan, walk))

    def greet(self, message: Hello) -> None:
        """Take the peer's greeting. Raises PeerProtocolError if it was here before or names another plan or walk."""
        if self.greeted:
            raise PeerProtocolError(self._peer, "says hello twice in a session")
        if message.plan != self._plan:
            raise PeerProtocolError(
                self._peer, f"has another plan: {message.plan.hex()[:16]}, here it is {self._plan.hex()[:16]}"
            )
        if message.walk != self._walk:
            raise PeerProtocolError(
                self._peer, f"read other material: {message.walk.hex()[:16]}, here it is {self._walk.hex()[:16]}"
            )
        self.greeted = True

    @property
    def round_trip_s(self) -> float:
        """Return the least time from sending a round to the peer's answer to it, 0 before there was one.

        Both send at once, so the answer to round r is the peer's round r + 1.
        """
        return self._shortest or 0.0

    def begin(self, half: Any, now: float) -> list[Effect]:
        """Start this party's half; what the peer sent early is taken now."""
        self._half, self._now = half, now
        effects = self._go_on(None)
        if self._early is not None and not self.done:
            early, self._early = self._early, None
            if early.size != self._expected:
                raise PeerProtocolError(self._peer, f"round 0 has {early.size} words, expected {self._expected}")
            effects += self._go_on(early)
        return effects

    def open(self, message: Opening, now: float) -> list[Effect]:
        """Take the peer's message of this round. Raises PeerProtocolError, changing nothing, if it does not belong."""
        if not self.greeted:
            raise PeerProtocolError(self._peer, "opens before it said hello")
        if message.round != self.rounds or self.done:
            raise PeerProtocolError(self._peer, f"sends round {message.round}, expected round {self.rounds}")
        if self._early is not None:
            raise PeerProtocolError(self._peer, f"sends round {message.round} twice")
        expected = message.values.nbytes // WORD_BYTES if self._expected is None else self._expected
        words = words_from(message.values, expected, self._peer, f"round {message.round}")
        if self._half is None:
            self._early = words
            return []
        self._now = now
        self._measure(now)
        return self._go_on(words)

    def _measure(self, now: float) -> None:
        if len(self._sent_at) == 2:
            waited = max(0.0, now - self._sent_at[0])
            self._shortest = waited if self._shortest is None else min(self._shortest, waited)

    def _go_on(self, received: Words | None) -> list[Effect]:
        try:
            if received is None:
                mine = next(self._half)
            else:
                self.rounds += 1
                mine = self._half.send(received.reshape(self._shape))
        except StopIteration as stop:
            self.done, self.result, self._half = True, stop.value, None
            return []
        self._shape, self._expected = mine.shape, mine.size
        self.sent_bytes += mine.size * WORD_BYTES
        self._sent_at.append(self._now)
        return [Send(self._peer, Opening(self._session, self.rounds, buffer(np.asarray(mine))))]
