"""Sums of ciphertexts open under the sum of their keys, and a wrong key is seen."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from ridotto.core.fixedpoint import container
from ridotto.core.rng import insecure_seeded_rng, numpy_generator
from ridotto.crypto.lattice import kahe
from ridotto.crypto.lattice import loops as loops_module
from ridotto.crypto.lattice.fields import Shape, noise_limit
from ridotto.crypto.lattice.kahe import CipherSum, Noise, NoiseError, encrypt, generate_key, largest_key_sum
from ridotto.crypto.lattice.loops import Loops, PlainLoops
from ridotto.crypto.lattice.parameters import DEGREE, LARGEST_NOISE, MODULUS, SIGMA_NOISE
from ridotto.crypto.lattice.samplers import GaussianTable, public_elements
from ridotto.errors import DataError, LocalProtocolError, MissingExtraError

PLAIN = PlainLoops()
COMPILED = Loops()
BOTH = pytest.mark.parametrize("loops", [COMPILED, PLAIN], ids=["compiled", "plain"])


@pytest.fixture(autouse=True)
def _load() -> None:
    assert COMPILED.load()


def seed(index: int) -> bytes:
    return index.to_bytes(32, "big")


def random_vectors(shape: Shape, count: int) -> list[np.ndarray]:
    """Return vectors that use all the room there is, the extremes in front."""
    random = numpy_generator(insecure_seeded_rng(shape.bits))
    most, most_tail = (2 ** (shape.bits - 1) - 1) // count, (2**shape.bits - 1) // count
    rows = []
    for _ in range(count):
        row = random.integers(-most, most, shape.length, endpoint=True, dtype=np.int64)
        row[:2], row[2:4] = -most, most
        row[shape.length - shape.tail :] = min(most_tail, 2**62)
        rows.append((row.astype(np.uint64) & np.uint64(2**shape.bits - 1)).astype(container(shape.bits)))
    return rows


def plain_sum(vectors: list[np.ndarray], bits: int) -> np.ndarray:
    total = np.zeros(len(vectors[0]), np.uint64)
    for vector in vectors:
        total += vector
    return (total & np.uint64(2**bits - 1)).astype(container(bits))


@BOTH
@pytest.mark.parametrize("bits", [8, 20, 21, 28, 32, 42, 64])
def test_the_sum_is_exact(bits: int, loops: Loops) -> None:
    shape = Shape(5_000, bits, 9, 6)
    public, vectors = public_elements(b"p" * 32, shape.elements), random_vectors(shape, 6)
    total, keys = CipherSum(shape, loops=loops), np.zeros(DEGREE, np.int64)
    for index, vector in enumerate(vectors):
        before = vector.copy()
        key = generate_key(seed(index))
        total.add(encrypt(vector, key, seed(index), public, shape, loops))
        np.testing.assert_array_equal(vector, before)
        keys += key
    found, noise = total.open(keys, 6, public)
    noise.check(6)
    np.testing.assert_array_equal(found, plain_sum(vectors, bits))
    assert found.dtype == container(bits)


def test_compiled_and_plain_give_the_same_bytes() -> None:
    for contributions in (6, 2**14):
        shape = Shape(50_000, 21, 9, contributions)
        public = public_elements(b"p" * 32, shape.elements)
        vector = random_vectors(shape, 2)[0]
        key = generate_key(seed(1))
        one = encrypt(vector, key, seed(1), public, shape, COMPILED)
        assert one == encrypt(vector, key, seed(1), public, shape, PLAIN)
        assert len(one) == shape.size
        sums = [CipherSum(shape, loops=loops) for loops in (COMPILED, PLAIN)]
        for total in sums:
            total.add_all([one, bytes(one), bytearray(one), bytes(one), one, bytes(one)])
        np.testing.assert_array_equal(sums[0].total, sums[1].total)
        single = CipherSum(shape, loops=PLAIN)
        single.add(one)
        np.testing.assert_array_equal(sums[0].total, 6 * single.total)


def test_four_folded_at_once_are_four_folded_one_by_one() -> None:
    """Four different ciphertexts with the largest residues among them."""
    shape = Shape(5, 21, 2, 1024)
    random = numpy_generator(insecure_seeded_rng(5))
    four = [random.integers(0, 256, shape.size, dtype=np.uint8).tobytes() for _ in range(3)] + [b"\xff" * shape.size]
    one, other = CipherSum(shape, loops=COMPILED), CipherSum(shape, loops=PLAIN)
    one.add_all(four)
    for ciphertext in four:
        other.add(ciphertext)
    np.testing.assert_array_equal(one.total, other.total)


def test_a_fixed_ciphertext() -> None:
    """Known answer: a change of any step of the format changes this digest."""
    shape = Shape(10, 21, 3, 1024)
    vector = np.arange(10, dtype=np.uint32)
    ciphertext = encrypt(vector, generate_key(seed(7)), seed(8), public_elements(b"p" * 32, 1), shape, PLAIN)
    assert hashlib.sha256(ciphertext).hexdigest()[:16] == "9dbb5244c95db11c"


def largest_noise(self: GaussianTable, seed: bytes, label: str, count: int) -> np.ndarray:
    assert label == "noise"
    return np.full(count, LARGEST_NOISE, np.int16)


@BOTH
def test_inputs_and_noise_at_the_limit_stay_exact(loops: Loops, monkeypatch: pytest.MonkeyPatch) -> None:
    """1,024 contributions with the largest entries; and as much noise as is believed, all of one sign."""
    shape = Shape(50, 21, 3, 1024)
    public, key = public_elements(b"p" * 32, 1), generate_key(seed(1))
    monkeypatch.setattr(GaussianTable, "sample", largest_noise)
    for sign in (-1, 1):
        vector = np.full(50, sign * (2**20 // 1024 - 1) % 2**21, np.uint32)
        vector[-3:] = (2**21 - 1) // 1024
        one = np.frombuffer(encrypt(vector, key, seed(1), public, shape, loops), np.uint8)
        total = CipherSum(shape, loops=loops)
        total.add(one)
        # With noise 76 in every coefficient, so many contributions reach the limit of 1,024 honest ones.
        many = noise_limit(1024) // LARGEST_NOISE
        scaled = CipherSum(shape, total.total * np.uint64(many))
        found, noise = scaled.open(key * many, many, public)
        assert noise.largest == many * LARGEST_NOISE
        np.testing.assert_array_equal(found, (vector.astype(np.uint64) * many % 2**21).astype(np.uint32))


def test_a_thousand_contributions_at_the_bound_are_exact() -> None:
    """The largest inputs of both signs, real noise and keys: nothing wraps, and the check passes."""
    shape, count = Shape(30, 21, 3, 1024), 1024
    public, total = public_elements(b"p" * 32, 1), CipherSum(shape, loops=COMPILED)
    vector = np.full(30, 1023, np.uint32)
    vector[10:20] = 2**21 - 1023
    vector[-3:] = 2047
    keys = np.zeros(DEGREE, np.int64)
    for index in range(count):
        key = generate_key(seed(index))
        keys += key
        total.add(encrypt(vector, key, seed(index), public, shape, COMPILED))
    found, noise = total.open(keys, count, public)
    noise.check(count)
    assert noise.spread == pytest.approx(SIGMA_NOISE * 32, rel=0.06)
    np.testing.assert_array_equal(found, (vector.astype(np.uint64) * count % 2**21).astype(np.uint32))
    wrong = keys.copy()
    wrong[4095] -= 1
    _, noise = total.open(wrong, count, public)
    with pytest.raises(NoiseError, match="spread"):
        noise.check(count)


@pytest.mark.parametrize("place", [0, 1, 4095])
def test_a_key_off_by_one_is_seen(place: int) -> None:
    shape = Shape(100, 32, 10, 4)
    public, key = public_elements(b"p" * 32, 1), generate_key(seed(1))
    total = CipherSum(shape, loops=PLAIN)
    total.add(encrypt(np.zeros(100, np.uint32), key, seed(1), public, shape, PLAIN))
    key[place] += 1
    found, noise = total.open(key, 1, public)
    assert np.any(found)
    with pytest.raises(NoiseError):
        noise.check(1)


def test_noise_of_another_number_of_contributions_is_seen() -> None:
    spread = SIGMA_NOISE * 10
    Noise(spread, 300, DEGREE).check(100)
    for noise in (Noise(spread * 1.1, 300, DEGREE), Noise(spread * 0.9, 300, DEGREE), Noise(spread, 590, DEGREE)):
        with pytest.raises(NoiseError):
            noise.check(100)


def test_what_was_removed_is_gone() -> None:
    shape = Shape(20, 32, 2, 4)
    public, total = public_elements(b"p" * 32, 1), CipherSum(shape, loops=PLAIN)
    one, other = np.arange(20, dtype=np.uint32), np.full(20, 7, np.uint32)
    spoiled = encrypt(other, generate_key(seed(2)), seed(2), public, shape, PLAIN)
    total.add(encrypt(one, generate_key(seed(1)), seed(1), public, shape, PLAIN))
    total.add(spoiled)
    total.remove(spoiled)
    found, noise = total.open(generate_key(seed(1)), 1, public)
    noise.check(1)
    np.testing.assert_array_equal(found, one)


def test_a_ciphertext_hides_its_vector_from_the_eye() -> None:
    """Bytes of a ciphertext of zeros look uniform: chi-square, false alarm below 1e-9 (6 sigma, fixed seed)."""
    shape = Shape(4 * DEGREE, 21, 0, 1024)
    public = public_elements(b"p" * 32, 1)
    octets = np.frombuffer(
        encrypt(np.zeros(shape.length, np.uint32), generate_key(seed(1)), seed(1), public, shape, PLAIN), np.uint8
    )
    counts = np.bincount(octets, minlength=256)
    statistic = float(((counts - octets.size / 256) ** 2).sum() / (octets.size / 256))
    assert abs(statistic - 255) < 6 * np.sqrt(2 * 255)


def test_wrong_sizes_are_refused() -> None:
    shape = Shape(100, 32, 10, 4)
    public, total = public_elements(b"p" * 32, 1), CipherSum(shape)
    for size in (0, shape.size - 1, shape.size + 1):
        with pytest.raises(DataError, match="bytes"):
            total.add_all([bytes(shape.size), bytes(size)])
        with pytest.raises(DataError, match="bytes"):
            total.remove(bytes(size))
    assert not np.any(total.total)
    with pytest.raises(DataError):
        CipherSum(shape, np.zeros((2, 5), np.uint64))
    with pytest.raises(LocalProtocolError):
        encrypt(np.zeros(100, np.uint32), generate_key(seed(1)), seed(1), public[:, :0], shape)
    for contributions in (0, 5):
        with pytest.raises(LocalProtocolError):
            total.open(generate_key(seed(1)), contributions, public)


def test_sums_of_keys_are_small() -> None:
    assert np.abs(generate_key(seed(3))).max() <= largest_key_sum(1) == 54
    assert 2 * largest_key_sum(2**16) < 2**31 - 1


def test_loops_are_loaded_once_they_pay() -> None:
    loops = Loops()
    assert loops.for_elements(10) is None
    assert loops.for_elements(10_000) is not None
    assert PLAIN.for_elements(10_000) is None


def test_without_numba_numpy_does_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise MissingExtraError("numba", "speed")

    monkeypatch.setattr(loops_module, "import_module", missing)
    loops = Loops()
    assert not loops.load()
    assert loops.for_elements(10_000) is None


def test_a_number_is_put_together_from_its_residues() -> None:
    shape = Shape(1, 21, 0, 1024)
    numbers = [0, 1, MODULUS - 1, 2**84, 2**84 - 1, 2**64, MODULUS // 3, kahe.PRIMES[0], kahe.PRIMES[1] * 12345]
    one = np.array([number % kahe.PRIMES[0] for number in numbers], np.uint64)
    other = np.array([number % kahe.PRIMES[1] for number in numbers], np.uint64)
    low, high, above = kahe._recombine(one, other, shape)
    found = [int(a) + (int(b) << 42) + (int(c) << 84) for a, b, c in zip(low, high, above, strict=True)]
    assert found == numbers


def test_a_bound_seed_depends_on_every_bit_of_seed_and_vector() -> None:
    vector = np.arange(1000, dtype=np.uint32)
    first = kahe.bound_seed(seed(1), vector)
    assert first == kahe.bound_seed(seed(1), vector.copy())
    changed = vector.copy()
    changed[999] ^= 1
    assert len({first, kahe.bound_seed(seed(1), changed), kahe.bound_seed(seed(2), vector)}) == 3
    assert len(first) == 32
