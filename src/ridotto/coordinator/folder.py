"""A coordinator's folder: everything that it must not lose, in one place.

identity.pem         the key that signs announcements and records; whoever has it is the coordinator
coordinator.sqlite   names, log, records (`store_sql`), with its -wal and -shm
models/ states/ sums/ receipts/   large things (`blobs`)
lock                 held while a coordinator runs: two writers would spoil each other's log
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import IO, Self

from ridotto.coordinator.blobs import RECEIPTS, Blobs
from ridotto.coordinator.federation import Federation
from ridotto.coordinator.settings import FederationSettings
from ridotto.coordinator.store_sql import SqlStore
from ridotto.core.vector import Layout, Vector
from ridotto.crypto.identity import load_or_create_identity
from ridotto.errors import ConfigError, StorageError

DATABASE = "coordinator.sqlite"
IDENTITY = "identity.pem"
LOCK = "lock"


class CoordinatorFolder:
    """Open a coordinator's folder, or make one. A context manager; closing it lets others open it.

    Raises ConfigError if a coordinator runs in it already or its identity can't be used, StorageError if it can't be
    read or written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.blobs = Blobs(folder)
        self._lock = _lock(folder / LOCK)
        try:
            self.identity = load_or_create_identity(folder / IDENTITY)
            self.store = SqlStore.in_file(folder / DATABASE)
        except BaseException:
            self._lock.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def receipts(self) -> Path:
        """Return where the receipts of attempts lie."""
        return self.folder / RECEIPTS

    def federation(self, settings: FederationSettings, layout: Layout, model: Vector) -> Federation:
        """Return the federation that this folder holds; `layout` and `model` are what a new one starts from."""
        return Federation(settings, layout, model, self.identity, self.store, self.blobs)

    def close(self) -> None:
        """Close the store and give the folder free."""
        self.store.close()
        self._lock.close()


def _lock(path: Path) -> IO[bytes]:
    """Hold a lock that ends with this process, however it ends."""
    try:
        file = path.open("ab")
    except OSError as error:
        raise StorageError(f"could not open {path}: {error.strerror or error}") from error
    try:
        _lock_file(file)
    except OSError as error:
        file.close()
        raise ConfigError(
            f"a coordinator runs in the folder {path.parent} already: stop it first, or use another folder"
        ) from error
    return file


def _lock_file(file: IO[bytes]) -> None:
    if sys.platform == "win32":
        import msvcrt

        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
