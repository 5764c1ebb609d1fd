"""Where a coordinator keeps the small things that must survive a kill: names, log, records; and the smallest store.

Large things (models, sums) are files, see `blobs`; a store keeps their names. Whatever belongs together is committed
together: `commit` takes everything of one step and does all of it or nothing.

To add a store, copy `MemoryStore` and add its name to the list in `tests/coordinator/test_store_conformance.py`.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from ridotto.errors import RidottoError


class RowKind(StrEnum):
    """Say what happened to the machine."""

    RECEIVE = "receive"
    EXPIRE = "expire"
    SEAL = "seal"


@dataclass(frozen=True, slots=True)
class LogRow:
    """Keep one input of the current attempt's machine.

    seq: from 0, without gaps. now: seconds of the attempt's clock. sender: of RECEIVE, otherwise empty. frame: prefix
    and header of the message, without its attachment; of SEAL, a `receipts.Seal`; empty for EXPIRE.
    """

    seq: int
    now: float
    kind: RowKind
    sender: str = ""
    frame: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class StoredRecord:
    """Keep one attempt's signed record, as JSON."""

    attempt: int
    round: int
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class StoredReceipt:
    """Name the two files of one attempt's receipt. full, public: SHA-256, see `blobs.receipt_name`."""

    attempt: int
    round: int
    full: bytes
    public: bytes


@dataclass(frozen=True, slots=True)
class StoredOpening:
    """Keep what proves things about one sum that was opened.

    salt: of the commitment to it. leaves: who is in it with which digest, as `receipts` encodes it.
    """

    sid: bytes
    round: int
    salt: bytes = field(repr=False)
    leaves: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Participant:
    """Keep one enrolled participant. key: identity key, 32 bytes. enrolled_at: unix seconds."""

    name: str
    key: bytes
    enrolled_at: float


@dataclass(frozen=True, kw_only=True)
class Change:
    """Hold everything that one step changes.

    clear_log: drop the log and the names of the sums first: a new attempt begins. log: rows to append. sums: sid, or
    `TOTAL` of the round -> name of the blob that holds the sum now, or None if there is none any more. values: key ->
    new value. models: SHA-256 -> round that made it. records, receipts, openings: of an attempt that ended.
    """

    clear_log: bool = False
    log: tuple[LogRow, ...] = ()
    sums: Mapping[bytes, str | None] = field(default_factory=dict)
    values: Mapping[str, bytes] = field(default_factory=dict)
    models: Mapping[bytes, int] = field(default_factory=dict)
    records: tuple[StoredRecord, ...] = ()
    receipts: tuple[StoredReceipt, ...] = ()
    openings: tuple[StoredOpening, ...] = ()


class TokenError(RidottoError):
    """Refuse an enrolment token that is unknown or was used."""


class TakenError(RidottoError):
    """Refuse a name or a key that somebody has already."""


class Store(Protocol):
    """Keep a federation's small things. Methods may be called from any thread.

    Every method raises StorageError if it could not do all of what it is for; nothing has changed then.
    """

    def participants(self) -> dict[str, Participant]:
        """Return who is enrolled, by name."""

    def enrol(self, participant: Participant, token: bytes | None) -> None:
        """Enrol a participant and use up the token with this SHA-256, both or neither.

        token: None if none is needed. Raises TokenError or TakenError; enrolling the very same again is a TakenError.
        """

    def add_tokens(self, tokens: tuple[bytes, ...]) -> None:
        """Add one-time tokens by their SHA-256; those that are there already stay as they are."""

    def values(self) -> dict[str, bytes]:
        """Return every value by key."""

    def log(self) -> list[LogRow]:
        """Return the current attempt's log in order."""

    def sums(self) -> dict[bytes, str]:
        """Return the name of each sum's blob by sid."""

    def models(self) -> dict[bytes, int]:
        """Return the round that made each model, by SHA-256."""

    def records(self, number: int | None = None, after: int = 0, limit: int | None = None) -> list[StoredRecord]:
        """Return at most `limit` records of attempts after `after`, in order; of one round only, if it is given."""

    def receipts(self, number: int | None = None) -> list[StoredReceipt]:
        """Return receipts in order of attempts; of one round only, if it is given."""

    def opening(self, sid: bytes) -> StoredOpening | None:
        """Return what is kept of a sum that was opened, None if there is no such sum."""

    def commit(self, change: Change) -> None:
        """Make a change durable as a whole, or raise and change nothing."""

    def close(self) -> None:
        """Let go of what the store holds open."""


class MemoryStore:
    """Keep everything in memory: for tests, and to copy from."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._participants: dict[str, Participant] = {}
        self._tokens: dict[bytes, bool] = {}
        self._values: dict[str, bytes] = {}
        self._log: list[LogRow] = []
        self._sums: dict[bytes, str] = {}
        self._models: dict[bytes, int] = {}
        self._records: dict[int, StoredRecord] = {}
        self._receipts: dict[int, StoredReceipt] = {}
        self._openings: dict[bytes, StoredOpening] = {}

    def participants(self) -> dict[str, Participant]:
        """Return who is enrolled, by name."""
        with self._lock:
            return dict(self._participants)

    def enrol(self, participant: Participant, token: bytes | None) -> None:
        """Enrol a participant and use up its token, both or neither."""
        with self._lock:
            others = self._participants.values()
            if any(participant.name == other.name or participant.key == other.key for other in others):
                raise TakenError(f"the name {participant.name} or its key is enrolled already")
            if token is not None:
                if not self._tokens.get(token, False):
                    raise TokenError("the token is unknown or was used")
                self._tokens[token] = False
            self._participants[participant.name] = participant

    def add_tokens(self, tokens: tuple[bytes, ...]) -> None:
        """Add one-time tokens by their SHA-256."""
        with self._lock:
            for token in tokens:
                self._tokens.setdefault(token, True)

    def values(self) -> dict[str, bytes]:
        """Return every value by key."""
        with self._lock:
            return dict(self._values)

    def log(self) -> list[LogRow]:
        """Return the current attempt's log in order."""
        with self._lock:
            return list(self._log)

    def sums(self) -> dict[bytes, str]:
        """Return the name of each sum's blob by sid."""
        with self._lock:
            return dict(self._sums)

    def models(self) -> dict[bytes, int]:
        """Return the round that made each model, by SHA-256."""
        with self._lock:
            return dict(self._models)

    def records(self, number: int | None = None, after: int = 0, limit: int | None = None) -> list[StoredRecord]:
        """Return records in order of attempts."""
        with self._lock:
            found = [self._records[attempt] for attempt in sorted(self._records) if attempt > after]
        return [record for record in found if number in (None, record.round)][:limit]

    def receipts(self, number: int | None = None) -> list[StoredReceipt]:
        """Return receipts in order of attempts."""
        with self._lock:
            found = [self._receipts[attempt] for attempt in sorted(self._receipts)]
        return [receipt for receipt in found if number in (None, receipt.round)]

    def opening(self, sid: bytes) -> StoredOpening | None:
        """Return what is kept of a sum that was opened."""
        with self._lock:
            return self._openings.get(sid)

    def commit(self, change: Change) -> None:
        """Make a change."""
        with self._lock:
            if change.clear_log:
                self._log.clear()
                self._sums.clear()
            self._log.extend(change.log)
            for sid, name in change.sums.items():
                if name is None:
                    self._sums.pop(sid, None)
                else:
                    self._sums[sid] = name
            self._values.update(change.values)
            self._models.update(change.models)
            self._records.update((record.attempt, record) for record in change.records)
            self._receipts.update((receipt.attempt, receipt) for receipt in change.receipts)
            self._openings.update((opening.sid, opening) for opening in change.openings)

    def close(self) -> None:
        """Do nothing: nothing is open."""
