"""Deriving and adding masks of the PET protocol, against the real client of xaynet on the same machine.

The real client (wheel `xaynet-sdk-python`) is made the only summer of a round that a small server plays to it. The one
step of it in which it derives and adds all masks is timed. Where the wheel is absent, the number that was measured
once elsewhere stands in its place, and the line says so.

The server is this module in a process of its own, because the client keeps the interpreter's lock while it works.
`python -m bench.xaynet` prints these lines alone.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from statistics import median
from typing import Any
from unittest.mock import patch

from bench.measure import Bar, Line, Lines, timed
from ridotto.core.rng import OsRng
from ridotto.crypto.sodium import BoxKey, seal
from ridotto.secagg.xaynet import derive
from ridotto.secagg.xaynet.bincode import RoundParameters, encode_keys, encode_parameters
from ridotto.secagg.xaynet.config import MaskConfigPair
from ridotto.secagg.xaynet.derive import MaskObject

STATED_NS = 570.0
"""Per weight and mask of the real client in its default configuration, where it can't be timed here."""

EPHEMERAL_KEY = slice(200, 232)
"""Place of the ephemeral key in a Sum message."""

STEPS = 20


def lines(quick: bool) -> Lines:
    length, masks = (20_000, 20) if quick else (100_000, 40)
    seeds = [os.urandom(32) for _ in range(masks)]
    total = MaskObject.zero(MaskConfigPair(), length)
    ours = partial(derive.add_masks, total, seeds)
    derive.load_kernels()
    ours()
    compiled, plain, floors = [], [], []
    for _ in range(2 if quick else 5):
        found = client_s(length, masks)
        floors += [found] if found is not None else []
        compiled.append(timed(ours)[0])
        with patch.dict(sys.modules, {derive.KERNELS: None}), patch.object(derive, "load_kernels", _none):
            plain.append(timed(ours)[0])
    per = 1e9 / length / masks
    floor = median(floors) * per if floors else STATED_NS
    note = "floor: the real client, " + ("in this run" if floors else "as stated, because its wheel is not installed")
    for how, times, bar in (("compiled", compiled, Bar("ratio", 1 / 20)), ("NumPy alone", plain, None)):
        yield Line(
            what=f"xaynet: derive and add a mask, per weight, d = {length:,}, {how}",
            ours=median(times) * per,
            floor=floor,
            unit="ns",
            bar=bar,
            notes=(note,),
        )


def _none() -> None:
    """Stand in for the compiled loop."""


def client_s(length: int, masks: int) -> float | None:
    """Return the CPU seconds in which the real client derives and adds so many masks, or None if it is not installed.

    It takes one small step at a time: asks for seeds, opens them, derives and adds, writes the message, sends it. The
    longest one is the one that is meant, by a factor of 40 before the next.
    """
    try:
        Participant = import_module("xaynet_sdk.xaynet_sdk").Participant  # noqa: N806
    except ModuleNotFoundError:
        return None
    with _server(length, masks) as url:
        client = Participant(url, 1.0, None)
        return max(timed(client.tick)[0] for _ in range(STEPS))


@contextmanager
def _server(length: int, masks: int) -> Iterator[str]:
    command = [sys.executable, "-m", "bench.xaynet", str(length), str(masks)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.communicate()


class _Round(BaseHTTPRequestHandler):
    """Play one round in which whoever asks is a summer."""

    key: BoxKey
    length: int
    masks: int
    seeds: bytes | None = None

    def do_GET(self) -> None:
        kind = type(self)
        body: bytes | None = None
        if self.path.startswith("/params"):
            parameters = RoundParameters(kind.key.public, 1.0, 1.0, bytes(32), MaskConfigPair(), kind.length)
            body = encode_parameters(parameters)
        elif self.path.startswith("/seeds"):
            body = kind.seeds
        self._answer(body)

    def do_POST(self) -> None:
        kind, rng = type(self), OsRng()
        message = kind.key.open(self.rfile.read(int(self.headers["Content-Length"])))
        if kind.seeds is None:
            boxes = {rng.bytes(32): seal(rng.bytes(32), message[EPHEMERAL_KEY], rng) for _ in range(kind.masks)}
            kind.seeds = encode_keys(boxes)
        self._answer(b"")

    def _answer(self, body: bytes | None) -> None:
        self.send_response(204 if body is None else 200)
        self.send_header("Content-Length", str(len(body or b"")))
        self.end_headers()
        self.wfile.write(body or b"")

    def log_message(self, *_: Any) -> None:
        """Stay silent."""


def _serve() -> None:
    _Round.key = BoxKey.generate(OsRng())
    _Round.length, _Round.masks = int(sys.argv[1]), int(sys.argv[2])
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Round)
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()


def _show() -> None:
    from bench.__main__ import show

    for line in lines(quick=False):
        show(line)


if __name__ == "__main__":
    _serve() if len(sys.argv) > 1 else _show()
