"""Large things as files in a folder: each appears whole or not at all, and is checked when it is read back.

    models/<sha256>.safetensors     every model that was ever published
    states/<sha256>                 the strategy's state that goes with the newest model
    sums/<sid>.<sha256>             a running sum, or the round's total; its name changes with its content
    deltas/<model>.<sha256>         what makes a model of the one before it
    kept/<sid>.<sender>.<sha256>    a ciphertext that may have to be taken out of a sum; SHA-256 of its sender's name
    receipts/<round>.<attempt>.<full or public>.<sha256>.json    an attempt's receipt, with and without names
    proofs/<sha256>.json            what a member of a committee signed that it should not have

Every name holds the SHA-256 of the content, so a file is never overwritten with something else, and a damaged one is
recognised. A file that a committed name points to is deleted only after another name was committed.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

from ridotto.core.machine import Buffer
from ridotto.core.wire import digest
from ridotto.errors import StorageError

MODELS = "models"
STATES = "states"
SUMS = "sums"
DELTAS = "deltas"
KEPT = "kept"
RECEIPTS = "receipts"
PROOFS = "proofs"
FOLDERS = (MODELS, STATES, SUMS, DELTAS, KEPT, RECEIPTS, PROOFS)

_FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))
_TEMPORARY = ".part"


class DiskFullError(StorageError):
    """Report that there is no room for what has to be stored."""


def disk_full(where: Path, needed_bytes: int | None) -> DiskFullError:
    """Make the error that says where how much room is needed and how much is there."""
    try:
        room = f"{shutil.disk_usage(where if where.is_dir() else where.parent).free:,} bytes are free"
    except OSError:
        room = "its free space is unknown"
    wanted = f"{needed_bytes:,} bytes are needed and " if needed_bytes is not None else ""
    return DiskFullError(f"the disk that holds {where} is full: {wanted}{room}; make room and the round goes on")


class Blobs:
    """Keep blobs in a folder, which is made if it is not there.

    Names are `kind/rest` with kind one of FOLDERS. Raises StorageError if the folder can't be used.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            for kind in FOLDERS:
                (folder / kind).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _storage_error("make", folder, error) from error

    def write(self, name: str, data: Buffer) -> None:
        """Store `data` under `name`, durably: when this returns, it survives a loss of power.

        Raises DiskFullError if there is no room, StorageError if it can't be written for another reason.
        """
        path = self.path(name)
        try:
            _write_whole(path, data)
        except OSError as error:
            if error.errno in _FULL:
                raise disk_full(path.parent, len(data)) from error
            raise _storage_error("write", path, error) from error

    def read(self, name: str, sha256: bytes) -> bytearray:
        """Return what is stored under `name`.

        Raises StorageError if it is not there, can't be read, or is not what was stored: another SHA-256.
        """
        path = self.path(name)
        try:
            data = bytearray(path.stat().st_size)
            with path.open("rb", buffering=0) as file:
                view = memoryview(data)
                while view and (count := file.readinto(view)):
                    view = view[count:]
        except OSError as error:
            raise _storage_error("read", path, error) from error
        if digest(data) != sha256:
            raise StorageError(
                f"the file {path} is damaged: its content does not match the SHA-256 in its name; "
                "restore the folder from a copy, or start the federation in a new one"
            )
        return data

    def delete(self, names: Iterable[str]) -> None:
        """Delete blobs that nothing points to any more, as far as that works: a left-over file harms nobody."""
        for name in names:
            try:
                self.path(name).unlink(missing_ok=True)
            except OSError:
                continue

    def sweep(self, kind: str, keep: Iterable[str]) -> None:
        """Delete what a kill left behind: blobs of one kind whose names are not in `keep`, and unfinished files."""
        kept = set(keep)
        found = [f"{kind}/{path.name}" for path in (self.folder / kind).iterdir()]
        self.delete(name for name in found if name not in kept)

    def names(self, kind: str) -> list[str]:
        """Return the names of all blobs of one kind, and delete files that were never finished."""
        found = [path.name for path in (self.folder / kind).iterdir()]
        self.delete(f"{kind}/{name}" for name in found if name.endswith(_TEMPORARY))
        return [f"{kind}/{name}" for name in found if not name.endswith(_TEMPORARY)]

    def path(self, name: str) -> Path:
        """Return where a blob lies."""
        return self.folder / name


def model_name(sha256: bytes) -> str:
    """Return the name of a model's blob."""
    return f"{MODELS}/{sha256.hex()}.safetensors"


def state_name(sha256: bytes) -> str:
    """Return the name of the blob of a strategy's state."""
    return f"{STATES}/{sha256.hex()}"


def delta_name(model: bytes, sha256: bytes) -> str:
    """Return the name of the blob of the delta that makes the model with digest `model`."""
    return f"{DELTAS}/{model.hex()}.{sha256.hex()}"


def sum_name(sid: bytes, sha256: bytes) -> str:
    """Return the name of the blob of a sum with this content."""
    return f"{SUMS}/{sid.hex()}.{sha256.hex()}"


def kept_name(sid: bytes, sender: bytes, sha256: bytes) -> str:
    """Return the name of the blob of a ciphertext. sender: SHA-256 of its name."""
    return f"{KEPT}/{sid.hex()}.{sender.hex()}.{sha256.hex()}"


def receipt_name(number: int, attempt: int, form: str, sha256: bytes) -> str:
    """Return the name of the blob of a receipt. number: of the round. form: "full" or "public"."""
    return f"{RECEIPTS}/{number}.{attempt}.{form}.{sha256.hex()}.json"


def _write_whole(path: Path, data: Buffer) -> None:
    """Write beside the place, then rename: POSIX and Windows both replace atomically."""
    descriptor, temporary = tempfile.mkstemp(prefix=".", suffix=_TEMPORARY, dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb", buffering=0) as file:
            view = memoryview(data).cast("B")
            while view:
                view = view[file.write(view) :]
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Make a rename durable. Windows can't open a folder, and its file systems log renames themselves."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _storage_error(what: str, path: Path, error: OSError) -> StorageError:
    return StorageError(f"could not {what} {path}: {error.strerror or error}")
