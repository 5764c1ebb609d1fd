"""Ciphertexts of a simulated round in one temporary file: thousands of them would fill the memory."""

from __future__ import annotations

import tempfile
import weakref

from ridotto.core.machine import Buffer

MEMORY_BYTES = 64 << 20
"""So much stays in memory before there is a file at all."""


class Spool:
    """Keep ciphertexts (`rounds.kept.Kept`). The file is made when it is needed, and has no name."""

    def __init__(self) -> None:
        self._file = tempfile.SpooledTemporaryFile(max_size=MEMORY_BYTES)  # noqa: SIM115
        self._sessions: dict[bytes, dict[str, tuple[int, int]]] = {}
        weakref.finalize(self, self._file.close)

    def keep(self, sid: bytes, sender: str, ciphertext: Buffer) -> None:
        """Keep a ciphertext of a session."""
        place = self._file.seek(0, 2)
        self._file.write(ciphertext)
        self._sessions.setdefault(sid, {})[sender] = place, len(ciphertext)

    def kept(self, sid: bytes, sender: str) -> Buffer | None:
        """Return a ciphertext, None if there is none."""
        found = self._sessions.get(sid, {}).get(sender)
        if found is None:
            return None
        place, size = found
        self._file.seek(place)
        return self._file.read(size)

    def forget(self, sid: bytes) -> None:
        """Forget all of a session; the room is used again once all are forgotten."""
        self._sessions.pop(sid, None)
        if not self._sessions:
            self._file.seek(0)
            self._file.truncate()

    def clear(self) -> None:
        """Forget everything."""
        for sid in list(self._sessions):
            self.forget(sid)
