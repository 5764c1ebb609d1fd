"""Masking configurations by formula: group, data type, bound and number of models give shifts, order and sizes.

    A   add_shift     10^bound (1, 100, 10^4, 10^6), or the largest magnitude of the data type
    E   exp_shift     10^10 for F32, I32 and I64, 10^20 for F64; 10^45 and 10^324 for F32 and F64 without a bound
    M   most models   10^3, 10^6, 10^9, 10^12
    q   order         integer: 2 A E M + 1,  prime: the next prime from there,  power of two: the next power

Orders without a bound are not quite this formula: the originals were typed by hand. For F32, 2 A is rounded to
6.805647e38; for F64 it is cut to 3.595386269724631e308, except for primes, which follow a number from a calculation
in floating point; for integers 2 A is MAX - MIN, one less than ours. The tests hold all 240 to the published numbers.

Source: xaynet 0.11, `xaynet-core/src/mask/config` (Apache-2.0); primes: Miller, Rabin.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from functools import cache

from ridotto.errors import PeerProtocolError

CONFIG_BYTES = 4


class Group(IntEnum):
    """Name the kind of group order."""

    INTEGER = 0
    PRIME = 1
    POWER2 = 2


class Data(IntEnum):
    """Name the primitive type of weights."""

    F32 = 0
    F64 = 1
    I32 = 2
    I64 = 3


class Bound(IntEnum):
    """Name the largest magnitude of a weight: 10^bound, or that of the data type."""

    B0 = 0
    B2 = 2
    B4 = 4
    B6 = 6
    BMAX = 255


class Models(IntEnum):
    """Name the most models that are added: 10^models."""

    M3 = 3
    M6 = 6
    M9 = 9
    M12 = 12


_LARGEST = {Data.F32: (2**24 - 1) << 104, Data.F64: (2**53 - 1) << 971, Data.I32: 2**31, Data.I64: 2**63}
_WIDTH = {Data.F32: 6805647 * 10**32, Data.F64: 3595386269724631 * 10**293, Data.I32: 2**32 - 1, Data.I64: 2**64 - 1}
"""2 A as the orders without a bound have it."""

_TYPED_PRIMES = {
    Models.M3: 0x9A65406D44A5C3FDE0E2684563EE4C98 << 1984 | 549,
    Models.M6: 0x25B1B83AAD4278597B674674F0E5ADB3036 << 1984 | 1807,
    Models.M9: 0x933E37A534CBA61D8A0B6B38CD012E83455DB << 1984 | 45,
    Models.M12: 0x23F2B095D563B80E3633C9AD5E0CC9DB0C6F6129 << 1984 | 321,
}
"""The prime orders for F64 without a bound. They follow 2 A E M as somebody calculated it, with some 40 digits; to
search for primes of this size takes seconds, so they are written down."""

_BOUNDED_DIGITS = {Data.F32: 10, Data.F64: 20, Data.I32: 10, Data.I64: 10}
_UNBOUNDED_DIGITS = {Data.F32: 45, Data.F64: 324, Data.I32: 10, Data.I64: 10}


@dataclass(frozen=True, slots=True)
class MaskConfig:
    """Choose how numbers are encoded into a group.

    Every participant of a round uses the coordinator's choice. `order` is computed once per choice.
    """

    group: Group = Group.PRIME
    data: Data = Data.F32
    bound: Bound = Bound.B0
    models: Models = Models.M3

    @property
    def add_shift(self) -> int:
        """Return A, what makes weights non-negative: their largest magnitude."""
        return _LARGEST[self.data] if self.bound is Bound.BMAX else 10 ** int(self.bound)

    @property
    def exp_shift(self) -> int:
        """Return E, what makes weights integers: a number becomes floor((w + A) E)."""
        digits = _UNBOUNDED_DIGITS if self.bound is Bound.BMAX else _BOUNDED_DIGITS
        return int(10 ** digits[self.data])

    @property
    def most_models(self) -> int:
        """Return M, the most models that may be added."""
        return int(10 ** int(self.models))

    @property
    def order(self) -> int:
        """Return q, the order of the group."""
        return _order(self)

    @property
    def number_bytes(self) -> int:
        """Return the bytes of one element in a message: as many as q - 1 needs."""
        return (self.order - 1).bit_length() + 7 >> 3

    @property
    def draw_bytes(self) -> int:
        """Return the bytes of one draw of a mask's element: as many as q (not q - 1) needs."""
        return self.order.bit_length() + 7 >> 3

    def to_bytes(self) -> bytes:
        """Return the 4 bytes that name this configuration in messages."""
        return bytes((self.group, self.data, self.bound, self.models))

    @classmethod
    def from_bytes(cls, data: bytes, peer: str) -> MaskConfig:
        """Read `to_bytes`. Raises PeerProtocolError if `peer` sent something that is no configuration."""
        if len(data) != CONFIG_BYTES:
            raise PeerProtocolError(peer, f"a mask configuration has {CONFIG_BYTES} bytes, not {len(data)}")
        try:
            return cls(Group(data[0]), Data(data[1]), Bound(data[2]), Models(data[3]))
        except ValueError:
            raise PeerProtocolError(peer, f"there is no mask configuration {bytes(data).hex()}") from None


@dataclass(frozen=True, slots=True)
class MaskConfigPair:
    """Hold the configurations of a model's weights (`vect`) and of the scalar that multiplies them (`unit`)."""

    vect: MaskConfig = MaskConfig()
    unit: MaskConfig = MaskConfig()


@cache
def _order(config: MaskConfig) -> int:
    doubled = _WIDTH[config.data] if config.bound is Bound.BMAX else 2 * config.add_shift
    smallest = doubled * config.exp_shift * config.most_models + 1
    match config.group:
        case Group.INTEGER:
            return smallest
        case Group.PRIME if config.data is Data.F64 and config.bound is Bound.BMAX:
            return _TYPED_PRIMES[config.models]
        case Group.PRIME:
            return next_prime(smallest)
        case Group.POWER2:
            return 1 << (smallest - 1).bit_length()


def _small_primes(limit: int) -> tuple[int, ...]:
    sieve = bytearray([1]) * limit
    for number in range(2, limit):
        if sieve[number]:
            sieve[number * number :: number] = bytes(len(range(number * number, limit, number)))
    return tuple(number for number in range(2, limit) if sieve[number])


_SMALL_PRIMES = _small_primes(4096)

_BASES = 40
"""The first 13 prime bases prove primes below 3.3e24 (Sorenson, Webster, 2015). Above, a composite number that was not
chosen to deceive passes 40 with a chance below 2^-80; ours are fixed by the formula, and the tests know them."""


def is_prime(number: int) -> bool:
    """Tell whether a number is prime: Miller's and Rabin's test with the first 40 primes as bases."""
    for prime in _SMALL_PRIMES:
        if number % prime == 0:
            return number == prime
    if number < 2:
        return False
    twos = ((number - 1) & -(number - 1)).bit_length() - 1
    odd = number - 1 >> twos
    return all(_passes(number, base, odd, twos) for base in _SMALL_PRIMES[:_BASES])


def next_prime(number: int) -> int:
    """Return the smallest prime from `number` on."""
    while not is_prime(number):
        number += 1
    return number


def _passes(number: int, base: int, odd: int, twos: int) -> bool:
    """Tell whether `number` = odd * 2^twos + 1 behaves to `base` as a prime does."""
    power = pow(base, odd, number)
    if power in (1, number - 1):
        return True
    for _ in range(twos - 1):
        power = power * power % number
        if power == number - 1:
            return True
    return False
