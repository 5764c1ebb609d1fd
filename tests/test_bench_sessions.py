"""The benchmark of many sessions, on few: its sums go up, and come down as one model."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.sessions import Stored, make_plan
from ridotto.coordinator.blobs import FOLDERS


@pytest.mark.parametrize("protocol", ["ideal", "oneshot"])
def test_three_sessions_add_up_and_leave_no_file(protocol: str, tmp_path: Path) -> None:
    stored = Stored(make_plan(protocol), 50, tmp_path)
    stored.run(3)
    stored.commit()
    assert [list((tmp_path / kind).iterdir()) for kind in FOLDERS] == [[]] * len(FOLDERS)
