"""Whether the federation's model is the one that is trained here."""

from __future__ import annotations

from ridotto.core.vector import Layout
from ridotto.errors import DataError

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
