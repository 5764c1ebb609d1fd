"""Parties and dealer as three processes on this machine, with TLS between them: what a deployment does, in small."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import msgspec

from ridotto.core.rng import Rng
from ridotto.crypto.certificates import make_certificate
from ridotto.errors import ConfigError, UnreachableError
from ridotto.infer.host import Place, Settings
from ridotto.infer.in_process import CLIENT, DEALER, PARTIES
from ridotto.infer.party import Limits
from ridotto.infer.remote import TIMEOUT_S, TlsLink
from ridotto.infer.tls import Identity
from ridotto.infer.world import World

END_S = 5.0
"""How long a process has to end before it is killed."""


class ProcessLink(TlsLink):
    """A TLS link that ends the three processes when it is closed."""

    def __init__(self, limits: Limits, timeout_s: float) -> None:
        self.children: dict[str, subprocess.Popen[bytes]] = {}
        self._stack = ExitStack()
        try:
            folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="ridotto-infer-")))
            places = self._start(folder, limits)
            identity = Identity(CLIENT, folder / f"{CLIENT}.pem", folder / f"{CLIENT}.key")
            zero, one = (places[name].contact(name) for name in PARTIES)
            super().__init__(identity, (zero, one), places[DEALER].contact(DEALER), timeout_s)
        except BaseException:
            self._stack.close()
            raise

    def close(self) -> None:
        """Close the connections, and end the processes."""
        super().close()
        self._stack.close()

    def _check(self, name: str) -> None:
        """Raise UnreachableError if the process of this party has ended."""
        code = self.children[name].poll()
        if code is not None:
            raise UnreachableError(f"{name} could not be started: its process ended with {code}")

    def _start(self, folder: Path, limits: Limits) -> dict[str, Place]:
        served = (*PARTIES, DEALER)
        for name in (*served, CLIENT):
            make_certificate(name, folder)
        listeners = {name: self._stack.enter_context(socket.create_server(("127.0.0.1", 0))) for name in served}
        places = {
            name: Place(str(folder / f"{name}.pem"), port=listeners[name].getsockname()[1] if name in listeners else 0)
            for name in (*served, CLIENT)
        }
        for name, listener in listeners.items():
            key = str(folder / f"{name}.key")
            settings = Settings(
                name, key, PARTIES, DEALER, (CLIENT,), places, listener.fileno(), limits, per_client=limits.sessions
            )
            file = folder / f"{name}.json"
            file.write_bytes(msgspec.json.encode(settings))
            command = [sys.executable, "-m", "ridotto.infer.host", str(file)]
            self.children[name] = subprocess.Popen(command, pass_fds=[listener.fileno()], env=_environment())
            self._stack.callback(_end, self.children[name])
        return places


def processes(*, limits: Limits | None = None, timeout_s: float = TIMEOUT_S, rng: Rng | None = None) -> World:
    """Return a world whose parties and dealer are processes of this machine, ended with the world.

    Raises ConfigError where the operating system can't hand sockets to children (Windows).
    """
    if os.name != "posix":
        raise ConfigError("processes need POSIX; use infer.local(), or infer.connect() to running services")
    return World(ProcessLink(limits or Limits(), timeout_s), rng)


def _environment() -> dict[str, str]:
    """Return the environment with one thread for each numeric library: each party is one thread."""
    return os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}


def _end(child: subprocess.Popen[bytes]) -> None:
    child.terminate()
    try:
        child.wait(END_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
