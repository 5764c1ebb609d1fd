"""The store on a database: SQLite beside the blobs, or whatever else SQLAlchemy speaks to. The only module with SQL.

SQLite runs with a write-ahead log and synchronous=FULL: a committed transaction has reached the disk, and readers do
not wait for the writer. Source: https://www.sqlite.org/wal.html, https://www.sqlite.org/pragma.html#pragma_synchronous.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import (
    Column,
    Connection,
    Engine,
    Float,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    create_engine,
    delete,
    event,
    insert,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from ridotto.coordinator.blobs import disk_full
from ridotto.coordinator.store import (
    Change,
    LogRow,
    Participant,
    RowKind,
    StoredOpening,
    StoredReceipt,
    StoredRecord,
    TakenError,
    TokenError,
)
from ridotto.errors import StorageError

SCHEMA = 1
"""Version of the tables. A store of another version is refused, not guessed at."""

BUSY_TIMEOUT_S = 30
"""How long a connection waits for another one's transaction; ours take milliseconds, a stalled disk takes longer."""

_metadata = MetaData()

_schema = Table("schema_version", _metadata, Column("version", Integer, primary_key=True))

_participants = Table(
    "participants",
    _metadata,
    Column("name", String(64), primary_key=True),
    Column("key", LargeBinary, nullable=False, unique=True),
    Column("enrolled_at", Float, nullable=False),
)

_tokens = Table(
    "tokens",
    _metadata,
    Column("hash", LargeBinary, primary_key=True),
    Column("used_by", String(64)),
)

_values = Table(
    "run_values",
    _metadata,
    Column("key", String(64), primary_key=True),
    Column("value", LargeBinary, nullable=False),
)

_log = Table(
    "log",
    _metadata,
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("now", Float, nullable=False),
    Column("kind", String(16), nullable=False),
    Column("sender", String(64), nullable=False),
    Column("frame", LargeBinary, nullable=False),
)

_LOG_COLUMNS = tuple(column.name for column in _log.columns)

_sums = Table(
    "sums",
    _metadata,
    Column("sid", LargeBinary, primary_key=True),
    Column("blob", String(200), nullable=False),
)

_models = Table(
    "models",
    _metadata,
    Column("digest", LargeBinary, primary_key=True),
    Column("round", Integer, nullable=False),
)

_records = Table(
    "records",
    _metadata,
    Column("attempt", Integer, primary_key=True, autoincrement=False),
    Column("round", Integer, nullable=False, index=True),
    Column("body", LargeBinary, nullable=False),
)

_receipts = Table(
    "receipts",
    _metadata,
    Column("attempt", Integer, primary_key=True, autoincrement=False),
    Column("round", Integer, nullable=False, index=True),
    Column("full", LargeBinary, nullable=False),
    Column("public", LargeBinary, nullable=False),
)

_openings = Table(
    "openings",
    _metadata,
    Column("sid", LargeBinary, primary_key=True),
    Column("round", Integer, nullable=False),
    Column("salt", LargeBinary, nullable=False),
    Column("leaves", LargeBinary, nullable=False),
)


class SqlStore:
    """Keep a federation's small things in a database.

    url: as SQLAlchemy spells it, "sqlite:///file" for the embedded one.
    Raises StorageError if it can't be opened or was made by another version.
    """

    def __init__(self, url: str) -> None:
        self._where = url.rpartition("@")[2].removeprefix("sqlite:///")  # never with a password
        with self._reported("open"):
            self._engine: Engine = create_engine(url)
            if self._engine.dialect.name == "sqlite":
                event.listen(self._engine, "connect", _configure_sqlite)
        try:
            with self._reported("open"):
                _metadata.create_all(self._engine)
                self._check_schema()
        except StorageError:
            self.close()
            raise

    @classmethod
    def in_file(cls, path: Path) -> SqlStore:
        """Open the SQLite database in this file, and make it, with mode 0600, if there is none.

        Its log holds what members revealed. SQLite gives the files beside it the same mode.
        """
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        except OSError as error:
            raise StorageError(f"could not open the database {path}: {error.strerror or error}") from error
        return cls(f"sqlite:///{path}")

    def participants(self) -> dict[str, Participant]:
        """Return who is enrolled, by name."""
        return {row.name: Participant(row.name, row.key, row.enrolled_at) for row in self._read(select(_participants))}

    def enrol(self, participant: Participant, token: bytes | None) -> None:
        """Enrol a participant and use up its token, both or neither."""
        row = {"name": participant.name, "key": participant.key, "enrolled_at": participant.enrolled_at}
        with self._reported("enrol in"), self._engine.begin() as connection:
            # Leaving this block by an exception takes everything back.
            try:
                connection.execute(insert(_participants).values(row))
            except IntegrityError as error:
                raise TakenError(f"the name {participant.name} or its key is enrolled already") from error
            if token is not None:
                unused = update(_tokens).where(_tokens.c.hash == token, _tokens.c.used_by.is_(None))
                if connection.execute(unused.values(used_by=participant.name)).rowcount != 1:
                    raise TokenError("the token is unknown or was used")

    def add_tokens(self, tokens: tuple[bytes, ...]) -> None:
        """Add one-time tokens by their SHA-256."""
        with self._reported("add tokens to"), self._engine.begin() as connection:
            known = set(connection.scalars(select(_tokens.c.hash)))
            new = [{"hash": token} for token in dict.fromkeys(tokens) if token not in known]
            if new:
                connection.execute(insert(_tokens), new)

    def values(self) -> dict[str, bytes]:
        """Return every value by key."""
        return {row.key: row.value for row in self._read(select(_values))}

    def log(self) -> list[LogRow]:
        """Return the current attempt's log in order."""
        rows = self._read(select(_log).order_by(_log.c.seq))
        return [LogRow(row.seq, row.now, RowKind(row.kind), row.sender, row.frame) for row in rows]

    def sums(self) -> dict[bytes, str]:
        """Return the name of each sum's blob by sid."""
        return {row.sid: row.blob for row in self._read(select(_sums))}

    def models(self) -> dict[bytes, int]:
        """Return the round that made each model, by SHA-256."""
        return {row.digest: row.round for row in self._read(select(_models))}

    def records(self, number: int | None = None, after: int = 0, limit: int | None = None) -> list[StoredRecord]:
        """Return records in order of attempts."""
        query = select(_records).where(_records.c.attempt > after).order_by(_records.c.attempt).limit(limit)
        if number is not None:
            query = query.where(_records.c.round == number)
        return [StoredRecord(row.attempt, row.round, row.body) for row in self._read(query)]

    def receipts(self, number: int | None = None) -> list[StoredReceipt]:
        """Return receipts in order of attempts."""
        query = select(_receipts).order_by(_receipts.c.attempt)
        if number is not None:
            query = query.where(_receipts.c.round == number)
        return [StoredReceipt(row.attempt, row.round, row.full, row.public) for row in self._read(query)]

    def opening(self, sid: bytes) -> StoredOpening | None:
        """Return what is kept of a sum that was opened."""
        rows = self._read(select(_openings).where(_openings.c.sid == sid))
        return next((StoredOpening(row.sid, row.round, row.salt, row.leaves) for row in rows), None)

    def commit(self, change: Change) -> None:
        """Make a change durable in one transaction."""
        with self._reported("write to"), self._engine.begin() as connection:
            if change.clear_log:
                connection.execute(delete(_log))
                connection.execute(delete(_sums))
            if change.log:
                rows = [{name: getattr(row, name) for name in _LOG_COLUMNS} for row in change.log]
                connection.execute(insert(_log), rows)
            for sid, blob in change.sums.items():
                _put(connection, _sums, sid, None if blob is None else {"blob": blob})
            for key, value in change.values.items():
                _put(connection, _values, key, {"value": value})
            for digest, number in change.models.items():
                _put(connection, _models, digest, {"round": number})
            for record in change.records:
                _put(connection, _records, record.attempt, {"round": record.round, "body": record.body})
            for receipt in change.receipts:
                files = {"full": receipt.full, "public": receipt.public}
                _put(connection, _receipts, receipt.attempt, {"round": receipt.round, **files})
            for opening in change.openings:
                values = {"round": opening.round, "salt": opening.salt, "leaves": opening.leaves}
                _put(connection, _openings, opening.sid, values)

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    def _check_schema(self) -> None:
        with self._engine.begin() as connection:
            found = connection.scalar(select(_schema.c.version))
            if found is None:
                connection.execute(insert(_schema).values(version=SCHEMA))
            elif found != SCHEMA:
                raise StorageError(f"the database {self._where} has tables of version {found}, expected {SCHEMA}")

    def _read(self, query: Any) -> list[Any]:
        with self._reported("read from"), self._engine.connect() as connection:
            return list(connection.execute(query))

    @contextmanager
    def _reported(self, what: str) -> Iterator[None]:
        try:
            yield
        except SQLAlchemyError as error:
            cause = str(getattr(error, "orig", None) or type(error).__name__)
            # SQLite's own words, https://www.sqlite.org/rescode.html#full.
            if "disk is full" in cause:
                raise disk_full(Path(self._where), None) from error
            raise StorageError(f"could not {what} the database {self._where}: {cause}") from error


def _put(connection: Connection, table: Table, key: Any, values: dict[str, Any] | None) -> None:
    """Insert or replace one row by its primary key; remove it if `values` is None."""
    column = next(iter(table.primary_key.columns))
    if values is None:
        connection.execute(delete(table).where(column == key))
    elif connection.execute(update(table).where(column == key).values(values)).rowcount == 0:
        connection.execute(insert(table).values({column.name: key, **values}))


def _configure_sqlite(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", f"busy_timeout={BUSY_TIMEOUT_S * 1000}"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()
