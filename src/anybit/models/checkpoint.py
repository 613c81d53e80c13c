"""Writing and verifying checkpoints: safetensors shards, `anybit.json`, and the model's own config and tokenizer files.

    OUT/config.json          the source's, with a quantization_config that transformers reads:
                             {"quant_method": "anybit", "version": 1, "formats": {name: format}}, "online" (`models.online`) and
                             "act" (`models.static`)
    OUT/model*.safetensors   tensors in the order they were put; a quantized X.weight as X.codes, X.scale, X.zero, X.tensor_scale
    OUT/anybit.json          {"version": 1, "anybit": version of the package, "tensors": {name: {"format", "shape", …}},
                             "sha256": {stored name: hex}, "recipe": {…}, "provenance": {…}}

Everything is written to OUT.writing beside it and renamed at the end, so OUT is either whole or absent. The bytes depend on the
tensors, their order and the notes only: no times, no host names.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

import anybit
from anybit.errors import CheckpointError
from anybit.models.config import read_json
from anybit.models.online import KEY, AtRunTime
from anybit.models.safetensors_file import write_file
from anybit.models.static import ACT, scale_name
from anybit.models.weights import INDEX, MANIFEST, SINGLE, Weight, open_store
from anybit.ops import StaticFormat
from anybit.tensors import QTensor

VERSION = 1
SHARD_BYTES = 256 << 20
"""A shard is written when it would grow beyond this: the memory of writing a checkpoint of any size."""

COMPANIONS = (
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
    "calibration.txt",
    "heldout.txt",
    "LICENSE",
)
"""Files copied from the source beside config.json, where it has them."""


class CheckpointWriter:
    """Streams a checkpoint to `out`. As a context manager it removes what it wrote unless `finish` was called.

    Raises CheckpointError where `out` exists and `overwrite` is false, another process writes it, or it cannot be written.
    """

    def __init__(
        self,
        out: Path | str,
        source: Path,
        *,
        overwrite: bool = False,
        shard_bytes: int = SHARD_BYTES,
        config: Mapping[str, Any] | None = None,
        online: Sequence[AtRunTime] = (),
        act: StaticFormat | None = None,
    ) -> None:
        """source: the directory whose config.json and tokenizer files go along; it may not be `out` itself.

        config: what config.json shall hold in place of the source's.  online: transforms the quantized model needs at run time.
        act: format of activations whose scales are put beside the weights (`put(input_scale=)`).
        """
        self.out, self.source = Path(out), Path(source)
        self.overwrite, self.shard_bytes, self.config = overwrite, shard_bytes, config
        check_output(self.out, overwrite)
        if self.out.exists() and self.out.resolve() == self.source.resolve():
            raise CheckpointError(f"{self.out} is the source itself; choose another output")
        self.folder = self.out.with_name(self.out.name + ".writing")
        self.online = tuple(online)
        self.act = act
        self._formats: dict[str, dict[str, Any]] = {}
        self._hashes: dict[str, str] = {}
        self._shards: list[list[str]] = []
        self._pending: dict[str, Tensor] = {}
        self._bytes = self._total = 0
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = (self.folder / ".lock").open("w")
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            raise CheckpointError(
                f"another process is writing {self.out}; wait for it or choose another output"
            ) from None
        except OSError as error:
            raise CheckpointError(f"cannot write {self.out}: {error.strerror or error}") from None
        for left in self.folder.iterdir():  # of a writer that was killed
            if left.name != ".lock":
                left.unlink()

    def put(
        self, name: str, value: Weight, note: Mapping[str, Any] | None = None, input_scale: float | None = None
    ) -> None:
        """Add a tensor under its checkpoint name; it is on disk once its shard is full. CheckpointError for a name put twice.

        note: what else anybit.json should say about a quantized tensor, as JSON values.  input_scale: the static scale of the activations
        that a quantized matrix multiplies.
        """
        if isinstance(value, QTensor):
            stem = name.removesuffix(".weight")
            self._formats[name] = {**(note or {}), "format": str(value.format), "shape": list(value.shape)}
            parts = {f"{stem}.{part}": tensor for part, tensor in value.tensors().items()}
            if input_scale is not None:
                parts[scale_name(name)] = torch.tensor(input_scale, dtype=torch.float32)
        else:
            parts = {name: value}
        size = sum(t.numel() * t.element_size() for t in parts.values())
        if self._pending and self._bytes + size > self.shard_bytes:
            self._flush()
        for stored, tensor in parts.items():
            if stored in self._hashes:
                raise CheckpointError(f"{stored!r} was written twice to {self.out}")
            self._hashes[stored] = sha256(tensor)
            self._pending[stored] = tensor
        self._bytes += size
        self._total += size

    def finish(self, recipe: Mapping[str, Any] | None = None, provenance: Mapping[str, Any] | None = None) -> int:
        """Write what is pending, the manifest and the companions, and rename to `out`; returns the bytes of its tensors.

        recipe, provenance: JSON objects kept in anybit.json. For equal checkpoints from equal jobs they must hold no times.
        """
        try:
            self._flush()
            self._name_shards()
            self._write_json("config.json", self._config())
            manifest = {
                "version": VERSION,
                "anybit": anybit.__version__,
                "tensors": self._formats,
                "sha256": self._hashes,
            }
            manifest |= {"recipe": dict(recipe or {}), "provenance": dict(provenance or {})}
            self._write_json(MANIFEST, manifest)
            for name in COMPANIONS:
                if (self.source / name).is_file():
                    shutil.copyfile(self.source / name, self.folder / name)
                    _sync(self.folder / name)
            (self.folder / ".lock").unlink()
            self._install()
        except OSError as error:
            raise CheckpointError(f"cannot write {self.out}: {error.strerror or error}") from None
        self._lock.close()
        return self._total

    def abandon(self) -> None:
        """Remove what was written."""
        self._lock.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> CheckpointWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.folder.exists():
            self.abandon()

    def _flush(self) -> None:
        if not self._pending:
            return
        path = self.folder / f"shard-{len(self._shards):05d}.safetensors"
        try:
            write_file(path, self._pending)
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"cannot write {path}: {error}") from None
        self._shards.append(list(self._pending))
        self._pending, self._bytes = {}, 0

    def _name_shards(self) -> None:
        count = len(self._shards)
        names = [SINGLE] if count == 1 else [f"model-{i + 1:05d}-of-{count:05d}.safetensors" for i in range(count)]
        for i, name in enumerate(names):
            (self.folder / f"shard-{i:05d}.safetensors").rename(self.folder / name)
        if count > 1:
            where = {stored: names[i] for i, shard in enumerate(self._shards) for stored in shard}
            self._write_json(
                INDEX, {"metadata": {"total_size": self._total}, "weight_map": dict(sorted(where.items()))}
            )

    def _config(self) -> dict[str, Any]:
        config = dict(self.config or read_json(self.source / "config.json", "the checkpoint needs the source's config"))
        config.pop("quantization_config", None)
        if self._formats:
            formats = {name: value["format"] for name, value in self._formats.items()}
            config["quantization_config"] = {"quant_method": "anybit", "version": VERSION, "formats": formats}
            if self.act is not None:
                config["quantization_config"][ACT] = str(self.act)
            if self.online:
                config["quantization_config"][KEY] = [each.to_json() for each in self.online]
        elif self.online:
            raise CheckpointError(f"{self.out}: transforms at run time are recorded for quantized models only")
        return config

    def _write_json(self, name: str, value: Mapping[str, Any]) -> None:
        path = self.folder / name
        path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        _sync(path)

    def _install(self) -> None:
        """Rename into place; an output to be replaced stands aside until the new one is there."""
        old = self.out.with_name(self.out.name + ".replaced")
        if self.out.exists():
            if not self.overwrite:
                raise CheckpointError(f"{self.out} appeared while it was being written; it was left as it is")
            shutil.rmtree(old, ignore_errors=True)
            self.out.rename(old)
        self.folder.rename(self.out)
        _sync(self.out.parent)
        shutil.rmtree(old, ignore_errors=True)


def check_output(out: Path, overwrite: bool = False) -> None:
    """CheckpointError where `out` exists and may not be replaced, is not a checkpoint to replace, or its folder is not writable."""
    if out.exists():
        if not overwrite:
            raise CheckpointError(f"{out} exists; choose another output or pass --overwrite")
        if not out.is_dir() or (any(out.iterdir()) and not (out / "config.json").is_file()):
            raise CheckpointError(f"{out} exists and is no model directory; it will not be replaced")
    parent = out.resolve().parent
    while not parent.exists():
        parent = parent.parent
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise CheckpointError(f"{out} cannot be written: no permission to write in {parent}")


def verify(directory: Path | str) -> int:
    """Compare every stored tensor with its sha256 in anybit.json; returns how many there are.

    Raises CheckpointError naming the first tensor that differs, is missing, or is not listed.
    """
    path = Path(directory)
    hashes = read_json(path / MANIFEST, "only checkpoints written by anybit can be verified").get("sha256")
    if not isinstance(hashes, dict):
        raise CheckpointError(f"{path / MANIFEST} lists no sha256 sums")
    entries = open_store(path).entries
    for name in sorted({*entries, *hashes}):
        if name not in entries or name not in hashes:
            where = f"stored but not listed in {MANIFEST}" if name in entries else "listed but not stored"
            raise CheckpointError(f"{path}: {name!r} is {where}")
        if sha256(entries[name].read()) != hashes[name]:
            raise CheckpointError(f"{path}: {name!r} is damaged: its sha256 differs from the one in {MANIFEST}")
    return len(entries)


def sha256(tensor: Tensor) -> str:
    """Hex digest of a tensor's bytes as stored (row-major, little-endian)."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return hashlib.sha256(flat.view(torch.uint8).numpy().data).hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
