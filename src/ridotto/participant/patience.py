"""How long a participant waits for a coordinator that does not answer, and the clock it waits by."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass

from ridotto.errors import UnreachableError

FIRST_DELAY_S = 0.25
"""Before the second try. A coordinator that restarts is usually back after a second or two."""

LONGEST_DELAY_S = 15.0
"""Between two tries, so that a coordinator that comes back is noticed soon."""

HINTS = {
    "WRONG_VERSION_NUMBER": "it does not speak https, so the URL may have to begin with http://",
    "illegal request line": "it may speak https, so the URL may have to begin with https://",
    "CERTIFICATE_REQUIRED": "it asks for a client certificate, so give one that its operator issued, with its key",
    "UNKNOWN_CA": "it does not trust your client certificate, so ask its operator for one",
}
"""What words of OpenSSL and h11 mean to somebody who typed a URL."""

_DICE = secrets.SystemRandom()


@dataclass(frozen=True)
class Clock:
    """Tell the time and let it pass; tests bring their own.

    wall: unix seconds. monotonic: seconds that never go back. sleep: wait for so many seconds.
    """

    wall: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


class Patience:
    """Wait between tries, longer each time, until `patience_s` seconds have passed since the first failure.

    url: of the coordinator, for the error.
    """

    def __init__(self, url: str, patience_s: float, clock: Clock) -> None:
        self._url = url
        self._patience_s = patience_s
        self._clock = clock
        self._tries = 0
        self._began = 0.0
        self._since = 0.0

    def wait(self, why: str) -> None:
        """Wait before the next try, after one that failed because of `why`.

        Raises UnreachableError if patience is at its end.
        """
        now = self._clock.monotonic()
        if not self._tries:
            self._began, self._since = now, self._clock.wall()
        self._tries += 1
        delay_s = min(LONGEST_DELAY_S, FIRST_DELAY_S * 2.0 ** min(self._tries - 1, 16))
        # The jitter keeps a thousand participants from coming back in the same moment.
        delay_s *= _DICE.uniform(0.5, 1.0)
        if now - self._began + delay_s > self._patience_s:
            raise UnreachableError(self._sentence(why))
        self._clock.sleep(delay_s)

    def _sentence(self, why: str) -> str:
        since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(self._since))
        tries = "1 try" if self._tries == 1 else f"{self._tries} tries"
        return (
            f"the coordinator at {self._url} can't be reached since {since} ({tries}; the last one: {why}): "
            f"{_advice(why)}, then start again; an open round goes on from its state file"
        )


def _advice(why: str) -> str:
    """Say what to do about the words in which a connection failed."""
    usual = "check that it runs and that this machine can connect to it"
    return next((hint for words, hint in HINTS.items() if words in why), usual)
