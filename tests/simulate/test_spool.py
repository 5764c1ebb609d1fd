"""Tests of the file of ciphertexts."""

from __future__ import annotations

import pytest

from ridotto.simulate.spool import Spool


def test_gives_back_what_it_was_given_until_its_session_is_forgotten() -> None:
    spool = Spool()
    for sid in (b"a", b"b"):
        for sender in ("one", "two"):
            spool.keep(sid, sender, memoryview(sid * 3 + sender.encode()))
    assert spool.kept(b"b", "one") == b"bbbone"
    assert spool.kept(b"a", "two") == b"aaatwo"
    assert spool.kept(b"a", "three") is None
    spool.forget(b"a")
    assert spool.kept(b"a", "two") is None
    assert spool.kept(b"b", "two") == b"bbbtwo"


def test_uses_its_room_again() -> None:
    spool = Spool()
    for _ in range(3):
        spool.keep(b"a", "one", bytes(1000))
        assert spool.kept(b"a", "one") == bytes(1000)
        spool.clear()
        assert spool._file.seek(0, 2) == 0


def test_large_ones_go_to_a_file_that_is_closed_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ridotto.simulate.spool.MEMORY_BYTES", 1000)
    spool = Spool()
    spool.keep(b"a", "one", bytes(2000))
    file = spool._file._file
    assert spool.kept(b"a", "one") == bytes(2000)
    del spool
    assert file.closed
