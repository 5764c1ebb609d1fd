"""Products of matrices and convolutions over 64-bit words, in the layout (batch, rows, columns, channels)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from ridotto.infer.kernels import active, tagged
from ridotto.infer.kernels.plain import Words

Pair = tuple[int, int]
"""(rows, columns)."""


@dataclass(frozen=True)
class Geometry:
    """Say where a convolution's windows lie."""

    kernel: Pair
    stride: Pair
    padding: Pair


def patches(images: Words, geometry: Geometry) -> Words:
    """Lay out each window as a row. images: (batch, rows, columns, channels).

    Returns (batch, rows of windows, columns of windows, kernel rows * kernel columns * channels).
    """
    (above, left) = geometry.padding
    if above or left:
        batch, rows, columns, channels = images.shape
        # Not by np.pad, which pads Python integers with words.
        padded = np.zeros((batch, rows + 2 * above, columns + 2 * left, channels), images.dtype)
        padded[:, above : above + rows, left : left + columns] = images
        images = padded
    view = sliding_window_view(images, geometry.kernel, axis=(1, 2))
    view = view[:, :: geometry.stride[0], :: geometry.stride[1]].transpose(0, 1, 2, 4, 5, 3)
    # A copy by NumPy; a compiled loop is no faster (measured).
    return np.ascontiguousarray(view).reshape(*view.shape[:3], -1)


def windows(images: Words, kernel: Pair, stride: Pair) -> list[Words]:
    """Return one array for each place in a window: (batch, rows of windows, columns of windows, channels)."""
    rows = (images.shape[1] - kernel[0]) // stride[0] + 1
    columns = (images.shape[2] - kernel[1]) // stride[1] + 1
    return [
        images[:, i : i + (rows - 1) * stride[0] + 1 : stride[0], j : j + (columns - 1) * stride[1] + 1 : stride[1]]
        for i in range(kernel[0])
        for j in range(kernel[1])
    ]


def apply(weight: Words, x: Words, geometry: Geometry | None) -> Words:
    """Multiply by a layer's weight. weight: (groups, inputs, outputs).

    x: (batch, inputs), or (batch, rows, columns, groups * channels) with a geometry.
    """
    # What has dtype object are tags; the other factor is public then.
    module = tagged if object in (weight.dtype, x.dtype) else active()
    if geometry is None:
        product: Words = module.matmul(x, weight[0])
        return product
    width = x.shape[-1] // len(weight)
    parts = []
    for group, matrix in enumerate(weight):
        rows = patches(x[..., group * width : (group + 1) * width], geometry)
        flat = module.matmul(rows.reshape(-1, rows.shape[-1]), matrix)
        parts.append(flat.reshape(*rows.shape[:3], -1))
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1)


def matrix_of(weight: Words, groups: int) -> Words:
    """Turn a layer's weight into (groups, inputs, outputs), as `apply` takes it.

    weight: (outputs, inputs), or (outputs, inputs / groups, rows, columns).
    """
    if weight.ndim == 2:
        return np.ascontiguousarray(weight.T)[np.newaxis]
    split = weight.reshape(groups, -1, *weight.shape[1:])
    # In a patch channels vary fastest, then columns, then rows.
    return np.ascontiguousarray(split.transpose(0, 3, 4, 2, 1)).reshape(groups, math.prod(weight.shape[1:]), -1)
