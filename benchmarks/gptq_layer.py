"""GPTQ of one layer beside GPTQModel and llm-compressor: seconds for the Hessian and for the weight, and the error that is left.

    python benchmarks/gptq_layer.py [--threads 1] [--rounds 3] [--shapes 2048x2048,5632x2048,2048x5632]

32 windows of 512 tokens, four bits in groups of 128, symmetric, everything in float32, interleaved rounds.  The inputs are correlated (a
quarter as many factors as columns, and noise) and the same for all, as is the weight.  Needs `make peers` for the others.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
LIBRARIES = ("gptqmodel", "llm-compressor")


def problem(n: int, k: int, windows: int, length: int) -> tuple[Tensor, list[Tensor]]:
    """Weight [n, k] and inputs, so many windows [length, k]; float32, always the same."""
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((n, k), dtype=np.float32) * k**-0.5
    mixing = rng.standard_normal((k // 4, k), dtype=np.float32) * (k // 4) ** -0.5
    made = []
    for _ in range(windows):
        factors = rng.standard_normal((length, k // 4), dtype=np.float32)
        made.append(torch.from_numpy(factors @ mixing + 0.3 * rng.standard_normal((length, k), dtype=np.float32)))
    return torch.from_numpy(weight), made


def output_error(weight: Tensor, made: Tensor, windows: list[Tensor]) -> float:
    """The squared error of the layer's output over its square, on the first four windows."""
    x = torch.cat(windows[:4])
    return float((x @ (made - weight).T).square().sum() / (x @ weight.T).square().sum())


def ours(asked: dict[str, Any]) -> dict[str, float]:
    """As `peers/run_gptq_layer.py` answers."""
    from anybit.formats import TensorFormat
    from anybit.quantize import gptq
    from anybit.quantize.statistics import Statistics

    weight, windows = problem(asked["n"], asked["k"], asked["windows"], asked["length"])
    started = time.perf_counter()
    statistics = Statistics(asked["k"])
    for window in windows:
        statistics.add(window)
    between = time.perf_counter()
    made = gptq.quantize(weight, TensorFormat.parse(f"int{asked['bits']}/g{asked['group']}"), statistics)
    done = time.perf_counter()
    error = output_error(weight, made.qtensor.dequantize(), windows)
    return {"hessian": between - started, "quantize": done - between, "error": error}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--shapes", default="2048x2048,5632x2048,2048x5632", help="rows x columns of weights")
    args = parser.parse_args()
    from anybit.cli.bench.limits import threads
    from anybit.cli.bench.peers import Peer
    from anybit.cli.bench.rounds import Sample, interleave

    python = ROOT / ".venv-peers-calibrated" / "bin" / "python"
    script = ROOT / "benchmarks" / "peers" / "run_gptq_layer.py"
    with ExitStack() as stack, threads(args.threads):
        peers = {}
        for name in LIBRARIES if python.exists() else ():
            peers[name] = stack.enter_context(Peer(name, [str(python), str(script), name], {"threads": args.threads}))
            print(f"{name} {peers[name].about['version']}")
        if not peers:
            print("without the others: `make peers` installs them", file=sys.stderr)
        print(f"{args.threads} threads, medians of {args.rounds} rounds")
        print(f"{'weight':>12} {'library':>15} {'Hessian':>9} {'weight':>9} {'error':>9} {'× ours':>7}")
        for shape in args.shapes.split(","):
            n, k = map(int, shape.split("x"))
            asked = {"n": n, "k": k, "bits": 4, "group": 128, "windows": 32, "length": 512}
            answers: dict[str, list[dict[str, float]]] = {"anybit": [], **{name: [] for name in peers}}

            def sample(name: str, asked: dict[str, Any] = asked, answers: dict[str, Any] = answers) -> float:
                answer = peers[name].ask(json.dumps(asked)) if name in peers else ours(asked)
                answers[name].append(answer)
                return float(answer["hessian"] + answer["quantize"])

            taken = interleave({name: (lambda name=name: sample(name)) for name in answers}, args.rounds)
            for name, those in answers.items():
                hessian, quantize = (
                    Sample(tuple(one[what] for one in those)).median for what in ("hessian", "quantize")
                )
                ratio = taken[name].median / taken["anybit"].median
                print(f"{shape:>12} {name:>15} {hessian:8.2f}s {quantize:8.2f}s {those[0]['error']:9.5f} {ratio:7.2f}")


if __name__ == "__main__":
    main()
