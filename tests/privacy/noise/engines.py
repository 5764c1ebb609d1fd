"""Run a piece of code in NumPy alone, or with compiled loops, whatever this process has loaded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import Any

import pytest

from ridotto.privacy.noise.loops import LOOPS


@contextmanager
def loops(kernels: ModuleType | None) -> Iterator[None]:
    """Take these loops and no others; None for NumPy."""
    before = LOOPS._kernels, LOOPS._tried
    LOOPS._kernels, LOOPS._tried = kernels, True
    try:
        yield
    finally:
        LOOPS._kernels, LOOPS._tried = before


def compiled() -> ModuleType:
    """Return the compiled loops; skip the test where there is no numba."""
    pytest.importorskip("numba", reason="compiled loops come with the extra speed")
    return import_module("ridotto.privacy.noise.kernels")


def both(task: Callable[[], Any]) -> tuple[Any, Any]:
    """Return what a task gives in NumPy, and with compiled loops."""
    with loops(None):
        plain = task()
    with loops(compiled()):
        return plain, task()
