"""What the coordinator's machine asks its driver to do with ciphertexts, besides `Fold` and `Settle`."""

from __future__ import annotations

from dataclasses import dataclass, field

from ridotto.secagg.tasks import Opened


@dataclass(frozen=True, slots=True)
class OpenCiphers:
    """Open the sum of session `sid` with the sum of its keys. Answered with `Decrypted`. A sum is opened once.

    key: 4,096 signed words of 32 bits, little-endian. contributions: how many are in the sum. context: seed of the
    public elements.
    """

    sid: bytes
    key: bytes = field(repr=False)
    contributions: int
    context: bytes


class Decrypted(Opened, frozen=True):
    """Report the check lanes of an opened sum, and whether its noise is that of its contributions."""

    sound: bool
