"""A strategy's state as bytes: named float32 arrays. It never leaves the coordinator."""

from __future__ import annotations

import msgspec
import numpy as np

from ridotto.core.machine import Buffer
from ridotto.errors import StorageError
from ridotto.learn.strategy import State

_FLOAT = np.dtype("<f4")


def write_state(state: State) -> bytes:
    """Write named float32 arrays: same state, same bytes."""
    arrays = {name: np.ascontiguousarray(state[name], _FLOAT).tobytes() for name in sorted(state)}
    return msgspec.msgpack.encode(arrays)


def read_state(data: Buffer) -> State:
    """Read what `write_state` wrote. Raises StorageError if it is something else."""
    try:
        arrays = msgspec.msgpack.decode(data, type=dict[str, bytes])
        return {name: np.frombuffer(content, _FLOAT).astype(np.float32) for name, content in arrays.items()}
    except (msgspec.MsgspecError, ValueError) as error:
        raise StorageError(f"the strategy's state can't be read: {error}") from error
