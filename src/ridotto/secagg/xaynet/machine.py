"""The coordinator's half of PET, as a machine: Sum, Update, Sum2 and Unmask, round after round.

    Idle     a fresh key pair and the next seed; both are in the round's parameters
    Sum      summers send ephemeral keys; then everyone may ask for them (`sums`)
    Update   updaters send masked models, which are added at once, and seeds sealed for every summer
    Sum2     each summer asks for its seeds (`seeds_for`), and sends the sum of the masks that they give
    Unmask   the mask that most of them sent is taken off the sum: the weighted mean

    Publish(RoundBegun | PhaseBegun | RoundDone | RoundFailed)     Wake(at)     Finish() after the last round

A round that fails is followed by a new one, with new keys and another seed.

Where it is stricter than the original (none of it shows to an honest client): a mask needs more than half of those
that were sent, not only more than the second; masks that disagree are reported with who sent them; a sum that no
models can have is refused; ephemeral keys of low order are refused; see also `wire`, `chunks` and `sortition`.

Source: xaynet 0.11, `xaynet-server/src/state_machine`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from ridotto.core.machine import Effect, Finish, Publish, Wake
from ridotto.core.rng import Rng
from ridotto.crypto.seal import SealError
from ridotto.crypto.sodium import SIGNATURE_BYTES, BoxKey, seal
from ridotto.errors import LocalProtocolError, PeerProtocolError, RoundFailedError
from ridotto.secagg.xaynet.bincode import RoundParameters
from ridotto.secagg.xaynet.chunks import SIGNATURES_BYTES, Chunks
from ridotto.secagg.xaynet.derive import MaskObject
from ridotto.secagg.xaynet.encode import Mean, XaynetFailure, unmask
from ridotto.secagg.xaynet.settings import PhaseLimits, XaynetSettings
from ridotto.secagg.xaynet.sortition import check_summer, check_updater, next_seed
from ridotto.secagg.xaynet.wire import (
    UNKNOWN,
    Opened,
    Payload,
    Sum,
    Sum2,
    Tag,
    Update,
    box_bytes,
    open_message,
    parse_chunk,
    parse_payload,
    payload_bytes,
)

FIRST_SEED = bytes(32)


class Phase(StrEnum):
    """Name what the coordinator waits for."""

    IDLE = "idle"
    SUM = "sum"
    UPDATE = "update"
    SUM2 = "sum2"


_TAGS = {Phase.SUM: Tag.SUM, Phase.UPDATE: Tag.UPDATE, Phase.SUM2: Tag.SUM2}


@dataclass(frozen=True, slots=True)
class RoundBegun:
    """Tell that a round has begun, and with what."""

    number: int
    parameters: RoundParameters


@dataclass(frozen=True, slots=True)
class PhaseBegun:
    """Tell that the coordinator now waits for other messages."""

    number: int
    phase: Phase


@dataclass(frozen=True, slots=True)
class RoundDone:
    """Bring the weighted mean of a round. Names are public keys in hex.

    dissenters: summers whose mask was another one than the one that was used.
    """

    number: int
    mean: Mean
    updaters: tuple[str, ...]
    summers: tuple[str, ...]
    dissenters: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RoundFailed:
    """Tell that a round ended without a model. The error's code is a `XaynetFailure`; it blames dissenters."""

    number: int
    error: RoundFailedError


@dataclass
class _Masks:
    """Hold one of the masks that summers sent, and who sent it."""

    mask: MaskObject
    senders: list[str]


class XaynetCoordinator:
    """Run rounds. Messages come as sealed boxes, whose senders are known once they are opened.

    rng: for key pairs, so secret. rounds: successful ones, after which it finishes; None goes on for ever. seed: of the
    round before the first; another one makes the rounds of two coordinators differ from the start.
    """

    def __init__(
        self, settings: XaynetSettings, rng: Rng, *, rounds: int | None = None, seed: bytes = FIRST_SEED
    ) -> None:
        self.settings = settings
        self.phase = Phase.IDLE
        self.number = 0
        self._rng = rng
        self._left = rounds
        self._chunks = Chunks(settings.unfinished_bytes)
        self._begun_at = 0.0
        self._key = BoxKey.generate(rng)
        self._parameters = RoundParameters(
            self._key.public, settings.sum_chance, settings.update_chance, seed, settings.configs, settings.length
        )
        self._forget()

    @property
    def parameters(self) -> RoundParameters:
        """Return the parameters of the current round, or of the last one."""
        return self._parameters

    @property
    def sums(self) -> Mapping[bytes, bytes] | None:
        """Return the summers' ephemeral keys by their signing keys, or None outside of Update and Sum2."""
        return MappingProxyType(self._sums) if self.phase in (Phase.UPDATE, Phase.SUM2) else None

    def seeds_for(self, summer: bytes) -> Mapping[bytes, bytes] | None:
        """Return the sealed seeds for a summer, by updaters' signing keys; None outside of Sum2 or for others."""
        if self.phase is not Phase.SUM2 or summer not in self._sums:
            return None
        return {updater: seeds[summer] for updater, seeds in self._seeds.items()}

    @property
    def box_limit(self) -> int:
        """Return how long the longest box is that is taken now, bytes; 0 if none is."""
        return box_bytes(self._payload_bytes()) if self.phase in _TAGS else 0

    def start(self, now: float) -> list[Effect]:
        """Begin the first round."""
        if self.number:
            raise LocalProtocolError("the coordinator was started before")
        return self._begin_round(now)

    def receive(self, box: bytes, now: float) -> list[Effect]:
        """Take one sealed box.

        Raises PeerProtocolError if it is refused; the state is then as before, except that a payload whose last piece
        has come is forgotten.
        """
        if len(box) > self.box_limit:
            raise PeerProtocolError(
                UNKNOWN, f"its message has {len(box)} bytes, at most {self.box_limit} are taken now"
            )
        message = open_message(box, self._key)
        self._check_header(message)
        whole = self._collect(message) if message.is_chunk else message.payload
        if whole is None:
            return []
        if len(whole) >= SIGNATURES_BYTES[message.tag]:
            self._check_task(message, whole)
        settings = self.settings
        payload = parse_payload(message.peer, message.tag, whole, settings.configs, settings.length, len(self._sums))
        self._accept(message, payload, whole)
        self._accepted += 1
        return self._advance(now)

    def expire(self, now: float) -> list[Effect]:
        """Notice that time has passed: end the phase if it has enough, or the round if it will not get it."""
        if self.phase is Phase.IDLE:
            return []
        effects = self._advance(now)
        limits = self._limits()
        if effects or now < self._begun_at + limits.max_s:
            return effects
        return self._fail(
            RoundFailedError(
                XaynetFailure.TOO_FEW,
                f"phase {self.phase} has {self._accepted} messages after {limits.max_s:g} s, {limits.least} are needed",
            ),
            now,
        )

    def _check_header(self, message: Opened) -> None:
        if message.coordinator != self._key.public:
            raise PeerProtocolError(message.peer, "its message is for another coordinator or round")
        if message.tag is not _TAGS[self.phase]:
            raise PeerProtocolError(message.peer, f"it sent {message.tag.name.lower()} in phase {self.phase}")

    def _check_task(self, message: Opened, payload: memoryview) -> None:
        """Check the proof of the sender's task, which is the first thing in every payload."""
        sum_signature = bytes(payload[:SIGNATURE_BYTES])
        if message.tag is Tag.UPDATE:
            update_signature = bytes(payload[SIGNATURE_BYTES : 2 * SIGNATURE_BYTES])
            check_updater(message.participant, sum_signature, update_signature, self._parameters)
        else:
            check_summer(message.participant, sum_signature, self._parameters)
        self._check_new(message)

    def _check_new(self, message: Opened) -> None:
        """Refuse a participant's second message in a phase, and masks of somebody who sent no ephemeral key."""
        sender = message.participant
        if message.tag is Tag.SUM2 and sender not in self._sums:
            raise PeerProtocolError(message.peer, "it was no summer in the first phase")
        known: Mapping[Tag, Collection[bytes]]
        known = {Tag.SUM: self._sums, Tag.UPDATE: self._seeds, Tag.SUM2: self._voted}
        if sender in known[message.tag]:
            raise PeerProtocolError(message.peer, f"it sent its {message.tag.name.lower()} message twice")

    def _collect(self, message: Opened) -> memoryview | None:
        chunk = parse_chunk(message)
        if chunk.index == 0 and len(chunk.data) >= SIGNATURES_BYTES[message.tag]:
            self._check_task(message, chunk.data)
        return self._chunks.take(message.peer, message.tag, chunk, self._payload_bytes())

    def _accept(self, message: Opened, payload: Payload, whole: memoryview) -> None:
        match payload:
            case Sum(_, ephemeral):
                _check_ephemeral(message.peer, ephemeral, self._rng)
                self._sums[message.participant] = ephemeral
            case Update(_, _, masked, seeds):
                if seeds.keys() != self._sums.keys():
                    raise PeerProtocolError(
                        message.peer, "its seeds are not sealed for exactly the summers of the round"
                    )
                self._total.add(masked)
                self._seeds[message.participant] = seeds
            case Sum2(_, mask):
                digest = hashlib.sha256(whole[SIGNATURE_BYTES:]).digest()
                self._masks.setdefault(digest, _Masks(mask, [])).senders.append(message.peer)
                self._voted.add(message.participant)

    def _limits(self) -> PhaseLimits:
        settings = self.settings
        return {Phase.SUM: settings.sum, Phase.UPDATE: settings.update, Phase.SUM2: settings.sum2}[self.phase]

    def _payload_bytes(self) -> int:
        settings = self.settings
        return payload_bytes(_TAGS[self.phase], settings.configs, settings.length, len(self._sums))

    def _advance(self, now: float) -> list[Effect]:
        """End the phase if it has all it can get, or enough and its time has come."""
        limits = self._limits()
        most = min(limits.most, len(self._sums)) if self.phase is Phase.SUM2 else limits.most
        enough = self._accepted >= limits.least and now >= self._begun_at + limits.min_s
        if self._accepted < most and not enough:
            return []
        match self.phase:
            case Phase.SUM:
                return self._begin_phase(Phase.UPDATE, now)
            case Phase.UPDATE:
                return self._begin_phase(Phase.SUM2, now)
            case _:
                return self._end_round(now)

    def _begin_round(self, now: float) -> list[Effect]:
        self._forget()
        self.phase = Phase.IDLE
        if self._left == 0:
            return [Finish()]
        self.number += 1
        self._key = BoxKey.generate(self._rng)
        old = self._parameters
        seed = next_seed(old.seed, self._key.to_bytes(), old.sum, old.update)
        self._parameters = RoundParameters(self._key.public, old.sum, old.update, seed, old.configs, old.length)
        return [Publish(RoundBegun(self.number, self._parameters)), *self._begin_phase(Phase.SUM, now)]

    def _begin_phase(self, phase: Phase, now: float) -> list[Effect]:
        self.phase = phase
        self._begun_at = now
        self._accepted = 0
        self._chunks.clear()
        limits = self._limits()
        return [Publish(PhaseBegun(self.number, phase)), Wake(now + limits.min_s), Wake(now + limits.max_s)]

    def _end_round(self, now: float) -> list[Effect]:
        best = max(self._masks.values(), key=lambda masks: len(masks.senders))
        dissenters = tuple(
            sorted(name for masks in self._masks.values() if masks is not best for name in masks.senders)
        )
        if len(best.senders) <= len(dissenters):
            everyone = tuple(sorted((*dissenters, *best.senders)))
            reason = (
                f"{len(everyone)} summers sent {len(self._masks)} different masks, none more than half of them the same"
            )
            return self._fail(RoundFailedError(XaynetFailure.AMBIGUOUS_MASKS, reason, everyone), now)
        try:
            mean = unmask(self._total, best.mask, len(self._seeds))
        except RoundFailedError as error:
            return self._fail(error, now)
        updaters = tuple(sorted(key.hex() for key in self._seeds))
        done = RoundDone(self.number, mean, updaters, tuple(sorted(best.senders)), dissenters)
        self._left = None if self._left is None else self._left - 1
        return [Publish(done), *self._begin_round(now)]

    def _fail(self, error: RoundFailedError, now: float) -> list[Effect]:
        return [Publish(RoundFailed(self.number, error)), *self._begin_round(now)]

    def _forget(self) -> None:
        """Drop everything of a round."""
        settings = self.settings
        self._accepted = 0
        self._sums: dict[bytes, bytes] = {}
        self._seeds: dict[bytes, Mapping[bytes, bytes]] = {}
        self._total = MaskObject.zero(settings.configs, settings.length)
        self._masks: dict[bytes, _Masks] = {}
        self._voted: set[bytes] = set()
        self._chunks.clear()


def _check_ephemeral(peer: str, ephemeral: bytes, rng: Rng) -> None:
    try:
        seal(b"", ephemeral, rng)
    except SealError as error:
        raise PeerProtocolError(peer, "nothing can be sealed for its ephemeral key") from error
