"""Compiled loops: what is compiled, with and without a place for numba's cache, and without numba."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from ridotto.errors import MissingExtraError


@pytest.mark.parametrize("nogil", [False, True])
def test_compiles_for_one_signature(nogil: bool) -> None:
    pytest.importorskip("numba", reason="compiled loops come with the extra speed")
    from ridotto.core.compile import compiled, inlined

    @inlined
    def twice(value):  # type: ignore[no-untyped-def]
        return value + value

    @compiled("void(int64[::1])", nogil=nogil)
    def double(values):  # type: ignore[no-untyped-def]
        for i in range(values.size):
            values[i] = twice(values[i])

    values = np.array([1, -2, 3])
    double(values)
    assert values.tolist() == [2, -4, 6]
    with pytest.raises(TypeError, match="No matching definition"):
        double(np.ones(3))


def test_does_without_a_folder_for_the_cache() -> None:
    pytest.importorskip("numba", reason="compiled loops come with the extra speed")
    # Where numba finds no place for its cache it raises, at the decorator.
    code = (
        "import numba.core.caching as c; c.CompileResultCacheImpl._locator_classes = [];"
        "from ridotto.core.kernels import add_rounded; print(add_rounded.signatures != [])"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=120)
    assert (done.stdout, done.returncode) == ("True\n", 0), done.stderr


def test_without_numba_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numba", None)
    monkeypatch.delitem(sys.modules, "ridotto.core.compile", raising=False)
    with pytest.raises(MissingExtraError, match=r"ridotto\[speed\]"):
        import ridotto.core.compile  # noqa: F401  importing is what is tested
