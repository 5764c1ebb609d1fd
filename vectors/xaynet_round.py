"""One round of PET: a coordinator, two summers, three updaters, one of whom sends its message in pieces."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache

from ridotto.core.machine import Publish
from ridotto.core.rng import SecretRng
from ridotto.crypto.sodium import BoxKey, SigningKey
from ridotto.secagg.xaynet.bincode import encode_keys, encode_parameters
from ridotto.secagg.xaynet.client import XaynetParticipant
from ridotto.secagg.xaynet.machine import RoundDone, XaynetCoordinator
from ridotto.secagg.xaynet.settings import PhaseLimits, XaynetSettings
from ridotto.secagg.xaynet.sortition import Role
from vectors.common import rng_of

SETTINGS = XaynetSettings(
    length=4,
    sum_chance=0.4,
    update_chance=0.8,
    sum=PhaseLimits(least=2, most=2, min_s=0, max_s=10),
    update=PhaseLimits(least=3, most=3, min_s=5, max_s=10),
    sum2=PhaseLimits(least=1, most=2, min_s=5, max_s=10),
)
MODELS = ((0.5, -0.25, 1.0, -1.0), (0.1, 0.2, 0.3, 2.0), (-1e-9, 1e-11, 0.7, -0.7))
SCALARS = (Fraction(1), Fraction(1, 2), Fraction(3, 10))
PIECES_BYTES = 400
"""The longest body that the last updater may send."""


class NotedRng:
    """Draw from a stream, and note what was drawn: all the secrets of a participant, in order."""

    def __init__(self, stream: SecretRng) -> None:
        self.drawn: list[bytes] = []
        self._stream = stream

    def bytes(self, length: int) -> bytes:
        """Return the next `length` bytes."""
        self.drawn.append(self._stream.bytes(length))
        return self.drawn[-1]


@dataclass
class Player:
    """Hold a participant and the secrets that it was made from. key: the seed of its signing key."""

    key: bytes
    rng: NotedRng
    one: XaynetParticipant
    role: Role = Role.NONE


@dataclass
class Round:
    """Hold what was said in the round: boxes with their senders, and the bodies that the coordinator served."""

    boxes: list[tuple[str, bytes]] = field(default_factory=list)
    summers: list[Player] = field(default_factory=list)
    updaters: list[Player] = field(default_factory=list)
    idle: list[Player] = field(default_factory=list)
    bodies: dict[str, bytes] = field(default_factory=dict)
    done: RoundDone | None = None


def coordinator(after: int = 0) -> XaynetCoordinator:
    """Return the coordinator in the round, after so many of its boxes."""
    machine = XaynetCoordinator(SETTINGS, rng_of("xaynet coordinator"), rounds=1)
    machine.start(0.0)
    for _, box in record().boxes[:after] if after else ():
        machine.receive(box, 0.0)
    return machine


def coordinator_key() -> BoxKey:
    """Return the coordinator's key of the round: the second that it draws."""
    rng = rng_of("xaynet coordinator")
    rng.bytes(32)
    return BoxKey.generate(rng)


def player(number: int) -> Player:
    """Return participant `number`, with its role in the round; numbers from 100 on cut their messages."""
    secrets = NotedRng(rng_of(f"xaynet {number}"))
    seed = secrets.bytes(32)
    secrets.drawn.clear()
    one = XaynetParticipant(SigningKey(seed), secrets, most_bytes=PIECES_BYTES if number >= 100 else 0)
    return Player(seed, secrets, one, one.begin(coordinator().parameters))


def cast(found: Round) -> None:
    """Find two summers, three updaters and one who does nothing, by trying keys."""
    for first, summers, updaters in ((0, 2, 2), (100, 2, 3)):
        number = first
        while len(found.summers) < summers or len(found.updaters) < updaters:
            one = player(number)
            number += 1
            if one.role is Role.SUM and len(found.summers) < summers:
                found.summers.append(one)
            if one.role is Role.UPDATE and len(found.updaters) < updaters:
                found.updaters.append(one)
    numbers = (player(number) for number in range(200, 300))
    found.idle.append(next(one for one in numbers if one.role is Role.NONE))


@cache
def record() -> Round:
    """Play the round."""
    found, machine = Round(), coordinator()
    cast(found)
    found.bodies["GET /params"] = encode_parameters(machine.parameters)

    def send(one: Player, boxes: list[bytes]) -> None:
        for box in boxes:
            found.boxes.append((one.one.public.hex(), box))
            for effect in machine.receive(box, 0.0):
                if isinstance(effect, Publish) and isinstance(effect.record, RoundDone):
                    found.done = effect.record

    for one in found.summers:
        send(one, one.one.sum_boxes())
    sums = dict(machine.sums or {})
    found.bodies["GET /sums"] = encode_keys(sums)
    for one, model, scalar in zip(found.updaters, MODELS, SCALARS, strict=True):
        send(one, one.one.update_boxes(sums, model, scalar))
    seeds = [dict(machine.seeds_for(one.one.public) or {}) for one in found.summers]
    for one, sealed in zip(found.summers, seeds, strict=True):
        found.bodies[f"GET /seeds?pk={one.one.public.hex()}"] = encode_keys(sealed)
        send(one, one.one.sum2_boxes(sealed))
    if found.done is None:
        raise RuntimeError("the round that is recorded gave no model")
    found.bodies["GET /model"] = found.done.mean.to_body()
    return found
