"""Mask configurations: all 240 orders, and what follows from them."""

from __future__ import annotations

import hashlib
from itertools import product

import pytest

from ridotto.errors import PeerProtocolError
from ridotto.secagg.xaynet.config import Bound, Data, Group, MaskConfig, Models, is_prime, next_prime

ALL = [MaskConfig(*choice) for choice in product(Group, Data, Bound, Models)]

PUBLISHED = "1c4963a42910a4639f2f9de1e3a83ddf7bba32c9fa13bdbf3109896fa707e0d9"
"""SHA-256 of xaynet's 240 orders in decimal, in this order, one a line, as its source has them."""


def test_all_orders_are_the_published_ones() -> None:
    assert len(ALL) == 240
    assert hashlib.sha256("\n".join(str(config.order) for config in ALL).encode()).hexdigest() == PUBLISHED


@pytest.mark.parametrize(
    ("config", "order", "number_bytes"),
    [
        (MaskConfig(), 20_000_000_000_021, 6),
        (MaskConfig(Group.INTEGER), 20_000_000_000_001, 6),
        (MaskConfig(Group.POWER2), 1 << 45, 6),
        (MaskConfig(models=Models.M6), 20_000_000_000_000_003, 7),
        (MaskConfig(models=Models.M9), 20_000_000_000_000_000_011, 9),
        (MaskConfig(models=Models.M12), 20_000_000_000_000_000_000_003, 10),
        (MaskConfig(bound=Bound.B2), 2_000_000_000_000_021, 7),
        (MaskConfig(bound=Bound.B6), 20_000_000_000_000_000_011, 9),
        (MaskConfig(data=Data.F64), 200_000_000_000_000_000_000_069, 10),
        (MaskConfig(Group.INTEGER, Data.I64, Bound.BMAX), 184_467_440_737_095_516_150_000_000_000_001, 14),
    ],
)
def test_known_orders(config: MaskConfig, order: int, number_bytes: int) -> None:
    assert (config.order, config.number_bytes) == (order, number_bytes)


@pytest.mark.parametrize(("bound", "data", "size"), [(Bound.BMAX, Data.F32, 37), (Bound.BMAX, Data.F64, 264)])
def test_sizes_without_a_bound(bound: Bound, data: Data, size: int) -> None:
    assert MaskConfig(data=data, bound=bound).number_bytes == size


def test_shifts() -> None:
    assert (MaskConfig().add_shift, MaskConfig().exp_shift, MaskConfig().most_models) == (1, 10**10, 1000)
    assert MaskConfig(bound=Bound.B4).add_shift == 10**4
    assert MaskConfig(bound=Bound.BMAX).add_shift == 340282346638528859811704183484516925440
    assert MaskConfig(bound=Bound.BMAX).exp_shift == 10**45
    assert MaskConfig(data=Data.F64).exp_shift == 10**20
    assert MaskConfig(data=Data.F64, bound=Bound.BMAX).exp_shift == 10**324
    assert MaskConfig(data=Data.I32, bound=Bound.BMAX).add_shift == 2**31
    assert MaskConfig(data=Data.I64, bound=Bound.BMAX).add_shift == 2**63


def test_a_draw_may_be_longer_than_a_number() -> None:
    """2^56 needs 57 bits, its largest element 56."""
    found = [config for config in ALL if config.draw_bytes != config.number_bytes]
    assert found
    assert all(config.group is Group.POWER2 and config.order.bit_length() % 8 == 1 for config in found)


def test_four_bytes_name_a_configuration() -> None:
    for config in ALL:
        assert MaskConfig.from_bytes(config.to_bytes(), "p0") == config
    assert MaskConfig(Group.PRIME, Data.F64, Bound.BMAX, Models.M12).to_bytes() == bytes((1, 1, 255, 12))


@pytest.mark.parametrize(
    "data", [b"", bytes(3), bytes(5), bytes((3, 0, 0, 3)), bytes((0, 4, 0, 3)), bytes((0, 0, 1, 3)), bytes(4)]
)
def test_refuses_bytes_that_name_none(data: bytes) -> None:
    with pytest.raises(PeerProtocolError) as caught:
        MaskConfig.from_bytes(data, "p0")
    assert caught.value.peer == "p0"


def test_primes() -> None:
    """Against trial division, and numbers that weaker tests take for primes."""
    small = [number for number in range(2, 10_000) if all(number % other for other in range(2, int(number**0.5) + 1))]
    assert [number for number in range(10_000) if is_prime(number)] == small
    carmichael, strong_pseudoprime, mersenne = 561, 3_825_123_056_546_413_051, 2**127 - 1
    assert [is_prime(number) for number in (carmichael, strong_pseudoprime, mersenne, mersenne * 4099)] == [
        False,
        False,
        True,
        False,
    ]
    assert next_prime(7919) == 7919
    assert next_prime(7920) == 7927
    assert not is_prime(4099 * 4111)
    assert is_prime(4111)


@pytest.mark.slow
def test_the_prime_orders_are_prime() -> None:
    assert all(is_prime(config.order) for config in ALL if config.group is Group.PRIME)
