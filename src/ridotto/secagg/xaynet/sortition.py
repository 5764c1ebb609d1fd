"""Who does what in a round: each participant signs the round's seed and looks at the hash of the signature.

    sum signature    = Sign(seed || "sum"),  update signature = Sign(seed || "update")
    eligible(s, p)   = SHA-256(s), as a little-endian number, / (2^256 - 1) <= p, exactly
    task             = sum if eligible for sum, else update if eligible for update, else none

Weak as a lottery: an Ed25519 key has many valid signatures of one message, keys cost nothing, and nobody can check how
the coordinator chose the seed. It spreads the load; it does not keep anyone from a task.

Source: xaynet 0.11, `crypto/sign.rs`, `services/messages/task_validator.rs`, `phases/idle.rs`.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction

from ridotto.crypto.seal import SignatureError
from ridotto.crypto.sodium import SigningKey, verify_signed
from ridotto.errors import PeerProtocolError
from ridotto.secagg.xaynet.bincode import RoundParameters

_LARGEST_HASH = 2**256 - 1
_SUM, _UPDATE = b"sum", b"update"


class Role(StrEnum):
    """Name what a participant does in a round."""

    SUM = "sum"
    UPDATE = "update"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Task:
    """Hold a participant's role and the signatures that prove it."""

    role: Role
    sum_signature: bytes
    update_signature: bytes


def is_eligible(signature: bytes, chance: float) -> bool:
    """Tell whether the hash of a signature is within a chance, in exact arithmetic."""
    if chance < 0:
        return False
    if chance > 1:
        return True
    number = int.from_bytes(hashlib.sha256(signature).digest(), "little")
    limit = Fraction(chance)
    return number * limit.denominator <= limit.numerator * _LARGEST_HASH


def task_of(key: SigningKey, parameters: RoundParameters) -> Task:
    """Return what the owner of `key` does in a round."""
    sum_signature = key.sign(parameters.seed + _SUM)
    update_signature = key.sign(parameters.seed + _UPDATE)
    role = Role.NONE
    if is_eligible(sum_signature, parameters.sum):
        role = Role.SUM
    elif is_eligible(update_signature, parameters.update):
        role = Role.UPDATE
    return Task(role, sum_signature, update_signature)


def check_summer(participant: bytes, sum_signature: bytes, parameters: RoundParameters) -> None:
    """Return if the signature proves that `participant` (public key) is a summer of this round.

    Raises PeerProtocolError otherwise.
    """
    if not _is_valid(participant, sum_signature, parameters.seed + _SUM):
        raise PeerProtocolError(participant.hex(), "its sum signature is not of this round")
    if not is_eligible(sum_signature, parameters.sum):
        raise PeerProtocolError(participant.hex(), "is not eligible for the sum task")


def check_updater(
    participant: bytes, sum_signature: bytes, update_signature: bytes, parameters: RoundParameters
) -> None:
    """Return if the signatures prove that `participant` is an updater: eligible for update, and not for sum.

    Raises PeerProtocolError otherwise. Stricter than the original, which takes a sum signature that is invalid, or of
    another round, as one that is not eligible: with it, a summer could pass for an updater.
    """
    if not _is_valid(participant, sum_signature, parameters.seed + _SUM):
        raise PeerProtocolError(participant.hex(), "its sum signature is not of this round")
    if is_eligible(sum_signature, parameters.sum):
        raise PeerProtocolError(participant.hex(), "is a summer in this round and sent an update")
    if not _is_valid(participant, update_signature, parameters.seed + _UPDATE):
        raise PeerProtocolError(participant.hex(), "its update signature is not of this round")
    if not is_eligible(update_signature, parameters.update):
        raise PeerProtocolError(participant.hex(), "is not eligible for the update task")


def next_seed(seed: bytes, private: bytes, chance_of_sum: float, chance_of_update: float) -> bytes:
    """Return the seed of the next round, 32 bytes.

    seed: of this round. private: the private key of the next round's coordinator key, which signs as an Ed25519 seed.
    """
    signed = seed + struct.pack("<dd", chance_of_sum, chance_of_update)
    return hashlib.sha256(SigningKey(private).sign(signed)).digest()


def _is_valid(participant: bytes, signature: bytes, message: bytes) -> bool:
    try:
        verify_signed(participant, signature + message)
    except SignatureError:
        return False
    return True
