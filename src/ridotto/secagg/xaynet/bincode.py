"""The bodies that the coordinator serves over HTTP: Rust's `bincode` 1.3 with fixed integers, little-endian.

    key, seed, sealed seed   u64 length | bytes
    map                      u64 count | pairs
    enumeration              u32 index of the variant: of Bound and Models not the number that messages have
    number                   sign i8 | u64 count | 32-bit digits, lowest first; a ratio is two of them

    RoundParameters   pk | sum f64 | update f64 | seed | vect: 4 enumerations | unit: 4 enumerations | length u64
    SumDict           map: participant's key -> ephemeral key
    UpdateSeedDict    map: participant's key -> sealed seed
    Model             u64 count | ratios

Source: xaynet 0.11, `xaynet-server/src/rest.rs`; serde's implementations in `num-bigint`.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from fractions import Fraction
from typing import TypeVar

from ridotto.errors import DataError, PeerProtocolError
from ridotto.secagg.xaynet.config import Bound, Data, Group, MaskConfig, MaskConfigPair, Models

KEY_BYTES = 32
PARAMETERS_BYTES = 136

_COUNT = struct.Struct("<Q")
_PARAMETERS = struct.Struct("<Q32sddQ32s8IQ")
_DIGIT_BITS = 32

_Enumeration = TypeVar("_Enumeration", bound=IntEnum)


@dataclass(frozen=True, slots=True)
class RoundParameters:
    """Tell everyone what a round is.

    key: the coordinator's X25519 key of this round, 32 bytes. sum, update: chance of a participant to be chosen for
    either task, 0 to 1. seed: 32 bytes that participants sign to learn their task. length: weights of the model.
    """

    key: bytes
    sum: float
    update: float
    seed: bytes
    configs: MaskConfigPair
    length: int


def encode_parameters(parameters: RoundParameters) -> bytes:
    """Write round parameters, 136 bytes."""
    variants = (*_variants(parameters.configs.vect), *_variants(parameters.configs.unit))
    key, seed = parameters.key, parameters.seed
    return _PARAMETERS.pack(
        len(key), key, parameters.sum, parameters.update, len(seed), seed, *variants, parameters.length
    )


def decode_parameters(body: bytes, peer: str) -> RoundParameters:
    """Read round parameters. Raises PeerProtocolError, naming `peer`, if they are malformed."""
    if len(body) != PARAMETERS_BYTES:
        raise PeerProtocolError(peer, f"round parameters have {PARAMETERS_BYTES} bytes, not {len(body)}")
    key_size, key, chance, update, seed_size, seed, *variants, length = _PARAMETERS.unpack(body)
    if (key_size, seed_size) != (KEY_BYTES, KEY_BYTES):
        raise PeerProtocolError(peer, "a key or seed of the round has not 32 bytes")
    # Asked this way round, what is not a number is refused too.
    if not (0 <= chance <= 1 and 0 <= update <= 1):
        raise PeerProtocolError(peer, "a chance of the round is not from 0 to 1")
    configs = MaskConfigPair(_config(variants[:4], peer), _config(variants[4:], peer))
    return RoundParameters(key, chance, update, seed, configs, length)


def encode_keys(entries: Mapping[bytes, bytes]) -> bytes:
    """Write a SumDict or an UpdateSeedDict: byte strings by byte strings."""
    pieces = [_COUNT.pack(len(entries))]
    for key, value in entries.items():
        pieces += (_COUNT.pack(len(key)), key, _COUNT.pack(len(value)), value)
    return b"".join(pieces)


def decode_keys(body: bytes, value_bytes: int, peer: str) -> dict[bytes, bytes]:
    """Read what `encode_keys` wrote, with keys of 32 bytes and values of `value_bytes`.

    Raises PeerProtocolError, naming `peer`, if it is malformed or a key is there twice.
    """
    entry = struct.Struct(f"<Q{KEY_BYTES}sQ{value_bytes}s")
    if len(body) < _COUNT.size or _COUNT.size + entry.size * _COUNT.unpack_from(body)[0] != len(body):
        raise PeerProtocolError(peer, f"a dictionary of {len(body)} bytes does not have the length that it should")
    found: dict[bytes, bytes] = {}
    for key_size, key, value_size, value in entry.iter_unpack(memoryview(body)[_COUNT.size :]):
        if (key_size, value_size) != (KEY_BYTES, value_bytes) or key in found:
            raise PeerProtocolError(peer, "an entry of a dictionary is malformed or there twice")
        found[key] = value
    return found


def encode_model(numerators: Iterable[int], denominators: Iterable[int]) -> bytes:
    """Write a model of exact ratios, reduced; the denominators are not 0."""
    pieces = [b""]
    for numerator, denominator in zip(numerators, denominators, strict=True):
        divisor = math.gcd(numerator, denominator)
        if denominator < 0:
            divisor = -divisor
        pieces.append(_number(numerator // divisor) + _number(denominator // divisor))
    pieces[0] = _COUNT.pack(len(pieces) - 1)
    return b"".join(pieces)


def encode_floats(weights: Iterable[float]) -> bytes:
    """Write a model of floating-point weights, each exactly. Raises DataError if one is not finite."""
    try:
        ratios = [weight.as_integer_ratio() for weight in weights]
    except (OverflowError, ValueError) as error:
        raise DataError("a weight of the model is not a finite number") from error
    return encode_model(*zip(*ratios, strict=True)) if ratios else encode_model((), ())


def decode_model(body: bytes, length: int, peer: str) -> list[Fraction]:
    """Read a model of `length` ratios. Raises PeerProtocolError, naming `peer`, if it is malformed."""
    reader = _Reader(body, peer)
    if reader.count() != length:
        raise PeerProtocolError(peer, f"the model has not {length} weights")
    found = []
    for _ in range(length):
        numerator, denominator = reader.number(), reader.number()
        if denominator <= 0:
            raise PeerProtocolError(peer, "a weight's denominator is not positive")
        found.append(Fraction(numerator, denominator))
    reader.end()
    return found


def _number(number: int) -> bytes:
    size = -(-abs(number).bit_length() // _DIGIT_BITS)
    sign = (number > 0) - (number < 0)
    return struct.pack("<bQ", sign, size) + abs(number).to_bytes(4 * size, "little")


class _Reader:
    """Read fields one after the other; a field that is longer than what is left is refused before it is read."""

    def __init__(self, body: bytes, peer: str) -> None:
        self._body = body
        self._peer = peer
        self._place = 0

    def count(self) -> int:
        return int.from_bytes(self._take(_COUNT.size), "little")

    def number(self) -> int:
        sign = int.from_bytes(self._take(1), "little", signed=True)
        magnitude = int.from_bytes(self._take(4 * self.count()), "little")
        if sign not in (-1, 0, 1) or (sign == 0) != (magnitude == 0):
            raise PeerProtocolError(self._peer, "the sign of a number does not fit it")
        return sign * magnitude

    def end(self) -> None:
        if self._place != len(self._body):
            raise PeerProtocolError(self._peer, f"{len(self._body) - self._place} bytes follow the end")

    def _take(self, size: int) -> bytes:
        end = self._place + size
        if end > len(self._body):
            raise PeerProtocolError(self._peer, f"{len(self._body)} bytes end before they should")
        piece = self._body[self._place : end]
        self._place = end
        return piece


def _variants(config: MaskConfig) -> tuple[int, ...]:
    return tuple(
        list(type(choice)).index(choice) for choice in (config.group, config.data, config.bound, config.models)
    )


def _config(variants: list[int], peer: str) -> MaskConfig:
    group, data, bound, models = variants
    return MaskConfig(
        group=_variant(Group, group, peer),
        data=_variant(Data, data, peer),
        bound=_variant(Bound, bound, peer),
        models=_variant(Models, models, peer),
    )


def _variant(kind: type[_Enumeration], index: int, peer: str) -> _Enumeration:
    choices = list(kind)
    if index >= len(choices):
        raise PeerProtocolError(peer, f"there is no variant {index} of {kind.__name__}")
    return choices[index]
