"""Run one measurement in a process of its own and say what it took, from outside."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

SAMPLE_S = 0.1


@dataclass(frozen=True)
class Outcome:
    """What a process printed, and what it took as a whole: seconds on the wall, CPU seconds, MB at the peak."""

    printed: Mapping[str, Any]
    wall: float
    cpu: float
    peak: float


class NotMeasuredError(Exception):
    """Say why a process gave no numbers."""


def run(*arguments: str, memory: bool = False) -> Outcome:
    """Run `python -m arguments...`, which prints one JSON object last.

    memory: whether to watch the memory of the whole process tree, which disturbs times a little. Otherwise the peak is
    that of its largest process. Raises NotMeasuredError with the last lines of its errors.
    """
    started = perf_counter()
    process = subprocess.Popen([sys.executable, "-m", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, err = process.stdout, process.stderr
    assert out is not None
    assert err is not None
    watch = Watch(process.pid) if memory else None
    errors: list[bytes] = []
    reader = threading.Thread(target=lambda: errors.append(err.read()))
    reader.start()
    text = out.read()
    _, status, usage = os.wait4(process.pid, 0)
    wall = perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    reader.join()
    if process.returncode:
        last = errors[0].decode(errors="replace").strip().splitlines()[-3:]
        raise NotMeasuredError(f"exit {process.returncode}: " + " | ".join(line.strip() for line in last))
    peak = watch.stop() if watch else usage.ru_maxrss / 1e3
    return Outcome(json.loads(text.splitlines()[-1]), wall, usage.ru_utime + usage.ru_stime, peak)


def cpu_seconds() -> float:
    """Return what this process and its finished children have used, in user and system mode."""
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


class Watch:
    """Sample the memory of a process and its descendants; what they share counts once (Linux's PSS)."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._peak = 0.0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample)
        self._thread.start()

    def stop(self) -> float:
        """Return the highest sum seen, MB."""
        self._ended.set()
        self._thread.join()
        return self._peak

    def _sample(self) -> None:
        while not self._ended.wait(SAMPLE_S):
            self._peak = max(self._peak, sum(map(proportional_mb, tree(self._pid))))


def tree(pid: int) -> Iterator[int]:
    """Yield a process and its descendants."""
    yield pid
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found = children.read_text().split()
        except OSError:
            continue
        for child in found:
            yield from tree(int(child))


def proportional_mb(pid: int) -> float:
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:")) / 1e3


class Measured:
    """The outcomes of several processes, each repeated, all in turn: medians, so that they can be compared."""

    def __init__(self, commands: Mapping[str, tuple[str, ...]], repeats: int, memory: bool = False) -> None:
        self.outcomes: dict[str, list[Outcome]] = {name: [] for name in commands}
        self.missing: dict[str, str] = {}
        for _ in range(repeats):
            for name, command in commands.items():
                if name not in self.missing:
                    self._measure(name, command, memory)

    def _measure(self, name: str, command: tuple[str, ...], memory: bool) -> None:
        try:
            self.outcomes[name].append(run(*command, memory=memory))
        except NotMeasuredError as error:
            self.missing[name] = str(error)

    def has(self, *names: str) -> bool:
        return not any(name in self.missing for name in names)

    def printed(self, name: str, key: str) -> float:
        return float(median(outcome.printed[key] for outcome in self.outcomes[name]))

    def first(self, name: str) -> Outcome:
        return self.outcomes[name][0]

    def wall(self, name: str) -> float:
        return median(outcome.wall for outcome in self.outcomes[name])

    def peak(self, name: str) -> float:
        return max(outcome.peak for outcome in self.outcomes[name])
