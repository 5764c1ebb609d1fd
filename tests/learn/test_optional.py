"""What happens when a library is absent, and that none is imported before it is needed."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

from ridotto.errors import MissingExtraError


@pytest.mark.parametrize(
    ("module", "package", "extra"),
    [("torch_trainer", "torch", "torch"), ("jax_trainer", "jax", "jax"), ("sklearn_trainer", "sklearn", "sklearn")],
)
def test_an_absent_library_is_named_with_the_way_to_get_it(
    module: str, package: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # None in sys.modules makes an import fail as if the package were not there.
    monkeypatch.setitem(sys.modules, package, None)
    for name in [name for name in sys.modules if name.startswith(f"{package}.")]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, f"ridotto.learn.{module}", raising=False)
    with pytest.raises(MissingExtraError, match=rf"pip install 'ridotto\[{extra}\]'"):
        importlib.import_module(f"ridotto.learn.{module}")


def test_adapting_a_tree_imports_no_library() -> None:
    program = (
        "import sys, numpy as np\n"
        "from ridotto.learn.adapt import adapt\n"
        "import ridotto.learn.strategy, ridotto.learn.numpy_trainer\n"
        "adapt({'weight': np.zeros(2)}).write(np.ones(2, np.float32))\n"
        "print([name for name in ('torch', 'jax', 'sklearn') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
