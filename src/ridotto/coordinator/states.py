"""What rounds start from: a published model, and a strategy's state as bytes.

A state is named float32 arrays, and float64 where a number needs it. It stays with us.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from ridotto.coordinator.blobs import Blobs, model_name
from ridotto.core.machine import Buffer
from ridotto.core.tensors import read_model
from ridotto.core.vector import Layout, Vector
from ridotto.errors import DataError, StorageError
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


def read_published(blobs: Blobs, sha256: bytes, layout: Layout) -> Vector:
    """Read a published model. Raises StorageError if it is damaged, DataError if it has another layout."""
    model, found = read_model(blobs.read(model_name(sha256), sha256))
    if found != layout:
        raise DataError(_difference(found, layout))
    return model


def _difference(stored: Layout, given: Layout) -> str:
    """Say how two models differ, by the first parameter that does."""
    for old, new in zip(stored.fields, given.fields, strict=False):
        if old != new:
            found = f"{new.name!r} {new.dtype}{list(new.shape)} instead of {old.name!r} {old.dtype}{list(old.shape)}"
            break
    else:
        found = f"{len(given.fields)} parameters instead of {len(stored.fields)}"
    return f"the model does not fit the one that this federation trains: {found}; use that model, or a new folder"
