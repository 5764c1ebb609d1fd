"""Choose between the compiled loops and NumPy, which give the same bits."""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType

from ridotto.errors import MissingExtraError

PAYS_ELEMENTS = 512
"""So many ring elements take NumPy as long as loading the compiled loops does, about half a second."""


class Loops:
    """Load the compiled loops once they pay, or when told to; never where numba is missing."""

    def __init__(self) -> None:
        self._kernels: ModuleType | None = None
        self._tried = False
        self._seen = 0

    def load(self) -> bool:
        """Load them now, and tell whether there are any."""
        # Planes are little-endian, and the compiled loops take native words only.
        if not self._tried and sys.byteorder == "little":
            self._tried = True
            try:
                self._kernels = import_module("ridotto.crypto.lattice.kernels")
            except MissingExtraError:
                self._kernels = None
        return self._kernels is not None

    def for_elements(self, count: int) -> ModuleType | None:
        """Return the compiled loops for work on `count` ring elements, or None if NumPy shall do it."""
        self._seen += count
        if self._seen > PAYS_ELEMENTS:
            self.load()
        return self._kernels


LOOPS = Loops()
"""Of this process."""


class PlainLoops(Loops):
    """Stay with NumPy: for devices and tests that want the reference."""

    def load(self) -> bool:
        """Load nothing."""
        return False
