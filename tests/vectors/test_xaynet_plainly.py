"""xaynet.json: single steps, recomputed as docs/protocols/xaynet.md has them; and what is refused, refused."""

from __future__ import annotations

import hashlib
import math
import struct
from fractions import Fraction
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from nacl import bindings

from ridotto.errors import RoundFailedError
from ridotto.secagg.xaynet import bincode
from ridotto.secagg.xaynet.config import MaskConfig, MaskConfigPair
from ridotto.secagg.xaynet.derive import MaskObject
from ridotto.secagg.xaynet.elements import from_integers
from ridotto.secagg.xaynet.encode import mask_model, unmask
from tests.vectors.files import check_refusals
from tests.vectors.plain_pet import (
    FILE,
    ORDERS,
    Stream,
    encode,
    is_chosen,
    mask_of,
    mean_of,
    model_body,
    probably_prime,
    role_of,
    shifts,
    unseal,
)

WIDTHS = {0: 6805647 * 10**32, 1: 3595386269724631 * 10**293, 2: 2**32 - 1, 3: 2**64 - 1}
"""2 A of orders without a bound, by data type: not quite twice the largest magnitude."""


def test_orders_are_those_of_the_formula() -> None:
    assert len(ORDERS) == 3 * 4 * 5 * 4
    for config, (order, number, draw) in ORDERS.items():
        group, data, bound, _ = bytes.fromhex(config)
        largest, scale, models = shifts(config)
        smallest = (WIDTHS[data] if bound == 255 else 2 * largest) * scale * models + 1
        assert (number, draw) == (math.ceil((order - 1).bit_length() / 8), math.ceil(order.bit_length() / 8))
        if group == 0:
            assert order == smallest
        elif group == 2:
            assert order & (order - 1) == 0
            assert order // 2 < smallest <= order
        elif (data, bound) == (1, 255):
            # These follow a product that somebody calculated with some 40 digits.
            assert probably_prime(order)
            assert abs(Fraction(order, smallest) - 1) < Fraction(1, 10**14)
        else:
            assert probably_prime(order)
            assert not any(probably_prime(other) for other in range(smallest, order))


def test_streams() -> None:
    for row in FILE["streams"]:
        assert Stream(bytes.fromhex(row["seed"])).read(80).hex() == row["bytes"]


@pytest.mark.parametrize("row", FILE["masks"], ids=lambda row: row["vect_config"] + row["seed"][:4])
def test_masks(row: dict[str, Any]) -> None:
    unit, vect = mask_of(bytes.fromhex(row["seed"]), row, len(row["vect"]))
    assert (row["unit"], row["vect"]) == (str(unit), [str(element) for element in vect])


def test_the_mask_on_the_page_is_there() -> None:
    assert FILE["masks"][0]["unit"] == "11343681809713"
    assert FILE["masks"][0]["vect"] == ["5166163054878", "19802247713817", "13039488148403", "12150543332323"]


@pytest.mark.parametrize("row", FILE["weights"], ids=lambda row: row["vect_config"] + row["scalar"])
def test_weights(row: dict[str, Any]) -> None:
    largest, scale, _ = shifts(row["unit_config"])
    scalar = min(Fraction(row["scalar"]), Fraction(largest))
    elements = [encode(weight, scalar, row["vect_config"]) for weight in row["weights"]]
    assert row["elements"] == [str(element) for element in elements]
    unit = math.floor((scalar + largest) * scale)
    assert row["unit"] == str(unit)
    mask, masks = mask_of(bytes.fromhex(row["seed"]), row, len(elements))
    order, unit_order = ORDERS[row["vect_config"]][0], ORDERS[row["unit_config"]][0]
    assert row["masked"] == [str((a + b) % order) for a, b in zip(elements, masks, strict=True)]
    assert row["masked_unit"] == str((unit + mask) % unit_order)


@pytest.mark.parametrize("row", FILE["means"], ids=lambda row: row["vect_config"])
def test_means(row: dict[str, Any]) -> None:
    total, mask = ([int(number) for number in row[name]] for name in ("sum", "mask"))
    mean = mean_of(row, total, mask, int(row["sum_unit"]), int(row["mask_unit"]))
    assert row["mean"] == [str(number) for number in mean]


def test_models_that_are_refused() -> None:
    models = {"infinity": (math.inf, 1.0), "nan": (math.nan, 1.0), "a negative scalar": (0.5, -1.0)}

    def act(row: dict[str, Any]) -> None:
        weight, scalar = models[row["name"]]
        mask_model([weight], scalar, bytes(32), MaskConfigPair())

    check_refusals(FILE["weight_refusals"], act)


def test_sums_that_are_refused() -> None:
    configs = MaskConfigPair()
    for row in FILE["mean_refusals"]:
        total = MaskObject(configs, from_integers([int(row["sum"])], MaskConfig().order), int(row["unit"]))
        with pytest.raises(RoundFailedError) as refused:
            unmask(total, MaskObject.zero(configs, 1), row["models"])
        assert (refused.value.code, str(refused.value)) == (row["code"], row["why"])


def test_who_is_eligible() -> None:
    for row in FILE["eligible"]:
        assert is_chosen(bytes.fromhex(row["signature"]), row["chance"]) == row["eligible"]
    assert {row["eligible"] for row in FILE["eligible"]} == {True, False}


def test_tasks() -> None:
    for row in FILE["tasks"]:
        seed = bytes.fromhex(row["seed"])
        role, sums, updates = role_of(bytes.fromhex(row["private"]), seed, (row["sum"], row["update"]))
        assert (row["role"], row["sum_signature"], row["update_signature"]) == (role, sums.hex(), updates.hex())
    assert {row["role"] for row in FILE["tasks"]} == {"sum", "update", "none"}


def test_the_next_seed() -> None:
    for row in FILE["seeds"]:
        signed = bytes.fromhex(row["seed"]) + struct.pack("<dd", row["sum"], row["update"])
        signature = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(row["private"])).sign(signed)
        assert row["next"] == hashlib.sha256(signature).hexdigest()


def test_sealed_boxes() -> None:
    for row in FILE["boxes"]:
        public, private, ephemeral = (
            bytes.fromhex(row[name]) for name in ("receiver_public", "receiver_private", "ephemeral_private")
        )
        sender = bindings.crypto_scalarmult_base(ephemeral)
        nonce = hashlib.blake2b(sender + public, digest_size=24).digest()
        box = bindings.crypto_box_easy(bytes.fromhex(row["message"]), nonce, public, ephemeral)
        assert row["box"] == (sender + box).hex()
        assert unseal(sender + box, private).hex() == row["message"]


def test_models() -> None:
    for row in FILE["models"]:
        weights = [Fraction(text) for text in row["weights"]]
        assert model_body(weights).hex() == row["body"]
        assert bincode.decode_model(bytes.fromhex(row["body"]), len(weights), "peer") == weights
