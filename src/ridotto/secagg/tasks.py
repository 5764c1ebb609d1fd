"""What a coordinator's machine asks its driver to do with large vectors, and what comes back.

The machines decide; `rounds.vault` carries out. See docs/decisions/0001-foundation.md.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ridotto.core.wire import Bytes32, Count, Message
from ridotto.crypto.prg import Mask

COUNT_LIMIT = 2**48
"""A count lane above this is as wrong as any other wrong one, and reported as this."""


@dataclass(frozen=True, slots=True)
class Fold:
    """Add the attachment of the message just received to the sum of session `sid`, and forget it.

    digest: of the contribution, as it stands in the session's set.
    """

    sid: bytes
    sender: str
    digest: bytes


@dataclass(frozen=True, slots=True)
class Open:
    """Add these masks to the sum of session `sid` (their signs remove what is left in it) and read its lanes.

    Answered with `Opened`. A sum is opened once.
    """

    sid: bytes
    masks: tuple[Mask, ...] = field(repr=False)


class Opened(Message, frozen=True):
    """Report the check lanes of an opened sum.

    count: must equal the number of contributions. zero: whether all zero lanes are.
    """

    sid: Bytes32
    count: Count
    zero: bool
