"""Whether rounding and tables run as compiled loops or in NumPy. The bits are the same, so nobody has to know.

Loading compiled loops takes half a second, and some seconds the first time on a machine. So they are loaded after as
many entries as that time is worth, or at once by whoever knows that many will come, with `load_kernels`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType

from ridotto.errors import MissingExtraError

PAY_ENTRIES = 1 << 27
"""Entries rounded or looked up before loading pays: NumPy has then taken about half a second, two thirds of it more
than compiled loops would have."""


class Loops:
    """Remember how many entries were worked on, and the compiled loops once they are loaded."""

    def __init__(self) -> None:
        self._entries = 0
        self._held = False
        self._tried = False
        self._kernels: ModuleType | None = None

    def load(self) -> bool:
        """Load the compiled loops if they are not yet; tell whether there are any."""
        # Words are little-endian, and compiled loops read them as they lie in memory.
        if not self._tried and sys.byteorder == "little":
            self._tried = True
            try:
                self._kernels = import_module("ridotto.privacy.noise.kernels")
            except MissingExtraError:
                return False
        return self._kernels is not None

    def kernels(self, entries: int) -> ModuleType | None:
        """Return the compiled loops, for work on `entries` entries; None where they do not pay or there are none."""
        if self._held:
            return None
        if self._kernels is None and not self._tried:
            self._entries += entries
            if self._entries > PAY_ENTRIES:
                self.load()
        return self._kernels

    @contextmanager
    def held(self) -> Iterator[None]:
        """Use NumPy, and count nothing, until this ends."""
        before, self._held = self._held, True
        try:
            yield
        finally:
            self._held = before


LOOPS = Loops()
"""Of this process. Two threads that load at once get the same module."""


def load_kernels() -> bool:
    """Take compiled loops from now on, in this process; tell whether there are any: they come with the extra `speed`.

    For whoever is going to draw noise for a long time, or measures. Without it they are loaded when that pays.
    """
    return LOOPS.load()
