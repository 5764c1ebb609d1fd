"""The recorded round in xaynet.json, recomputed as its page has it; and what is refused in it, refused."""

from __future__ import annotations

import math
import struct
from fractions import Fraction
from functools import partial
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from nacl import bindings

from ridotto.core.rng import insecure_seeded_rng
from ridotto.crypto.sodium import SigningKey
from ridotto.errors import PeerProtocolError
from ridotto.secagg.xaynet import bincode
from ridotto.secagg.xaynet.client import XaynetParticipant
from tests.vectors.files import check_refusals
from tests.vectors.plain_pet import FILE, ORDERS, encode, mask_of, mean_of, model_body, role_of, shifts, unseal
from vectors import xaynet_round

ROUND, BODIES = FILE["round"], {name: bytes.fromhex(body) for name, body in FILE["bodies"].items()}


def messages() -> list[tuple[bytes, int, bool, bytes]]:
    """Sender, tag, whether it is a piece, and payload of every box of the round, with all headers checked."""
    private, found = bytes.fromhex(ROUND["coordinator_private"]), []
    for row in FILE["messages"]:
        message = unseal(bytes.fromhex(row["box"]), private)
        assert message.hex() == row["message"]
        signature, sender, key, length, tag, flags, reserved = struct.unpack_from(">64s32s32sIBBH", message)
        assert (sender.hex(), length, reserved) == (row["from"], len(message), 0)
        assert key == bindings.crypto_scalarmult_base(private)
        Ed25519PublicKey.from_public_bytes(sender).verify(signature, message[64:])
        found.append((sender, tag, bool(flags), message[136:]))
    return found


def payloads(wanted: int) -> dict[bytes, bytes]:
    """Whole payloads with a tag, by sender, in their order; pieces are joined."""
    found: dict[bytes, bytes] = {}
    for sender, tag, piece, payload in messages():
        if tag == wanted:
            if piece:
                index, _, last, reserve = struct.unpack_from(">HHB3s", payload)
                assert (index, last, reserve) == (int(sender in found), int(sender in found), bytes(3))
            found[sender] = found.get(sender, b"") + payload[8 * piece :]
    return found


def test_a_message_in_pieces_is_there() -> None:
    assert [piece for _, tag, piece, _ in messages() if tag == 2] == [False, False, True, True]


def player(role: str, public: bytes) -> dict[str, Any]:
    found: dict[str, Any] = next(one for one in ROUND[role] if one["public"] == public.hex())
    return found


def seed_of_the_round() -> bytes:
    return BODIES["GET /params"][64:96]


def test_parameters_of_the_round() -> None:
    body, config = BODIES["GET /params"], ROUND["vect_config"]
    group, data, bound, models = bytes.fromhex(config)
    variants = (group, data, {0: 0, 2: 1, 4: 2, 6: 3, 255: 4}[bound], {3: 0, 6: 1, 9: 2, 12: 3}[models])
    public = bindings.crypto_scalarmult_base(bytes.fromhex(ROUND["coordinator_private"]))
    head = struct.pack("<Q32sddQ32s", 32, public, ROUND["sum"], ROUND["update"], 32, seed_of_the_round())
    assert ROUND["unit_config"] == config
    assert body == head + struct.pack("<8IQ", *variants, *variants, ROUND["length"])


def test_everybody_has_its_role() -> None:
    chances = (ROUND["sum"], ROUND["update"])
    for role, name in (("summers", "sum"), ("updaters", "update"), ("idle", "none")):
        for one in ROUND[role]:
            private = bytes.fromhex(one["private"])
            assert role_of(private, seed_of_the_round(), chances)[0] == name
            assert Ed25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw().hex() == one["public"]


def test_sum_messages_and_their_dictionary() -> None:
    sums = payloads(1)
    entries = b""
    for sender, payload in sums.items():
        one = player("summers", sender)
        _, proof, _ = role_of(bytes.fromhex(one["private"]), seed_of_the_round(), (ROUND["sum"], ROUND["update"]))
        ephemeral = bindings.crypto_scalarmult_base(bytes.fromhex(one["drawn"][0]))
        assert payload == proof + ephemeral
        entries += struct.pack("<Q32sQ32s", 32, sender, 32, ephemeral)
    assert BODIES["GET /sums"] == struct.pack("<Q", len(sums)) + entries


def write_object(unit: int, vect: list[int]) -> bytes:
    config, size = bytes.fromhex(ROUND["vect_config"]), ORDERS[ROUND["vect_config"]][1]
    numbers = b"".join(element.to_bytes(size, "little") for element in vect)
    return config + struct.pack(">I", len(vect)) + numbers + config + unit.to_bytes(size, "little")


def test_updates_and_their_seeds() -> None:
    order, (largest, scale, _) = ORDERS[ROUND["vect_config"]][0], shifts(ROUND["vect_config"])
    summers, sealed = list(payloads(1)), dict.fromkeys(payloads(1), b"")
    for sender, payload in payloads(2).items():
        one = player("updaters", sender)
        _, *proofs = role_of(bytes.fromhex(one["private"]), seed_of_the_round(), (ROUND["sum"], ROUND["update"]))
        seed, scalar = bytes.fromhex(one["drawn"][1]), Fraction(one["scalar"])
        mask, masks = mask_of(seed, ROUND, ROUND["length"])
        elements = [encode(weight, scalar, ROUND["vect_config"]) for weight in one["weights"]]
        vect = [(a + b) % order for a, b in zip(elements, masks, strict=True)]
        unit = (math.floor((scalar + largest) * scale) + mask) % order
        begin = b"".join(proofs) + write_object(unit, vect)
        assert payload.startswith(begin)
        rest = payload[len(begin) :]
        assert rest[:4] == struct.pack(">I", len(rest))
        for place, summer in enumerate(summers):
            key, box = struct.unpack_from("32s80s", rest, 4 + 112 * place)
            assert key == summer
            assert unseal(box, bytes.fromhex(player("summers", summer)["drawn"][0])) == seed
            sealed[summer] += struct.pack("<Q32sQ80s", 32, sender, 80, box)
        assert len(rest) == 4 + 112 * len(summers)
    for summer, entries in sealed.items():
        assert BODIES[f"GET /seeds?pk={summer.hex()}"] == struct.pack("<Q", len(payloads(2))) + entries


def test_masks_of_summers_and_the_mean() -> None:
    order, updates = ORDERS[ROUND["vect_config"]][0], payloads(2)
    seeds = [bytes.fromhex(player("updaters", sender)["drawn"][1]) for sender in updates]
    units, vects = zip(*(mask_of(seed, ROUND, ROUND["length"]) for seed in seeds), strict=True)
    unit, vect = sum(units) % order, [sum(column) % order for column in zip(*vects, strict=True)]
    for sender, payload in payloads(3).items():
        private = bytes.fromhex(player("summers", sender)["private"])
        _, proof, _ = role_of(private, seed_of_the_round(), (ROUND["sum"], ROUND["update"]))
        assert payload == proof + write_object(unit, vect)
    objects = [payload[128:] for payload in updates.values()]
    size = ORDERS[ROUND["vect_config"]][1]
    read = partial(int.from_bytes, byteorder="little")
    columns = [[read(one[8 + size * i : 8 + size * (i + 1)]) for one in objects] for i in range(ROUND["length"])]
    at = 8 + size * ROUND["length"] + 4
    total_unit = sum(read(one[at : at + size]) for one in objects) % order
    row = ROUND | {"models": len(updates)}
    mean = mean_of(row, [sum(column) % order for column in columns], vect, total_unit, unit)
    assert FILE["mean"] == [str(number) for number in mean]
    assert BODIES["GET /model"] == model_body(mean)


@pytest.mark.parametrize("row", [*FILE["box_refusals"], *FILE["piece_refusals"]], ids=lambda row: row["name"])
def test_boxes_that_are_refused_and_the_honest_one_taken_after_them(row: dict[str, Any]) -> None:
    machine, box = xaynet_round.coordinator(), bytes.fromhex(row["box"])
    boxes = [bytes.fromhex(message["box"]) for message in FILE["messages"]]
    for earlier in boxes[: row["after"]]:
        machine.receive(earlier, 0.0)
    with pytest.raises(PeerProtocolError) as refused:
        machine.receive(box, 0.0)
    assert (refused.value.peer, refused.value.why) == (row["blames"], row["why"])
    if "message" in row:
        assert unseal(box, bytes.fromhex(ROUND["coordinator_private"])).hex() == row["message"]
    machine.receive(boxes[row["after"]], 0.0)


def test_every_kind_of_message_is_sent_and_refused() -> None:
    assert {tag for _, tag, _, _ in messages()} == {1, 2, 3}
    refused = [bytes.fromhex(row["message"]) for row in FILE["box_refusals"] if len(row.get("message", "")) >= 272]
    assert {message[132] for message in refused} >= {1, 2, 3}
    names = [row["name"] for row in (*FILE["box_refusals"], *FILE["piece_refusals"])]
    assert len(set(names)) == len(names) >= 50


def test_seeds_that_a_summer_refuses() -> None:
    first = ROUND["summers"][0]

    def act(row: dict[str, Any]) -> None:
        assert row["ephemeral_private"] == first["drawn"][0]
        one = XaynetParticipant(SigningKey(bytes.fromhex(first["private"])), Given(bytes.fromhex(first["drawn"][0])))
        one.begin(bincode.decode_parameters(BODIES["GET /params"], "coordinator"))
        one.sum2_boxes({bytes.fromhex(key): bytes.fromhex(box) for key, box in row["seeds"]})

    check_refusals(FILE["seed_refusals"], act)


class Given:
    """An ephemeral key first, and anything after it."""

    def __init__(self, first: bytes) -> None:
        self._first = first
        self._rest = insecure_seeded_rng(1)

    def bytes(self, length: int) -> bytes:
        drawn, self._first = self._first, b""
        return drawn or self._rest.bytes(length)


def test_bodies_that_a_participant_refuses() -> None:
    def act(row: dict[str, Any]) -> None:
        body = bytes.fromhex(row["body"])
        match row["kind"]:
            case "params":
                bincode.decode_parameters(body, "coordinator")
            case "sums":
                bincode.decode_keys(body, 32, "coordinator")
            case "model":
                bincode.decode_model(body, ROUND["length"], "coordinator")

    check_refusals(FILE["body_refusals"], act)
