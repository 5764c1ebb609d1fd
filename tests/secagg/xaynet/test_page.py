"""docs/protocols/xaynet.md keeps its word: its tables, formulas and names are those of the code."""

from __future__ import annotations

import re
from pathlib import Path

from ridotto.secagg.xaynet.config import Bound, Data, Group, MaskConfig, MaskConfigPair, Models
from ridotto.secagg.xaynet.encode import XaynetFailure
from ridotto.secagg.xaynet.wire import CHUNK_HEADER_BYTES, HEADER_BYTES, Tag, box_bytes, payload_bytes

TEXT = (Path(__file__).resolve().parents[3] / "docs" / "protocols" / "xaynet.md").read_text(encoding="utf-8")
GROUPS = {"integer": Group.INTEGER, "prime": Group.PRIME, "power of two": Group.POWER2}


def test_the_table_of_orders() -> None:
    rows = re.findall(r"^\| (prime), (\w+), (1|10\^6), 10\^(\d+) \| ([\d,]+) \| (\d+) \|$", TEXT, re.M)
    assert len(rows) == 5
    for group, data, bound, models, order, size in rows:
        config = MaskConfig(GROUPS[group], Data[data], Bound.B0 if bound == "1" else Bound.B6, Models(int(models)))
        assert (config.order, config.number_bytes) == (int(order.replace(",", "")), int(size))


def test_the_length_of_an_update() -> None:
    assert "136 + 128 + (8 + b d) + (4 + b) + 4 + 112 n + 48" in TEXT
    b, d, n = 6, 1000, 7
    formula = 136 + 128 + (8 + b * d) + (4 + b) + 4 + 112 * n + 48
    assert box_bytes(payload_bytes(Tag.UPDATE, MaskConfigPair(), d, n)) == formula
    assert "A Sum is 280 bytes" in TEXT
    assert box_bytes(payload_bytes(Tag.SUM, MaskConfigPair(), d, n)) == 280
    assert "| 136 | | payload |" in TEXT
    assert HEADER_BYTES == 136
    assert "less than 320 bytes" in TEXT
    assert box_bytes(CHUNK_HEADER_BYTES + 128) == 320


def test_every_failure_has_a_row() -> None:
    assert set(re.findall(r"^\| `([A-Z_]+)` \|", TEXT, re.M)) == set(XaynetFailure)
