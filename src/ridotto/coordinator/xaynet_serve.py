"""Serve xaynet's clients on a port until somebody stops it, with granian, as `serve` does for our own participants."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import numpy as np
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.log import LogLevels
from granian.server.embed import Server
from numpy.typing import NDArray

from ridotto.coordinator.serve import (
    BACKLOG,
    CONNECTION_BUFFER_BYTES,
    LOGGING,
    STOP_S,
    ServerSettings,
    _listening,
    _on_signals,
    _url,
    free_port,
)
from ridotto.coordinator.xaynet import OnFailure, OnRound, XaynetService, make_xaynet_app
from ridotto.errors import ConfigError
from ridotto.secagg.xaynet.settings import XaynetSettings

LINGER_S = 0.25
"""granian's threads end a moment after it does. One that still lets go of a connection while the interpreter ends takes
the whole process down: about one stop in six did, on a busy machine, after clients had been killed."""


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
        await _serve(service, server, ready)

    asyncio.run(run())


async def _serve(service: XaynetService, server: ServerSettings, ready: Callable[[str], None] | None) -> None:
    port = free_port(server.host, server.port)
    stop = asyncio.Event()
    _on_signals(stop)
    http = _server(service, server, port)
    await service.open()
    serving = asyncio.create_task(http.serve())
    stopping = asyncio.create_task(stop.wait())
    ends = {serving, stopping} | ({service.stopped} if service.stopped is not None else set())
    try:
        await _listening(server.host, port, serving)
        if ready is not None:
            ready(_url(server, port))
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopping.cancel()
        await service.close()
        http.stop()  # type: ignore[no-untyped-call]
        await asyncio.wait({serving}, timeout=STOP_S)
        serving.cancel()
        await asyncio.sleep(LINGER_S)
    if service.stopped is not None and service.stopped.done():
        service.stopped.result()


def _server(service: XaynetService, server: ServerSettings, port: int) -> Server:
    try:
        return Server(
            make_xaynet_app(service),
            address=server.host,
            port=port,
            interface=Interfaces.ASGINL,
            http=HTTPModes.http1,
            websockets=False,
            backlog=BACKLOG,
            backpressure=BACKLOG * 4,
            http1_settings=HTTP1Settings(max_buffer_size=CONNECTION_BUFFER_BYTES),
            log_level=LogLevels.error,
            log_dictconfig=LOGGING,
            ssl_cert=server.certificate,
            ssl_key=server.key,
            ssl_ca=server.client_ca,
            ssl_client_verify=server.client_ca is not None,
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise ConfigError(f"the certificate files can't be used: {error}") from error
