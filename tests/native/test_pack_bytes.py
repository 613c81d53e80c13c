"""The panels that native/generic/pack.cc writes are, byte by byte, the layout `known_packings.panels` describes."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from anybit.tensors.known_packings import panels

ROOT = Path(__file__).resolve().parents[2]
NATIVE = ROOT / "native"


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("no g++")
    out = tmp_path_factory.mktemp("pack") / "pack_bytes"
    sources = [NATIVE / "generic" / f"{name}.cc" for name in ("arena", "matmul", "pack", "thread_pool")]
    # Sections apart, so that the linker drops what only products need.
    command = [compiler, "-std=c++20", "-O1", "-ffunction-sections", "-Wl,--gc-sections", f"-I{NATIVE}"]
    command += [*map(str, sources), str(ROOT / "tests" / "native" / "pack_bytes.cc"), "-lpthread", "-o", str(out)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return out


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize(("n", "k", "group"), [(16, 32, 0), (37, 150, 0), (20, 100, 40), (19, 101, 13)])
def test_panels(program: Path, bits: int, n: int, k: int, group: int) -> None:
    codes = torch.randint(0, 2**bits, (n, k), generator=torch.Generator().manual_seed(bits)).to(torch.uint8)
    codes[0, :2] = torch.tensor([0, 2**bits - 1])  # the whole range, so that codes are stored as they are
    run = subprocess.run(
        [str(program), str(n), str(k), str(bits), str(group)], input=codes.numpy().tobytes(), capture_output=True
    )
    assert run.returncode == 0, run.stderr
    if group:
        # groups that are no multiple of 32 begin at slots that are
        slots = torch.zeros(n, -(-k // group) * (-(-group // 32) * 32), dtype=torch.uint8)
        for number, start in enumerate(range(0, k, group)):
            part = codes[:, start : start + group]
            at = number * (-(-group // 32) * 32)
            slots[:, at : at + part.shape[1]] = part
        codes = slots
    assert np.array_equal(np.frombuffer(run.stdout, np.uint8), panels(bits).pack(codes).numpy())
