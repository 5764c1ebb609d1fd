"""Serve xaynet's clients on a port until somebody stops it, as `serve` does for our own participants."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ridotto.coordinator.serve import ServerSettings, serve_app
from ridotto.coordinator.xaynet import OnFailure, OnRound, XaynetService, make_xaynet_app
from ridotto.secagg.xaynet.settings import XaynetSettings

LINGER_S = 0.25
"""Between granian's end and that of the interpreter. Without a pause about one stop in six was seen to end by SIGABRT,
on a busy machine and after clients had been killed. Why is not known for certain: perhaps because a thread of granian's
still let go of a connection while the interpreter ended."""


def serve_xaynet(
    settings: XaynetSettings,
    server: ServerSettings,
    *,
    initial: NDArray[np.float32] | None = None,
    on_round: OnRound | None = None,
    on_failure: OnFailure | None = None,
    rounds: int | None = None,
    ready: Callable[[str], None] | None = None,
) -> None:
    """Serve rounds until SIGINT or SIGTERM, or until a hook raises.

    initial, on_round, on_failure, rounds: see `XaynetService`; after the last round the model is still served. ready:
    called with the URL once connections are accepted.
    Raises ConfigError if the port is taken or the certificates can't be used, DataError if `initial` does not fit, and
    what a hook raises.
    """

    async def run() -> None:
        service = XaynetService(settings, initial=initial, on_round=on_round, on_failure=on_failure, rounds=rounds)
        try:
            await serve_app(make_xaynet_app(service), service, server, ready)
        finally:
            await asyncio.sleep(LINGER_S)

    asyncio.run(run())
