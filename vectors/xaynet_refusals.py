"""What a coordinator of PET refuses in the place of boxes of the recorded round, and what participants refuse."""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import partial

from ridotto.core.rng import SecretRng
from ridotto.crypto.sodium import BoxKey, SigningKey, seal
from ridotto.errors import PeerProtocolError
from ridotto.secagg.xaynet.bincode import decode_keys, decode_model, decode_parameters
from ridotto.secagg.xaynet.config import MaskConfig
from ridotto.secagg.xaynet.wire import HEADER_BYTES, SEALED_SEED_BYTES
from vectors.common import LOW_ORDER, rng_of
from vectors.crypto import refused
from vectors.xaynet_round import SETTINGS, Player, coordinator, coordinator_key, player, record

Row = dict[str, object]

FIRST_SUM, SECOND_SUM, FIRST_UPDATE, FIRST_PIECE, SECOND_PIECE, FIRST_SUM2 = 0, 1, 2, 4, 5, 6
"""Numbers of boxes in the round."""

OBJECT = 64 + 64
"""Where the masked model begins in the payload of an update."""

UNIT = OBJECT + 8 + 4 * 6
SEEDS = UNIT + 4 + 6


def opened(number: int) -> bytes:
    """Return the message in a box of the round."""
    return coordinator_key().open(record().boxes[number][1])


def resigned(signer: Player, message: bytes, **changes: int | bytes) -> bytes:
    """Return a message with another payload or header, signed by a participant. length: follows if it is not given."""
    _, _, coordinator_of, _, tag, flags, reserved = struct.unpack_from(">64s32s32sIBBH", message)
    fields: dict[str, int | bytes] = {
        "participant": signer.one.public,
        "coordinator": coordinator_of,
        "tag": tag,
        "flags": flags,
        "reserved": reserved,
        "payload": message[HEADER_BYTES:],
    } | changes
    payload = fields.pop("payload")
    if not isinstance(payload, bytes):
        raise TypeError("a payload is bytes")
    length = fields.pop("length", HEADER_BYTES + len(payload))
    parts = (fields[name] for name in ("participant", "coordinator"))
    rest = (fields[name] for name in ("tag", "flags", "reserved"))
    signed = struct.pack(">32s32sIBBH", *parts, length, *rest) + payload
    return SigningKey(signer.key).sign(signed) + signed


def spliced(data: bytes, at: int, put: bytes) -> bytes:
    """Return bytes with others in their place from `at` on."""
    return data[:at] + put + data[at + len(put) :]


def refusal(name: str, number: int, message: bytes, rng: SecretRng, *, box: bytes | None = None) -> Row:
    """Return what happens if this message, sealed, comes after the first `number` boxes of the round.

    box: comes as it is, instead. Raises RuntimeError if it is not refused.
    """
    sealed = seal(message, coordinator_key().public, rng) if box is None else box
    machine = coordinator(number)
    try:
        machine.receive(sealed, 0.0)
    except PeerProtocolError as error:
        shown = {"message": message.hex()} if box is None else {}
        return {"name": name, "after": number, **shown, "box": sealed.hex(), "blames": error.peer, "why": error.why}
    raise RuntimeError(f"{name} is not refused")


def box_refusals() -> list[Row]:
    """Return boxes that are refused in each of the three phases."""
    rng, rows = rng_of("xaynet refusals"), [*damaged()]
    for name, (number, message) in {**headers(), **of_sum(), **of_update(), **of_sum2()}.items():
        rows.append(refusal(name, number, message, rng))
    return rows


def damaged() -> list[Row]:
    """Return boxes that do not open."""
    rng, honest = rng_of("xaynet damaged"), record().boxes[FIRST_SUM][1]
    boxes = {
        "a box that was changed": honest[:-1] + bytes([honest[-1] ^ 1]),
        "a box for another key": seal(opened(FIRST_SUM), BoxKey(bytes([5]) * 32).public, rng),
        "a box that is cut off": honest[:-1],
        "a box that is too long": honest + b"\x00",
        "a box that is shorter than its key and tag": honest[:47],
        "an empty box": b"",
    }
    return [refusal(name, FIRST_SUM, b"", rng, box=box) for name, box in boxes.items()]


def headers() -> dict[str, tuple[int, bytes]]:
    """Return messages with headers that do not fit, and after how many boxes of the round they come."""
    summer, honest = record().summers[0], opened(FIRST_SUM)
    lie = partial(resigned, summer, honest)
    other = record().summers[1].one.public
    return {
        "a message shorter than its header": (FIRST_SUM, honest[: HEADER_BYTES - 1]),
        "a length that is not its own": (FIRST_SUM, lie(length=len(honest) + 1)),
        "a signature of one changed bit": (FIRST_SUM, bytes([honest[0] ^ 1]) + honest[1:]),
        "a signature of somebody else": (FIRST_SUM, lie(participant=other)),
        "a tag of zero": (FIRST_SUM, lie(tag=0)),
        "a tag of four": (FIRST_SUM, lie(tag=4)),
        "an unknown flag": (FIRST_SUM, lie(flags=2)),
        "a reserve that is not zero": (FIRST_SUM, lie(reserved=1)),
        "another coordinator or round": (FIRST_SUM, lie(coordinator=bytes(32))),
        "an update in the sum phase": (FIRST_SUM, lie(tag=2)),
        "a sum in the update phase": (FIRST_UPDATE, lie()),
    }


def of_sum() -> dict[str, tuple[int, bytes]]:
    """Return sum messages that do not hold."""
    summer, idle, updater = record().summers[0], record().idle[0], record().updaters[0]
    honest = opened(FIRST_SUM)
    payload = honest[HEADER_BYTES:]
    lie = partial(resigned, summer, honest)
    signatures = {name: SigningKey(one.key) for name, one in (("idle", idle), ("updater", updater))}
    seed = coordinator().parameters.seed
    return {
        "a payload too short": (FIRST_SUM, lie(payload=payload[:-1])),
        "a payload shorter than its proof": (FIRST_SUM, lie(payload=payload[:63])),
        "a sum signature of somebody else": (FIRST_SUM, resigned(record().summers[1], honest)),
        "a sum signature over another seed": (
            FIRST_SUM,
            lie(payload=SigningKey(summer.key).sign(bytes(32) + b"sum") + payload[64:]),
        ),
        "somebody who is not chosen": (
            FIRST_SUM,
            resigned(idle, honest, payload=signatures["idle"].sign(seed + b"sum") + payload[64:]),
        ),
        "an updater as a summer": (
            FIRST_SUM,
            resigned(updater, honest, payload=signatures["updater"].sign(seed + b"sum") + payload[64:]),
        ),
        "an ephemeral key of low order": (FIRST_SUM, lie(payload=payload[:64] + LOW_ORDER)),
        "an ephemeral key of zeros": (FIRST_SUM, lie(payload=payload[:64] + bytes(32))),
        "a second sum message": (SECOND_SUM, lie()),
    }


def of_update() -> dict[str, tuple[int, bytes]]:
    """Return update messages that do not hold."""
    updater, idle, summer = record().updaters[0], record().idle[0], record().summers[0]
    honest, order = opened(FIRST_UPDATE), MaskConfig().order
    payload = honest[HEADER_BYTES:]
    seed = coordinator().parameters.seed
    first = payload[SEEDS + 4 : SEEDS + 4 + 112]

    def lie(at: int, put: bytes) -> tuple[int, bytes]:
        return FIRST_UPDATE, resigned(updater, honest, payload=spliced(payload, at, put))

    def as_one(one: Player) -> tuple[int, bytes]:
        proof = b"".join(SigningKey(one.key).sign(seed + purpose) for purpose in (b"sum", b"update"))
        return FIRST_UPDATE, resigned(one, honest, payload=proof + payload[128:])

    return {
        "a summer as an updater": as_one(summer),
        "somebody who is not chosen, as an updater": as_one(idle),
        "a sum signature that was changed": lie(0, bytes([payload[0] ^ 1])),
        "an update signature that was changed": lie(64, bytes([payload[64] ^ 1])),
        "another configuration": lie(OBJECT, bytes.fromhex("01000006")),
        "no configuration": lie(OBJECT, bytes.fromhex("03000003")),
        "another configuration of the scalar": lie(UNIT, bytes.fromhex("00000003")),
        "a count that is not the model's": lie(OBJECT + 4, (5).to_bytes(4, "big")),
        "an element that is the order": lie(OBJECT + 8, order.to_bytes(6, "little")),
        "the largest element": lie(OBJECT + 8, b"\xff" * 6),
        "a scalar that is the order": lie(UNIT + 4, order.to_bytes(6, "little")),
        "seeds of another length": lie(SEEDS, (4 + 111).to_bytes(4, "big")),
        "two seeds for one summer": lie(SEEDS + 4 + 112, first),
        "a seed for somebody who is no summer": lie(SEEDS + 4, bytes(32)),
        "a seed too few": (FIRST_UPDATE, resigned(updater, honest, payload=payload[:-112])),
        "a second update": (FIRST_UPDATE + 1, honest),
    }


def of_sum2() -> dict[str, tuple[int, bytes]]:
    """Return sum2 messages that do not hold."""
    summer, honest = record().summers[0], opened(FIRST_SUM2)
    payload, stranger = honest[HEADER_BYTES:], _another_summer()
    proof = SigningKey(stranger.key).sign(coordinator().parameters.seed + b"sum")
    order = MaskConfig().order.to_bytes(6, "little")
    return {
        "a mask of somebody who sent no key": (FIRST_SUM2, resigned(stranger, honest, payload=proof + payload[64:])),
        "a mask with an element that is the order": (
            FIRST_SUM2,
            resigned(summer, honest, payload=spliced(payload, 64 + 8, order)),
        ),
        "a mask that is too short": (FIRST_SUM2, resigned(summer, honest, payload=payload[:-1])),
        "a second mask": (FIRST_SUM2 + 1, honest),
        "an update in the sum2 phase": (FIRST_SUM2, resigned(summer, honest, tag=2)),
    }


def _another_summer() -> Player:
    known = {one.one.public for one in record().summers}
    found = (player(number) for number in range(300, 400))
    return next(one for one in found if one.role == "sum" and one.one.public not in known)


def piece_refusals() -> list[Row]:
    """Return pieces of the last updater's message that are not the next ones."""
    updater, rng = record().updaters[-1], rng_of("xaynet pieces")
    first, second = (opened(number)[HEADER_BYTES:] for number in (FIRST_PIECE, SECOND_PIECE))
    lie = partial(resigned, updater, opened(FIRST_PIECE))
    cases: dict[str, tuple[int, bytes]] = {
        "an empty piece": (FIRST_PIECE, first[:8]),
        "an unknown flag of a piece": (FIRST_PIECE, spliced(first, 4, b"\x02")),
        "a reserve of a piece that is not zero": (FIRST_PIECE, spliced(first, 7, b"\x01")),
        "the second piece first": (FIRST_PIECE, second),
        "a first piece without a proof": (FIRST_PIECE, first[: 8 + 127]),
        "a first piece that is called the last": (FIRST_PIECE, spliced(first, 4, b"\x01")),
        "a first piece with another's proof": (FIRST_PIECE, spliced(first, 8, bytes([first[8] ^ 1]))),
        "a piece of another message": (SECOND_PIECE, spliced(second, 2, bytes([second[2] ^ 1]))),
        "a piece that is not the next": (SECOND_PIECE, spliced(second, 0, b"\x00\x02")),
        "a last piece that is not called so": (SECOND_PIECE, spliced(second, 4, b"\x00")),
        "a last piece that is too short": (SECOND_PIECE, second[:-1]),
        "a piece beyond the end": (SECOND_PIECE, second + b"\x00"),
    }
    return [refusal(name, number, lie(payload=payload), rng) for name, (number, payload) in cases.items()]


def seed_refusals() -> list[Row]:
    """Return dictionaries of seeds for which the first summer gives out no mask."""
    summer = record().summers[0]
    seeds, others = (
        decode_keys(record().bodies[f"GET /seeds?pk={one.one.public.hex()}"], SEALED_SEED_BYTES, "coordinator")
        for one in record().summers
    )
    one, *rest = seeds
    ephemeral = summer.rng.drawn[0]
    short = seal(bytes(31), _public_of(ephemeral), rng_of("xaynet short seed"))
    cases = {
        "too few seeds": {key: seeds[key] for key in rest},
        "a seed that was changed": {**seeds, one: spliced(seeds[one], 79, bytes([seeds[one][79] ^ 1]))},
        "a seed that was sealed for another summer": {**seeds, one: others[one]},
        "a seed of 31 bytes": {**seeds, one: short},
    }
    rows: list[Row] = []
    for name, shown in cases.items():
        why = refused(partial(player_again(summer).one.sum2_boxes, shown))
        listed = [[key.hex(), sealed.hex()] for key, sealed in shown.items()]
        rows.append({"name": name, "ephemeral_private": ephemeral.hex(), "seeds": listed, "why": why})
    return rows


def player_again(one: Player) -> Player:
    """Return a participant as it was at the beginning of the round."""
    found = (player(number) for number in range(100))
    return next(other for other in found if other.key == one.key)


def _public_of(private: bytes) -> bytes:
    return BoxKey(private).public


def body_refusals() -> list[Row]:
    """Return bodies that a participant does not take from a coordinator. kind: what was asked for."""
    parameters = record().bodies["GET /params"]
    sums, model = record().bodies["GET /sums"], record().bodies["GET /model"]
    nan = struct.pack("<d", float("nan"))
    cases: dict[str, tuple[str, bytes]] = {
        "parameters cut off": ("params", parameters[:-1]),
        "parameters with a byte behind": ("params", parameters + b"\x00"),
        "a key of 31 bytes": ("params", spliced(parameters, 0, b"\x1f")),
        "a seed of 33 bytes": ("params", spliced(parameters, 56, b"\x21")),
        "a chance above one": ("params", spliced(parameters, 40, struct.pack("<d", 1.5))),
        "a chance below zero": ("params", spliced(parameters, 48, struct.pack("<d", -0.5))),
        "a chance that is no number": ("params", spliced(parameters, 40, nan)),
        "an unknown group": ("params", spliced(parameters, 96, b"\x03")),
        "an unknown bound": ("params", spliced(parameters, 104, b"\x05")),
        "keys cut off": ("sums", sums[:-1]),
        "keys with a byte behind": ("sums", sums + b"\x00"),
        "a count above what is there": ("sums", spliced(sums, 0, b"\x03")),
        "a count that is huge": ("sums", spliced(sums, 0, b"\xff" * 8)),
        "an entry's key of 31 bytes": ("sums", spliced(sums, 8, b"\x1f")),
        "an entry twice": ("sums", sums[:8] + sums[8:88] * 2),
        "less than a count": ("sums", sums[:7]),
        "a model of another length": ("model", spliced(model, 0, b"\x05")),
        "a model cut off": ("model", model[:-1]),
        "a model with a byte behind": ("model", model + b"\x00"),
        "a number with a huge count": ("model", spliced(model, 9, b"\xff" * 8)),
        "a sign that does not fit": ("model", spliced(model, 8, b"\x00")),
        "a sign of two": ("model", spliced(model, 8, b"\x02")),
        "a denominator of zero": ("model", model[:8] + (b"\x00" + bytes(8)) * 8),
    }
    readers: dict[str, Callable[[bytes], object]] = {
        "params": lambda body: decode_parameters(body, "coordinator"),
        "sums": lambda body: decode_keys(body, 32, "coordinator"),
        "model": lambda body: decode_model(body, SETTINGS.length, "coordinator"),
    }
    return [
        {"name": name, "kind": kind, "body": body.hex(), "why": refused(partial(readers[kind], body))}
        for name, (kind, body) in cases.items()
    ]
