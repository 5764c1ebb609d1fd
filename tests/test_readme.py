"""README.md and docs/ keep their word: the notebook lines run, every link leads to a file, every page is reachable."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

import ridotto
from ridotto.participant.rounds import rounds

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(path for path in (ROOT / "README.md", *DOCS.rglob("*.md")))
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def links(page: Path) -> list[str]:
    """Return what a page links to inside the repository, without the part after "#"."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.S)
    found = (target.partition("#")[0] for target in LINK.findall(text) if "://" not in target)
    return [target for target in found if target]


def notebook() -> str:
    """Return the README's lines that run without a server."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.S)
    [block] = [block for block in blocks if "ridotto.simulate" in block]
    return block


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_to_a_file(page):
    assert [target for target in links(page) if not (page.parent / target).exists()] == []


def test_every_page_is_reached_from_the_index():
    reached, ahead = set(), [DOCS / "index.md"]
    while ahead:
        page = ahead.pop()
        if page not in reached:
            reached.add(page)
            ahead += [(page.parent / target).resolve() for target in links(page) if target.endswith(".md")]
    assert set(DOCS.rglob("*.md")) - reached == set()


def test_the_index_itself_names_every_page():
    named = {(DOCS / target).resolve() for target in links(DOCS / "index.md")}
    assert set(DOCS.rglob("*.md")) - named == {DOCS / "index.md"}


def test_the_notebook_has_ten_lines():
    assert len([line for line in notebook().splitlines() if line.strip()]) <= 10


def test_the_notebook_lines_run():
    pytest.importorskip("sklearn", reason="scikit-learn is an extra")
    pyplot = pytest.importorskip("matplotlib.pyplot", reason="matplotlib is an extra")
    shorter = notebook().replace("rounds=20", "rounds=2")
    assert shorter != notebook()
    names: dict[str, object] = {}
    exec(shorter, names)
    result = names["result"]
    assert isinstance(result, ridotto.Result)
    assert len(result.history) == 2
    assert all(record.participants == 10 for record in result.records)
    pyplot.close("all")


def test_every_argument_of_rounds_is_on_its_page():
    text = (DOCS / "python.md").read_text(encoding="utf-8")
    table = "".join(line.split("|")[1] for line in text.splitlines() if line.startswith("| `"))
    assert [name for name in inspect.signature(rounds).parameters if f"`{name}`" not in table] == []
