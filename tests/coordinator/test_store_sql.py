"""What only the SQL store has: a file that can be of another version, full or no database at all."""

from __future__ import annotations

import os
import sqlite3
import stat
from pathlib import Path

import pytest

from ridotto.coordinator.blobs import DiskFullError
from ridotto.coordinator.store import Change
from ridotto.coordinator.store_sql import SqlStore
from ridotto.errors import StorageError


def test_refuses_a_file_that_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    path.write_bytes(b"this is not a database, whatever its name says" * 100)
    with pytest.raises(StorageError, match=r"could not open the database .*store\.sqlite"):
        SqlStore.in_file(path)


def test_refuses_tables_of_another_version(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    SqlStore.in_file(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE schema_version SET version = 99")
    connection.close()
    with pytest.raises(StorageError, match="version 99, expected 1"):
        SqlStore.in_file(path)


def test_syncs_every_commit_to_the_disk(tmp_path: Path) -> None:
    store = SqlStore.in_file(tmp_path / "store.sqlite")
    with store._engine.connect() as connection:
        modes = [connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in ("journal_mode", "synchronous")]
    store.close()
    assert modes == ["wal", 2]  # 2 is FULL


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX")
def test_nobody_else_may_read_the_log(tmp_path: Path) -> None:
    """It holds seeds and shares that members revealed."""
    before = os.umask(0o022)
    try:
        store = SqlStore.in_file(tmp_path / "store.sqlite")
        store.commit(Change(values={"run": b"x"}))
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
        store.close()
    finally:
        os.umask(before)
    assert set(modes) == {"store.sqlite", "store.sqlite-wal", "store.sqlite-shm"}
    assert set(modes.values()) == {0o600}


def test_says_that_the_disk_is_full(tmp_path: Path) -> None:
    store = SqlStore.in_file(tmp_path / "store.sqlite")
    # SQLite reports a database at its largest number of pages exactly like a full disk.
    with store._engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count = 1")
        connection.close()
    with pytest.raises(DiskFullError, match=r"is full: .* bytes are free"):
        store.commit(Change(values={"run": bytes(1 << 20)}))
    assert store.values() == {}
    store.close()
