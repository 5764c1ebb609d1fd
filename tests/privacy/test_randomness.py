"""No privacy path draws from a generator that was not made for it: NumPy's, Python's, or a framework's.

Read from the syntax tree: all packages through which noise, masks and keys go, and every other module that imports from
`ridotto.privacy`. A module among them may shuffle data with NumPy only if it is listed here, with the reason.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "src" / "ridotto"

GENERATORS = {"numpy.random", "random", "torch.random", "jax.random", "scipy.stats"}
NAMES = {"default_rng", "numpy_generator", "RandomState", "Generator", "PCG64", "manual_seed", "insecure_seeded_rng"}
"""Of `insecure_seeded_rng` too: it is for simulations, which hand their words in."""

PACKAGES = {"privacy", "crypto", "secagg", "rounds", "participant", "coordinator"}

EXCUSED: dict[str, str] = {}
"""Module on such a path -> why a generator there touches no noise, no mask and no key."""


def dotted(node: ast.AST) -> str:
    """Return `a.b.c` of an attribute chain, and nothing of anything else."""
    if isinstance(node, ast.Attribute):
        before = dotted(node.value)
        return f"{before}.{node.attr}" if before else ""
    return node.id if isinstance(node, ast.Name) else ""


def imported(tree: ast.AST) -> Iterator[tuple[int, str, str]]:
    """Yield (line, full name, local name) of everything a module imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name, alias.asname or alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            source = node.module or ""
            yield from ((node.lineno, f"{source}.{alias.name}", alias.asname or alias.name) for alias in node.names)


def generators(source: str) -> list[tuple[int, str]]:
    """List (line, name) of every generator that a module names, imports or reaches through an alias."""
    tree = ast.parse(source)
    aliases = {local: full for _, full, local in imported(tree)}
    found = {
        (line, full)
        for line, full, _ in imported(tree)
        if full.split(".")[-1] in NAMES or any(full == name or full.startswith(name + ".") for name in GENERATORS)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            head, _, rest = dotted(node).partition(".")
            full = f"{aliases.get(head, head)}.{rest}"
            if node.attr in NAMES or any(full == name or full.startswith(name + ".") for name in GENERATORS):
                found.add((node.lineno, full))
        elif isinstance(node, ast.Name) and node.id in NAMES:
            found.add((node.lineno, node.id))
    return sorted(found)


def on_a_privacy_path(module: Path) -> bool:
    """Tell whether a module is in one of the packages, or imports from `ridotto.privacy`."""
    if module.relative_to(PACKAGE).parts[0] in PACKAGES:
        return True
    tree = ast.parse(module.read_text(encoding="utf-8"))
    return any(f"{full}.".startswith("ridotto.privacy.") for _, full, _ in imported(tree))


def test_no_privacy_path_draws_from_a_generator():
    problems = [
        f"{module.relative_to(PACKAGE)}:{line}: {name}"
        for module in sorted(PACKAGE.rglob("*.py"))
        if on_a_privacy_path(module) and str(module.relative_to(PACKAGE)) not in EXCUSED
        for line, name in generators(module.read_text(encoding="utf-8"))
    ]
    assert problems == []


def test_the_check_sees_what_it_should():
    seen = {str(module.relative_to(PACKAGE)) for module in PACKAGE.rglob("*.py") if on_a_privacy_path(module)}
    assert {"privacy/clip.py", "privacy/noise/words.py", "privacy/local/privunit.py", "rounds/pipeline.py"} <= seen
    assert {"crypto/prg.py", "secagg/lanes.py", "rounds/memory.py", "participant/loop.py", "simulate/worker.py"} <= seen
    assert "simulate/partition.py" not in seen


def test_finds_generators_however_they_are_written():
    for source in (
        "import random",
        "from random import gauss",
        "import numpy.random as r",
        "from numpy import random",
        "from numpy.random import default_rng",
        "import numpy as np\nx = np.random.normal()",
        "import numpy as np\ndef f():\n    return np.random.Generator(np.random.PCG64(1))",
        "from ridotto.core.rng import numpy_generator",
        "from ridotto.core import rng\nrng.numpy_generator(1)",
        "import torch\ntorch.manual_seed(1)",
    ):
        assert generators(source), source


def test_leaves_words_and_fields_alone():
    source = "from ridotto.core.rng import SecretRng, Rng\nrandom = 3\nwords.random\nx.generator(1)\n'np.random'"
    assert generators(source) == []


def test_no_excuse_outlives_its_reason():
    for name in EXCUSED:
        assert generators((PACKAGE / name).read_text(encoding="utf-8")), name
