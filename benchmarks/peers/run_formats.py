"""Roundings of one library as a peer of `anybit bench formats`; see ../README.md for the protocol. Runs in .venv-peers.

Started as `python run_formats.py LIBRARY '{"rows": R, "cols": C, "threads": T, "seconds": S}'`. For every line
`{"format": F, "mode": M}` it rounds again and again, as `rounds.Steady` says, and answers `{"seconds": s, "elements": n}`, or
`{"lacks": "why"}`. Where all R x C numbers would take longer than S seconds, it rounds the first rows only, and n says how many
numbers those are.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from protocol import serve

sys.path.append(str(Path(__file__).resolve().parents[2] / "src"))
from anybit.cli.bench.rounds import Steady

Call = Callable[[Any], object]
FLOATS = {"fp16": (5, 10), "bf16": (8, 7), "e4m3fn": (4, 3), "e5m2": (5, 2), "e2m1": (2, 1)}
FIXED = (8, 8)
PROBE = 1 << 14
"""Numbers of the call that tells how long all of them would take."""


class Lacks(Exception):
    """The library has no such format or mode."""


def version(package: str) -> str:
    from importlib import metadata

    return metadata.version(package)


def pychop() -> tuple[str, Callable[[str, str], Call]]:
    """Pychop on numpy arrays. Its e4m3 is of IEEE kind and its e2m1 has an infinity; the work is the same."""
    os.environ["chop_backend"] = "numpy"  # noqa: SIM112 - the name Pychop reads
    from pychop import Chop, Chopf, mx_quantize

    modes = {"nearest_even": 1, "up": 2, "down": 3, "toward_zero": 4, "stochastic": 5, "stochastic_50": 6}
    modes |= {"nearest_zero": 7, "nearest_away": 8, "odd": 9}

    def case(fmt: str, mode: str) -> Call:
        if fmt == "mxfp4" and mode == "nearest_even":
            return lambda x: mx_quantize(x, "mxfp4_e2m1", 32, backend="numpy")
        if mode not in modes or (fmt not in FLOATS and fmt != "fixed8_8"):
            raise Lacks
        if fmt == "fixed8_8":
            if mode in ("nearest_zero", "nearest_away", "odd"):
                raise Lacks
            return Chopf(*FIXED, rmode=modes[mode])
        return Chop(*FLOATS[fmt], rmode=modes[mode])

    return version("pychop"), case


def qtorch() -> tuple[str, Callable[[str, str], Call]]:
    """QPyTorch; its nearest sends ties away from zero. Its kernels are compiled at the first import."""
    from qtorch.quant import fixed_point_quantize, float_quantize

    def case(fmt: str, mode: str) -> Call:
        rounding = {"nearest_away": "nearest", "stochastic": "stochastic"}.get(mode)
        if rounding is None or (fmt not in FLOATS and fmt != "fixed8_8"):
            raise Lacks
        if fmt == "fixed8_8":
            return lambda x: fixed_point_quantize(x, wl=sum(FIXED), fl=FIXED[1], rounding=rounding)
        exponent, mantissa = FLOATS[fmt]
        return lambda x: float_quantize(x, exp=exponent, man=mantissa, rounding=rounding)

    return version("qtorch"), case


def gfloat() -> tuple[str, Callable[[str, str], Call]]:
    """gfloat's array functions; block formats go block by block, as its interface wants them."""
    from gfloat import RoundMode, compute_scale_amax, formats, quantize_block, round_ndarray

    modes = {"nearest_even": RoundMode.TiesToEven, "nearest_away": RoundMode.TiesToAway, "up": RoundMode.TowardPositive}
    modes |= {"down": RoundMode.TowardNegative, "toward_zero": RoundMode.TowardZero, "stochastic": RoundMode.Stochastic}
    infos = {"fp16": formats.format_info_binary16, "bf16": formats.format_info_bfloat16}
    infos |= {"e4m3fn": formats.format_info_ocp_e4m3, "e5m2": formats.format_info_ocp_e5m2}
    infos |= {"e2m1": formats.format_info_ocp_e2m1}
    rng = np.random.default_rng(0)

    def blocks(x: Any) -> None:
        for block in x.reshape(-1, 32).astype(np.float64):
            quantize_block(formats.format_info_mxfp4_e2m1, block, compute_scale_amax)

    def case(fmt: str, mode: str) -> Call:
        if fmt == "mxfp4" and mode == "nearest_even":
            return blocks
        if mode not in modes or fmt not in infos:
            raise Lacks
        info, rounding = infos[fmt], modes[mode]
        if mode != "stochastic":
            return lambda x: round_ndarray(info, x, rounding, sat=True)
        return lambda x: round_ndarray(
            info, x, rounding, sat=True, srbits=rng.integers(0, 1 << 24, x.shape), srnumbits=24
        )

    return version("gfloat"), case


def ml_dtypes() -> tuple[str, Callable[[str, str], Call]]:
    """ml_dtypes (numpy itself for fp16): to the narrow type and back to float32."""
    import ml_dtypes as types

    dtypes = {"fp16": np.float16, "bf16": types.bfloat16, "e4m3fn": types.float8_e4m3fn}
    dtypes |= {"e5m2": types.float8_e5m2, "e2m1": types.float4_e2m1fn}

    def case(fmt: str, mode: str) -> Call:
        if mode != "nearest_even" or fmt not in dtypes:
            raise Lacks
        return lambda x: x.astype(dtypes[fmt]).astype(np.float32)

    return version("ml_dtypes"), case


def torch() -> tuple[str, Callable[[str, str], Call]]:
    """torch's own casts: to the narrow type and back to float32."""
    import torch as library

    dtypes = {"fp16": library.float16, "bf16": library.bfloat16, "e4m3fn": library.float8_e4m3fn}
    dtypes |= {"e5m2": library.float8_e5m2}

    def case(fmt: str, mode: str) -> Call:
        if mode != "nearest_even" or fmt not in dtypes:
            raise Lacks
        return lambda x: x.to(dtypes[fmt]).to(library.float32)

    return library.__version__, case


LIBRARIES = {"pychop": pychop, "qtorch": qtorch, "gfloat": gfloat, "ml_dtypes": ml_dtypes, "torch": torch}


class Worker:
    """The numbers, and what was found out about each case."""

    def __init__(self, case: Callable[[str, str], Call], tensors: bool, job: dict[str, Any]) -> None:
        self.case, self.seconds, self.cols = case, job["seconds"], job["cols"]
        x: Any = np.random.default_rng(0).standard_normal((job["rows"], job["cols"]), dtype=np.float32)
        if tensors:
            import torch as library

            library.set_num_threads(job["threads"])
            x = library.from_numpy(x)
        self.x = x
        self.known: dict[tuple[str, str], tuple[Steady, int]] = {}

    def prepared(self, fmt: str, mode: str) -> tuple[Steady, int]:
        """Samples of the case and how many numbers they round, found at the first request."""
        if (fmt, mode) not in self.known:
            call, rows = self.case(fmt, mode), max(1, PROBE // self.cols)
            call(self.x[:rows])
            started = time.perf_counter()
            call(self.x[:rows])
            expected = (time.perf_counter() - started) / rows
            fit = min(len(self.x), max(rows, int(self.seconds / expected)))
            self.known[fmt, mode] = Steady(partial(call, self.x[:fit])), fit * self.cols
        return self.known[fmt, mode]

    def answer(self, asked: dict[str, str]) -> dict[str, Any]:
        try:
            sample, elements = self.prepared(asked["format"], asked["mode"])
        except Lacks:
            return {"lacks": "no such format or rounding"}
        return {"seconds": sample(), "elements": elements}


def main() -> None:
    name, job = sys.argv[1], json.loads(sys.argv[2])
    # some libraries print while they are imported; the protocol reads lines that begin with a brace
    found, case = LIBRARIES[name]()
    worker = Worker(case, name in ("qtorch", "torch"), job)
    serve({"engine": name, "version": found}, lambda line: worker.answer(json.loads(line)))


if __name__ == "__main__":
    main()
