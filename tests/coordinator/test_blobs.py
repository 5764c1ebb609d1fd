"""Files that appear whole or not at all, and sums that live in them."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest

from ridotto.coordinator.blobs import SUMS, Blobs, DiskFullError, model_name, sum_name
from ridotto.coordinator.sums import StoredSums
from ridotto.core.wire import digest
from ridotto.errors import StorageError

DATA = b"twelve bytes"
NAME = model_name(digest(DATA))
U32 = np.dtype(np.uint32)
ONE, TWO = b"1" * 32, b"2" * 32


def vector(*values: int) -> np.ndarray:
    return np.array(values, np.uint32)


def files(blobs: Blobs) -> set[str]:
    return {path.name for path in (blobs.folder / SUMS).iterdir()}


def committed(sums: StoredSums) -> dict[bytes, str | None]:
    names = sums.changes()
    sums.settle()
    return names


def test_reads_what_was_written(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path / "new" / "folder")
    blobs.write(NAME, DATA)
    assert bytes(blobs.read(NAME, digest(DATA))) == DATA
    assert [path.name for path in (blobs.folder / "models").iterdir()] == [NAME.removeprefix("models/")]


def test_recognises_a_damaged_file(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path)
    blobs.write(NAME, DATA)
    blobs.path(NAME).write_bytes(b"twelve bites")
    with pytest.raises(StorageError, match="is damaged: its content does not match"):
        blobs.read(NAME, digest(DATA))


def test_says_which_file_is_missing(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"could not read .*\.safetensors: No such file"):
        Blobs(tmp_path).read(NAME, digest(DATA))


def test_says_what_a_full_disk_needs_and_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blobs = Blobs(tmp_path)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskFullError, match=r"is full: 12 bytes are needed and [\d,]+ bytes are free; make room"):
        blobs.write(NAME, DATA)
    assert list((blobs.folder / "models").iterdir()) == []


def test_says_why_a_folder_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="could not make"):
        Blobs(tmp_path / "file")


def test_sweeps_what_a_kill_left(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path)
    for name in ("sums/a", "sums/b", "sums/.half.part"):
        blobs.write(name, DATA)
    blobs.sweep(SUMS, ["sums/b"])
    assert files(blobs) == {"b"}


def test_sums_survive_in_files(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path)
    sums = StoredSums(blobs, {}, U32)
    sums[ONE], sums[TWO] = vector(1, 2), vector(3, 4)
    names = committed(sums)
    again = StoredSums(blobs, {sid: name for sid, name in names.items() if name}, U32)
    assert set(again) == {ONE, TWO}
    assert [list(again[ONE]), list(again[TWO])] == [[1, 2], [3, 4]]
    assert again[TWO].flags.writeable


def test_only_one_sum_is_in_memory(tmp_path: Path) -> None:
    sums = StoredSums(Blobs(tmp_path), {}, U32)
    for index in range(10):
        sums[bytes([index]) * 32] = vector(index)
    held = [value for value in vars(sums).values() if isinstance(value, np.ndarray)]
    assert not held
    assert sums._held is not None
    assert len(sums) == 10
    assert [int(sums[sid][0]) for sid in sums] == list(range(10))


def test_old_files_stay_until_the_new_names_are_committed(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path)
    sums = StoredSums(blobs, {}, U32)
    sums[ONE] = vector(1)
    old = committed(sums)[ONE]
    total = sums[ONE]
    total += vector(1)
    sums[ONE] = total
    new = sums.changes()[ONE]
    assert new == sum_name(ONE, digest(vector(2).tobytes()))
    assert {f"sums/{name}" for name in files(blobs)} == {old, new}
    sums.settle()
    assert {f"sums/{name}" for name in files(blobs)} == {new}


def test_an_unchanged_sum_is_not_written_again(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path)
    sums = StoredSums(blobs, {}, U32)
    sums[ONE] = vector(1)
    names = committed(sums)
    sums[ONE] = sums[ONE]
    assert committed(sums) == names
    assert len(files(blobs)) == 1


def test_forgets_all_sums_at_once(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path)
    sums = StoredSums(blobs, {}, U32)
    sums[ONE] = vector(1)
    committed(sums)
    sums[TWO] = vector(2)
    sums.clear()
    assert len(sums) == 0
    assert ONE not in sums
    with pytest.raises(KeyError):
        sums[ONE]
    assert committed(sums)[ONE] is None
    assert files(blobs) == set()


def test_forgets_one_sum(tmp_path: Path) -> None:
    sums = StoredSums(Blobs(tmp_path), {}, U32)
    sums[ONE] = vector(1)
    del sums[ONE]
    assert ONE not in sums
    with pytest.raises(KeyError):
        del sums[ONE]
