"""Hold docs/exit-codes.md, the tree in the docstring of errors.py and the error classes together."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

from ridotto import errors
from ridotto.errors import RidottoError

PAGE = Path(__file__).parents[1] / "docs" / "exit-codes.md"
ROW = re.compile(r"^\| (\d+) \| `(\w+)` \|", re.MULTILINE)
BRANCH = re.compile(r"── (\w+) .*\((\d+)\)$", re.MULTILINE)


def family(root: type[RidottoError]) -> set[type[RidottoError]]:
    """Collect a class and everything that derives from it."""
    return {root}.union(*(family(child) for child in root.__subclasses__()))


def tree() -> set[type[RidottoError]]:
    """The errors of the tree; those that a driver adds for itself keep their parent's code."""
    return {error for error in family(RidottoError) if error.__module__ == errors.__name__}


def in_code() -> dict[str, int]:
    return {error.__name__: error.exit_code for error in tree()}


def differences(documented: dict[str, int], real: dict[str, int]) -> list[str]:
    """Say which errors are missing on one side or have another exit code."""
    names = sorted(documented.keys() | real.keys())
    return [
        f"{name}: documented {documented.get(name)}, real {real.get(name)}"
        for name in names
        if documented.get(name) != real.get(name)
    ]


def table(page: str) -> dict[str, int]:
    return {name: int(code) for code, name in ROW.findall(page)}


def test_the_page_lists_every_error_with_its_exit_code():
    assert differences(table(PAGE.read_text(encoding="utf-8")), in_code()) == []


def test_the_tree_in_the_docstring_shows_the_real_exit_codes():
    drawn = {name: int(code) for name, code in BRANCH.findall(inspect.getdoc(errors) or "")}
    assert drawn
    assert differences(drawn, {name: code for name, code in in_code().items() if name in drawn}) == []


def test_only_a_parent_and_its_child_share_an_exit_code():
    for error in tree():
        for other in tree():
            if error.exit_code == other.exit_code:
                assert issubclass(error, other) or issubclass(other, error), (error, other)


def test_exit_codes_fit_a_shell():
    # 0 is success; 126 and above belong to the shell and to signals.
    assert all(0 < code < 126 for code in in_code().values())


def test_finds_what_is_missing_or_wrong():
    page = "| code | error |\n| --- | --- |\n| 3 | `PlanError` | x |\n| 9 | `GoneError` | x |\n"
    assert differences(table(page), {"PlanError": 4, "DataError": 4}) == [
        "DataError: documented None, real 4",
        "GoneError: documented 9, real None",
        "PlanError: documented 3, real 4",
    ]
