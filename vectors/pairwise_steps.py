"""The steps of `pairwise`, one by one, from given secrets: agreement, sharing, masking, signing, opening."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ridotto.core.fixedpoint import IntVector, container
from ridotto.core.packing import pack
from ridotto.crypto.prg import Mask, add_masks, stream_key
from ridotto.crypto.seal import ExchangeKey, open_sealed
from ridotto.crypto.shamir import SHARE_BYTES, share
from ridotto.secagg.binding import (
    BOX_LABEL,
    CONSISTENCY_CONTEXT,
    KEYS_CONTEXT,
    MASK_LABEL,
    Secret,
    box_context,
    commit_seed,
    commit_share,
    keys_statement,
    pair_info,
    survivors_statement,
)
from ridotto.secagg.pairwise.group import Group
from ridotto.secagg.session import Session, session_id
from vectors.opened import reduced
from vectors.recording import Recording


@dataclass(frozen=True)
class Secrets:
    """Hold what a participant draws for a session: private keys for boxes and masks, and the seed of its self-mask."""

    exchange: ExchangeKey
    mask: ExchangeKey
    seed: bytes = field(repr=False)

    def shown(self) -> dict[str, str]:
        """Return them as they stand in the file."""
        return {"exchange": self.exchange.to_bytes().hex(), "mask": self.mask.to_bytes().hex(), "seed": self.seed.hex()}


class GivenBytes:
    """Hand out bytes that were chosen before, in their order: an `Rng` whose draws stand in the file."""

    def __init__(self, given: bytes) -> None:
        self._left = given

    def bytes(self, length: int) -> bytes:
        """Return the next `length` bytes."""
        drawn, self._left = self._left[:length], self._left[length:]
        if len(drawn) < length:
            raise RuntimeError("fewer bytes were given than are drawn")
        return drawn


def derivations(
    session: Session,
    group: Group,
    secrets: Mapping[str, Secrets],
    vector: IntVector,
    recording: Recording,
    masks: Sequence[Mask],
) -> dict[str, object]:
    """Return the steps of p0 towards its first neighbour, its whole mask, and what is taken off the sum.

    vector: of p0, before it is masked. masks: of the coordinator's opening.
    """
    sid, mine, peer = session_id(session), secrets["p0"], group.neighbours(0)[0]
    survivors = next(envelope.message for envelope, _ in recording.sent if hasattr(envelope.message, "included"))
    statement = survivors_statement(sid, group.book, survivors.included)
    return {
        "keys": signed(KEYS_CONTEXT, keys_statement(sid, 0, mine.exchange.public, mine.mask.public)),
        "pair": pair(sid, group, mine, peer, recording),
        "shamir": shamir(),
        "masked": masked(session, group, secrets, vector, recording),
        "consistency": signed(CONSISTENCY_CONTEXT, statement),
        "opening": [{"sign": mask.sign, "seed": mask.seed.hex()} for mask in masks],
    }


def signed(context: str, statement: bytes) -> dict[str, object]:
    """Return what a signature is over, before the domain is put in front of it."""
    return {"context": context, "statement": statement.hex()}


def pair(sid: bytes, group: Group, mine: Secrets, peer: int, recording: Recording) -> dict[str, object]:
    """Return what p0 and a neighbour agree on, and the box that p0 seals for it."""
    entry, info = group.keys[peer], pair_info(0, peer)
    boxes = mine.exchange.agree(entry.exchange, sid, BOX_LABEL, info)
    sent: Any = recording.sent[recording.find("SealedShares", sender="p0")][0].message
    place = group.holders[0].index(peer)
    opened = open_sealed(boxes[:16], sent.boxes[group.neighbours(0).index(peer)], box_context(sid, group.book, 0, peer))
    shares = opened[:SHARE_BYTES], opened[SHARE_BYTES:]
    return {
        "peer": peer,
        "info": info.hex(),
        "boxes": boxes.hex(),
        "box_key": boxes[:16].hex(),
        "box_key_of_the_other_direction": boxes[16:].hex(),
        "mask_seed": mine.mask.agree(entry.mask, sid, MASK_LABEL, info).hex(),
        "associated": box_context(sid, group.book, 0, peer).hex(),
        "seed_share": shares[0].hex(),
        "mask_share": shares[1].hex(),
        "box": sent.boxes[group.neighbours(0).index(peer)].hex(),
        "place_in_commitments": place,
        "commitment_to_seed_share": commit_share(sid, 0, peer, Secret.SEED, shares[0]).hex(),
        "commitment_to_mask_share": commit_share(sid, 0, peer, Secret.MASK_KEY, shares[1]).hex(),
        "commitment_to_seed": commit_seed(sid, 0, mine.seed).hex(),
    }


def shamir() -> dict[str, object]:
    """Share a secret with coefficients that are given: word 9 (k - 1) + i is that of x^k for limb i."""
    secret, threshold, points = bytes(range(200, 232)), 3, (1, 2, 5, 2**31 - 2)
    drawn = np.arange(1, 2 * 9 + 1, dtype="<u4") * np.uint32(0x9E3779B1)
    # The third word is the prime itself once its highest bit is taken off: it is drawn again, at the end.
    drawn[2] = 0xFFFFFFFF
    given = drawn.tobytes() + (12345).to_bytes(4, "little")
    return {
        "secret": secret.hex(),
        "threshold": threshold,
        "points": list(points),
        "drawn": given.hex(),
        "shares": [one.hex() for one in share(secret, threshold, points, GivenBytes(given))],
    }


def masked(
    session: Session, group: Group, secrets: Mapping[str, Secrets], vector: IntVector, recording: Recording
) -> dict[str, object]:
    """Return every mask of p0, and its vector with all of them."""
    sid, mine = session_id(session), secrets["p0"]
    delivery: Any = recording.sent[recording.find("Delivery", to="p0")][0].message
    masks = [("self", Mask(mine.seed, 1))]
    for box in delivery.boxes:
        seed = mine.mask.agree(group.keys[box.owner].mask, sid, MASK_LABEL, pair_info(0, box.owner))
        masks.append((f"p{box.owner}", Mask(seed, 1)))
    total = vector.copy()
    add_masks(total, [mask for _, mask in masks], sid)
    return {
        "vector": vector.tolist(),
        "word_bits": container(session.bits).itemsize * 8,
        "masks": [
            {
                "with": name,
                "sign": mask.sign,
                "seed": mask.seed.hex(),
                "key": stream_key(mask.seed, sid, "mask").hex(),
                "elements": _elements(mask, sid, vector),
            }
            for name, mask in masks
        ],
        "sum": total.tolist(),
        "reduced": reduced(total, session.bits).tolist(),
        "packed": bytes(pack(reduced(total, session.bits), session.bits)).hex(),
    }


def _elements(mask: Mask, sid: bytes, like: IntVector) -> list[int]:
    zeros = np.zeros_like(like)
    add_masks(zeros, [Mask(mask.seed, 1)], sid)
    found: list[int] = zeros.tolist()
    return found
