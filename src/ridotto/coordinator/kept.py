"""Ciphertexts that may have to be taken out of a sum again, as files until their session's set is final.

A file is written before the message that brought it is committed, and deleted after it was committed that nobody needs
it. So after a kill there is a file for everything in a sum; files of what was not committed lie beside them and are
replaced when their sender sends again, or swept with the attempt.
"""

from __future__ import annotations

from ridotto.coordinator.blobs import KEPT, Blobs, kept_name
from ridotto.core.machine import Buffer
from ridotto.core.wire import digest


class StoredCiphers:
    """Keep ciphertexts for a `Vault` (`rounds.kept.Kept`). What lies in the folder is there after a restart."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs
        self._names: dict[bytes, dict[bytes, str]] = {}
        self._gone: set[str] = set()
        for name in blobs.names(KEPT):
            sid, sender, _ = name.removeprefix(f"{KEPT}/").split(".")
            self._names.setdefault(bytes.fromhex(sid), {})[bytes.fromhex(sender)] = name

    def keep(self, sid: bytes, sender: str, ciphertext: Buffer) -> None:
        """Write a ciphertext down."""
        place, session = digest(sender.encode()), self._names.setdefault(sid, {})
        name, earlier = kept_name(sid, place, digest(ciphertext)), session.get(place)
        self._blobs.write(name, ciphertext)
        session[place] = name
        self._gone.discard(name)
        if earlier is not None and earlier != name:
            # A session takes one ciphertext from everybody, so the earlier one was never committed.
            self._blobs.delete([earlier])

    def kept(self, sid: bytes, sender: str) -> Buffer | None:
        """Return a ciphertext, None if there is none. Raises StorageError if it can't be read."""
        name = self._names.get(sid, {}).get(digest(sender.encode()))
        return None if name is None else self._blobs.read(name, bytes.fromhex(name.rpartition(".")[2]))

    def forget(self, sid: bytes) -> None:
        """Forget all of a session."""
        self._gone.update(self._names.pop(sid, {}).values())

    def clear(self) -> None:
        """Forget everything."""
        for sid in list(self._names):
            self.forget(sid)

    def settle(self) -> None:
        """Take note that what was forgotten is committed, and delete the files."""
        self._blobs.delete(self._gone)
        self._gone.clear()
