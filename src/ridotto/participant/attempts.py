"""Attempts only ever go on: whoever took part in one never takes part in it again, nor in one before it.

Otherwise a coordinator could announce a session a second time, and have its committee agree on a second set. The number
of an attempt is in the session, which everything binds; the last one is in the state file.
"""

from __future__ import annotations

from ridotto.core.machine import COORDINATOR
from ridotto.errors import PeerProtocolError
from ridotto.rounds.messages import Announce


def require_later(attempt: int, last: int) -> None:
    """Return if an inbox is of a later attempt than the last one. Raises PeerProtocolError if it went back."""
    if attempt < last:
        raise PeerProtocolError(COORDINATOR, f"it went back to attempt {attempt}, and {last} has been before")


def require_attempt(announce: Announce, attempt: int) -> None:
    """Return if a session is of the attempt that it was announced in. Raises PeerProtocolError if not."""
    found = announce.session.attempt
    if found != attempt:
        raise PeerProtocolError(COORDINATOR, f"it announced a session of attempt {found} in attempt {attempt}")
