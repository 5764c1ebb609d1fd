"""Strategies that spoil valid things: bytes by flips, cuts, splices and huge numbers; messages field by field."""

from __future__ import annotations

import struct
import tracemalloc
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from hypothesis import settings
from hypothesis import strategies as st

from ridotto.errors import PeerProtocolError

HUGE = [struct.pack("<I", 2**32 - 1), struct.pack("<Q", 2**63), b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff"]
HUGE += [b"\xc6\xff\xff\xff\xff", b"\xcf" + b"\xff" * 8, b"\xcb\x7f\xf0" + bytes(6), b"\x91" * 2000, b"9" * 400]
"""Lengths, counts and numbers near the end of their range, in the formats that we read, and deep nesting."""

FUZZING = settings.default.max_examples >= 1_000
"""Whether the profile "fuzz" was asked for."""


def examples(default: int, fuzz: int) -> settings:
    """Say how many examples a target gets by default and in `make fuzz`, where its examples are slow."""
    return settings(max_examples=fuzz if FUZZING else default)


@st.composite
def spoiled(draw: st.DrawFn, valid: Sequence[bytes]) -> bytes:
    """Take valid bytes and change them at one to four places."""
    data = bytearray(draw(st.sampled_from(valid)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        match draw(st.sampled_from(["flip", "cut", "grow", "splice", "huge", "drop"])):
            case "flip" if at < len(data):
                data[at] ^= 1 << draw(st.integers(0, 7))
            case "cut":
                del data[at:]
            case "grow":
                data[at:at] = draw(st.binary(min_size=1, max_size=40))
            case "splice":
                other = draw(st.sampled_from(valid))
                start = draw(st.integers(0, len(other)))
                data[at:] = other[start:]
            case "huge":
                huge = draw(st.sampled_from(HUGE))
                data[at : at + len(huge)] = huge
            case "drop":
                del data[at : at + draw(st.integers(1, 40))]
    return bytes(data)


def hostile(valid: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    """Return arbitrary bytes, valid ones and, mostly, spoiled ones."""
    return st.one_of(spoiled(valid), spoiled(valid), st.sampled_from(valid), st.binary(max_size=400))


@st.composite
def changed(draw: st.DrawFn, value: Any) -> Any:
    """Change one thing somewhere in a message; the result is built without checks, as a liar would build it."""
    if isinstance(value, msgspec.Struct):
        name = draw(st.sampled_from(value.__struct_fields__)) if value.__struct_fields__ else None
        fields = {field: getattr(value, field) for field in value.__struct_fields__}
        return rebuilt(value, fields if name is None else fields | {name: draw(changed(fields[name]))})
    if isinstance(value, bytes):
        return draw(st.one_of(flipped(value), st.just(bytes(len(value))), st.binary(max_size=len(value) + 2)))
    if isinstance(value, bool) or value is None:
        return draw(st.sampled_from([True, False, None]))
    if isinstance(value, int):
        return draw(st.sampled_from([value + 1, value - 1, 0, 1, 9_999, 2**48, 2**63]))
    if isinstance(value, float):
        return draw(st.floats())
    if isinstance(value, str):
        return draw(st.one_of(st.text(max_size=8), st.sampled_from(["self", "coordinator", value + "x"])))
    if isinstance(value, dict):
        return draw(st.dictionaries(st.text(max_size=5), st.floats(), max_size=3))
    return draw(changed_list(tuple(value)))


@st.composite
def changed_list(draw: st.DrawFn, value: tuple[Any, ...]) -> tuple[Any, ...]:
    if not value:
        return draw(st.sampled_from([(), (0,), (1, 2), (b"",)]))
    at = draw(st.integers(0, len(value) - 1))
    other = draw(st.integers(0, len(value) - 1))
    match draw(st.sampled_from(["drop", "twice", "reverse", "cut", "swap", "inside"])):
        case "drop":
            return value[:at] + value[at + 1 :]
        case "twice":
            return (*value, value[at])
        case "reverse":
            return value[::-1]
        case "cut":
            return value[:at]
        case "swap":
            items = list(value)
            items[at], items[other] = items[other], items[at]
            return tuple(items)
    return (*value[:at], draw(changed(value[at])), *value[at + 1 :])


def flipped(value: bytes) -> st.SearchStrategy[bytes]:
    if not value:
        return st.just(b"\x00")
    places = st.integers(0, len(value) * 8 - 1)
    return places.map(lambda bit: bytes(b ^ (1 << bit % 8) if i == bit // 8 else b for i, b in enumerate(value)))


def rebuilt(value: msgspec.Struct, fields: dict[str, Any]) -> Any:
    """Build a struct, or what a liar would send in its place if the struct itself refuses."""
    try:
        return type(value)(**fields)
    except Exception:
        return value


def only_refuses(call: Callable[[], Any], *refusals: type[Exception]) -> Any:
    """Call a decoder: what it returns, or None if it refused in one of these ways, by default PeerProtocolError."""
    refusals = refusals or (PeerProtocolError,)
    try:
        return call()
    except refusals:
        return None


def peak_of(call: Callable[[], object]) -> int:
    """Return how many bytes a call had allocated at its highest."""
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        call()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
