"""What importing the package costs a fresh process."""

from __future__ import annotations

import subprocess
import sys
from statistics import median

from bench.measure import Bar, Line, Lines

CLOCKED = "import time; t = time.process_time(); import {}; print(time.process_time() - t)"


def import_seconds(module: str) -> float:
    run = subprocess.run([sys.executable, "-c", CLOCKED.format(module)], check=True, capture_output=True, text=True)
    return float(run.stdout)


def lines(quick: bool) -> Lines:
    repeats = 5 if quick else 11
    modules = ("ridotto", "numpy", "ridotto.rounds.round")
    runs = [[import_seconds(module) for module in modules] for _ in range(repeats)]
    package, numpy, everything = (median(run[i] for run in runs) for i in range(3))
    yield Line("start: import ridotto", package, "s", bar=Bar("at most", 0.3))
    yield Line("start: import ridotto.rounds.round (both halves of a round)", everything, "s", floor=numpy)
