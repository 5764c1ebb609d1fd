"""Read the files of vectors, and ask ours to refuse what they say is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ridotto.errors import RidottoError

FOLDER = Path(__file__).resolve().parents[2] / "vectors"


def load(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FOLDER / name).read_text(encoding="utf-8"))
    return found


def check_refusals(rows: list[dict[str, Any]], act: Callable[[dict[str, Any]], object]) -> None:
    """Do what each row says, and see that it is refused for the reason in the row."""
    assert len({row["name"] for row in rows}) == len(rows) > 0
    for row in rows:
        with pytest.raises(RidottoError) as refused:
            act(row)
        assert str(refused.value) == row["why"], row["name"]


def integers(values: list[Any]) -> list[int]:
    """Numbers that may stand there as digits."""
    return [int(value) for value in values]
