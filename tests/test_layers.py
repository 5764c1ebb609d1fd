"""Hold the source tree to its layers: imports go downwards, and every package from outside has one home.

    8 cli, config, tasks, ridotto itself
    7 web, trust, ledger
    6 simulate | coordinator | participant | mesh      never import each other
    5 rounds
    4 secagg | privacy | learn | infer                 never import each other
    3 crypto
    2 core
    1 errors

Imports are read from the syntax tree, so those inside functions and under `TYPE_CHECKING` count as well.
Each check is a function from a source tree to a list of problems; each has a test on a tree that breaks the rule.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
PACKAGE = REPOSITORY / "src" / "ridotto"

ROOT = "ridotto"
LAYERS = {
    **dict.fromkeys((ROOT, "__main__", "cli", "config", "tasks"), 8),
    **dict.fromkeys(("web", "trust", "ledger"), 7),
    **dict.fromkeys(("simulate", "coordinator", "participant", "mesh"), 6),
    "rounds": 5,
    **dict.fromkeys(("secagg", "privacy", "learn", "infer"), 4),
    "crypto": 3,
    "core": 2,
    "errors": 1,
}
STRANGERS = {4, 6}
"""Layers whose members never import each other."""

EVERYWHERE = {"numpy", "msgspec"}
"""Packages from outside that every module may import."""

HOMES = {
    "cryptography": "crypto/",
    "safetensors": "core/",
    "rich": ("cli/", "simulate/progress.py"),
    "threadpoolctl": "simulate/threads.py",
    "cloudpickle": "simulate/pool_worker.py",
    "nacl": "crypto/sodium.py",
    "numba": "core/compile.py",
    "ray": "simulate/ray_engine.py",
    "typer": "cli/",
    "torch": ("learn/torch_trainer/", "infer/from_torch.py"),
    "jax": "learn/jax_trainer.py",
    "sklearn": ("learn/sklearn_trainer.py", "infer/from_sklearn.py"),
    "onnx": "infer/from_onnx.py",
    "httpx": "participant/",
    "starlette": "coordinator/",
    "granian": "coordinator/serve.py",
    "sqlalchemy": "coordinator/store_sql.py",
    "dp_accounting": "privacy/account/library.py",
    "pandas": "simulate/table.py",
    "matplotlib": "simulate/plot.py",
}
"""Package from outside -> where it may be imported: one module, or (with a slash at the end) one folder of ours. Of
rich, the command line's and simulation's bars are two faces of one thing; torch and scikit-learn are
for trainers, and for models that are imported to be encrypted."""

MAX_LINES = 400
HEAVY = (
    "torch",
    "jax",
    "sklearn",
    "pandas",
    "matplotlib",
    "httpx",
    "starlette",
    "granian",
    "sqlalchemy",
    "typer",
    "rich",
)


def modules(package: Path) -> Iterator[Path]:
    """List the modules of a source tree, as paths relative to it."""
    return (path.relative_to(package) for path in sorted(package.rglob("*.py")))


def imports(package: Path, module: Path) -> Iterator[tuple[int, str]]:
    """Yield (line, absolute dotted name) of everything that a module imports, wherever in the module it does so."""
    parents = (ROOT, *module.parts[:-1])
    for node in ast.walk(ast.parse((package / module).read_text(encoding="utf-8"))):
        match node:
            case ast.Import(names=names):
                yield from ((node.lineno, alias.name) for alias in names)
            case ast.ImportFrom(module=source, names=names, level=level):
                base = [*parents[: len(parents) - level + 1]] if level else []
                prefix = ".".join([*base, *([source] if source else [])])
                # `from ridotto import rounds` imports a part of us, not ridotto itself: keep the name.
                yield from ((node.lineno, f"{prefix}.{alias.name}") for alias in names)
            case ast.Call(
                func=ast.Attribute(attr="import_module") | ast.Name(id="import_module" | "__import__"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                yield node.lineno, name


def part(module: Path) -> str:
    """Name the part of ridotto that a module belongs to: its folder, or itself when it lies at the top."""
    first = module.parts[0].removesuffix(".py")
    return ROOT if first == "__init__" else first


def imported_part(name: str) -> str:
    """Name the part of ridotto that an imported name belongs to."""
    second = name.split(".")[1] if "." in name else ROOT
    return second if second in LAYERS else ROOT


def layer_problems(package: Path) -> list[str]:
    """Find imports that go upwards or to a stranger, and parts that have no layer."""
    problems = []
    for module in modules(package):
        here = part(module)
        if here not in LAYERS:
            problems.append(f"{module}: {here} has no layer; add it to LAYERS and to the design")
            continue
        for line, name in imports(package, module):
            if name.split(".")[0] != ROOT:
                continue
            there = imported_part(name)
            up = LAYERS[there] > LAYERS[here]
            stranger = there != here and LAYERS[there] == LAYERS[here] and LAYERS[here] in STRANGERS
            if up or stranger:
                problems.append(f"{module}:{line}: {here} (layer {LAYERS[here]}) imports {there} ({LAYERS[there]})")
    return problems


def home_problems(package: Path) -> list[str]:
    """Find packages from outside that are imported away from their home, or have none."""
    problems = []
    for module in modules(package):
        for line, name in imports(package, module):
            outside = name.split(".")[0]
            if outside == ROOT or outside in EVERYWHERE or outside in sys.stdlib_module_names:
                continue
            home = HOMES.get(outside)
            if home is None:
                problems.append(f"{module}:{line}: {outside} has no home; is it a dependency? then add it to HOMES")
                continue
            homes = (home,) if isinstance(home, str) else home
            if not any(_at_home(module, place) for place in homes):
                problems.append(f"{module}:{line}: {outside} may be imported in {' and '.join(homes)} only")
    return problems


def _at_home(module: Path, home: str) -> bool:
    return module.as_posix() == home or (home.endswith("/") and module.as_posix().startswith(home))


def length_problems(*folders: Path) -> list[str]:
    """Find files that are too long to be one idea."""
    found = ((path, len(path.read_text(encoding="utf-8").splitlines())) for f in folders for path in f.rglob("*.py"))
    return [f"{path}: {lines} lines, at most {MAX_LINES}" for path, lines in sorted(found) if lines > MAX_LINES]


def loaded_after(statement: str, names: tuple[str, ...]) -> list[str]:
    """Run a statement in a fresh interpreter and list which of the named packages it has loaded."""
    code = f"import sys; {statement}; print(*[name for name in {names!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    return done.stdout.split()


def write(package: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = package / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return package


def test_imports_go_downwards():
    assert layer_problems(PACKAGE) == []


def test_every_package_from_outside_is_imported_at_home_only():
    assert home_problems(PACKAGE) == []


def test_no_file_is_too_long():
    assert length_problems(PACKAGE, REPOSITORY / "tests") == []


def test_import_ridotto_loads_nothing_heavy():
    assert loaded_after("import ridotto", HEAVY) == []


def test_the_checks_see_the_tree():
    assert Path("errors.py") in set(modules(PACKAGE))
    assert "ridotto.errors.RidottoError" in {name for _, name in imports(PACKAGE, Path("__init__.py"))}


def test_finds_imports_that_go_upwards_however_they_are_written(tmp_path):
    package = write(
        tmp_path,
        {
            "errors.py": "from ridotto.core import wire\n",
            "core/wire.py": "def f():\n    import ridotto.crypto.seal\n",
            "crypto/seal.py": "from .. import rounds\n",
            "secagg/pairwise.py": "from ..rounds.plan import Plan\n",
            "rounds/plan.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from ridotto import simulate\n",
            "simulate/engine.py": "from ridotto import __version__\n",
            "web/dashboard.py": "import importlib\ncli = importlib.import_module('ridotto.cli')\n",
        },
    )
    assert layer_problems(package) == [
        "core/wire.py:2: core (layer 2) imports crypto (3)",
        "crypto/seal.py:1: crypto (layer 3) imports rounds (5)",
        "errors.py:1: errors (layer 1) imports core (2)",
        "rounds/plan.py:3: rounds (layer 5) imports simulate (6)",
        "secagg/pairwise.py:1: secagg (layer 4) imports rounds (5)",
        "simulate/engine.py:1: simulate (layer 6) imports ridotto (8)",
        "web/dashboard.py:2: web (layer 7) imports cli (8)",
    ]


def test_finds_strangers_that_import_each_other(tmp_path):
    package = write(
        tmp_path,
        {
            "learn/trainer.py": "import ridotto.privacy.clip\n",
            "coordinator/app.py": "from ridotto.participant import client\n",
            "coordinator/driver.py": "from ridotto.coordinator import app\nfrom . import auth\nfrom .auth import Key\n",
        },
    )
    assert layer_problems(package) == [
        "coordinator/app.py:1: coordinator (layer 6) imports participant (6)",
        "learn/trainer.py:1: learn (layer 4) imports privacy (4)",
    ]


def test_finds_a_part_without_a_layer(tmp_path):
    package = write(tmp_path, {"utils/misc.py": ""})
    assert layer_problems(package) == ["utils/misc.py: utils has no layer; add it to LAYERS and to the design"]


def test_finds_packages_from_outside_away_from_home(tmp_path):
    package = write(
        tmp_path,
        {
            "core/vector.py": "import numpy as np\nimport json\ndef f():\n    import torch.nn\n",
            "crypto/seal.py": "from cryptography.hazmat.primitives import hashes\n",
            "learn/torch_trainer/model.py": "import torch\n",
            "rounds/plan.py": "from cryptography.hazmat.primitives import hashes\n",
            "simulate/engine.py": "import requests\n",
        },
    )
    assert home_problems(package) == [
        "core/vector.py:4: torch may be imported in learn/torch_trainer/ and infer/from_torch.py only",
        "rounds/plan.py:1: cryptography may be imported in crypto/ only",
        "simulate/engine.py:1: requests has no home; is it a dependency? then add it to HOMES",
    ]


def test_finds_files_that_are_too_long(tmp_path):
    write(tmp_path, {"short.py": "x = 1\n" * 400, "long.py": "x = 1\n" * 401})
    assert length_problems(tmp_path) == [f"{tmp_path / 'long.py'}: 401 lines, at most 400"]


def test_finds_what_a_statement_loads():
    assert loaded_after("import colorsys", ("sched", "colorsys")) == ["colorsys"]
