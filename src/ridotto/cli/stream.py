"""Read what a coordinator publishes with the standard library only: its events and its models."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

from ridotto.errors import UnreachableError
from ridotto.rounds.service import EVENTS_PATH

SILENCE_S = 60.0
"""A stream that says nothing for so long, not even a heartbeat, is broken."""

# A coordinator on this machine is never reached through a proxy.
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def events(url: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (kind, content) of a coordinator's server-sent events until the stream ends.

    Raises UnreachableError if it can't be reached.
    """
    kind, data = "", ""
    with _open(url + EVENTS_PATH) as stream:
        for raw in stream:
            line = raw.decode().rstrip("\r\n")
            name, _, value = line.partition(":")
            if name == "event":
                kind = value.strip()
            elif name == "data":
                data += value.strip()
            elif not line and data:
                yield kind, json.loads(data)
                kind, data = "", ""


def fetch(url: str) -> bytes:
    """Return what lies at an address. Raises UnreachableError if it can't be reached."""
    with _open(url) as answer:
        body: bytes = answer.read()
    return body


def _open(url: str) -> Any:
    try:
        return _opener.open(url, timeout=SILENCE_S)
    except OSError as error:
        raise UnreachableError(f"{url} can't be reached: {getattr(error, 'reason', None) or error}") from error
