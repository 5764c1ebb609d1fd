"""Bound what one participant can contribute: the l2 norm of its update.

Neighbouring relation: one participant's whole update added or removed. The bound is the sensitivity of the sum in the
l2 norm, so it must hold exactly: the norm is accumulated in float64, and rounding of the scaled entries is paid for
in advance. Trusted for it: the participant's own device; the coordinator can't check a clipped update it never sees.
"""

from __future__ import annotations

import math

import numpy as np

from ridotto.core.vector import Vector

ROWS, ROW_ELEMENTS = 8, 1 << 13
"""Elements converted to float64 at once: 512 KiB stay in a core's L2 cache. OpenBLAS starts threads for rows of more
than 10,000 elements, which takes longer than to add them up."""

ROUNDING = 1.0 - 2.0**-22
"""Scale by this much less than exactly: it outweighs rounding every product to float32 (2^-24)."""


def clip(vector: Vector, bound: float) -> tuple[Vector, float]:
    """Scale `vector` down so that its l2 norm is at most `bound`.

    vector: float32, shape (length,). bound: > 0, same unit as the vector.
    Returns the clipped vector and the norm it had before. A vector within the bound comes back itself, uncopied.
    Guaranteed: the exact l2 norm of what is returned is at most the bound, if the bound is at least 1e-30; below
    that, float32 has too few digits left to scale to.
    Raises ValueError if bound <= 0 or an element is not finite.
    Source: McMahan et al., "Learning Differentially Private Recurrent Language Models", ICLR 2018, algorithm 1.
    """
    if not (math.isfinite(bound) and bound > 0):
        raise ValueError(f"the clipping bound is {bound}, it must be a positive number")
    norm = l2_norm(vector)
    if not math.isfinite(norm):
        raise ValueError("a vector with NaN or infinite elements can't be clipped")
    if norm <= bound:
        return vector, norm
    # In float64, because a float32 factor loses its digits below 1e-38.
    return (vector * np.float64(clip_factor(norm, bound))).astype(np.float32), norm


def clip_factor(norm: float, bound: float) -> float:
    """Return by what to multiply a vector of this l2 norm to bring it to `bound`: 1, or a little less than needed.

    For whoever scales anyway, as the encoder does, and need not pay for a pass of its own.
    """
    return 1.0 if norm <= bound else bound / norm * ROUNDING


def l2_norm(vector: Vector) -> float:
    """Return the l2 norm of a float32 vector, shape (length,), accurate to about 1e-15 relative.

    Squares of float32 are exact in float64 and can't overflow there. NaN or infinite if an element is.
    """
    total = 0.0
    wide = np.empty((ROWS, ROW_ELEMENTS))
    flat = wide.reshape(-1)
    for begin in range(0, len(vector), flat.size):
        chunk = vector[begin : begin + flat.size]
        np.copyto(flat[: len(chunk)], chunk)
        flat[len(chunk) :] = 0.0
        total += float(np.vecdot(wide, wide).sum())
    return math.sqrt(total)
