"""Keys compare right for every pair of small numbers and at all edges, and one key alone says nothing."""

from __future__ import annotations

import numpy as np
import pytest

from ridotto.core.rng import insecure_seeded_rng
from ridotto.errors import PeerProtocolError
from ridotto.infer import fss
from ridotto.infer.kernels.plain import Words
from ridotto.infer.streams import Dealing, Material
from tests.infer.two_parties import SESSION


def keys(secrets: Words, bits: int, flips: Words, seed: int = 1) -> list[tuple[Words, Words]]:
    dealing = Dealing(insecure_seeded_rng(seed), SESSION)
    fss.deal_keys(dealing, secrets, bits, flips)
    said = dealing.messages()
    assert said[0].size == said[1].size == fss.key_words(secrets.size, bits)
    materials = [Material(dealing.seeds[i], SESSION, said[i], first=i == 0) for i in range(2)]
    both = [fss.prepare_keys(material, secrets.size, bits) for material in materials]
    for material in materials:
        material.close()
        assert material.walk.digest() == dealing.walk.digest()
    return both


def less(public: Words, secrets: Words, bits: int) -> Words:
    """Return [public < secret] XOR a random flip XOR that flip."""
    flips = np.random.default_rng(bits).integers(0, 2, secrets.size, dtype=np.uint64)
    zero, one = keys(secrets, bits, flips)
    found: Words = fss.evaluate(True, zero, public, bits) ^ fss.evaluate(False, one, public, bits) ^ flips
    return found


@pytest.mark.parametrize("bits", [8, 10])
def test_all_pairs(bits: int) -> None:
    """Depths 1 and 3, all paths, all places of a leaf."""
    public, secrets = (part.reshape(-1).astype(np.uint64) for part in np.mgrid[: 2**bits, : 2**bits])
    np.testing.assert_array_equal(less(public, secrets, bits), public < secrets)


@pytest.mark.parametrize("bits", [12, 16, 20, 24, 28, 32])
def test_edges_and_random_numbers(bits: int) -> None:
    powers = {2**i + d for i in range(bits) for d in (-1, 0, 1)}
    edges = np.array(sorted(powers - {2**bits}), np.uint64)
    public, secrets = np.repeat(edges, edges.size), np.tile(edges, edges.size)
    np.testing.assert_array_equal(less(public, secrets, bits), public < secrets)
    public, secrets = np.random.default_rng(bits).integers(0, 2**bits, (2, 3000), dtype=np.uint64)
    np.testing.assert_array_equal(less(public, secrets, bits), public < secrets)


def test_higher_bits_do_not_matter() -> None:
    public, secrets = np.random.default_rng(1).integers(0, 2**64, (2, 1000), dtype=np.uint64)
    low = np.uint64(2**12 - 1)
    np.testing.assert_array_equal(less(public, secrets, 12), (public & low) < (secrets & low))


@pytest.mark.parametrize("party", [0, 1])
def test_one_key_and_its_share_look_the_same_for_any_two_secrets(party: int) -> None:
    """Corrections of 2,000 keys for the smallest and the largest secret: ones at each place, against a fair coin.

    False alarms: each of the 4 statistics is too large with probability 1e-6; the seed is fixed.
    """
    count, bits = 2000, 16
    for secret in (0, 2**bits - 1):
        secrets = np.full(count, secret, np.uint64)
        own = keys(secrets, bits, np.zeros(count, np.uint64), seed=2 + secret)[party]
        share = fss.evaluate(party == 0, own, np.full(count, 3, np.uint64), bits)
        bits_seen = np.unpackbits(own[1].transpose(1, 0, 2).reshape(count, -1).view(np.uint8), axis=1)
        ones = np.concatenate([bits_seen.sum(axis=0, dtype=np.int64), [int(share.sum())]])
        chi_square = float(((ones - count / 2) ** 2 / (count / 4)).sum())
        degrees = ones.size
        sigmas = ((chi_square / degrees) ** (1 / 3) - 1 + 2 / (9 * degrees)) / np.sqrt(2 / (9 * degrees))
        assert sigmas < 4.9


def test_a_key_that_is_cut_short_names_the_dealer() -> None:
    dealing = Dealing(insecure_seeded_rng(1), SESSION)
    fss.deal_keys(dealing, np.arange(4, dtype=np.uint64), 8, np.zeros(4, np.uint64))
    material = Material(dealing.seeds[0], SESSION, dealing.messages()[0][:-1], first=True)
    with pytest.raises(PeerProtocolError, match="dealer: 15 words of material are left, 16 are needed"):
        fss.prepare_keys(material, 4, 8)
