"""What docs/protocols/xaynet.md says that PET does not protect: shown, so that the page stays honest."""

from __future__ import annotations

import numpy as np
import pytest

from ridotto.core.rng import insecure_seeded_rng
from ridotto.crypto.sodium import BoxKey
from ridotto.errors import PeerProtocolError
from ridotto.secagg.xaynet.derive import MaskObject, derive_mask
from ridotto.secagg.xaynet.encode import unmask
from ridotto.secagg.xaynet.machine import RoundFailed
from ridotto.secagg.xaynet.sortition import task_of
from ridotto.secagg.xaynet.wire import Update, open_message, parse_payload, seal_payload
from tests.secagg.xaynet.world import World, make_settings

MODEL = [0.5, -0.25, 0.0, 1.0]


def read(world: World, box: bytes, summer: bytes, ephemeral: BoxKey, summers: int) -> list[float]:
    """What a coordinator and one summer's ephemeral key make of one updater's message."""
    message = open_message(box, world.machine._key)
    settings = world.settings
    update = parse_payload(message.peer, message.tag, message.payload, settings.configs, settings.length, summers)
    assert isinstance(update, Update)
    seed = ephemeral.open(update.seeds[summer])
    return unmask(update.masked, derive_mask(seed, settings.length, settings.configs), 1).to_float32().tolist()


def test_one_summer_and_the_coordinator_read_every_model() -> None:
    world = World(make_settings(summers=2))
    world.sum()
    (box,) = world.updaters[0].update_boxes(world.machine.sums or {}, MODEL, 0.5)
    traitor = world.summers[1]
    assert traitor._round is not None
    assert read(world, box, traitor.public, traitor._round[2], 2) == MODEL


def test_a_lying_coordinator_names_a_summer_of_its_own() -> None:
    world = World(make_settings())
    world.sum()
    invented = BoxKey.generate(world.rng)
    shown = dict(world.machine.sums or {}) | {bytes(32): invented.public}
    (box,) = world.updaters[0].update_boxes(shown, MODEL, 1)
    assert read(world, box, bytes(32), invented, 2) == MODEL


def test_one_updater_ends_a_round_by_a_seed_that_does_not_open() -> None:
    """The coordinator can't tell, the summers can only be silent; ours at least knows by whose fault."""
    world = World(make_settings())
    world.sum()
    summer = world.summers[0].public
    for one in world.updaters[1:]:
        world.send(one.update_boxes(world.machine.sums or {}, MODEL, 1))
    liar = world.updaters[0]
    world.send(update_of(world, liar, {summer: bytes(80)}))
    with pytest.raises(PeerProtocolError, match="does not open") as caught:
        world.summers[0].sum2_boxes(world.machine.seeds_for(summer) or {})
    assert caught.value.peer == liar.public.hex()
    world.effects += world.machine.expire(10.0)
    assert world.published(RoundFailed)[0].error.code == "TOO_FEW"


def update_of(world: World, one: object, seeds: dict[bytes, bytes], element: int = 0) -> list[bytes]:
    """An update whose elements are all the same, with seeds that say nothing about them."""
    key, parameters = one._key, world.machine.parameters  # type: ignore[attr-defined]
    task = task_of(key, parameters)
    masked = MaskObject.zero(world.settings.configs, world.settings.length)
    masked.vect += np.uint64(element)
    update = Update(task.sum_signature, task.update_signature, masked, seeds)
    return seal_payload(update, key, parameters.key, insecure_seeded_rng(9))


def test_a_mask_of_another_seed_than_was_sealed_is_noticed() -> None:
    """Of 3 models for which masks have room for 1,000, a random sum of one weight is possible once in 333 times."""
    world = World(make_settings())
    world.sum()
    for one in world.updaters[1:]:
        world.send(one.update_boxes(world.machine.sums or {}, MODEL, 1))
    (honest,) = world.updaters[0].update_boxes(world.machine.sums or {}, MODEL, 1)
    message = open_message(honest, world.machine._key)
    update = parse_payload(message.peer, message.tag, message.payload, world.settings.configs, 4, 1)
    assert isinstance(update, Update)
    world.send(update_of(world, world.updaters[0], dict(update.seeds), element=123_456_789_012))
    world.sum2()
    assert world.published(RoundFailed)[0].error.code == "IMPOSSIBLE_SUM"
