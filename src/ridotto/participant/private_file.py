"""Keep a file of secrets private, make its name last, and leave nothing of it behind."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from ridotto.errors import ConfigError

ZEROS = bytes(1 << 20)

POSIX = os.name == "posix"


def overwrite(descriptor: int) -> None:
    """Write zeros over a file, so that its blocks do not keep what they held."""
    remaining = os.fstat(descriptor).st_size
    os.lseek(descriptor, 0, os.SEEK_SET)
    while remaining > 0:
        remaining -= os.write(descriptor, ZEROS[:remaining])
    os.fsync(descriptor)


def sync_directory(directory: Path) -> None:
    """Make a new name last. Windows has no such call and does not need it."""
    if POSIX:
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def require_private(descriptor: int, path: Path) -> None:
    """Return if nobody else may read an open file. Raises ConfigError, which says what to do, if somebody may."""
    mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
    if POSIX and mode & 0o077:
        raise ConfigError(
            f"the state file {path} has mode {mode:04o}, so others may read the secrets of an open round: "
            "run chmod 600 on it"
        )
