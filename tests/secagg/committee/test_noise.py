"""Noise that the committee of `committee` adds: 4.17 of docs/threats.md. The sampler is the drivers' choice."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ridotto.core.fixedpoint import IntVector
from ridotto.core.machine import COORDINATOR
from ridotto.core.rng import insecure_seeded_rng
from ridotto.core.wire import Message, digest
from ridotto.crypto.seal import ExchangeKey, seal
from ridotto.errors import LocalProtocolError, PeerProtocolError
from ridotto.privacy.noise.discrete_gaussian import DiscreteGaussian
from ridotto.privacy.noise.words import Words
from ridotto.secagg.committee.binding import (
    CONTRIBUTION_CONTEXT,
    PARCEL_KEY_BYTES,
    PARCEL_LABEL,
    commit_seed,
    contribution_statement,
    parcel_info,
)
from ridotto.secagg.committee.masks import sum_masks
from ridotto.secagg.committee.messages import SeedParcel, SeedParcels
from ridotto.secagg.committee.tasks import SlotNoise, SumMasks
from ridotto.secagg.committee_roles.keys import book_root
from ridotto.secagg.committee_roles.messages import Acks, Included, SeatVote
from tests.secagg.committee.world import World, make_setup
from tests.secagg.committee_roles.attack import faults_of, silent
from tests.secagg.committee_roles.world import identity, lanes_of

SIGMA = 50.0
ENTRIES = 20_000


def discrete_gaussian(part: IntVector, sigma: float, seed: bytes) -> None:
    DiscreteGaussian(sigma).add_to(part, Words(seed))


def noisy_world(bits: int = 32, **changes: object) -> World:
    lanes = lanes_of(make_setup(5, bits=bits)).size
    return World(make_setup(5, sigma=SIGMA, bits=bits, length=ENTRIES + lanes, **changes), noise=discrete_gaussian)


def error_of(world: World, included: tuple[str, ...]) -> np.ndarray:
    """Return what the opened sum has beside the vectors, without the lanes, signed."""
    bits = world.setup.session.bits
    difference = (world.opened().astype(np.int64) - world.total(included).astype(np.int64)) % 2**bits
    return np.where(difference >= 2 ** (bits - 1), difference - 2**bits, difference)


@pytest.mark.parametrize("bits", [21, 32])
@pytest.mark.parametrize("gone", [(), ("p003",), ("p000", "p003")])
def test_4_17_the_noise_does_not_depend_on_who_leaves(gone: tuple[str, ...], bits: int) -> None:
    """Two slots, one of which may be corrupt: each adds all of sigma. Variance by chi-square, false alarms: 10^-6.

    A sample variance of 20,000 is off by more than 5 % with probability 6 x 10^-7.
    """
    world = noisy_world(bits)
    world.gone = gone
    finish = world.run()
    assert finish.error is None
    error = error_of(world, finish.result.included)
    assert not error[ENTRIES:].any()
    assert np.var(error[:ENTRIES]) == pytest.approx(2 * SIGMA**2, rel=0.05)
    assert abs(error[:ENTRIES].mean()) < 5 * SIGMA * math.sqrt(2 / ENTRIES)


def test_4_17_lost_replicas_cost_no_noise() -> None:
    world = noisy_world()
    world.tamper = silent("MaskSum", world.replica(0), world.replica(0, 1), world.replica(1))
    finish = world.run()
    assert np.var(error_of(world, finish.result.included)[:ENTRIES]) == pytest.approx(2 * SIGMA**2, rel=0.05)


def test_4_17_replicas_of_a_slot_add_the_same_noise_and_slots_do_not() -> None:
    world = noisy_world()
    world.run()
    assert not faults_of(world)
    assert len({one.message.digest for one in world.said("MaskSum")}) == 2
    seeds = set()
    for name in (world.replica(0), world.replica(1), world.replica(0, 1)):
        machine = world.member(name)
        machine.start(0.0)
        for kind in ("MemberBook", "SeedParcels", "Included", "Acks"):
            effects = machine.receive(
                "coordinator", next(one.message for one in world.said(kind) if one.to == name), 0.0
            )
        seeds.add(effects[0].task.noise.seed)
    assert len(seeds) == 2


def test_4_17_honest_slots_share_the_noise() -> None:
    """Of four slots one may be corrupt: the other three add sigma together, all four 4/3 of its variance."""
    world = noisy_world(slots=4, replicas=1, corrupt=1)
    finish = world.run()
    assert np.var(error_of(world, finish.result.included)[:ENTRIES]) == pytest.approx(4 / 3 * SIGMA**2, rel=0.05)


def test_noise_is_part_of_what_is_agreed_on() -> None:
    assert make_setup().context != make_setup(sigma=1.0).context != make_setup(sigma=2.0).context


def test_a_driver_without_a_source_of_noise_refuses() -> None:
    task = SumMasks(b"s" * 32, b"c" * 32, (b"1" * 32,), 8, 32, SlotNoise(b"n" * 32, 1.0, 4))
    with pytest.raises(LocalProtocolError, match="adds noise"):
        sum_masks(task)
    assert "nnnn" not in repr(task)


def several_lists_of_seeds(world: World) -> dict[int, list[Message]]:
    """Return what each replica of slot 1 is sent by a coordinator that works with p004.

    p004 has signed one vector several times, each time with another seed for slot 1, and sealed that seed for one of
    the slot's replicas only. Everything opens and bears a valid signature.
    """
    setup, evil, exchange = world.setup, 4, ExchangeKey.generate(insecure_seeded_rng(3))
    book = world.said("MemberBook")[0].message
    said = {seat: book_root(setup.context, book) for seat in setup.replicas[1]}
    sent = {}
    for seat, root in said.items():
        seeds = [bytes(32), bytes([seat + 1]) * 32]
        commitments = tuple(commit_seed(setup.context, evil, slot, seed) for slot, seed in enumerate(seeds))
        key = exchange.agree(
            book.entries[seat].public, setup.context, PARCEL_LABEL, parcel_info(root, evil, seat), PARCEL_KEY_BYTES
        )
        fingerprint = digest(b"one vector, whatever it is")
        statement = contribution_statement(setup.context, root, evil, exchange.public, fingerprint, commitments)
        signature = identity("p004").sign(CONTRIBUTION_CONTEXT, statement)
        sealed = seal(key, seeds[1], fingerprint)
        parcel = SeedParcel(evil, fingerprint, exchange.public, commitments, signature, sealed)
        name = setup.roster.members[seat].name
        honest = next(one.message for one in world.said("SeedParcels") if one.to == name).parcels[:4]
        sent[seat] = [book, SeedParcels(setup.sid, (*honest, parcel)), Included(setup.sid, (0, 1, 2, 3, 4))]
    return sent


def test_4_17_no_participant_can_make_replicas_of_a_slot_add_several_noises() -> None:
    """Averaged, three releases would have 1 / sqrt(3) of the noise. Several lists of seeds are several sets."""
    world = noisy_world()
    world.run()
    setup = world.setup
    acks: dict[int, Message] = {}
    members = {seat: world.member(setup.roster.members[seat].name) for seat in setup.replicas[1]}
    for seat, messages in several_lists_of_seeds(world).items():
        said = [members[seat].receive(COORDINATOR, message, 0.0) for message in messages]
        assert said[1][0].message.bad == ()
        acks[seat] = said[2][0].message
    assert len({ack.root for ack in acks.values()}) == 3
    votes = Acks(setup.sid, tuple(SeatVote(seat, ack.signature) for seat, ack in sorted(acks.items())))
    for member in members.values():
        with pytest.raises(PeerProtocolError, match="bears no valid signature"):
            member.receive(COORDINATOR, votes, 0.0)
