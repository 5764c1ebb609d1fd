"""Serve a federation over HTTP or HTTPS until somebody stops it. The only module that imports granian."""

from __future__ import annotations

import asyncio
import errno
import logging
import signal
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.log import LogLevels
from granian.server.embed import Server
from starlette.types import ASGIApp

from ridotto.coordinator.app import make_app
from ridotto.coordinator.federation import Federation
from ridotto.errors import ConfigError

CONNECTION_BUFFER_BYTES = 128 << 10
"""Read ahead per connection. Uploads that wait for room keep this much; more did not make them faster."""

STOP_S = 10.0
"""For answers under way to reach their clients once the server stops."""

STARTUP_S = 30.0
BACKLOG = 2048
"""Connections that wait to be accepted: a whole cohort may come at once."""

THREADS = 2
"""One takes steps, one checks what comes in. More threads would only keep more memory: each gets an arena of its own
from malloc, and the peak with 1,000 participants rose by 40 MB."""

LOGGING = {"incremental": True, "formatters": {}, "handlers": {}, "loggers": {}}
"""granian would set logging up anew and close the handlers of the program that it runs in; this changes levels only."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """Say where to listen, and with which certificates.

    host: address to listen at. port: 0 for any free one. certificate, key: PEM files, both or neither; with them the
    server speaks HTTPS (TLS 1.3) only. client_ca: PEM file with the authorities whose client certificates are asked
    for; connections without one are refused. Participants prove who they are by signatures, with or without TLS.
    Raises ConfigError if a file is missing or only half of a pair is there.
    """

    host: str = "127.0.0.1"
    port: int = 8765
    certificate: Path | None = None
    key: Path | None = None
    client_ca: Path | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ConfigError(f"a port is 0 to 65535, not {self.port}")
        if (self.certificate is None) != (self.key is None):
            raise ConfigError("a certificate and its key belong together: give both or neither")
        if self.client_ca is not None and self.certificate is None:
            raise ConfigError("client_ca needs a certificate and key: client certificates are part of TLS")
        for path in (self.certificate, self.key, self.client_ca):
            if path is not None and not path.is_file():
                raise ConfigError(f"there is no file {path}")


class Service(Protocol):
    """What an app answers for: open before the first request, closed before the last answers go out."""

    async def open(self) -> asyncio.Future[None] | None:
        """Begin; return what ends with an error when it can't go on, or None if nothing ends it but `close`."""

    async def close(self) -> None:
        """Refuse what still waits, and let go of everything."""


def serve(federation: Federation, server: ServerSettings, *, ready: Callable[[str], None] | None = None) -> None:
    """Serve until SIGINT or SIGTERM; what was acknowledged is stored when this returns, and also if it never does.

    ready: called with the URL once connections are accepted.
    Raises ConfigError if the port is taken or the certificates can't be used, and what `Federation.open` raises.
    """

    async def run() -> None:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(THREADS, "ridotto"))
        await serve_app(make_app(federation), federation, server, ready)

    asyncio.run(run())


async def serve_app(
    app: ASGIApp, service: Service, server: ServerSettings, ready: Callable[[str], None] | None = None
) -> None:
    """Serve an app until SIGINT or SIGTERM, or until its service can't go on: that is raised then.

    app: answers for the service, which is opened and closed here. ready: called with the URL once connections are
    accepted.
    Raises ConfigError if the port is taken or the certificates can't be used.
    """
    port = free_port(server.host, server.port)
    stop = asyncio.Event()
    _on_signals(stop)
    http = _http(app, server, port)
    failed = await service.open()
    serving = asyncio.create_task(http.serve())
    stopping = asyncio.create_task(stop.wait())
    ends = [serving, stopping] if failed is None else [serving, stopping, failed]
    try:
        await _listening(server.host, port, serving)
        url = _url(server, port)
        _log.info("listening at %s", url)
        if ready is not None:
            ready(url)
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopping.cancel()
        # First the long polls and event streams are answered, then the server has nothing left to wait for.
        await service.close()
        http.stop()  # type: ignore[no-untyped-call]
        await asyncio.wait({serving}, timeout=STOP_S)
        serving.cancel()
    if failed is not None and failed.done():
        failed.result()


def free_port(host: str, port: int) -> int:
    """Return `port`, or a free one for 0, after making sure that nobody listens there.

    Raises ConfigError if somebody does, or the address is not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # A connection of an earlier server that lingers does no harm; a server that listens does.
        if hasattr(socket, "SO_REUSEPORT"):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise ConfigError(f"can't listen at {host} port {port} ({reason}): {_remedy(error)}") from error
        return int(probe.getsockname()[1])


def _remedy(error: Exception) -> str:
    number = getattr(error, "errno", None)
    if number == errno.EADDRINUSE:
        return "stop what listens there, or choose another port"
    if number in (errno.EACCES, errno.EPERM):
        return "choose a port from 1024 up, or start it with the right to use this one"
    return "the host must be an address of this machine, 127.0.0.1 for itself only or 0.0.0.0 for all networks"


def _http(app: ASGIApp, server: ServerSettings, port: int) -> Server:
    try:
        return Server(
            app,
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


async def _listening(host: str, port: int, serving: asyncio.Task[None]) -> None:
    """Return once connections are accepted. Raises ConfigError if the server ends before."""
    where = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  it is only compared with
    end = asyncio.get_running_loop().time() + STARTUP_S
    while asyncio.get_running_loop().time() < end:
        if serving.done():
            raise ConfigError(f"the server at {host} port {port} could not start: {serving.exception()}")
        try:
            _, writer = await asyncio.open_connection(where, port)
        except OSError:
            await asyncio.sleep(0.01)
            continue
        writer.close()
        return
    raise ConfigError(f"the server at {host} port {port} did not begin to listen within {STARTUP_S:.0f} s")


def _on_signals(stop: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        try:
            loop.add_signal_handler(number, stop.set)
        except NotImplementedError:
            # Windows: the loop can't be told by signals, but a handler can tell the loop.
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(stop.set))
        except ValueError:
            # Not the main thread: whoever runs us there stops us in another way.
            return


def _url(server: ServerSettings, port: int) -> str:
    scheme = "http" if server.certificate is None else "https"
    host = f"[{server.host}]" if ":" in server.host else server.host
    return f"{scheme}://{host}:{port}"
