"""Rounds of PET: what comes out, what is refused, and how rounds fail."""

from __future__ import annotations

from fractions import Fraction

import pytest

from ridotto.core.machine import Finish, Wake
from ridotto.core.rng import insecure_seeded_rng
from ridotto.crypto.sodium import BoxKey, SigningKey, seal
from ridotto.errors import ConfigError, LocalProtocolError, PeerProtocolError
from ridotto.secagg.xaynet.client import XaynetParticipant
from ridotto.secagg.xaynet.config import Bound, Group, MaskConfig, MaskConfigPair, Models
from ridotto.secagg.xaynet.derive import MaskObject
from ridotto.secagg.xaynet.machine import Phase, PhaseBegun, RoundBegun, RoundDone, RoundFailed, XaynetCoordinator
from ridotto.secagg.xaynet.settings import PhaseLimits
from ridotto.secagg.xaynet.sortition import next_seed, task_of
from ridotto.secagg.xaynet.wire import Sum, Sum2, Update, seal_payload
from tests.secagg.xaynet.world import World, make_settings

MODELS = [[0.5, -0.25, 0.0, 1.0], [0.25, 0.5, -1.0, 0.75], [-0.5, 0.25, 1.0, 0.0]]
SCALARS = [Fraction(1, 2), Fraction(1, 4), Fraction(1, 4)]
MEAN = [Fraction(3, 16), Fraction(1, 16), Fraction(0), Fraction(11, 16)]


def key_of(one: XaynetParticipant) -> SigningKey:
    return one._key


def task(world: World, one: XaynetParticipant) -> object:
    return task_of(key_of(one), world.machine.parameters)


def test_the_exact_weighted_mean_comes_out_again_and_again() -> None:
    world = World(make_settings(summers=2))
    for number in (1, 2, 3):
        world.sum()
        world.update(MODELS, SCALARS)
        world.sum2()
        done = world.published(RoundDone)[-1]
        assert done.number == number
        assert done.mean.to_fractions() == MEAN
        assert done.mean.scalars == 1
        assert done.mean.to_float32().tolist() == [float(weight) for weight in MEAN]
        assert set(done.updaters) == {one.public.hex() for one in world.updaters}
        assert set(done.summers) == {one.public.hex() for one in world.summers}
        assert done.dissenters == ()
        world.cast()
    assert isinstance(world.effects[-1], Finish)
    assert world.machine.phase is Phase.IDLE
    with pytest.raises(PeerProtocolError, match="at most 0 are taken"):
        world.machine.receive(b"x", 0)
    assert world.machine.expire(1e9) == []


@pytest.mark.parametrize(
    "config",
    [
        MaskConfig(Group.INTEGER, bound=Bound.B2),
        MaskConfig(Group.POWER2, models=Models.M6),
        MaskConfig(bound=Bound.B6),
        MaskConfig(bound=Bound.BMAX),
    ],
)
def test_every_kind_of_group_gives_it(config: MaskConfig) -> None:
    world = World(make_settings(configs=MaskConfigPair(config, config)))
    world.sum()
    world.update(MODELS, SCALARS)
    world.sum2()
    assert world.published(RoundDone)[0].mean.to_fractions() == MEAN


def test_messages_in_pieces_give_the_same() -> None:
    world = World(make_settings(), most_bytes=400)
    world.sum()
    assert len(world.updaters[0].update_boxes(world.machine.sums or {}, MODELS[0], 1)) == 2
    world.update(MODELS, SCALARS)
    world.sum2()
    assert world.published(RoundDone)[0].mean.to_fractions() == MEAN
    assert world.machine._chunks.held_bytes == 0


def test_phases_begin_one_after_the_other_and_are_timed() -> None:
    world = World(make_settings())
    assert [type(effect) for effect in world.effects[2:]] == [Wake, Wake]
    assert [effect.at for effect in world.effects if isinstance(effect, Wake)] == [0.0, 10.0]
    assert (world.machine.sums, world.machine.seeds_for(world.summers[0].public)) == (None, None)
    world.sum()
    assert world.machine.sums is not None
    world.update(MODELS)
    assert world.machine.seeds_for(bytes(32)) is None
    assert len(world.machine.seeds_for(world.summers[0].public) or {}) == 3
    world.sum2()
    assert [record.phase for record in world.published(PhaseBegun)] == [Phase.SUM, Phase.UPDATE, Phase.SUM2, Phase.SUM]


def test_a_phase_ends_with_enough_once_its_time_has_come() -> None:
    world = World(make_settings(updaters=5))
    world.sum()
    sums = world.machine.sums or {}
    for one in world.updaters[:3]:
        world.send(one.update_boxes(sums, MODELS[0], 1))
    assert world.machine.phase is Phase.UPDATE
    assert world.machine.expire(4.9) == []
    world.effects += world.machine.expire(5.0)
    assert world.machine.phase is Phase.SUM2
    world.sum2()
    assert world.published(RoundDone)[0].mean.models == 3


@pytest.mark.parametrize("phase", [Phase.SUM, Phase.UPDATE, Phase.SUM2])
def test_a_phase_without_enough_fails_the_round_and_the_next_begins(phase: Phase) -> None:
    world = World(make_settings())
    if phase is not Phase.SUM:
        world.sum()
    if phase is Phase.SUM2:
        world.update(MODELS)
    before = world.machine.parameters
    assert world.machine.expire(9.9) == []
    world.effects += world.machine.expire(10.0)
    failed = world.published(RoundFailed)[0]
    assert (failed.number, failed.error.code) == (1, "TOO_FEW")
    assert f"phase {phase} has 0 messages" in str(failed.error)
    assert [record.number for record in world.published(RoundBegun)] == [1, 2]
    assert world.machine.parameters.key != before.key
    assert world.machine.parameters.seed != before.seed


def test_the_seed_of_a_round_follows_from_the_one_before() -> None:
    world = World(make_settings())
    before, after = bytes(32), world.machine.parameters
    assert after.seed == next_seed(before, world.machine._key.to_bytes(), after.sum, after.update)


def test_a_wrong_mask_is_outvoted_and_its_sender_named() -> None:
    world = World(make_settings(summers=3))
    world.sum()
    world.update(MODELS, SCALARS)
    liar = world.summers[0]
    for one in world.summers[1:]:
        world.send(one.sum2_boxes(world.machine.seeds_for(one.public) or {}))
    world.send(lie(world, liar))
    done = world.published(RoundDone)[0]
    assert done.mean.to_fractions() == MEAN
    assert done.dissenters == (liar.public.hex(),)


def lie(world: World, one: XaynetParticipant, number: int = 7) -> list[bytes]:
    """A summer that sends something else instead of the mask."""
    mask = MaskObject.zero(world.settings.configs, world.settings.length)
    mask.vect += number
    signature = task_of(key_of(one), world.machine.parameters).sum_signature
    return seal_payload(Sum2(signature, mask), key_of(one), world.machine.parameters.key, insecure_seeded_rng(5))


@pytest.mark.parametrize("liars", [1, 2])
def test_masks_without_a_majority_fail_the_round(liars: int) -> None:
    """Two that disagree, and (which the original would decide by plurality) three that all do."""
    world = World(make_settings(summers=liars + 1))
    world.sum()
    world.update(MODELS)
    honest = world.summers[0]
    world.send(honest.sum2_boxes(world.machine.seeds_for(honest.public) or {}))
    for number, one in enumerate(world.summers[1:]):
        world.send(lie(world, one, number))
    error = world.published(RoundFailed)[0].error
    assert error.code == "AMBIGUOUS_MASKS"
    assert set(error.blame) == {one.public.hex() for one in world.summers}


def test_a_sum_that_nobody_can_have_fails_the_round() -> None:
    world = World(make_settings())
    world.sum()
    world.update(MODELS)
    world.send(lie(world, world.summers[0]))
    assert world.published(RoundFailed)[0].error.code == "IMPOSSIBLE_SUM"


def test_scalars_of_zero_fail_the_round() -> None:
    world = World(make_settings())
    world.sum()
    world.update(MODELS, [0, 0, 0])
    world.sum2()
    assert world.published(RoundFailed)[0].error.code == "NO_WEIGHT"


def refused(world: World, boxes: list[bytes], why: str, who: str | None = None) -> None:
    with pytest.raises(PeerProtocolError, match=why) as caught:
        world.send(boxes)
    assert caught.value.peer == ("unknown" if who is None else who)


def test_refuses_what_is_out_of_turn_or_repeated() -> None:
    world = World(make_settings(summers=2))
    first, second = world.summers
    updater = world.updaters[0]
    world.send(first.sum_boxes())
    refused(world, first.sum_boxes(), "sent its sum message twice", first.public.hex())
    early = updater.update_boxes({first.public: BoxKey.generate(world.rng).public}, MODELS[0], 1)
    refused(world, early, "at most 280 are taken")
    world.send(second.sum_boxes())
    refused(world, first.sum_boxes(), "sent sum in phase update", first.public.hex())
    world.send(updater.update_boxes(world.machine.sums or {}, MODELS[0], 1))
    again = updater.update_boxes(world.machine.sums or {}, MODELS[0], 1)
    refused(world, again, "sent its update message twice", updater.public.hex())


def test_refuses_who_is_not_eligible() -> None:
    world = World(make_settings())
    summer, updater = world.summers[0], world.updaters[0]
    key, parameters = key_of(updater), world.machine.parameters
    proofs = task_of(key, parameters)
    epk = BoxKey.generate(world.rng).public
    refused(
        world,
        seal_payload(Sum(proofs.sum_signature, epk), key, parameters.key, world.rng),
        "not eligible for the sum",
        key.public.hex(),
    )
    foreign = task_of(key_of(summer), parameters).sum_signature
    refused(
        world, seal_payload(Sum(foreign, epk), key, parameters.key, world.rng), "not of this round", key.public.hex()
    )
    world.sum()
    masked = MaskObject.zero(world.settings.configs, 4)
    seeds = {summer.public: bytes(80)}
    ours = task_of(key_of(summer), parameters)

    def update(signer: SigningKey, sum_signature: bytes, update_signature: bytes) -> list[bytes]:
        return seal_payload(Update(sum_signature, update_signature, masked, seeds), signer, parameters.key, world.rng)

    refused(
        world,
        update(key_of(summer), ours.sum_signature, ours.update_signature),
        "is a summer in this round",
        summer.public.hex(),
    )
    refused(
        world,
        update(key_of(summer), bytes(64), ours.update_signature),
        "sum signature is not of this round",
        summer.public.hex(),
    )
    refused(
        world,
        update(key, proofs.sum_signature, proofs.sum_signature),
        "update signature is not of this round",
        key.public.hex(),
    )


def test_refuses_who_is_not_eligible_for_the_update() -> None:
    world = World(make_settings(update_chance=0.5))
    world.sum()
    rng = world.rng.child("idle")
    for _ in range(100):
        key = SigningKey.generate(rng)
        proofs = task_of(key, world.machine.parameters)
        if proofs.role == "none":
            break
    masked = MaskObject.zero(world.settings.configs, 4)
    update = Update(proofs.sum_signature, proofs.update_signature, masked, {world.summers[0].public: bytes(80)})
    refused(
        world,
        seal_payload(update, key, world.machine.parameters.key, rng),
        "not eligible for the update",
        key.public.hex(),
    )


def test_refuses_seeds_for_other_summers_and_wrong_sizes() -> None:
    world = World(make_settings())
    world.sum()
    updater = world.updaters[0]
    stranger = {bytes(32): BoxKey.generate(world.rng).public}
    refused(
        world, updater.update_boxes(stranger, MODELS[0], 1), "not sealed for exactly the summers", updater.public.hex()
    )
    refused(world, updater.update_boxes({}, MODELS[0], 1), "update message has .* bytes, not", updater.public.hex())
    two = dict(world.machine.sums or {}) | stranger
    refused(world, updater.update_boxes(two, MODELS[0], 1), "at most")
    world.update(MODELS)
    assert world.machine.phase is Phase.SUM2


def test_refuses_masks_of_who_was_no_summer_in_the_first_phase() -> None:
    world = World(make_settings(summers=2, sum=PhaseLimits(least=1, most=2, min_s=0, max_s=10)))
    world.send(world.summers[0].sum_boxes())
    world.effects += world.machine.expire(0.0)
    world.update(MODELS)
    late = world.summers[1]
    refused(world, lie(world, late), "was no summer in the first phase", late.public.hex())


def test_refuses_keys_of_low_order_and_other_coordinators() -> None:
    world = World(make_settings())
    summer = world.summers[0]
    signature = task_of(key_of(summer), world.machine.parameters).sum_signature
    low = seal_payload(Sum(signature, bytes(32)), key_of(summer), world.machine.parameters.key, world.rng)
    refused(world, low, "nothing can be sealed", summer.public.hex())
    other = BoxKey.generate(world.rng)
    box = seal_payload(Sum(signature, other.public), key_of(summer), other.public, world.rng)[0]
    refused(
        world,
        [seal(other.open(box), world.machine.parameters.key, world.rng)],
        "another coordinator",
        summer.public.hex(),
    )
    refused(world, [box], "does not open")


def test_a_refusal_changes_nothing() -> None:
    world = World(make_settings())
    world.sum()
    updater = world.updaters[0]
    good = updater.update_boxes(world.machine.sums or {}, MODELS[0], SCALARS[0])[0]
    for place in (0, 40, 100, len(good) - 1):
        bad = bytearray(good)
        bad[place] ^= 1
        refused(world, [bytes(bad)], "does not open")
    world.update(MODELS, SCALARS)
    world.sum2()
    assert world.published(RoundDone)[0].mean.to_fractions() == MEAN


def test_a_summer_gives_no_mask_of_few_and_none_with_a_bad_seed() -> None:
    world = World(make_settings())
    world.sum()
    world.update(MODELS)
    summer = world.summers[0]
    seeds = dict(world.machine.seeds_for(summer.public) or {})
    bad = next(iter(seeds))
    with pytest.raises(PeerProtocolError, match="mask of 2 updates: too few"):
        summer.sum2_boxes({key: box for key, box in seeds.items() if key != bad})
    for box in (bytes(80), seal(b"short", (world.machine._sums)[summer.public], world.rng)):
        with pytest.raises(PeerProtocolError, match="the seed that it sealed") as caught:
            summer.sum2_boxes(seeds | {bad: box})
        assert caught.value.peer == bad.hex()


def test_participants_refuse_roles_that_they_do_not_have() -> None:
    world = World(make_settings())
    summer, updater = world.summers[0], world.updaters[0]
    for call in (lambda: summer.update_boxes({}, MODELS[0], 1), updater.sum_boxes, lambda: updater.sum2_boxes({})):
        with pytest.raises(LocalProtocolError, match="has not the role"):
            call()
    with pytest.raises(LocalProtocolError, match="3 weights, the round asks for 4"):
        updater.update_boxes({}, [1.0, 2.0, 3.0], 1)
    with pytest.raises(PeerProtocolError, match="nothing can be sealed"):
        updater.update_boxes({summer.public: bytes(32)}, MODELS[0], 1)
    with pytest.raises(LocalProtocolError, match="started before"):
        world.machine.start(0)


LIMITS = PhaseLimits(least=1, most=2, min_s=0, max_s=1)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"length": 0}, "at least one weight"),
        ({"sum_chance": 0.0}, "the chances are"),
        ({"sum_chance": 1.0}, "the chances are"),
        ({"update_chance": float("nan")}, "the chances are"),
        ({"update": LIMITS}, "at least 3 updates"),
        ({"update": PhaseLimits(least=3, most=1001, min_s=0, max_s=1)}, "the 1000 that the masks have room for"),
        ({"sum2": PhaseLimits(least=2, most=2, min_s=0, max_s=1)}, "2 masks are needed"),
        ({"length": 2**31}, "can't hold"),
        ({"unfinished_bytes": -1}, "unfinished_bytes"),
    ],
)
def test_refuses_settings_that_can_not_work(changes: dict[str, object], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        make_settings(**changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("numbers", [(0, 1, 0, 1), (2, 1, 0, 1), (1, 1, 2, 1), (1, 1, -1, 1), (1, 1, 0, float("inf"))])
def test_refuses_limits_that_can_not_work(numbers: tuple[float, ...]) -> None:
    least, most, min_s, max_s = numbers
    with pytest.raises(ConfigError):
        PhaseLimits(least=int(least), most=int(most), min_s=min_s, max_s=max_s)


def test_two_coordinators_differ_by_their_first_seed() -> None:
    found = set()
    for seed in (bytes(32), b"\1" * 32):
        machine = XaynetCoordinator(make_settings(), insecure_seeded_rng(1), seed=seed)
        machine.start(0)
        found.add(machine.parameters.seed)
    assert len(found) == 2
