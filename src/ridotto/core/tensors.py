"""Models as safetensors files: how they lie on disk, travel to participants and get their name (SHA-256).

Every parameter is a float32 tensor of its own name and shape, so any safetensors reader opens the file. What the
format does not keep stands in the metadata under one key, "ridotto", as JSON: the order of the parameters, the dtype
each had in its framework, and whatever the caller adds. One key, because safetensors writes several in random order,
and the same model must give the same bytes.

Writing is the library's. Reading checks the header here and then copies each tensor once, straight into the vector;
the library would copy twice. A file is hostile until proven otherwise: it comes from a coordinator that a participant
need not trust. Format: https://huggingface.co/docs/safetensors, section "Format".
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal, NoReturn

import msgspec
import numpy as np
from safetensors.numpy import save

from ridotto.core.machine import Buffer
from ridotto.core.vector import Field, Layout, Vector
from ridotto.errors import DataError

METADATA_KEY = "ridotto"

RESERVED = "__metadata__"
"""The header's key that is not a tensor."""

PREFIX_BYTES = 8
"""Little-endian length of the header, in front of it."""

HEADER_LIMIT = 16 << 20
"""Largest header in bytes: room for some 100,000 parameters, and no room to fill a participant's memory."""

FLOAT_BYTES = 4

Size = Annotated[int, msgspec.Meta(ge=0, le=2**48)]
"""A dimension or an offset: never negative, never near a machine word's end."""


class _Tensor(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the header says about one tensor."""

    dtype: Literal["F32"]
    shape: tuple[Size, ...]
    data_offsets: tuple[Size, Size]


class _Model(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What stands under METADATA_KEY: (name, dtype) in the vector's order, and the caller's metadata."""

    fields: tuple[tuple[str, str], ...]
    metadata: dict[str, str]


class _Header(msgspec.Struct, frozen=True):
    """A header whose parts are well-formed, not yet whether they fit together."""

    tensors: dict[str, _Tensor]
    model: _Model


def write_model(vector: Vector, layout: Layout, metadata: Mapping[str, str] | None = None) -> bytes:
    """Write a model as a safetensors file: same arguments, same bytes.

    vector: float32, shape (layout.length,). metadata: strings to keep with the model; their order does not matter.
    Raises DataError if the vector does not fit its layout, or if a name or the header's size is refused.
    """
    if RESERVED in layout.names:
        raise DataError(f"{RESERVED!r} can't name a parameter: safetensors keeps it for itself")
    fields = [(field.name, field.dtype) for field in layout.fields]
    note = json.dumps({"fields": fields, "metadata": dict(metadata or {})}, sort_keys=True, separators=(",", ":"))
    data: bytes = save(layout.unflatten(np.ascontiguousarray(vector)), {METADATA_KEY: note})
    if int.from_bytes(data[:PREFIX_BYTES], "little") > HEADER_LIMIT:
        raise DataError(f"names and metadata of the model take more than {HEADER_LIMIT} bytes")
    return data


def read_model(data: Buffer) -> tuple[Vector, Layout]:
    """Read a model that `write_model` wrote.

    Returns the vector, new and writable, and its layout; the numbers are not checked for NaN (see `require_finite`).
    Raises DataError on anything that is not exactly one well-formed file.
    """
    header, body = _split(data)
    layout = _layout(header, len(body))
    vector = np.empty(layout.length, np.float32)
    start = 0
    for field in layout.fields:
        begin, end = header.tensors[field.name].data_offsets
        vector[start : start + field.length] = np.frombuffer(body[begin:end], "<f4")
        start += field.length
    return vector, layout


def rewrite_model(data: Buffer, vector: Vector) -> bytes:
    """Return a model's file with other numbers and every other byte as it was, whoever wrote it.

    Two versions of a library may write two headers for one model, and then the same model has two digests.
    vector: float32, of the file's length. Raises DataError as `read_model` does, or if the vector does not fit.
    """
    header, body = _split(data)
    layout = _layout(header, len(body))
    layout.check(vector)
    numbers = bytearray(len(body))
    for name, part in layout.unflatten(vector).items():
        begin, end = header.tensors[name].data_offsets
        numbers[begin:end] = np.ascontiguousarray(part, "<f4").tobytes()
    return bytes(memoryview(data)[: len(data) - len(body)]) + numbers


def read_metadata(data: Buffer) -> dict[str, str]:
    """Return the metadata that `write_model` was given. Raises DataError as `read_model` does."""
    header, body = _split(data)
    _layout(header, len(body))
    return dict(header.model.metadata)


def _split(data: Buffer) -> tuple[_Header, memoryview]:
    view = memoryview(data)
    if len(view) < PREFIX_BYTES:
        raise DataError(f"a model file has at least {PREFIX_BYTES} bytes, not {len(view)}")
    length = int.from_bytes(view[:PREFIX_BYTES], "little")
    if length > min(HEADER_LIMIT, len(view) - PREFIX_BYTES):
        raise DataError(f"the model file's header of {length} bytes does not fit it")
    end = PREFIX_BYTES + length
    return _parse(bytes(view[PREFIX_BYTES:end])), view[end:]


def _parse(header: bytes) -> _Header:
    # Converting errors of three parsers here keeps every other line free to assume well-formed values.
    try:
        entries = _json(header.decode("utf-8"))
        note = msgspec.convert(entries.pop(RESERVED, None), dict[str, str])
        model = msgspec.convert(_json(note[METADATA_KEY]), _Model)
        return _Header(msgspec.convert(entries, dict[str, _Tensor]), model)
    except KeyError as error:
        raise DataError(f"the model file has no {METADATA_KEY!r} metadata: ridotto did not write it") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"the model file's header is malformed: {error}") from error


def _json(text: str) -> dict[str, Any]:
    """Parse a JSON object. Raises ValueError if it is anything else, or repeats a key.

    Of a repeated key one reader would take the first and another the last: two models in one file.
    """
    value = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse_constant)
    if not isinstance(value, dict):
        raise ValueError("not an object")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a key occurs twice")
    return value


def _refuse_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def _layout(header: _Header, size: int) -> Layout:
    """Put the parts together: every tensor is a field, and the tensors fill the file's `size` bytes without gaps."""
    tensors, fields = header.tensors, header.model.fields
    if len(tensors) != len(fields) or any(name not in tensors for name, _ in fields):
        raise DataError("the model file's tensors are not the parameters that its metadata lists")
    layout = Layout(tuple(Field(name, tensors[name].shape, dtype) for name, dtype in fields))
    position = 0
    for begin, end, length in sorted((*tensors[f.name].data_offsets, f.length) for f in layout.fields):
        # Bytes that no tensor owns could hide something, and shared bytes are two names for one parameter.
        if begin != position or end - begin != length * FLOAT_BYTES:
            raise DataError(f"a tensor at bytes {begin} to {end} does not fit: expected it at {position}")
        position = end
    if position != size:
        raise DataError(f"the model file's tensors take {position} bytes, and {size} follow its header")
    return layout
