"""The layout of messages, byte by byte, and what is refused of them."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest

from ridotto.core.rng import insecure_seeded_rng
from ridotto.crypto.sodium import BoxKey, SigningKey, seal
from ridotto.errors import LocalProtocolError, PeerProtocolError
from ridotto.secagg.xaynet.config import Bound, MaskConfig, MaskConfigPair, Models
from ridotto.secagg.xaynet.derive import MaskObject, derive_mask
from ridotto.secagg.xaynet.elements import from_bytes, from_integers, to_bytes
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
    seal_payload,
    write_payload,
)

RNG = insecure_seeded_rng(5)
SIGNER, COORDINATOR = SigningKey(b"s" * 32), BoxKey(b"c" * 32)
CONFIGS = MaskConfigPair()
WIDE = MaskConfigPair(MaskConfig(models=Models.M9), MaskConfig(bound=Bound.B2))
SUMMER = b"\7" * 32


def update(configs: MaskConfigPair = CONFIGS, length: int = 10, seeds: Any = None) -> Update:
    boxes = {SUMMER: b"\x09" * 80} if seeds is None else seeds
    return Update(b"\1" * 64, b"\2" * 64, derive_mask(bytes(32), length, configs), boxes)


def parse(payload: bytes, tag: Tag, configs: MaskConfigPair = CONFIGS, length: int = 10, summers: int = 1) -> Payload:
    return parse_payload("p0", tag, memoryview(payload), configs, length, summers)


def test_sizes_are_those_that_the_original_sends() -> None:
    """Measured: a Sum of 232 bytes, 280 sealed, and an Update of 10 weights and one summer of 458 bytes."""
    assert box_bytes(payload_bytes(Tag.SUM, CONFIGS, 10, 1)) == 280
    assert box_bytes(payload_bytes(Tag.UPDATE, CONFIGS, 10, 1)) - 48 == 458
    assert box_bytes(payload_bytes(Tag.SUM2, CONFIGS, 10, 1)) == 48 + 136 + 64 + 8 + 60 + 10


def test_the_layout_of_a_message() -> None:
    (box,) = seal_payload(Sum(b"\1" * 64, b"\2" * 32), SIGNER, COORDINATOR.public, RNG)
    message = COORDINATOR.open(box)
    header = SIGNER.public + COORDINATOR.public + bytes.fromhex("000000e8 01 00 0000")
    assert message[64:] == header + b"\1" * 64 + b"\2" * 32
    assert message[:64] == SIGNER.sign(message[64:])
    opened = open_message(box, COORDINATOR)
    assert (opened.participant, opened.coordinator, opened.tag) == (SIGNER.public, COORDINATOR.public, Tag.SUM)
    assert (opened.is_chunk, bytes(opened.payload)) == (False, message[136:])


def test_the_layout_of_an_update() -> None:
    masked = MaskObject(CONFIGS, np.array([1, 0x0102030405], np.uint64), 3)
    tag, payload = write_payload(Update(b"\1" * 64, b"\2" * 64, masked, {SUMMER: b"\x09" * 80}))
    config = "01 00 00 03"
    vect = f"{config} 00000002 010000000000 050403020100"
    unit = f"{config} 030000000000"
    seeds = "00000074" + SUMMER.hex() + "09" * 80
    assert tag is Tag.UPDATE
    assert payload == b"\1" * 64 + b"\2" * 64 + bytes.fromhex(vect + unit + seeds)


@pytest.mark.parametrize("configs", [CONFIGS, WIDE])
def test_payloads_are_read_as_written(configs: MaskConfigPair) -> None:
    whole = update(configs)
    read = parse(write_payload(whole)[1], Tag.UPDATE, configs)
    assert isinstance(read, Update)
    assert (read.sum_signature, read.update_signature, read.seeds) == (b"\1" * 64, b"\2" * 64, whole.seeds)
    assert (read.masked.vect.tolist(), read.masked.unit) == (whole.masked.vect.tolist(), whole.masked.unit)
    mask = parse(write_payload(Sum2(b"\3" * 64, whole.masked))[1], Tag.SUM2, configs)
    assert isinstance(mask, Sum2)
    assert mask.mask.vect.tolist() == whole.masked.vect.tolist()
    assert parse(bytes(96), Tag.SUM) == Sum(bytes(64), bytes(32))


VECT, UNIT, SEEDS = 128, 128 + 8 + 60, 128 + 8 + 60 + 10


@pytest.mark.parametrize(
    ("place", "data", "why"),
    [
        (VECT, b"\x02", "not that of the round"),
        (VECT, b"\x09", "no mask configuration"),
        (VECT + 4, b"\xff\xff\xff\xff", "4294967295 weights, not 10"),
        (VECT + 8, b"\xff" * 6, "not below the order"),
        (VECT + 8, (20_000_000_000_021).to_bytes(6, "little"), "not below the order"),
        (UNIT + 3, b"\x06", "not that of the round"),
        (UNIT + 4, b"\xff" * 6, "its scalar is not below"),
        (SEEDS, b"\xff\xff\xff\xff", "its seeds say"),
        (SEEDS, b"\x00\x00\x00\x00", "its seeds say"),
    ],
)
def test_refuses_updates_that_do_not_fit(place: int, data: bytes, why: str) -> None:
    payload = bytearray(write_payload(update())[1])
    payload[place : place + len(data)] = data
    with pytest.raises(PeerProtocolError, match=why) as caught:
        parse(bytes(payload), Tag.UPDATE)
    assert caught.value.peer == "p0"


def test_the_largest_element_is_taken() -> None:
    payload = bytearray(write_payload(update())[1])
    payload[VECT + 8 : VECT + 14] = (20_000_000_000_020).to_bytes(6, "little")
    assert isinstance(parse(bytes(payload), Tag.UPDATE), Update)


def test_refuses_two_seeds_for_one_summer() -> None:
    payload = write_payload(update())[1]
    twice = payload[:SEEDS] + (4 + 2 * 112).to_bytes(4, "big") + 2 * payload[SEEDS + 4 :]
    with pytest.raises(PeerProtocolError, match="two seeds for one summer"):
        parse(twice, Tag.UPDATE, summers=2)


@pytest.mark.parametrize("tag", list(Tag))
def test_refuses_payloads_of_another_length(tag: Tag) -> None:
    size = payload_bytes(tag, CONFIGS, 10, 1)
    for wrong in (0, 1, size - 1, size + 1):
        with pytest.raises(PeerProtocolError, match=f"has {wrong} bytes, not {size}"):
            parse(bytes(wrong), tag)


def signed(change: Any, signer: SigningKey = SIGNER) -> bytes:
    """A sealed message whose signed part was changed before it was signed."""
    message = bytearray(COORDINATOR.open(seal_payload(Sum(bytes(64), bytes(32)), SIGNER, COORDINATOR.public, RNG)[0]))
    rest = change(message[64:])
    return seal(signer.sign(bytes(rest)) + bytes(rest), COORDINATOR.public, RNG)


def put(place: int, data: bytes) -> Any:
    return lambda rest: rest[:place] + data + rest[place + len(data) :]


@pytest.mark.parametrize(
    ("change", "why", "who"),
    [
        (put(64, b"\0\0\0\xe9"), "says that it has 233 bytes, and has 232", UNKNOWN),
        (lambda rest: rest + b"x", "says that it has 232 bytes, and has 233", UNKNOWN),
        (lambda rest: rest[:50], "shorter than its header", UNKNOWN),
        (put(0, bytes(32)), "signature of its message is wrong", UNKNOWN),
        (put(68, b"\0"), "no message of kind 0", SIGNER.public.hex()),
        (put(68, b"\4"), "no message of kind 4", SIGNER.public.hex()),
        (put(69, b"\2"), "with flags 2", SIGNER.public.hex()),
        (put(71, b"\1"), "its reserve is not 0", SIGNER.public.hex()),
    ],
)
def test_refuses_headers_that_do_not_fit(change: Any, why: str, who: str) -> None:
    with pytest.raises(PeerProtocolError, match=why) as caught:
        open_message(signed(change), COORDINATOR)
    assert caught.value.peer == who


def test_refuses_a_signature_of_another() -> None:
    with pytest.raises(PeerProtocolError, match="signature of its message is wrong"):
        open_message(signed(lambda rest: rest, SigningKey(b"x" * 32)), COORDINATOR)


def test_pieces_of_a_payload() -> None:
    whole = update()
    most = box_bytes(8 + 128)
    boxes = seal_payload(whole, SIGNER, COORDINATOR.public, RNG, most)
    assert [len(box) for box in boxes] == [most, most, box_bytes(8 + 322 - 256)]
    chunks = [parse_chunk(open_message(box, COORDINATOR)) for box in boxes]
    assert [(chunk.index, chunk.last) for chunk in chunks] == [(0, False), (1, False), (2, True)]
    assert len({chunk.message_id for chunk in chunks}) == 1
    assert b"".join(bytes(chunk.data) for chunk in chunks) == write_payload(whole)[1]
    message = open_message(boxes[1], COORDINATOR)
    assert (message.is_chunk, message.tag) == (True, Tag.UPDATE)
    assert bytes(message.payload[:2]) + bytes(message.payload[4:8]) == bytes((0, 1, 0, 0, 0, 0))
    assert len(seal_payload(whole, SIGNER, COORDINATOR.public, RNG, box_bytes(322))) == 1


def test_refuses_boxes_too_short_for_pieces() -> None:
    for most in (1, box_bytes(8)):
        with pytest.raises(LocalProtocolError, match="can't hold"):
            seal_payload(update(), SIGNER, COORDINATOR.public, RNG, most)
    with pytest.raises(LocalProtocolError, match="can't hold"):
        seal_payload(update(length=20_000), SIGNER, COORDINATOR.public, RNG, box_bytes(9))


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        (b"", "is empty"),
        (bytes(8), "is empty"),
        (struct.pack(">HHB3sc", 0, 0, 2, bytes(3), b"x"), "flags that nobody knows"),
        (struct.pack(">HHB3sc", 0, 0, 1, b"\0\0\1", b"x"), "flags that nobody knows"),
    ],
)
def test_refuses_pieces_that_do_not_fit(payload: bytes, why: str) -> None:
    with pytest.raises(PeerProtocolError, match=why):
        parse_chunk(Opened(SIGNER.public, COORDINATOR.public, Tag.SUM, True, memoryview(payload)))


@pytest.mark.parametrize("order", [2, 2**63, 2**63 + 1, 10**30])
def test_elements_are_read_as_written(order: int) -> None:
    numbers = [0, 1, order - 1]
    size = ((order - 1).bit_length() + 7) // 8
    data = to_bytes(from_integers(numbers, order), size)
    assert data == b"".join(number.to_bytes(size, "little") for number in numbers)
    assert from_bytes(memoryview(data), size, order, "p0").tolist() == numbers
    assert from_bytes(memoryview(b""), size, order, "p0").tolist() == []
    with pytest.raises(LocalProtocolError):
        from_integers([order], order)
    if order % 256:
        with pytest.raises(PeerProtocolError):
            from_bytes(memoryview(order.to_bytes(size, "little")), size, order, "p0")
