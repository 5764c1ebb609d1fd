"""Run a session once, write down every message, and what is refused in its place."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ridotto.core.machine import COORDINATOR, Envelope, Machine, Perform, Router
from ridotto.core.wire import PREFIX, Codec, Message, digest
from ridotto.errors import PeerProtocolError

SHOWN_BYTES = 4096
"""Attachments up to this length are written out, longer ones by their SHA-256."""


@dataclass
class Recording:
    """Hold one honest session: its messages in the order in which they were sent, the same to many as one.

    make: name -> a machine as it was before the session began. loses: what never arrives: so a party leaves.
    """

    codec: Codec
    make: Callable[[str], Machine]
    loses: Callable[[Envelope], bool] = lambda _: False
    sent: list[tuple[Envelope, list[str]]] = field(default_factory=list)
    finished: dict[str, Any] = field(default_factory=dict)
    published: list[Any] = field(default_factory=list)

    def run(self, names: Iterable[str], perform: Perform) -> None:
        """Run the session to its end."""
        router = Router({name: self.make(name) for name in names}, perform, self._link)
        self.finished, self.published = router.run(), router.published
        if router.refusals or self.finished[COORDINATOR].error is not None:
            raise RuntimeError("the session that is recorded is not an honest one")

    def find(self, kind: str, sender: str | None = None, to: str | None = None) -> int:
        """Return the number of the first such message."""
        for number, (envelope, receivers) in enumerate(self.sent):
            if type(envelope.message).__name__ != kind or (sender or envelope.sender) != envelope.sender:
                continue
            if to is None or to in receivers:
                return number
        raise LookupError(kind)

    def messages(self) -> list[dict[str, object]]:
        """Return all messages as they are written to the file."""
        return [
            {
                "from": one.sender,
                "to": receivers,
                "kind": type(one.message).__name__,
                **({"time": one.at} if one.at else {}),
                "header": self.codec.header(one.message).hex(),
                **_attachment(one),
            }
            for one, receivers in self.sent
        ]

    def refusal(
        self,
        name: str,
        number: int,
        to: str,
        lie: Callable[[Any], Message] | bytes,
        *,
        sender: str | None = None,
        after: int | None = None,
        attachment: bytes | None = None,
    ) -> dict[str, object]:
        """Return what happens if message `number` comes to `to` with a lie, after all messages to it before that.

        lie: changes the message, or is the header in its place. sender: who brings it, instead of its own sender.
        after: so many messages came before it, instead of `number`. attachment: another one.
        Raises RuntimeError if it is not refused.
        """
        envelope = self.sent[number][0]
        frame = lie if isinstance(lie, bytes) else self.codec.header(lie(envelope.message))
        machine, now = self.replayed(to, number if after is None else after)
        peer = envelope.sender if sender is None else sender
        brought = bytes(envelope.attachment or b"") if attachment is None else attachment
        try:
            message, _ = self.codec.decode(frame + brought, peer)
            machine.receive(peer, message, now)
        except PeerProtocolError as error:
            other = {"from": sender, "after": after, "attachment": None if attachment is None else attachment.hex()}
            spoken = {"message": number, "to": to, **{key: value for key, value in other.items() if value is not None}}
            refused = {"blames": error.peer, "why": error.why}
            return {"name": name, **spoken, **refused, **splice(self.codec.header(envelope.message), frame)}
        raise RuntimeError(f"{name} is not refused")

    def replayed(self, to: str, count: int) -> tuple[Machine, float]:
        """Return a party's machine after the first `count` messages of the session, and its time."""
        machine, now = self.make(to), 0.0
        machine.start(now)
        for envelope, receivers in self.sent[:count]:
            if envelope.at > now:
                now = envelope.at
                machine.expire(now)
            if to in receivers:
                machine.receive(envelope.sender, envelope.message, now)
        return machine, now

    def _link(self, envelope: Envelope) -> Iterable[Envelope]:
        if self.loses(envelope):
            return
        last = self.sent[-1] if self.sent else None
        if last is not None and (last[0].sender, last[0].message) == (envelope.sender, envelope.message):
            last[1].append(envelope.to)
        else:
            self.sent.append((envelope, [envelope.to]))
        yield envelope


def malformed(frame: bytes, kind: str) -> dict[str, bytes]:
    """Return what is no frame, by what is wrong with it. frame: one of a message of this kind, without attachment."""
    return {
        "another version": b"\x02" + frame[1:],
        "a frame that is cut off": frame[:-1],
        "bytes behind the frame": frame + b"\x00",
        "an unknown message": frame.replace(kind.encode(), kind.encode()[:-4] + b"Look"),
        "an empty frame": b"",
    }


def _attachment(envelope: Envelope) -> Mapping[str, object]:
    if envelope.attachment is None:
        return {}
    data = bytes(envelope.attachment)
    shown = {"attachment": data.hex()} if len(data) <= SHOWN_BYTES else {}
    return {"attachment_sha256": digest(data).hex(), **shown}


def splice(honest: bytes, lie: bytes) -> dict[str, object]:
    """Say how one header becomes the other: another prefix, and of what follows `cut` bytes from `at` on become `put`.

    A header that is shorter than a prefix has nothing behind it.
    """
    old, new = honest[PREFIX.size :], lie[PREFIX.size :]
    shorter, at, same = min(len(old), len(new)), 0, 0
    while at < shorter and old[at] == new[at]:
        at += 1
    while same < shorter - at and old[-1 - same] == new[-1 - same]:
        same += 1
    put = new[at : len(new) - same].hex()
    return {"prefix": lie[: PREFIX.size].hex(), "at": at, "cut": len(old) - at - same, "put": put}
