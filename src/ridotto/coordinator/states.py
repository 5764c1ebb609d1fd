"""A strategy's state as bytes: named float32 arrays, and float64 where a number needs it. It stays with us."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from ridotto.core.machine import Buffer
from ridotto.errors import StorageError
from ridotto.learn.strategy import State

_FLOAT = np.dtype("<f4")
_DOUBLE = np.dtype("<f8")


class _Double(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Hold a float64 array, little-endian: an adaptive clip has to be the same after a restart."""

    content: bytes


def write_state(state: State) -> bytes:
    """Write named arrays: same state, same bytes."""
    return msgspec.msgpack.encode({name: _written(state[name]) for name in sorted(state)})


def read_state(data: Buffer) -> State:
    """Read what `write_state` wrote. Raises StorageError if it is something else."""
    try:
        arrays = msgspec.msgpack.decode(data, type=dict[str, bytes | _Double])
        return {name: _read(content) for name, content in arrays.items()}
    except (msgspec.MsgspecError, ValueError) as error:
        raise StorageError(f"the strategy's state can't be read: {error}") from error


def _written(array: NDArray[Any]) -> bytes | _Double:
    if array.dtype == np.float64:
        return _Double(np.ascontiguousarray(array, _DOUBLE).tobytes())
    return np.ascontiguousarray(array, _FLOAT).tobytes()


def _read(content: bytes | _Double) -> NDArray[Any]:
    if isinstance(content, _Double):
        return np.frombuffer(content.content, _DOUBLE).astype(np.float64)
    return np.frombuffer(content, _FLOAT).astype(np.float32)
