"""Opened sums go up a tree: those of sessions into totals, and totals into one of the whole round.

    sum of session 0 --+
    sum of session 1 --+-- total ----+
    sum of session 2 --+             +-- total of the round -> the next model
    sum of session 3 ----- total ----+

Elements are integers mod 2^w, w the width of their container, which a plan's 2^b divides. So every order and every tree
give the same bits, and a session that failed is missing with its own contributions and nothing else. A total needs no
book beside it: its count lane adds up like every other element and says how many contributions are in it.

A sum goes up once its session's machine has found its check lanes right, never before: what is in a total can't be told
apart any more.
"""

from __future__ import annotations

from collections.abc import Iterable

from ridotto.core.fixedpoint import IntVector
from ridotto.errors import LocalProtocolError

TOTAL = b"total"
"""The name of a round's total among the sums of its sessions. No sid is it: those have 32 bytes."""


def merge(total: IntVector, part: IntVector) -> None:
    """Add an opened sum, or a total of several, to a total in place.

    Raises LocalProtocolError if they differ in length or dtype; nothing has changed then.
    """
    if (total.shape, total.dtype) != (part.shape, part.dtype):
        # NumPy would stretch a shorter one and narrow a wider one without a word.
        raise LocalProtocolError(
            f"{part.dtype} of shape {part.shape} is no part of a total, {total.dtype} of shape {total.shape}"
        )
    total += part


def add_up(parts: Iterable[IntVector]) -> IntVector:
    """Return the total of some sums or totals, in memory of its own.

    Raises LocalProtocolError as `merge`, and if there are none.
    """
    rest = iter(parts)
    first = next(rest, None)
    if first is None:
        raise LocalProtocolError("there are no sums to add up")
    total = first.copy()
    for part in rest:
        merge(total, part)
    return total
