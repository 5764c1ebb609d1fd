"""Compile inner loops: the only module that imports numba, which is an extra (`speed`).

Loops stand in modules of their own, beside NumPy twins that give the same bits and need nothing. Loading numba takes
some tenths of a second (and a loop, the first time on a machine, about as much again), so nothing imports those modules
at its top: whoever has work for them imports them, and takes the twins where that raises MissingExtraError.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ridotto.errors import MissingExtraError

try:
    from numba import from_dtype, njit, types
except ModuleNotFoundError as error:
    raise MissingExtraError("numba", "speed") from error

__all__ = ["compiled", "from_dtype", "inlined", "types"]


def compiled(signature: Any, *, nogil: bool = False) -> Callable[[Any], Callable[..., Any]]:
    """Compile for one signature, and keep the machine code for the next process where a folder can be written.

    signature: numba's, as text or as types. nogil: let other threads run meanwhile.
    """

    def compile_now(function: Any) -> Callable[..., Any]:
        try:
            loop: Callable[..., Any] = njit(signature, cache=True, nogil=nogil)(function)
        except RuntimeError:  # numba found no place for its cache
            loop = njit(signature, nogil=nogil)(function)
        return loop

    return compile_now


def inlined(function: Any) -> Any:
    """Make a function a part of the loops that call it."""
    return njit(inline="always")(function)
