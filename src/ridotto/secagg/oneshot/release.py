"""The coordinator's last step of `oneshot`: put the sum of the keys together, and find the releases that don't fit."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ridotto.crypto.lattice.kahe import largest_key_sum
from ridotto.crypto.lattice.packed_shamir import recover_key
from ridotto.crypto.shamir import ShareError
from ridotto.errors import RoundFailedError
from ridotto.secagg.oneshot.setup import OneshotFailure, OneshotSetup


def recover(setup: OneshotSetup, shares: Mapping[int, bytes], contributions: int) -> tuple[bytes, tuple[int, ...]]:
    """Return the sum of the keys (`tasks.OpenCiphers`), and the seats whose releases do not fit.

    shares: released, by seat. contributions: how many keys are in the sum. A seat whose release does not fit was sent
    a wrong share by a participant, or lies: the two look the same from here.
    Raises RoundFailedError(COMMITTEE_SHORT) if there are too few or too many of them do not fit.
    """
    sharing = setup.sharing
    if len(shares) < sharing.needed:
        reason = f"{len(shares)} members released, {sharing.needed} are needed"
        raise RoundFailedError(OneshotFailure.COMMITTEE_SHORT, reason)
    try:
        key, wrong = recover_key({seat + 1: share for seat, share in shares.items()}, sharing)
    except ShareError as error:
        most = sharing.correctable(len(shares))
        reason = f"of {len(shares)} releases more than {most} are wrong, or a participant shared no key: {error}"
        raise RoundFailedError(OneshotFailure.COMMITTEE_SHORT, reason) from error
    # A sum of honest keys is small; nothing else is worth trying.
    if np.abs(key).max() > largest_key_sum(contributions):
        reason = "the releases share a key that no contributions have together"
        raise RoundFailedError(OneshotFailure.NOISE_ANOMALY, reason)
    return key.astype("<i4").tobytes(), tuple(point - 1 for point in wrong)
