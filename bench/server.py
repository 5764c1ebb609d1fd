"""The two processes that uploads go to, each with its address on standard output: see ingest.py.

python -m bench.server coordinator FOLDER PLAN.json LENGTH
python -m bench.server raw
"""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import msgspec
import numpy as np

from bench.federation import identity, names_of
from ridotto.coordinator.folder import CoordinatorFolder
from ridotto.coordinator.serve import ServerSettings, serve
from ridotto.coordinator.settings import FederationSettings
from ridotto.core.vector import Field, Layout
from ridotto.rounds.plan import Plan

PRESENCE_S = 600.0


def coordinator(folder: Path, plan: Plan, length: int) -> None:
    """Run a real coordinator that admits the whole cohort and begins once all of it has asked."""
    allowed = {name: identity(name).public.hex() for name in names_of(plan.cohort)}
    settings = FederationSettings(name="bench", plan=plan, rounds=1, presence_s=PRESENCE_S, allowed=allowed)
    layout = Layout((Field("w", (length,), "float32"),))
    with CoordinatorFolder(folder) as opened:
        federation = opened.federation(settings, layout, np.zeros(length, np.float32))
        serve(federation, ServerSettings(port=0), ready=lambda url: print(url, flush=True))


def raw() -> None:
    """Copy what comes over loopback into one buffer, connection by connection: the floor."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        print(f"http://127.0.0.1:{server.getsockname()[1]}", flush=True)
        while True:
            connection, _ = server.accept()
            with connection:
                _swallow(connection)


def _swallow(connection: socket.socket) -> None:
    buffer = bytearray(4 << 20)
    while size := int.from_bytes(connection.recv(8, socket.MSG_WAITALL), "big"):
        view = memoryview(buffer)[:size]
        while view:
            view = view[connection.recv_into(view) :]
        connection.sendall(b"\x01")


if __name__ == "__main__":
    if sys.argv[1] == "raw":
        raw()
    else:
        coordinator(Path(sys.argv[2]), msgspec.json.decode(sys.argv[3], type=Plan), int(sys.argv[4]))
