"""Keep what participants sent until their session's set is final: whose parcels don't open is taken out again."""

from __future__ import annotations

from typing import Protocol

from ridotto.core.machine import Buffer


class Keeper(Protocol):
    """Keep attachments of one session: of a driver with many participants, on disk."""

    def keep(self, name: str, attachment: Buffer) -> None:
        """Keep an attachment under a name: mostly its sender's."""

    def kept(self, name: str) -> Buffer | None:
        """Return an attachment, None if there is none of this name."""

    def forget(self) -> None:
        """Forget all of them."""


class InMemory:
    """Keep attachments in memory."""

    def __init__(self) -> None:
        self._kept: dict[str, Buffer] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def keep(self, name: str, attachment: Buffer) -> None:
        """Keep an attachment under a name."""
        self._kept[name] = attachment

    def kept(self, name: str) -> Buffer | None:
        """Return an attachment, None if there is none of this name."""
        return self._kept.get(name)

    def forget(self) -> None:
        """Forget all of them."""
        self._kept.clear()
