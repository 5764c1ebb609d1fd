"""Masks from seeds: known answers, one draw at a time against many, sums against single masks."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from ridotto.core.rng import insecure_seeded_rng
from ridotto.crypto.chacha20 import ChaCha20Stream
from ridotto.errors import LocalProtocolError
from ridotto.secagg.xaynet import derive
from ridotto.secagg.xaynet.config import Bound, Data, Group, MaskConfig, MaskConfigPair, Models
from ridotto.secagg.xaynet.derive import MaskObject, add_below, add_masks, derive_mask, load_kernels

RNG = insecure_seeded_rng(3)
CONFIGS = [
    MaskConfig(),
    MaskConfig(Group.INTEGER, bound=Bound.B2),
    MaskConfig(Group.POWER2, models=Models.M6),
    MaskConfig(Group.POWER2, bound=Bound.B4),
    MaskConfig(models=Models.M9),
    MaskConfig(bound=Bound.B6),
    MaskConfig(data=Data.F64),
    MaskConfig(bound=Bound.BMAX),
]


def one_by_one(seed: bytes, length: int, configs: MaskConfigPair) -> tuple[int, list[int]]:
    """The definition: draws of whole 32-bit words, as many as it takes."""
    stream = ChaCha20Stream(seed)

    def element(order: int) -> int:
        size = (order.bit_length() + 7) // 8
        while True:
            words = bytearray((size + 3) // 4 * 4)
            stream.fill(memoryview(words))
            if (number := int.from_bytes(words[:size], "little")) < order:
                return number

    return element(configs.unit.order), [element(configs.vect.order) for _ in range(length)]


def test_the_known_mask() -> None:
    """Reproduced by the original's own client."""
    mask = derive_mask(bytes(32), 4, MaskConfigPair())
    assert mask.unit == 11343681809713
    assert mask.vect.tolist() == [5166163054878, 19802247713817, 13039488148403, 12150543332323]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.to_bytes().hex())
def test_many_at_a_time_are_those_one_by_one(config: MaskConfig) -> None:
    """Units of other sizes shift where the vector's draws begin in the stream."""
    for unit in (config, MaskConfig(), MaskConfig(models=Models.M9)):
        configs, seed = MaskConfigPair(config, unit), RNG.bytes(32)
        mask = derive_mask(seed, 37, configs)
        assert (mask.unit, mask.vect.tolist()) == one_by_one(seed, 37, configs)


@pytest.mark.parametrize("length", [0, 1, 5000])
def test_masks_longer_than_a_piece_of_the_stream(length: int) -> None:
    seed = RNG.bytes(32)
    mask = derive_mask(seed, length, MaskConfigPair())
    assert (mask.unit, mask.vect.tolist()) == one_by_one(seed, length, MaskConfigPair())


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.to_bytes().hex())
def test_the_sum_of_masks_is_that_of_single_masks(config: MaskConfig) -> None:
    configs, seeds = MaskConfigPair(config, config), [RNG.bytes(32) for _ in range(7)]
    total = derive_mask(RNG.bytes(32), 9, configs)
    singles = [derive_mask(seed, 9, configs) for seed in seeds]
    expected = [
        sum(column) % config.order for column in zip(*(mask.vect.tolist() for mask in (total, *singles)), strict=True)
    ]
    unit = sum(mask.unit for mask in (total, *singles)) % config.order
    one_after_the_other = MaskObject(configs, total.vect.copy(), total.unit)
    add_masks(total, seeds)
    for mask in singles:
        one_after_the_other.add(mask)
    assert (total.vect.tolist(), total.unit) == (expected, unit)
    assert (one_after_the_other.vect.tolist(), one_after_the_other.unit) == (expected, unit)


def test_the_compiled_loop_gives_the_same() -> None:
    pytest.importorskip("numba")
    kernels = load_kernels()
    assert kernels is not None
    low_bits, order = np.uint64((1 << 48) - 1), np.uint64(MaskConfig().order)
    for size in (0, 1, 2, 1000):
        draws = np.frombuffer(RNG.bytes(8 * size), np.uint64)
        for length, place in ((50, 0), (1000, 100)):
            totals = [np.arange(length, dtype=np.uint64) for _ in range(2)]
            plain = add_below(draws.copy(), low_bits, order, totals[0], place)
            assert kernels.add_below(draws.copy(), low_bits, order, totals[1], place) == plain
            assert totals[0].tolist() == totals[1].tolist()


def test_the_compiled_loop_is_taken_once_it_pays_and_missed_without_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(derive, "KERNELS_PAY_DRAWS", 0)
    seed = RNG.bytes(32)
    found = []
    for installed in (True, False):
        if not installed:
            monkeypatch.setitem(sys.modules, "numba", None)
        for module in ("ridotto.core.compile", derive.KERNELS):
            monkeypatch.delitem(sys.modules, module, raising=False)
        found.append(derive_mask(seed, 6000, MaskConfigPair()).vect.tolist())
    assert found[0] == found[1] == one_by_one(seed, 6000, MaskConfigPair())[1]


def test_refuses_what_does_not_add_up() -> None:
    configs = MaskConfigPair()
    mask = derive_mask(bytes(32), 3, configs)
    with pytest.raises(LocalProtocolError, match="32 bytes, not 31"):
        add_masks(mask, [bytes(31)])
    for other in (
        derive_mask(bytes(32), 4, configs),
        derive_mask(bytes(32), 3, MaskConfigPair(unit=MaskConfig(bound=Bound.B2))),
    ):
        with pytest.raises(LocalProtocolError, match="don't add up"):
            mask.add(other)
    assert "vect" not in repr(mask)
