"""The inner loops of encrypted inference: compiled by numba where it is installed, in NumPy elsewhere, same bits.

`active()` returns the module to call. Loading numba takes some tenths of a second, so nothing here happens at import.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from ridotto.errors import MissingExtraError
from ridotto.infer.kernels import tagged
from ridotto.infer.kernels.plain import Side

_chosen: list[ModuleType] = []


def active() -> ModuleType:
    """Return `compiled`, or `plain` where numba is not installed. Both have the same functions."""
    if not _chosen:
        _chosen.append(_load())
    return _chosen[-1]


def loops(side: Side) -> ModuleType:
    """Return the module for this side of a protocol: `active()`, or `tagged` for tags."""
    if isinstance(side, bool):
        return active()
    return tagged


@contextmanager
def without_numba() -> Iterator[None]:
    """Use the NumPy loops inside this block: for tests, and to measure what numba buys."""
    from ridotto.infer.kernels import plain

    active()
    _chosen.append(plain)
    try:
        yield
    finally:
        _chosen.pop()


def _load() -> ModuleType:
    try:
        from ridotto.infer.kernels import compiled
    except MissingExtraError:
        from ridotto.infer.kernels import plain

        return plain
    return compiled
