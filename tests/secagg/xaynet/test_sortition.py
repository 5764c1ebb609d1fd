"""Who is chosen: known hashes, exact limits, and the order of the two tasks."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import replace

import pytest

from ridotto.core.rng import insecure_seeded_rng
from ridotto.crypto.sodium import SigningKey
from ridotto.errors import PeerProtocolError
from ridotto.secagg.xaynet.bincode import RoundParameters
from ridotto.secagg.xaynet.config import MaskConfigPair
from ridotto.secagg.xaynet.sortition import Role, check_summer, check_updater, is_eligible, next_seed, task_of

ELIGIBLE = bytes.fromhex(
    "ac1d55db762c6b20dbfd19f2352d6f3e66821808dec72278a6a3dfe56432fcf4"
    "fa58c4978830 27c6a6561d970d5145c62894867e07ca0138ae2b591cf2c20400"
)
INELIGIBLE = bytes.fromhex(
    "7702c5ae34a5e516dad2f0bcdce89581d30d3dd9ba4f660f6ded53c10c75d242"
    "63e61e833f6c1cde305c99479fdc73b5b79b92b6cd598cea6428c7f81793ac00"
)
"""The two signatures of xaynet's own test, with 0.35045 and 0.63260."""

PARAMETERS = RoundParameters(b"k" * 32, 0.5, 0.5, b"s" * 32, MaskConfigPair(), 4)


def share(signature: bytes) -> float:
    return int.from_bytes(hashlib.sha256(signature).digest(), "little") / (2**256 - 1)


def test_known_signatures() -> None:
    assert (round(share(ELIGIBLE), 5), round(share(INELIGIBLE), 5)) == (0.35045, 0.6326)
    assert is_eligible(ELIGIBLE, 0.5)
    assert not is_eligible(INELIGIBLE, 0.5)
    for signature in (ELIGIBLE, INELIGIBLE):
        assert [is_eligible(signature, chance) for chance in (-0.1, 0.0, 1.0, 1.1)] == [False, False, True, True]
        # 2^-50 is far more than the error of a float64, and far less than what a test would miss.
        assert not is_eligible(signature, share(signature) - 2**-50)
        assert is_eligible(signature, share(signature) + 2**-50)


def test_summers_are_chosen_first() -> None:
    rng = insecure_seeded_rng(1)
    roles = []
    for _ in range(60):
        key = SigningKey.generate(rng)
        task = task_of(key, PARAMETERS)
        sums, updates = share(task.sum_signature) <= 0.5, share(task.update_signature) <= 0.5
        assert task.role is (Role.SUM if sums else Role.UPDATE if updates else Role.NONE)
        assert task.sum_signature == key.sign(PARAMETERS.seed + b"sum")
        assert task.update_signature == key.sign(PARAMETERS.seed + b"update")
        roles.append(task.role)
    assert set(roles) == set(Role)


def test_proofs_are_checked() -> None:
    """Those of the machine's tests are not repeated: here, what makes a good proof bad."""
    key = SigningKey(b"k" * 32)
    everyone = replace(PARAMETERS, sum=1.0)
    nobody = replace(PARAMETERS, sum=0.0, update=1.0)
    task = task_of(key, everyone)
    check_summer(key.public, task.sum_signature, everyone)
    check_updater(key.public, task.sum_signature, task.update_signature, nobody)
    later = replace(everyone, seed=b"t" * 32)
    for call in (
        lambda: check_summer(key.public, task.sum_signature, later),
        lambda: check_summer(key.public, task.update_signature, everyone),
        lambda: check_summer(key.public, task.sum_signature, nobody),
        lambda: check_updater(key.public, task.sum_signature, task.update_signature, everyone),
        lambda: check_updater(key.public, task.sum_signature, task.update_signature, replace(nobody, update=0.0)),
        lambda: check_updater(key.public, task.sum_signature, task.update_signature, replace(nobody, seed=later.seed)),
    ):
        with pytest.raises(PeerProtocolError) as caught:
            call()
        assert caught.value.peer == key.public.hex()


def test_the_next_seed() -> None:
    signature = SigningKey(b"p" * 32).sign(bytes(32) + struct.pack("<dd", 0.5, 0.9))
    assert next_seed(bytes(32), b"p" * 32, 0.5, 0.9) == hashlib.sha256(signature).digest()
