"""What a vault keeps beside its sums: what may have to be taken out of them again, and what opens them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from ridotto.core.machine import Buffer


class Kept(Protocol):
    """Keep attachments until their session's set is final, and releases until its sum is opened.

    That of a driver with many participants keeps them on disk.
    """

    def keep(self, sid: bytes, sender: str, attachment: Buffer) -> None:
        """Keep an attachment of a session."""

    def kept(self, sid: bytes, sender: str) -> Buffer | None:
        """Return an attachment, None if there is none."""

    def forget(self, sid: bytes) -> None:
        """Forget all of a session."""

    def clear(self) -> None:
        """Forget everything."""


class KeptInMemory:
    """Keep attachments in memory."""

    def __init__(self) -> None:
        self._sessions: dict[bytes, dict[str, Buffer]] = {}

    def keep(self, sid: bytes, sender: str, attachment: Buffer) -> None:
        """Keep an attachment of a session."""
        self._sessions.setdefault(sid, {})[sender] = attachment

    def kept(self, sid: bytes, sender: str) -> Buffer | None:
        """Return an attachment, None if there is none."""
        return self._sessions.get(sid, {}).get(sender)

    def forget(self, sid: bytes) -> None:
        """Forget all of a session."""
        self._sessions.pop(sid, None)

    def clear(self) -> None:
        """Forget everything."""
        self._sessions.clear()


@dataclass(frozen=True)
class OfSession:
    """Keep the attachments of one session: a `Keeper`."""

    all: Kept
    sid: bytes

    def keep(self, name: str, attachment: Buffer) -> None:
        """Keep an attachment under a name."""
        self.all.keep(self.sid, name, attachment)

    def kept(self, name: str) -> Buffer | None:
        """Return an attachment, None if there is none of this name."""
        return self.all.kept(self.sid, name)

    def forget(self) -> None:
        """Forget all of them."""
        self.all.forget(self.sid)
