"""Whether the federation's model is the one that is trained here, and an update is one of it."""

from __future__ import annotations

from ridotto.core.machine import COORDINATOR, Buffer
from ridotto.core.tensors import read_model
from ridotto.core.vector import Layout, Vector, require_finite
from ridotto.errors import DataError, PeerProtocolError

SHOWN = 8
"""Parameters that a sentence names at most."""

REMEDY = "train the same architecture as the others"


def require_same_shapes(theirs: Layout, ours: Layout) -> None:
    """Refuse a model whose parameters are not, in name, order and shape, those of the model that is trained here.

    Raises DataError naming the first parameter that differs, with both shapes.
    """
    for their, our in zip(theirs.fields, ours.fields, strict=False):
        if their.name != our.name:
            raise DataError(
                f"the federation's model has parameter {their.name!r} where this model has {our.name!r}: {REMEDY}"
            )
        if their.shape != our.shape:
            raise DataError(
                f"parameter {our.name!r} has shape {our.shape} here and {their.shape} in the federation's model: "
                f"{REMEDY}"
            )
    if len(theirs.fields) != len(ours.fields):
        raise DataError(
            f"the federation's model has {len(theirs.fields)} parameters and this model has {len(ours.fields)}: "
            f"{REMEDY}"
        )


def require_same_size(theirs: int, ours: Layout) -> None:
    """Refuse a model with another number of parameters than the one that is trained here.

    Raises DataError with both numbers and the shapes trained here.
    """
    if theirs != ours.length:
        shapes = ", ".join(f"{field.name} {field.shape}" for field in ours.fields[:SHOWN])
        more = ", ..." if len(ours.fields) > SHOWN else ""
        raise DataError(
            f"the federation's model has {theirs:,} numbers and this one has {ours.length:,} ({shapes}{more}): {REMEDY}"
        )


def read_same(file: Buffer, ours: Layout) -> Vector:
    """Return the numbers of a model file, float32, shape (d,).

    Raises PeerProtocolError if it is none, or has NaN; DataError as `require_same_shapes` does.
    """
    try:
        vector, layout = read_model(file)
        require_finite(vector, layout)
    except DataError as error:
        raise PeerProtocolError(COORDINATOR, f"its model can't be used: {error}") from error
    require_same_shapes(layout, ours)
    return vector


def require_update(update: Vector, examples: int, ours: Layout) -> None:
    """Refuse what is no update of the model that is trained here. Raises DataError."""
    if examples < 1:
        raise DataError("there are no examples to train on; a participant without data can't take part")
    ours.check(update)
    require_finite(update, ours)
