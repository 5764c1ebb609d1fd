"""The demo's processes: each writes JSON lines, which end up in one queue, and a log file."""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from ridotto.config import child_environment
from ridotto.errors import RidottoError

GRACE_S = 3.0
"""For a process to end after it was asked to."""

LOG_LINES = 3
"""Of a process that ended unexpectedly, shown in the sentence about it."""


@dataclass(frozen=True)
class Told:
    """A child, or the coordinator's event stream, says something. event: kind of the news."""

    name: str
    event: str
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class Ended:
    """A child's process has ended. code: its exit code, negative for a signal."""

    name: str
    code: int


News = Told | Ended


@dataclass
class Children:
    """Start processes and hear what they say; whatever happens, none is left when the `with` block ends.

    folder: for the log files, one a process.
    """

    folder: Path
    news: queue.Queue[News] = field(default_factory=queue.Queue)
    _processes: dict[str, subprocess.Popen[str]] = field(default_factory=dict)
    _killed: set[str] = field(default_factory=set)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop(*self._processes)
        for thread in self._threads:
            thread.join(GRACE_S)

    def start(self, name: str, arguments: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        """Start `ridotto` with these arguments as a process of its own; what it says is news under `name`."""
        log = self.log(name).open("w", encoding="utf-8")
        with log:
            # A session of its own: Ctrl-C in the terminal reaches the demo only, which then ends its children in order.
            process = subprocess.Popen(
                [sys.executable, "-m", "ridotto", *arguments, "--json"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                encoding="utf-8",
                env={**child_environment(), **(environment or {})},
                start_new_session=True,
            )
        self._processes[name] = process
        if process.stdout is not None:
            self.listen(self._hear, name, process, process.stdout)

    def listen(self, target: Any, *arguments: Any) -> None:
        """Run a function that puts news into the queue, beside everything else."""
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def tell(self, name: str, event: str, facts: Mapping[str, Any]) -> None:
        """Put news into the queue."""
        self.news.put(Told(name, event, facts))

    def kill(self, name: str) -> None:
        """End a process at once, as a power cut would (SIGKILL)."""
        self._killed.add(name)
        self._processes[name].kill()

    def check(self, ended: Ended) -> None:
        """Raise RidottoError, with the last lines of its log, if a process ended that was not meant to."""
        if ended.code == 0 or ended.name in self._killed:
            return
        log = self.log(ended.name)
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        said = " | ".join(lines[-LOG_LINES:]) or "it said nothing"
        how = f"was killed by signal {-ended.code}" if ended.code < 0 else f"ended with code {ended.code}"
        raise RidottoError(f"{ended.name} {how}, and nobody asked it to; its last words, in {log}: {said}")

    def stop(self, *names: str) -> None:
        """Ask processes to end, and end those that do not."""
        self._killed.update(names)
        running = [self._processes[name] for name in names if self._processes[name].poll() is None]
        for process in running:
            process.terminate()
        for process in running:
            try:
                process.wait(GRACE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def log(self, name: str) -> Path:
        """Return where a process writes what it says to people."""
        return self.folder / f"{name}.log"

    def _hear(self, name: str, process: subprocess.Popen[str], output: IO[str]) -> None:
        with output:
            for line in output:
                try:
                    facts = json.loads(line)
                    self.tell(name, facts.pop("event"), facts)
                except (ValueError, KeyError, AttributeError):
                    continue  # not one of our lines: a program's own print
        self.news.put(Ended(name, process.wait()))
