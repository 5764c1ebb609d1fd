"""Parties, dealer and client in one process: for tests, notebooks and to try a model.

The same machines as between hosts, and the same messages; only nobody is apart from anybody, so nothing is protected
from who runs this process.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable

from ridotto.core.machine import Finish, Machine, Publish, Send, Wake
from ridotto.core.rng import OsRng, Rng
from ridotto.core.wire import Message
from ridotto.errors import ConfigError, UnreachableError
from ridotto.infer.dealer import Dealer
from ridotto.infer.party import Limits, Party
from ridotto.infer.world import World

CLIENT = "client"
PARTIES = ("party-0", "party-1")
DEALER = "dealer"

Tap = Callable[[str, str, Message], Iterable[Message]]
"""What happens to a message between a sender and a receiver (named first): tests put their attackers here."""


class LocalLink:
    """Carry messages between machines in this process, in the order in which they were sent."""

    parties = PARTIES
    dealer = DEALER

    def __init__(self, machines: dict[str, Machine], tap: Tap | None = None) -> None:
        self._machines = machines
        self._tap = tap
        self._queue: deque[tuple[str, str, Message]] = deque()
        self._inbox: deque[tuple[str, Message]] = deque()

    def send(self, to: str, message: Message) -> None:
        """Put a message of the client into the queue."""
        self._queue.append((CLIENT, to, message))

    def receive(self) -> tuple[str, Message]:
        """Run the machines until the client has a message."""
        while not self._inbox:
            if not self._queue:
                raise UnreachableError("nobody has anything left to say: a message was lost")
            self._deliver(*self._queue.popleft())
        return self._inbox.popleft()

    def arrived(self) -> bool:
        """Let the machines say what they have to say."""
        while self._queue and not self._inbox:
            self._deliver(*self._queue.popleft())
        return bool(self._inbox)

    def check(self) -> None:
        """Raise UnreachableError if this world was closed."""
        if not self._machines:
            raise UnreachableError("this world was closed")

    def close(self) -> None:
        """Forget all machines."""
        self._machines.clear()

    def _deliver(self, sender: str, to: str, message: Message) -> None:
        for arrived in (message,) if self._tap is None else self._tap(sender, to, message):
            if to == CLIENT:
                self._inbox.append((sender, arrived))
                continue
            if to not in self._machines:
                raise UnreachableError("this world was closed")
            for effect in self._machines[to].receive(sender, arrived, time.monotonic()):
                match effect:
                    case Send(receiver, answer):
                        self._queue.append((to, receiver, answer))
                    case Wake() | Publish() | Finish():
                        # Nothing is ever late here: a message that is missing leaves the queue empty.
                        continue


def local(parties: int = 2, *, rng: Rng | None = None, limits: Limits | None = None, tap: Tap | None = None) -> World:
    """Return a world whose parties and dealer live in this process.

    parties: two; the protocols know no other number. rng: draws every seed, from the operating system by default.
    Raises ConfigError for another number of parties.
    """
    if parties != 2:
        raise ConfigError(f"the protocols are for 2 parties, not {parties}")
    rng = rng or OsRng()
    machines: dict[str, Machine] = {DEALER: Dealer(PARTIES, (CLIENT,), rng)}
    for place, name in enumerate(PARTIES):
        machines[name] = Party(
            first=place == 0, peer=PARTIES[1 - place], dealer=DEALER, clients=(CLIENT,), limits=limits
        )
    return World(LocalLink(machines, tap), rng)
