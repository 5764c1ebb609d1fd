"""Keep the book of a coordinator that collects one kind of message after another, from participants and members."""

from __future__ import annotations

from collections.abc import Collection
from enum import Enum, auto

import msgspec

from ridotto.core.wire import Message, digest
from ridotto.errors import PeerProtocolError
from ridotto.secagg.committee_roles.roster import Roster
from ridotto.secagg.session import Progress, Session


class Heard(Enum):
    """Say whether a message is new, one that came before, or another one in its place."""

    NEW = auto()
    AGAIN = auto()
    OTHER = auto()


class Steps:
    """Know who is expected to say what, who has said it, and who was lost.

    kinds: the messages in order. spoken: the one that participants send; all others are members'. kept: the messages
    of the current step, by index of their sender: its place among the participants or its seat. lost, faults: of
    participants and members, with why. The first step expects the whole committee.
    """

    def __init__(
        self, session: Session, roster: Roster, sid: bytes, kinds: tuple[type[Message], ...], spoken: type[Message]
    ) -> None:
        self.names = [member.name for member in session.members]
        self.seats = [member.name for member in roster.members]
        self.step = 0
        self.expected = set(range(len(self.seats)))
        self.kept: dict[int, Message] = {}
        self.lost: dict[int, str] = {}
        self.faults: dict[int, str] = {}
        self._session, self._sid, self._kinds, self._spoken = session, sid, kinds, spoken
        self._places = {name: index for names in (self.names, self.seats) for index, name in enumerate(names)}
        self._participants = set(self.names)
        # By step and sender's index: the hash of what was said. Who said something in an earlier step may repeat it.
        self._said: tuple[dict[int, bytes], ...] = tuple({} for _ in kinds)

    @property
    def kind(self) -> type[Message] | None:
        """Return the message that is collected, None after the last."""
        return self._kinds[self.step] if self.step < len(self._kinds) else None

    @property
    def complete(self) -> bool:
        """Tell whether everybody who is expected has answered."""
        return self.kind is not None and self.expected <= self._said[self.step].keys()

    def hear(self, sender: str, message: Message) -> tuple[int, Heard]:
        """Return the sender's index, and what its message is beside what it said before.

        Raises PeerProtocolError if it has no part in this, the session is another, or the message is early or late.
        """
        if type(message) not in self._kinds:
            raise PeerProtocolError(sender, f"the coordinator takes no {type(message).__name__}")
        step = self._kinds.index(type(message))
        index = self._index(sender, step)
        if getattr(message, "sid", None) != self._sid:
            raise PeerProtocolError(sender, f"its {type(message).__name__} belongs to another session")
        earlier = self._said[step].get(index)
        if earlier is not None:
            return index, Heard.AGAIN if earlier == _digest(message) else Heard.OTHER
        if step > self.step:
            raise PeerProtocolError(sender, f"its {type(message).__name__} came too early")
        if step < self.step or index not in self.expected:
            raise PeerProtocolError(sender, f"its {type(message).__name__} came too late")
        return index, Heard.NEW

    def keep(self, index: int, message: Message) -> None:
        """Count a message of the current step that holds."""
        self._said[self.step][index] = _digest(message)
        self.kept[index] = message

    def leave(self, name: str, why: str) -> bool:
        """Stop expecting somebody; return whether that changes what is waited for.

        Raises PeerProtocolError if it has no part in the session.
        """
        if name not in self._places:
            raise PeerProtocolError(name, "has no part in this session")
        index, participant = self._places[name], name in self._participants
        if participant and self.step < self._kinds.index(self._spoken):
            self.lost.setdefault(index, why)
            return False
        if self.kind is None or participant != (self.kind is self._spoken):
            return False
        if index not in self.expected - self._said[self.step].keys():
            return False
        self.expected.discard(index)
        (self.lost if participant else self.faults)[index] = why
        return True

    def close(self) -> list[int]:
        """Note who was expected and did not answer; return who did, sorted."""
        if self.kind is None:
            return []
        answered = self._said[self.step]
        absent = self.lost if self.kind is self._spoken else self.faults
        for index in self.expected - answered.keys():
            absent.setdefault(index, f"sent no {self.kind.__name__}")
        return sorted(answered)

    def begin(self, expected: Collection[int]) -> None:
        """Go to the next step, and expect these."""
        self.step += 1
        self.kept = {}
        self.expected = set(expected)

    def stop(self) -> None:
        """Expect nothing more."""
        self.step, self.kept, self.expected = len(self._kinds) + 1, {}, set()

    def progress(self, last: str) -> Progress:
        """Say how far the session is. last: the name of what comes after the last message."""
        kind, session = self.kind, self._session
        if kind is None:
            return Progress(session.round, session.shard, last, 0, ())
        names, answered = self.names if kind is self._spoken else self.seats, self._said[self.step]
        waiting = tuple(names[index] for index in sorted(self.expected - answered.keys()))
        return Progress(session.round, session.shard, kind.__name__, len(answered), waiting)

    def _index(self, name: str, step: int) -> int:
        participants = self._kinds[step] is self._spoken
        if name in self._places and (name in self._participants) == participants:
            return self._places[name]
        raise PeerProtocolError(name, f"is no {'participant' if participants else 'committee member'} of this session")


def _digest(message: Message) -> bytes:
    return digest(msgspec.msgpack.encode(message))
