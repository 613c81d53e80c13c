"""The journal of a job: finished pieces beside the output, so that a killed job goes on where it was and ends the same.

A job that writes OUT keeps the folder OUT.partial next to it (the same file system): `job.json` says which job it
is, and every finished piece is one safetensors file, written under another name, flushed and renamed, so that a
piece either is there whole or is not there. A lock on the folder keeps a second process out.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from anybit import __version__
from anybit.errors import RecipeError
from anybit.formats import TensorFormat
from anybit.tensors import QTensor

_VERSION = 1
_CHUNK = 8 << 20


def folder(out: Path) -> Path:
    """Where the journal of a job that writes `out` lies."""
    return out.with_name(out.name + ".partial")


def count(out: Path) -> int:
    """Finished pieces that an interrupted job left for `out`."""
    return sum(1 for _ in folder(out).glob("*.safetensors"))


def nbytes(out: Path) -> int:
    """Bytes of those pieces."""
    return sum(piece.stat().st_size for piece in folder(out).glob("*.safetensors"))


def fingerprint(model: Path, recipe: str, calibration: str | None, threads: int | None) -> dict[str, str]:
    """What a job's result depends on: the version of anybit, sha256 of the contents of the model's files, the recipe's fingerprint (with
    the defaults of that version), sha256 of the calibration text, and, where inputs are measured, the number of threads that sums are
    split over.
    """
    digest = hashlib.sha256()
    for file in sorted(p for p in model.iterdir() if p.suffix in (".safetensors", ".json") and p.is_file()):
        digest.update(file.name.encode() + b"\0")
        digest.update(_file_hash(file))
    text = hashlib.sha256((calibration or "").encode()).hexdigest()
    found = {"anybit": __version__, "model": digest.hexdigest(), "recipe": recipe, "calibration": text}
    return found if threads is None else {**found, "threads": str(threads)}


def _file_hash(file: Path) -> bytes:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.digest()


class Unwritable(RecipeError):
    """A piece could not be stored; the earlier ones are kept."""


class Journal:
    """Finished pieces of one job. Use as a context manager; `close` gives the lock back, `remove` deletes the
    folder.
    """

    def __init__(self, out: Path, job: Mapping[str, str], *, restart: bool = False) -> None:
        """Open the journal of the job that writes `out`, or start it; `restart` throws an earlier one away.

        Raises RecipeError where another process works on it, or where it belongs to another job.
        """
        self.path = folder(out)
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock = (self.path / "lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.close()
            raise RecipeError(
                f"another process is already writing {out}; wait for it or choose another output"
            ) from None
        try:
            self._open(out, dict(job), restart)
        except BaseException:
            self.close()
            raise

    def _open(self, out: Path, job: dict[str, str], restart: bool) -> None:
        header = self.path / "job.json"
        wanted: dict[str, Any] = {"version": _VERSION, **job}
        if restart:
            self._clear()
        if header.exists():
            try:
                found = json.loads(header.read_text())
            except json.JSONDecodeError:
                found = {}
            if found != wanted:
                changed = sorted(key for key in {*found, *wanted} if found.get(key) != wanted.get(key))
                if found and "anybit" in changed:
                    raise RecipeError(
                        f"{self.path} holds a job that {found.get('anybit', 'an earlier version')} of anybit left unfinished, and this is "
                        f"{wanted['anybit']}; finish it with that version, or start anew with --overwrite"
                    )
                raise RecipeError(
                    f"{self.path} holds an unfinished job that differs in {', '.join(changed)}; finish it with what it was "
                    "started with, or start anew with --overwrite"
                )
        else:
            self._clear()
            self._write_bytes(header, json.dumps(wanted, indent=1).encode())

    def _clear(self) -> None:
        for entry in self.path.iterdir():
            if entry.name != "lock":
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the lock back; the pieces stay."""
        self._lock.close()

    def remove(self) -> None:
        """Delete the journal: the job is done."""
        shutil.rmtree(self.path)

    def count(self) -> int:
        """Finished pieces."""
        return sum(1 for _ in self.path.glob("*.safetensors"))

    def _file(self, name: str) -> Path:
        # Tensor names may hold anything; a hash makes a file name of each.
        return self.path / f"{hashlib.sha256(name.encode()).hexdigest()[:32]}.safetensors"

    def has(self, name: str) -> bool:
        """Whether the piece is there."""
        return self._file(name).exists()

    def put(self, name: str, tensors: Mapping[str, Tensor], note: Any) -> None:
        """Store a piece durably: tensors and a JSON note. `Unwritable` where the disk does not take it."""
        final = self._file(name)
        temporary = final.with_suffix(".tmp")
        held = {key: value.contiguous() for key, value in tensors.items()}
        try:
            save_file(held, temporary, metadata={"name": name, "note": json.dumps(note)})
            with temporary.open("rb") as stream:
                os.fsync(stream.fileno())
            temporary.rename(final)
        except (OSError, SafetensorError) as error:
            temporary.unlink(missing_ok=True)
            raise Unwritable(
                f"cannot write to {self.path} ({error}); what is finished stays there, and the same command goes on from it"
            ) from None

    def get(self, name: str) -> tuple[dict[str, Tensor], Any]:
        """A piece's tensors and note. RecipeError where the file is damaged."""
        with self._opened(name) as stream:
            tensors = {key: stream.get_tensor(key).clone() for key in stream.keys()}  # noqa: SIM118 (not a mapping)
            return tensors, json.loads(stream.metadata()["note"])

    @contextmanager
    def _opened(self, name: str) -> Iterator[Any]:
        try:
            with safe_open(self._file(name), framework="pt") as stream:
                found = stream.metadata().get("name")
                if found != name:
                    raise RecipeError(
                        f"the journal {self.path} holds {found!r} in place of {name!r}; start anew with --overwrite"
                    )
                yield stream
        except (OSError, SafetensorError) as error:
            raise RecipeError(f"the journal {self.path} is damaged ({error}); start anew with --overwrite") from None

    def put_weight(self, name: str, q: QTensor, report: Mapping[str, Any]) -> None:
        """Store a quantized weight and the report on it."""
        self.put("weight:" + name, q.tensors(), {**_described(q), "report": dict(report)})

    def has_weight(self, name: str) -> bool:
        """Whether that weight is quantized already."""
        return self.has("weight:" + name)

    def get_weight(self, name: str) -> tuple[QTensor, dict[str, Any]]:
        """A quantized weight and the report on it."""
        t, note = self.get("weight:" + name)
        return _restored(t, note), note["report"]

    def put_weights(self, name: str, weights: Mapping[str, QTensor], note: Any) -> None:
        """Store several quantized weights as one piece, all or none of them."""
        held = {f"{i}.{key}": value for i, q in enumerate(weights.values()) for key, value in q.tensors().items()}
        self.put(name, held, {"weights": {key: _described(q) for key, q in weights.items()}, "note": note})

    def get_weights(self, name: str) -> tuple[dict[str, QTensor], Any]:
        """The weights of such a piece, and its note."""
        tensors, note = self.get(name)
        found = {}
        for i, (key, described) in enumerate(note["weights"].items()):
            own = {part.partition(".")[2]: value for part, value in tensors.items() if part.startswith(f"{i}.")}
            found[key] = _restored(own, described)
        return found, note["note"]

    def weight_report(self, name: str) -> dict[str, Any]:
        """The report on a quantized weight, without its tensors."""
        return dict(self._note("weight:" + name)["report"])

    def _note(self, name: str) -> Any:
        with self._opened(name) as stream:
            return json.loads(stream.metadata()["note"])

    def _write_bytes(self, path: Path, data: bytes) -> None:
        temporary = path.with_suffix(".tmp")
        with temporary.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.rename(path)


def _described(q: QTensor) -> dict[str, Any]:
    return {"format": str(q.format), "shape": list(q.shape)}


def _restored(tensors: Mapping[str, Tensor], note: Mapping[str, Any]) -> QTensor:
    return QTensor(
        tensors["codes"],
        tensors.get("scale"),
        tensors.get("zero"),
        tensors.get("tensor_scale"),
        tuple(note["shape"]),
        TensorFormat.parse(note["format"]),
    )
