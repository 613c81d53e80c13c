"""Reading safetensors files: the header checked against the file's size, tensors mapped one at a time.

A file is 8 bytes of header length (little-endian), a JSON header {name: {dtype, shape, data_offsets}}, and the data. Each tensor is
mapped by itself, so the memory of a walk over a checkpoint is one tensor at a time: dropping the tensor unmaps it.
"""

from __future__ import annotations

import json
import mmap
import os
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from anybit.errors import CheckpointError

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
"""Names in the header -> torch dtypes."""

MAX_HEADER = 100_000_000
"""Bytes; the limit of the safetensors library, so that a damaged length cannot ask for all memory."""


@dataclass(frozen=True)
class Entry:
    """Where a tensor lies: bytes [start, stop) of the file."""

    path: Path
    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int
    stop: int

    @property
    def nbytes(self) -> int:
        """Bytes of data."""
        return self.stop - self.start

    def read(self, rows: tuple[int, int] | None = None) -> Tensor:
        """The tensor, or rows [a, b) of its first dimension, as a private mapping of the file: pages are loaded when touched."""
        shape, start, stop = self.shape, self.start, self.stop
        if rows is not None:
            a, b = rows
            if not (shape and 0 <= a <= b <= shape[0]):
                raise CheckpointError(f"rows {a} to {b} are not within a tensor of shape {list(shape)} in {self.path}")
            row = (self.stop - self.start) // max(1, shape[0])
            shape, start, stop = (b - a, *shape[1:]), self.start + a * row, self.start + b * row
        if start == stop:
            return torch.empty(shape, dtype=self.dtype)
        page = start - start % mmap.ALLOCATIONGRANULARITY
        with self.path.open("rb") as file:
            try:
                view = mmap.mmap(file.fileno(), stop - page, access=mmap.ACCESS_COPY, offset=page)
            except (OSError, ValueError) as error:
                raise CheckpointError(f"{self.path} cannot be mapped ({error}); was it changed while in use?") from None
        if (start - page) % self.dtype.itemsize:
            raw = bytearray(view[start - page : stop - page])  # a file of another writer need not align its data
            return torch.frombuffer(raw, dtype=self.dtype).reshape(shape)
        count = (stop - start) // self.dtype.itemsize
        return torch.frombuffer(view, dtype=self.dtype, count=count, offset=start - page).reshape(shape)


def read_header(path: Path) -> dict[str, Entry]:
    """The tensors of one file by name.

    Raises CheckpointError naming the file where it is missing, truncated, longer than its header says, or not safetensors.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > MAX_HEADER:
                raise CheckpointError(f"{path} is not a safetensors file: its header would be {length} bytes long")
            if 8 + length > size:
                raise CheckpointError(f"{path} is truncated: the header needs {8 + length} bytes, the file has {size}")
            header = json.loads(file.read(length))
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing") from None
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from None
    except (UnicodeDecodeError, json.JSONDecodeError):
        raise CheckpointError(f"{path} is not a safetensors file: its header is not JSON") from None
    if not isinstance(header, dict):
        raise CheckpointError(f"{path} is not a safetensors file: its header is not an object")
    header.pop("__metadata__", None)
    entries = {name: _entry(path, name, value, 8 + length) for name, value in header.items()}
    end = max((entry.stop for entry in entries.values()), default=8 + length)
    if end != size:
        state = "truncated" if end > size else "damaged"
        raise CheckpointError(f"{path} is {state}: its tensors need {end} bytes, the file has {size}")
    return entries


def _entry(path: Path, name: str, value: object, base: int) -> Entry:
    try:
        assert isinstance(value, dict)
        dtype, shape, (start, stop) = value["dtype"], tuple(value["shape"]), value["data_offsets"]
        assert all(isinstance(n, int) and n >= 0 for n in (*shape, start, stop)) and start <= stop
    except (AssertionError, KeyError, TypeError, ValueError):
        raise CheckpointError(f"{path}: the header entry of {name!r} is malformed") from None
    if dtype not in DTYPES:
        raise CheckpointError(f"{path}: {name!r} has the dtype {dtype!r}; supported are {', '.join(DTYPES)}")
    if prod(shape) * DTYPES[dtype].itemsize != stop - start:
        raise CheckpointError(
            f"{path}: {name!r} of shape {list(shape)} and dtype {dtype} cannot be {stop - start} bytes long"
        )
    return Entry(path, DTYPES[dtype], shape, base + start, base + stop)


def write_file(path: Path, tensors: dict[str, Tensor]) -> None:
    """One safetensors file, durable before it appears under its name. Same tensors, same bytes."""
    from safetensors.torch import save_file

    temporary = path.with_name(path.name + ".part")
    save_file({name: t.detach().contiguous() for name, t in tensors.items()}, temporary, metadata={"format": "pt"})
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(path)
