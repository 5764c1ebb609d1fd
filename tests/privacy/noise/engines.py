"""Run a piece of code in NumPy alone, and with compiled loops."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import Any

import pytest

from ridotto.privacy.noise.loops import LOOPS, load_kernels


def compiled() -> ModuleType:
    """Take compiled loops and return them; skip the test where there is no numba."""
    pytest.importorskip("numba", reason="compiled loops come with the extra speed")
    assert load_kernels()
    return import_module("ridotto.privacy.noise.kernels")


def both(task: Callable[[], Any]) -> tuple[Any, Any]:
    """Return what a task gives in NumPy, and with compiled loops."""
    compiled()
    with LOOPS.held():
        plain = task()
    return plain, task()
