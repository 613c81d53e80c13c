"""Products with weights of few bits of one library as a peer of `anybit bench matmul`; see ../README.md for the protocol.

Started as `python run_matmul.py LIBRARY '{"threads": T, "copies": C, "copy_bytes": B, "quick": Q}'`; C = 1 where weights may stay in
cache, Q to leave out what takes long. For every line `{"m": M, "n": N, "k": K, "format": F}` it answers `{"seconds": s, "bytes": b,
"arithmetic": A, "error": e}`, or `{"lacks": "why"}`; the first answer for a format and M is of data in cache. Weights of the last N and K
are kept.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from protocol import serve

sys.path.append(str(Path(__file__).resolve().parents[2] / "src"))
from anybit.cli.bench.rounds import Cold

Floats = NDArray[np.float32]
MODULES = {
    "ggml": "matmul_ggml",
    "onnxruntime": "matmul_onnxruntime",
    "openvino": "matmul_openvino",
    "torch": "matmul_torch",
    "torchao": "matmul_torchao",
}
DISTINCT = 64
"""Rows of a weight that differ, the others repeat them: rounding all of them would take longer than measuring. As many columns of the
product are compared with the same in float64."""


class Lacks(Exception):
    """The library cannot do this, and why."""


@dataclass(frozen=True)
class Product:
    """A weight in a library's own form, several times. bytes: of one copy.  arithmetic: int8, bf16 or fp32.

    weight: what was rounded, the rows that differ, float32 [., k].  calls: for x float32 [m, k], one function a copy that multiplies and
    gives y [m, n] in any form that `values` turns into numpy.
    """

    bytes: int
    arithmetic: str
    weight: Floats
    calls: Callable[[Floats], Sequence[Callable[[], Any]]]
    values: Callable[[Any], Any] = np.asarray


class Library(Protocol):
    """A module of MODULES. prepare: raises Lacks.  `late`, where there is one: how formats begin that take long or are never the
    fastest."""

    formats: Sequence[str]
    version: str

    def prepare(self, fmt: str, n: int, k: int, copies: Callable[[int], int]) -> Product: ...


def normal(n: int, k: int) -> Floats:
    """Random rows [min(n, DISTINCT), k], normal with standard deviation k^-1/2."""
    return np.random.default_rng(0).standard_normal((min(n, DISTINCT), k), dtype=np.float32) / np.float32(k**0.5)


def repeated(rows: Any, n: int) -> Any:
    """[n, …]: the rows again and again."""
    return np.ascontiguousarray(np.resize(rows, (n, *rows.shape[1:])))


def error(product: Product, x: Floats, y: Any) -> float:
    """|y - x W^T| / |x W^T| over the first columns."""
    found = np.asarray(product.values(y), np.float64).reshape(len(x), -1)[:, : len(product.weight)]
    true = x.astype(np.float64) @ product.weight.T.astype(np.float64)
    return float(np.linalg.norm(found - true) / np.linalg.norm(true))


def lacks(reason: Exception) -> Lacks:
    """What the library said, in one line."""
    return Lacks(str(reason).splitlines()[0] if str(reason) else repr(reason))


class Worker:
    """The weights of the last n and k, and what was made of them."""

    def __init__(self, library: Library, job: dict[str, Any]) -> None:
        self.library, self.job = library, job
        self.sides: tuple[int, int] = (0, 0)
        self.products: dict[str, Product | Lacks] = {}
        self.samples: dict[tuple[str, int], tuple[Cold, float] | Lacks] = {}

    def copies(self, stored: int) -> int:
        most = int(self.job["copies"])
        return min(max(2, int(self.job["copy_bytes"]) // max(stored, 1)), most) if most > 1 else 1

    def product(self, fmt: str, n: int, k: int) -> Product:
        if (n, k) != self.sides:
            self.sides, self.products, self.samples = (n, k), {}, {}
        if fmt not in self.products:
            try:
                self.products[fmt] = self.library.prepare(fmt, n, k, self.copies)
            except (Lacks, RuntimeError) as reason:
                self.products[fmt] = lacks(reason)
        found = self.products[fmt]
        if isinstance(found, Lacks):
            raise found
        return found

    def sample(self, fmt: str, product: Product, m: int, k: int) -> tuple[Cold, float]:
        """The sampler of m rows and the error of the product; a new one is not ready."""
        if (fmt, m) not in self.samples:
            x = np.random.default_rng(1).standard_normal((m, k), dtype=np.float32)
            try:
                calls = product.calls(x)
                self.samples[fmt, m] = Cold(calls), error(product, x, calls[0]())
            except (Lacks, RuntimeError) as reason:
                self.samples[fmt, m] = lacks(reason)
        found = self.samples[fmt, m]
        if isinstance(found, Lacks):
            raise found
        return found

    def answer(self, line: str) -> dict[str, Any]:
        asked = json.loads(line)
        m, n, k, fmt = asked["m"], asked["n"], asked["k"], asked["format"]
        try:
            product = self.product(fmt, n, k)
            sample, wrong = self.sample(fmt, product, m, k)
        except Lacks as reason:
            return {"lacks": str(reason)}
        seconds = sample.ready() or sample()
        return {"seconds": seconds, "bytes": product.bytes, "arithmetic": product.arithmetic, "error": wrong}


def main() -> None:
    name, job = sys.argv[1], json.loads(sys.argv[2])
    library: Library = importlib.import_module(MODULES[name]).load(job["threads"])
    late = getattr(library, "late", ()) if job.get("quick") else ()
    formats = [fmt for fmt in library.formats if not fmt.startswith(tuple(late))] if late else list(library.formats)
    about = {"engine": name, "version": library.version, "formats": formats}
    serve(about, Worker(library, job).answer)


if __name__ == "__main__":
    sys.modules["run_matmul"] = sys.modules["__main__"]  # the libraries' modules import Lacks and Product from here
    main()
