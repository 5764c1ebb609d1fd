"""Tests of the package's front door: lazy names, and packages that are functions too."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import ridotto
from ridotto.errors import MissingExtraError

SOURCE = Path(ridotto.__file__)


def typed_names(source: str) -> dict[str, str]:
    """List name -> module of the imports that only a type checker sees."""
    blocks = [n for n in ast.parse(source).body if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING"]
    found = (n for block in blocks for n in block.body if isinstance(n, ast.ImportFrom))
    return {alias.name: node.module or "" for node in found for alias in node.names if alias.asname == alias.name}


def run(code: str, folder: Path) -> str:
    """Run code in a fresh interpreter that finds modules in `folder`, and return what it printed."""
    code = f"import sys; sys.path.insert(0, {str(folder)!r})\n{code}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    return done.stdout.strip()


@pytest.mark.parametrize("name", sorted(ridotto._LAZY))
def test_every_lazy_name_can_be_loaded(name):
    try:
        value = getattr(ridotto, name)
    except MissingExtraError as missing:
        pytest.skip(f"{name} needs {missing.package}, which is an extra")
    assert callable(value) or isinstance(value, ModuleType)


def test_type_checkers_see_the_same_names():
    assert typed_names(SOURCE.read_text(encoding="utf-8")) == ridotto._LAZY


def test_typed_names_are_found():
    source = "if TYPE_CHECKING:\n    from ridotto.rounds.plan import Plan as Plan\n    from x import hidden\n"
    assert typed_names(source) == {"Plan": "ridotto.rounds.plan"}


def test_lists_public_names():
    assert {"RidottoError", "__version__", *ridotto._LAZY} == set(dir(ridotto))


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'simulat'"):
        _ = ridotto.simulat


@pytest.mark.parametrize("driver_imports", ["", "import ridotto.thing.inner\n"])
@pytest.mark.parametrize(
    "code",
    [
        "print(ridotto.thing(1))",
        "from ridotto import thing; print(thing(1))",
        "import ridotto.thing.inner as inner; print(ridotto.thing(inner.ONE))",
        "from ridotto.thing.inner import ONE; print(ridotto.thing(ONE))",
        "print(ridotto.thing(1)); import ridotto.thing.inner; print(ridotto.thing(ridotto.thing.inner.ONE))",
        "from ridotto.thing import inner; from ridotto import thing; print(thing(inner.ONE))",
    ],
)
def test_a_package_that_bears_a_public_name_can_be_called_and_imported(code, driver_imports, tmp_path):
    # A part of ridotto that is not there: a package `thing`, and a function `thing` in a module of another name.
    (tmp_path / "thing").mkdir()
    (tmp_path / "thing" / "__init__.py").touch()
    (tmp_path / "thing" / "inner.py").write_text("ONE = 1\n")
    (tmp_path / "thing_driver.py").write_text(driver_imports + "def thing(n):\n    return f'called with {n}'\n")
    setup = f"import ridotto; ridotto.__path__.append({str(tmp_path)!r}); ridotto._LAZY['thing'] = 'thing_driver'\n"
    assert set(run(setup + code, tmp_path).splitlines()) == {"called with 1"}


@pytest.mark.parametrize(("name", "argument"), [("rounds", "examples"), ("simulate", "clients")])
def test_help_shows_the_function_and_not_its_package(name, argument, tmp_path):
    code = f"import inspect, ridotto.rounds.plan, ridotto.simulate; found = ridotto.{name}; "
    code += "print(inspect.signature(found)); print(inspect.getdoc(found)); help(found)"
    signature, _, rest = run(code, tmp_path).partition("\n")
    assert f"{argument}:" in signature
    assert rest.count("seed: decides" if name == "simulate" else "Take part in a federation's rounds") >= 2
