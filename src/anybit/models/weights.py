"""`WeightStore`: the tensors of a checkpoint by name, read lazily; quantized ones as `QTensor`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from anybit.errors import CheckpointError, FormatError
from anybit.formats import TensorFormat
from anybit.models.config import read_json
from anybit.models.plan import WeightRef
from anybit.models.safetensors_file import Entry, read_header
from anybit.tensors import QTensor
from anybit.tensors.packing import pack_bits

Weight = Tensor | QTensor
INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
MANIFEST = "anybit.json"
INPUT_SCALE = "input_scale"
PARTS = ("codes", "scale", "zero", "tensor_scale", INPUT_SCALE)
"""A quantized X.weight is stored as X.codes, X.scale, X.zero, X.tensor_scale; X.input_scale is a static one of what it multiplies
(`models.static`)."""


class Weights(Protocol):
    """What an executor or a calibration walk needs of a store of weights."""

    def resolve(self, ref: WeightRef) -> Weight:
        """The tensor, or the rows of it, that a plan names."""
        ...


@dataclass(frozen=True, eq=False)
class MemoryEntry:
    """A tensor in memory in the place of one in a file: what a rewritten model holds until it is written."""

    tensor: Tensor

    @property
    def dtype(self) -> torch.dtype:
        """Of the tensor."""
        return self.tensor.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the tensor."""
        return tuple(self.tensor.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of data."""
        return self.tensor.nbytes

    def read(self, rows: tuple[int, int] | None = None) -> Tensor:
        """The tensor, or rows [a, b) of its first dimension; not a copy."""
        return self.tensor if rows is None else self.tensor[rows[0] : rows[1]]


class Stored(Protocol):
    """One stored tensor: in a file, in memory, or computed from another when it is read."""

    @property
    def dtype(self) -> torch.dtype: ...

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def nbytes(self) -> int: ...

    def read(self, rows: tuple[int, int] | None = None) -> Tensor: ...


class WeightStore:
    """Lazy tensors of a checkpoint: nothing is read before `get`, and nothing is kept after it."""

    def __init__(
        self,
        entries: Mapping[str, Stored],
        formats: Mapping[str, tuple[TensorFormat, tuple[int, ...]]] | None = None,
        aliases: Mapping[str, str] | None = None,
        copies: Mapping[str, tuple[str, Tensor]] | None = None,
    ) -> None:
        """entries: stored tensors.  formats: logical name -> format and shape of each quantized one.  aliases: other names, as
        `lm_head.weight` of a tied model.  copies: name -> columns (int64) of another tensor, which are not stored again.
        """
        self.entries: dict[str, Stored] = dict(entries)
        self.formats = dict(formats or {})
        self.aliases = dict(aliases or {})
        self.copies = dict(copies or {})
        for name in self.formats:
            if f"{_stem(name)}.codes" not in self.entries:
                raise CheckpointError(f"{MANIFEST} lists {name!r} as quantized, but {_stem(name)}.codes is not stored")
        hidden = {f"{_stem(name)}.{part}" for name in self.formats for part in PARTS}
        self._names = [*(name for name in self.entries if name not in hidden), *self.formats]

    def names(self) -> list[str]:
        """Logical names: `X.weight` for a quantized weight, not its parts."""
        return list(self._names)

    def __contains__(self, name: str) -> bool:
        name = self.aliases.get(name, name)
        return name in self.formats or name in self.entries or name in self.copies

    def shape(self, name: str) -> tuple[int, ...]:
        """Logical shape."""
        if name in self.copies:
            base, columns = self.copies[name]
            return (self.shape(base)[0], len(columns))
        name = self._known(name)
        return self.formats[name][1] if name in self.formats else self.entries[name].shape

    def dtype(self, name: str) -> torch.dtype | TensorFormat:
        """The stored dtype, or the format of a quantized tensor."""
        name = self._known(name)
        return self.formats[name][0] if name in self.formats else self.entries[name].dtype

    def nbytes(self, name: str) -> int:
        """Bytes stored: of a quantized tensor all its parts; none of a copy."""
        if name in self.copies:
            return 0
        return sum(self.entries[part].nbytes for part in self.stored(name).values())

    def stored(self, name: str) -> dict[str, str]:
        """part -> stored name: {"": name} of a plain tensor, {"codes": "X.codes", …} of a quantized one."""
        name = self._known(name)
        if name not in self.formats:
            return {"": name}
        found = {part: f"{_stem(name)}.{part}" for part in PARTS}
        return {part: stored for part, stored in found.items() if stored in self.entries}

    def get(self, name: str, check: bool = False) -> Weight:
        """The tensor by name. `check` reads it once and raises CheckpointError where it holds NaN or infinite values."""
        value = self._read(self._known(name), None)
        if check:
            check_finite(value, name)
        return value

    def resolve(self, ref: WeightRef) -> Weight:
        """The tensor a plan names; only its rows where the reference has a range."""
        if ref.name in self.copies:
            base, columns = self.copies[ref.name]
            return select_columns(self.resolve(WeightRef(base, ref.rows)), columns)
        return self._read(self._known(ref.name), ref.rows)

    def _read(self, name: str, rows: tuple[int, int] | None) -> Weight:
        if name not in self.formats:
            return self.entries[name].read(rows)
        fmt, shape = self.formats[name]
        parts = {part: self.entries[stored].read() for part, stored in self.stored(name).items()}
        try:
            value = QTensor(
                codes=parts["codes"],
                scale=parts.get("scale"),
                zero=parts.get("zero"),
                tensor_scale=parts.get("tensor_scale"),
                shape=shape,
                format=fmt,
            )
            return value if rows is None else value.rows(*rows)
        except FormatError as error:
            raise CheckpointError(f"{name}: {error}") from None

    def _known(self, name: str) -> str:
        actual = self.aliases.get(name, name)
        if actual not in self.formats and actual not in self.entries:
            raise CheckpointError(f"the checkpoint has no tensor {name!r}")
        return actual


def select_columns(value: Weight, columns: Tensor) -> Weight:
    """Columns (int64) of a matrix; of a quantized one they must be whole blocks, whose codes and scales are copied, or any where a
    block is as wide as the matrix.

    CheckpointError where a block would be cut.
    """
    if isinstance(value, Tensor):
        return value[:, columns]
    wide = value.format.block[1]
    if wide == 0:
        codes = pack_bits(value.unpacked()[:, columns], value.format.bits)
        return replace(value, codes=codes, shape=(value.row_count, len(columns)))
    first = columns[::wide] // wide
    whole = (first[:, None] * wide + torch.arange(wide)).reshape(-1)
    if not torch.equal(whole, columns) or int(whole.max()) >= value.col_count:
        raise CheckpointError(f"columns of {value.format} are copied in whole blocks of {wide}")
    return QTensor(
        pack_bits(value.unpacked()[:, columns], value.format.bits),
        None if value.scale is None else value.scale[:, first],
        None if value.zero is None else value.zero[:, first],
        value.tensor_scale,
        (value.row_count, len(columns)),
        value.format,
    )


class Overlay:
    """Weights with some replaced: what a calibration walk quantized so far, over the store it came from."""

    def __init__(self, base: Weights, replaced: Mapping[str, Weight]) -> None:
        """replaced: whole tensors by checkpoint name; the mapping is looked up at each use, so it may grow."""
        self.base = base
        self.replaced = replaced

    def resolve(self, ref: WeightRef) -> Weight:
        """The replaced tensor where there is one, else the base's."""
        copies = getattr(self.base, "copies", {})
        if ref.name in copies:
            name, columns = copies[ref.name]
            return select_columns(self.resolve(WeightRef(name, ref.rows)), columns)
        value = self.replaced.get(ref.name)
        if value is None:
            return self.base.resolve(ref)
        if ref.rows is None:
            return value
        return value.rows(*ref.rows) if isinstance(value, QTensor) else value[ref.rows[0] : ref.rows[1]]


def check_finite(value: Weight, name: str) -> None:
    """CheckpointError naming the tensor and how many values where some are NaN or infinite."""
    parts = [value] if isinstance(value, Tensor) else [value.scales()]
    for part in parts:
        if not part.is_floating_point():
            continue
        bad = int((~torch.isfinite(part.float() if part.dtype.itemsize == 1 else part)).sum())
        if bad:
            raise CheckpointError(f"{name} holds {bad} NaN or infinite values; the checkpoint is damaged")


def open_store(directory: Path, aliases: Mapping[str, str] | None = None) -> WeightStore:
    """The store of a checkpoint directory; reads headers only.

    Raises CheckpointError where there are no safetensors (naming pickle files it found and refuses), a shard is missing or
    truncated, the index disagrees with the shards, or `anybit.json` is malformed.
    """
    entries: dict[str, Entry] = {}
    for path in shard_paths(directory):
        for name, entry in read_header(path).items():
            if name in entries:
                raise CheckpointError(f"{name!r} is stored twice: in {entries[name].path.name} and {path.name}")
            entries[name] = entry
    index = directory / INDEX
    if index.exists():
        listed = _weight_map(index)
        lost = [name for name in listed if name not in entries]
        if lost:
            raise CheckpointError(
                f"{directory / listed[lost[0]]} does not hold {lost[0]!r}, which {INDEX} says it does"
            )
    manifest = directory / MANIFEST
    return WeightStore(entries, _formats(manifest) if manifest.exists() else None, aliases)


def shard_paths(directory: Path) -> list[Path]:
    """The safetensors files of a checkpoint, in name order: those of the index, or the single one."""
    index = directory / INDEX
    if index.exists():
        names = sorted(set(_weight_map(index).values()))
        for name in names:
            if Path(name).name != name:
                raise CheckpointError(f"{index} names a shard outside the directory: {name!r}")
            if not (directory / name).is_file():
                raise CheckpointError(f"the shard {directory / name} is missing; {INDEX} lists {len(names)} shards")
        return [directory / name for name in names]
    if (directory / SINGLE).is_file():
        return [directory / SINGLE]
    for pattern in ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl"):
        for found in sorted(directory.glob(pattern)):
            raise CheckpointError(
                f"{found} is a pickle checkpoint, which can run code when read and is refused; convert it to safetensors"
            )
    raise CheckpointError(f"{directory} holds neither {SINGLE} nor {INDEX}")


def _weight_map(index: Path) -> dict[str, str]:
    listed = read_json(index, "it lists the shards").get("weight_map")
    if not isinstance(listed, dict) or not all(isinstance(value, str) for value in listed.values()):
        raise CheckpointError(f"{index} has no weight_map of tensor names to files")
    return listed


def _formats(manifest: Path) -> dict[str, tuple[TensorFormat, tuple[int, ...]]]:
    tensors = read_json(manifest, "it describes the quantized tensors").get("tensors", {})
    formats = {}
    for name, value in tensors.items():
        try:
            formats[name] = TensorFormat.parse(value["format"]), tuple(int(n) for n in value["shape"])
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{manifest}: the entry of {name!r} is malformed ({error})") from None
    return formats


def check_shapes(store: WeightStore, expected: Mapping[str, Iterable[int]], directory: Path) -> None:
    """CheckpointError naming the tensor, what was got and what expected, for the first that is missing or of a wrong shape."""
    for name, shape in expected.items():
        wanted = tuple(shape)
        if name not in store:
            raise CheckpointError(f"{directory} lacks the tensor {name!r} of shape {list(wanted)}")
        if store.shape(name) != wanted:
            raise CheckpointError(
                f"{directory}: {name!r} has shape {list(store.shape(name))}, but config.json needs {list(wanted)}"
            )


def _stem(name: str) -> str:
    return name.removesuffix(".weight")
