"""Messages of participants: layout, signature, sealed box, chunks. Integers big-endian, group elements little-endian.

    box       sealed box (coordinator's key of the round) of a message
    message   signature 64 | participant's key 32 | coordinator's key 32 | length u32 | tag u8 | flags u8 | 0 u16
              | payload; the signature is over all that follows it; bit 0 of the flags: the payload is a chunk
    Sum       sum signature 64 | ephemeral key 32
    Update    sum signature 64 | update signature 64 | object | seeds
    Sum2      sum signature 64 | object
    object    config 4 | count u32 | count elements || config 4 | element
    seeds     length u32, its own 4 bytes included | (summer's key 32 | sealed seed 80) ...
    chunk     index u16 | message's id u16 | flags u8, bit 0: last | 0 24 bits | a piece of a payload

Every length is known before a message comes, so whatever has another one is refused before memory is taken for it.
Stricter than the original: bits and bytes without a meaning must be 0, nothing may follow the end.

Source: xaynet 0.11, `xaynet-core/src/message`.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum

from ridotto.core.rng import Rng
from ridotto.crypto.seal import SealError, SignatureError
from ridotto.crypto.sodium import KEY_BYTES, SEAL_BYTES, SIGNATURE_BYTES, BoxKey, SigningKey, seal, verify_signed
from ridotto.errors import LocalProtocolError, PeerProtocolError
from ridotto.secagg.xaynet.config import CONFIG_BYTES, MaskConfig, MaskConfigPair
from ridotto.secagg.xaynet.derive import MaskObject
from ridotto.secagg.xaynet.elements import from_bytes, to_bytes

_HEADER = struct.Struct(">64s32s32sIBBH")
_COUNT = struct.Struct(">I")
_CHUNK = struct.Struct(">HHB3s")

HEADER_BYTES = _HEADER.size
CHUNK_HEADER_BYTES = _CHUNK.size
SEED_BYTES = 32
SEALED_SEED_BYTES = SEED_BYTES + SEAL_BYTES
SEED_ENTRY_BYTES = KEY_BYTES + SEALED_SEED_BYTES
SUM_BYTES = SIGNATURE_BYTES + KEY_BYTES
MOST_CHUNKS = 1 << 16

UNKNOWN = "unknown"
"""Who sent what does not say, or does not prove, who sent it."""

_MULTIPART = _LAST = 1


class Tag(IntEnum):
    """Name the kind of a message."""

    SUM = 1
    UPDATE = 2
    SUM2 = 3


@dataclass(frozen=True, slots=True)
class Opened:
    """Hold a message that was sealed for the coordinator and signed by `participant` (public key), and not read yet."""

    participant: bytes
    coordinator: bytes
    tag: Tag
    is_chunk: bool
    payload: memoryview = field(repr=False)

    @property
    def peer(self) -> str:
        """Return the participant's name: its key in hex."""
        return self.participant.hex()


@dataclass(frozen=True, slots=True)
class Sum:
    """Take part as a summer: the proof, and the X25519 key that seeds are sealed for."""

    sum_signature: bytes
    ephemeral: bytes


@dataclass(frozen=True, slots=True)
class Update:
    """Bring a masked model, and the seed of its mask, sealed for each summer (by its signing key)."""

    sum_signature: bytes
    update_signature: bytes
    masked: MaskObject
    seeds: Mapping[bytes, bytes] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Sum2:
    """Bring the sum of the masks of all updates."""

    sum_signature: bytes
    mask: MaskObject


@dataclass(frozen=True, slots=True)
class Chunk:
    """Bring a piece of a payload. index: from 0. message_id: the same for all pieces of one."""

    index: int
    message_id: int
    last: bool
    data: memoryview = field(repr=False)


Payload = Sum | Update | Sum2


def object_bytes(configs: MaskConfigPair, length: int) -> int:
    """Return how long a masked model or a mask of `length` weights is."""
    vect = CONFIG_BYTES + _COUNT.size + length * configs.vect.number_bytes
    return vect + CONFIG_BYTES + configs.unit.number_bytes


def payload_bytes(tag: Tag, configs: MaskConfigPair, length: int, summers: int) -> int:
    """Return how long the payload of a message is, which all sides know: a round has one size of each kind."""
    match tag:
        case Tag.SUM:
            return SUM_BYTES
        case Tag.UPDATE:
            seeds = _COUNT.size + summers * SEED_ENTRY_BYTES
            return 2 * SIGNATURE_BYTES + object_bytes(configs, length) + seeds
        case Tag.SUM2:
            return SIGNATURE_BYTES + object_bytes(configs, length)


def box_bytes(payload: int) -> int:
    """Return how long the sealed box of a message with so long a payload is."""
    return SEAL_BYTES + HEADER_BYTES + payload


def open_message(box: bytes, key: BoxKey) -> Opened:
    """Open a sealed box with the coordinator's key of the round, and check the signature of the message in it.

    The caller has checked the length of the box. Raises PeerProtocolError: from `UNKNOWN` where no signature says who
    sent it.
    """
    try:
        message = key.open(box)
    except SealError as error:
        raise PeerProtocolError(UNKNOWN, "its message does not open: it is damaged, or for another round") from error
    if len(message) < HEADER_BYTES:
        raise PeerProtocolError(UNKNOWN, f"a message of {len(message)} bytes is shorter than its header")
    _, participant, coordinator, length, tag, flags, reserved = _HEADER.unpack_from(message)
    if length != len(message):
        raise PeerProtocolError(UNKNOWN, f"its message says that it has {length} bytes, and has {len(message)}")
    try:
        verify_signed(participant, message)
    except SignatureError as error:
        raise PeerProtocolError(UNKNOWN, "the signature of its message is wrong") from error
    peer = participant.hex()
    if tag not in list(Tag) or flags not in (0, _MULTIPART) or reserved:
        raise PeerProtocolError(peer, f"there is no message of kind {tag} with flags {flags}, or its reserve is not 0")
    payload = memoryview(message)[HEADER_BYTES:]
    return Opened(participant, coordinator, Tag(tag), flags == _MULTIPART, payload)


def parse_chunk(message: Opened) -> Chunk:
    """Read the piece of a payload that a message brings. Raises PeerProtocolError if it is malformed or empty."""
    if len(message.payload) <= CHUNK_HEADER_BYTES:
        raise PeerProtocolError(message.peer, "a piece of its message is empty")
    index, message_id, flags, reserved = _CHUNK.unpack_from(message.payload)
    if flags not in (0, _LAST) or any(reserved):
        raise PeerProtocolError(message.peer, "a piece of its message has flags that nobody knows")
    return Chunk(index, message_id, flags == _LAST, message.payload[CHUNK_HEADER_BYTES:])


def parse_payload(
    peer: str, tag: Tag, payload: memoryview, configs: MaskConfigPair, length: int, summers: int
) -> Payload:
    """Read a whole payload. configs, length, summers: of the round.

    Raises PeerProtocolError, naming `peer`, if anything in it does not fit.
    """
    expected = payload_bytes(tag, configs, length, summers)
    if len(payload) != expected:
        raise PeerProtocolError(peer, f"its {tag.name.lower()} message has {len(payload)} bytes, not {expected}")
    sum_signature, rest = bytes(payload[:SIGNATURE_BYTES]), payload[SIGNATURE_BYTES:]
    match tag:
        case Tag.SUM:
            return Sum(sum_signature, bytes(rest))
        case Tag.SUM2:
            return Sum2(sum_signature, _parse_object(peer, rest, configs, length))
        case Tag.UPDATE:
            update_signature, rest = bytes(rest[:SIGNATURE_BYTES]), rest[SIGNATURE_BYTES:]
            end = object_bytes(configs, length)
            masked = _parse_object(peer, rest[:end], configs, length)
            return Update(sum_signature, update_signature, masked, _parse_seeds(peer, rest[end:]))


def write_payload(payload: Payload) -> tuple[Tag, bytes]:
    """Write a payload, and tell the tag of its message."""
    match payload:
        case Sum(sum_signature, ephemeral):
            return Tag.SUM, sum_signature + ephemeral
        case Update(sum_signature, update_signature, masked, seeds):
            entries = b"".join(key + sealed for key, sealed in seeds.items())
            length = _COUNT.pack(_COUNT.size + len(entries))
            return Tag.UPDATE, sum_signature + update_signature + _write_object(masked) + length + entries
        case Sum2(sum_signature, mask):
            return Tag.SUM2, sum_signature + _write_object(mask)


def seal_payload(
    payload: Payload, signer: SigningKey, coordinator: bytes, rng: Rng, most_bytes: int = 0
) -> list[bytes]:
    """Sign and seal a payload: one box, or several where `most_bytes` limits the length of a box (0: it does not).

    Raises LocalProtocolError if so short boxes can't hold it, and SealError if the coordinator's key is of low order.
    """
    tag, data = write_payload(payload)
    if not most_bytes or box_bytes(len(data)) <= most_bytes:
        return [_seal(data, tag, 0, signer, coordinator, rng)]
    step = most_bytes - box_bytes(CHUNK_HEADER_BYTES)
    if step < 1 or -(-len(data) // step) > MOST_CHUNKS:
        raise LocalProtocolError(f"boxes of {most_bytes} bytes can't hold a message of {len(data)} bytes")
    message_id = int.from_bytes(rng.bytes(2), "big")
    boxes = []
    for index, begin in enumerate(range(0, len(data), step)):
        last = _LAST if begin + step >= len(data) else 0
        chunk = _CHUNK.pack(index, message_id, last, bytes(3)) + data[begin : begin + step]
        boxes.append(_seal(chunk, tag, _MULTIPART, signer, coordinator, rng))
    return boxes


def _seal(data: bytes, tag: Tag, flags: int, signer: SigningKey, coordinator: bytes, rng: Rng) -> bytes:
    header = _HEADER.pack(bytes(64), signer.public, coordinator, HEADER_BYTES + len(data), tag, flags, 0)
    signed = header[SIGNATURE_BYTES:] + data
    return seal(signer.sign(signed) + signed, coordinator, rng)


def _write_object(found: MaskObject) -> bytes:
    vect, unit = found.configs.vect, found.configs.unit
    numbers = to_bytes(found.vect, vect.number_bytes)
    count = _COUNT.pack(len(found.vect))
    return vect.to_bytes() + count + numbers + unit.to_bytes() + found.unit.to_bytes(unit.number_bytes, "little")


def _parse_object(peer: str, data: memoryview, configs: MaskConfigPair, length: int) -> MaskObject:
    """Read a masked model or mask; `data` has the length that `configs` and `length` give it."""
    end = len(data) - CONFIG_BYTES - configs.unit.number_bytes
    vect, unit = data[:end], data[end:]
    _check_config(peer, vect[:CONFIG_BYTES], configs.vect)
    _check_config(peer, unit[:CONFIG_BYTES], configs.unit)
    (count,) = _COUNT.unpack_from(vect, CONFIG_BYTES)
    if count != length:
        raise PeerProtocolError(peer, f"its model has {count} weights, not {length}")
    numbers = from_bytes(vect[CONFIG_BYTES + _COUNT.size :], configs.vect.number_bytes, configs.vect.order, peer)
    number = int.from_bytes(unit[CONFIG_BYTES:], "little")
    if number >= configs.unit.order:
        raise PeerProtocolError(peer, "its scalar is not below the order of the group")
    return MaskObject(configs, numbers, number)


def _check_config(peer: str, data: memoryview, expected: MaskConfig) -> None:
    if MaskConfig.from_bytes(bytes(data), peer) != expected:
        raise PeerProtocolError(peer, "its mask configuration is not that of the round")


def _parse_seeds(peer: str, data: memoryview) -> dict[bytes, bytes]:
    (length,) = _COUNT.unpack_from(data)
    if length != len(data):
        raise PeerProtocolError(peer, f"its seeds say that they have {length} bytes, and have {len(data)}")
    found: dict[bytes, bytes] = {}
    for begin in range(_COUNT.size, len(data), SEED_ENTRY_BYTES):
        entry = bytes(data[begin : begin + SEED_ENTRY_BYTES])
        if entry[:KEY_BYTES] in found:
            raise PeerProtocolError(peer, "it seals two seeds for one summer")
        found[entry[:KEY_BYTES]] = entry[KEY_BYTES:]
    return found
