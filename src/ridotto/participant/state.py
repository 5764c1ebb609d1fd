"""What a participant must not forget when it is killed: one file for each federation and name.

A file is a journal: a header, then what was received and trained in the open attempt, in order.

    magic | H: coordinator's key, attempt, seed, costs so far | F: frame | R: training result, its cost | F: ...

Every record has its length and a checksum. Opening or ending an attempt writes a new file beside the old one and then
gives it its name; everything else is appended and forced to the disk before anybody acts on it. So a kill leaves a file
that is whole, but for its last record, of which a part may be missing: nobody has acted on that one, and it is dropped.

Plans that seal under ML-KEM add a last record, D: what was encapsulated, the one secret that the seed does not decide.

What a round costs in privacy is in the record with the training result, so that it counts from the moment at which
something of it could be sent, and once only: an attempt that goes on after a kill sends the same bytes.

While an attempt is open the file holds its seed. Whoever has the seed and the coordinator's records of the attempt can
unmask this participant's update, so the file has mode 0600 and the seed is overwritten as soon as the attempt ends. A
disk that moves data when it writes (flash), a file system that copies on write and a backup may keep it for longer.
The checksum finds accidents; who can write to the file can do worse than change it.
"""

from __future__ import annotations

import os
import struct
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, Self

import msgspec
import numpy as np

from ridotto.core.machine import Buffer
from ridotto.core.vector import Vector
from ridotto.core.wire import Bytes32, Count
from ridotto.errors import ConsentError, LocalProtocolError, PlanError, StorageError
from ridotto.participant.lock import FileLock
from ridotto.participant.private_file import POSIX, overwrite, require_private, sync_directory
from ridotto.privacy.event import Event, Repeated
from ridotto.secagg.committee_roles.seals import encapsulate_all
from ridotto.secagg.committee_roles.tasks import Encapsulate, Encapsulated

MAGIC = b"ridotto state 1\n"
RECORD = struct.Struct("<cQI")
"""Kind, length of the content in bytes, CRC-32 of the content."""

PREFIX_BYTES = RECORD.size + 4
"""The same and its own CRC-32: a length that was damaged must not look like a record of which a part is missing."""

HEADER, FRAME, RESULT, DRAWN = b"H", b"F", b"R", b"D"
NOTE = struct.Struct("<I")
"""Length of the note in front of a result's numbers."""

SHOWN_DIGITS = 16
"""Of a key, in messages."""


class _Header(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Keep what lasts. seed: None when the attempt is over for us. seen: frames of it that were received by then.

    spent: what the rounds before the open attempt have cost.
    """

    coordinator: Bytes32 | None = None
    attempt: Count = 0
    seed: Bytes32 | None = None
    seen: Count = 0
    spent: tuple[Repeated, ...] = ()


class _Note(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Keep what stands beside the numbers of an update. event: what sending it costs in privacy."""

    examples: Count
    metrics: dict[str, float]
    event: Event | None = None


@dataclass(frozen=True)
class Result:
    """Hold what training gave.

    update: trained - received, float32, shape (d,). metrics: means over the examples. event: what it costs in privacy
    that something made of the update is sent; None if that is not counted.
    """

    update: Vector = field(repr=False)
    examples: int
    metrics: Mapping[str, float] = field(repr=False)
    event: Event | None = field(default=None, repr=False)


class StateFile:
    """Keep the state of one participant in one federation, for one process at a time.

    directory: made with mode 0700 if it does not exist. url, name, key: of the coordinator, the participant and its
    public identity key; together they choose the file.
    Raises ConfigError if another process has it or others may read it, StorageError if it is damaged.
    """

    def __init__(self, directory: Path, url: str, name: str, key: bytes) -> None:
        tag = sha256(f"{url}\n{name}\n{key.hex()}".encode()).hexdigest()[:16]
        # The tag comes first, because some names mean devices on Windows.
        self.path = directory / f"{tag}-{name}.state"
        self._header = _Header()
        self._frames: list[bytes] = []
        self._result: Result | None = None
        self._drawn: Encapsulated | None = None
        with self._storing():
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = FileLock(self.path.with_suffix(".state.lock"))
        try:
            self._load()
        except BaseException:
            self._lock.release()
            raise

    def __repr__(self) -> str:
        return f"StateFile({str(self.path)!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let another process have the file."""
        self._lock.release()

    @property
    def attempt(self) -> int:
        """Return the last attempt that brought frames for us, 0 before the first."""
        return self._header.attempt

    @property
    def seed(self) -> bytes | None:
        """Return the secret seed of the open attempt, 32 bytes; None if none is open."""
        return self._header.seed

    @property
    def frames(self) -> tuple[bytes, ...]:
        """Return the frames of the open attempt, in the order in which they came."""
        return tuple(self._frames)

    @property
    def seen(self) -> int:
        """Return how many frames of the last attempt were received."""
        return self._header.seen if self.seed is None else len(self._frames)

    @property
    def result(self) -> Result | None:
        """Return what training gave in the open attempt, None before it has ended."""
        return self._result

    @property
    def spent_before(self) -> tuple[Repeated, ...]:
        """Return what the rounds before the open attempt have cost, equal events together."""
        return self._header.spent

    @property
    def spent(self) -> tuple[Repeated, ...]:
        """Return what all rounds have cost, with the open attempt if something of it may have been sent."""
        event = None if self._result is None else self._result.event
        if event is None:
            return self._header.spent
        times = {repeated.event: repeated.times for repeated in self._header.spent}
        times[event] = times.get(event, 0) + 1
        return tuple(Repeated(each, count) for each, count in times.items())

    def pin(self, coordinator: bytes) -> None:
        """Keep the coordinator's key at first contact, and refuse another one ever after.

        Raises ConsentError naming both keys.
        """
        known = self._header.coordinator
        if known == coordinator:
            return
        if known is not None:
            raise ConsentError(
                f"the coordinator shows the key {_shown(coordinator)}, and it was {_shown(known)} before: somebody may "
                f"stand between; if its operator confirms the new key, delete {self.path} and start again"
            )
        self._replace(msgspec.structs.replace(self._header, coordinator=coordinator))

    def begin(self, attempt: int, seed: bytes) -> None:
        """Open an attempt with a fresh seed, 32 bytes; whatever was kept of another one is erased."""
        self._replace(msgspec.structs.replace(self._header, attempt=attempt, seed=seed, seen=0))

    def keep_frames(self, frames: tuple[bytes, ...]) -> None:
        """Keep frames of the open attempt; when this returns they may be acted upon."""
        self._require_open()
        self._append([(FRAME, (frame,)) for frame in frames])
        self._frames += frames

    def keep_result(self, result: Result) -> None:
        """Keep what training gave, so that nobody has to train twice, and charge what it costs."""
        self._require_open()
        if self._result is not None:
            raise LocalProtocolError("this attempt has a training result already")
        note = msgspec.msgpack.encode(_Note(result.examples, dict(result.metrics), result.event))
        numbers = np.ascontiguousarray(result.update, "<f4").view(np.uint8).data
        self._append([(RESULT, (NOTE.pack(len(note)), note, numbers))])
        self._result = result

    def encapsulated(self, task: Encapsulate) -> Encapsulated:
        """Return what was encapsulated in the open attempt; the first time, draw it, and keep it before it is used.

        So the machine, built again after a kill, says the same once more.
        """
        self._require_open()
        if self._drawn is None:
            drawn = encapsulate_all(task)
            self._append([(DRAWN, (msgspec.msgpack.encode(drawn),))])
            self._drawn = drawn
        return self._drawn

    def end(self, seen: int) -> None:
        """Erase seed, frames and all else of the open attempt. seen: frames received, those not kept included."""
        if self.seed is not None:
            self._replace(msgspec.structs.replace(self._header, seed=None, seen=seen))

    def _require_open(self) -> None:
        if self.seed is None:
            raise LocalProtocolError("no attempt is open")

    def _replace(self, header: _Header) -> None:
        """Write a new file that has a header only, give it its name, and overwrite the old one.

        What was spent goes into every new header: nothing makes it less.
        """
        header = msgspec.structs.replace(header, spent=self.spent)
        with self._storing():
            old = self._old()
            try:
                self._write_new(header)
                if old is not None:
                    overwrite(old)
            finally:
                if old is not None:
                    os.close(old)
        self._header, self._frames, self._result, self._drawn = header, [], None, None

    def _old(self) -> int | None:
        """Open what is about to be replaced. Where an open file can't be replaced, it is only unlinked."""
        if not POSIX or not self.path.exists():
            return None
        return os.open(self.path, os.O_RDWR)

    def _write_new(self, header: _Header) -> None:
        descriptor, temporary = tempfile.mkstemp(prefix=f".{self.path.name}.", dir=self.path.parent)  # mode 0600
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(MAGIC)
                _write_record(file, HEADER, (msgspec.msgpack.encode(header),))
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self.path)
        finally:
            Path(temporary).unlink(missing_ok=True)
        sync_directory(self.path.parent)

    def _append(self, records: list[tuple[bytes, tuple[Buffer, ...]]]) -> None:
        with self._storing(), self.path.open("ab") as file:
            end = file.tell()
            try:
                for kind, parts in records:
                    _write_record(file, kind, parts)
                file.flush()
                os.fsync(file.fileno())
            except OSError:
                # A disk that is full leaves half a record, behind which nothing may be appended.
                os.truncate(self.path, end)
                raise

    @contextmanager
    def _storing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            why = error.strerror or error
            raise StorageError(
                f"the state file {self.path} can't be written: {why}; make room or allow it, then start again: "
                "nothing that was done is lost"
            ) from error

    def _load(self) -> None:
        try:
            file = self.path.open("rb")
        except FileNotFoundError:
            return
        except OSError as error:
            raise StorageError(f"the state file {self.path} can't be read: {error.strerror}") from error
        with file:
            require_private(file.fileno(), self.path)
            data = memoryview(file.read())
        end = self._read(data)
        if end < len(data):
            with self._storing():
                os.truncate(self.path, end)

    def _read(self, data: memoryview) -> int:
        """Take all whole records and return where the last one ends."""
        if data[: len(MAGIC)] != MAGIC:
            raise self._damaged(0)
        position = len(MAGIC)
        while (record := self._record(data, position)) is not None:
            kind, content = record
            if (kind == HEADER) != (position == len(MAGIC)):
                raise self._damaged(position)
            try:
                self._take(kind, content)
            except (msgspec.MsgspecError, PlanError, struct.error, ValueError) as error:
                raise self._damaged(position) from error
            position += PREFIX_BYTES + len(content)
        if position == len(MAGIC):
            raise self._damaged(position)
        return position

    def _record(self, data: memoryview, position: int) -> tuple[bytes, memoryview] | None:
        """Return kind and content of a record, None where a part of it is missing."""
        start = position + PREFIX_BYTES
        if start > len(data):
            return None
        prefix = data[position : position + RECORD.size]
        if _checksum(prefix) != data[position + RECORD.size : start]:
            raise self._damaged(position)
        kind, length, checksum = RECORD.unpack(prefix)
        if length > len(data) - start:
            return None
        content = data[start : start + length]
        if zlib.crc32(content) != checksum:
            raise self._damaged(position)
        return kind, content

    def _take(self, kind: bytes, content: memoryview) -> None:
        if kind == HEADER:
            self._header = msgspec.msgpack.decode(content, type=_Header)
        elif kind == FRAME:
            self._frames.append(bytes(content))
        elif kind == RESULT and self._result is None:
            (length,) = NOTE.unpack(content[: NOTE.size])
            note = msgspec.msgpack.decode(content[NOTE.size : NOTE.size + length], type=_Note)
            update: Vector = np.frombuffer(content[NOTE.size + length :], "<f4")
            self._result = Result(update, note.examples, note.metrics, note.event)
        elif kind == DRAWN and self._drawn is None:
            self._drawn = msgspec.msgpack.decode(content, type=Encapsulated)
        else:
            raise ValueError("an unknown record, or a second result")

    def _damaged(self, position: int) -> StorageError:
        return StorageError(
            f"the state file {self.path} is damaged at byte {position}: move it away and start again; this participant "
            "then sits the open round out and has to compare the coordinator's key anew"
        )


def _write_record(file: Any, kind: bytes, parts: tuple[Buffer, ...]) -> None:
    length = checksum = 0
    for part in parts:
        length += len(part)
        checksum = zlib.crc32(part, checksum)
    prefix = RECORD.pack(kind, length, checksum)
    file.write(prefix + _checksum(prefix))
    for part in parts:
        file.write(part)


def _checksum(prefix: Buffer) -> bytes:
    return zlib.crc32(prefix).to_bytes(4, "little")


def _shown(key: bytes) -> str:
    return key.hex()[:SHOWN_DIGITS]
