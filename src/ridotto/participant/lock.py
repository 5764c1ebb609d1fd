"""One process at a time: a lock on a file that the operating system takes back when its holder dies.

The lock is the kernel's and not the file's existence, so a process that was killed leaves nothing to clean up.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Self

from ridotto.errors import ConfigError, StorageError

if sys.platform == "win32":
    import msvcrt

    _LOCKED_BYTE = 1 << 30
    """Windows locks are mandatory: the byte that is locked lies beyond the text, so that others can read that."""

    def _lock(descriptor: int) -> None:
        os.lseek(descriptor, _LOCKED_BYTE, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        os.lseek(descriptor, 0, os.SEEK_SET)
else:
    import fcntl

    def _lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


class FileLock:
    """Hold the lock of the file at `path` from now until `release`. The file stays, and holds its holder's process id.

    Raises ConfigError if another process, or another holder in this one, has it; StorageError if the file can't be
    used.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise StorageError(f"the lock file {path} can't be used: {error.strerror}") from error
        try:
            _lock(self._descriptor)
        except OSError as error:
            self.release()
            raise ConfigError(
                f"another process{self._holder()} already takes part with {path.with_suffix('')}: "
                "stop it, or give this participant another name or another state directory"
            ) from error
        os.truncate(self._descriptor, 0)
        os.write(self._descriptor, str(os.getpid()).encode())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def release(self) -> None:
        """Let others have the lock; again does no harm."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _holder(self) -> str:
        try:
            text = self._path.read_text(encoding="ascii")
        except (OSError, UnicodeDecodeError):
            return ""
        return f" (process id {text})" if text.isdecimal() else ""
