"""docs/threats.md keeps its word: every attack has a row, and every test that it names exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "docs" / "threats.md").read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", TEXT)))
ROWS = {int(number): row for row in TEXT.splitlines() for number in re.findall(r"^\| 4\.(\d+) \|", row)}


@pytest.mark.parametrize(("path", "name"), NAMED)
def test_every_named_test_exists(path: str, name: str) -> None:
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_every_attack_has_a_row_with_a_test_or_says_that_nothing_protects() -> None:
    assert list(ROWS) == list(range(1, 27))
    for number, row in ROWS.items():
        assert "::test_" in row or "*Not protected*" in row, number


def test_every_attack_test_is_named_in_the_row_of_its_number() -> None:
    """The other way round: a test called test_4_N_... belongs to an attack that the page lists."""
    numbers = set()
    for path in sorted((ROOT / "tests" / "secagg").glob("test_pairwise_*.py")):
        numbers |= {int(number) for number in re.findall(r"^def test_4_(\d+)_", path.read_text(encoding="utf-8"), re.M)}
    assert numbers
    for number in numbers:
        assert f"test_4_{number}_" in ROWS[number]
