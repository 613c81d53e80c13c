"""The list of instruction sets, and that all of them give the same bits through Python."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from anybit import ops
from anybit.formats import TensorFormat
from anybit.ops import native
from anybit.tensors import quantize

MODULE = native.load()
pytestmark = pytest.mark.skipif(MODULE is None, reason="the native module is not built (make native)")


@pytest.fixture
def module():
    before = MODULE.isa()
    yield MODULE
    MODULE.set_isa(before)


def test_scalar_is_always_there_and_last(module):
    rows = module.isas()
    assert rows[-1] == ("scalar", "nothing", True)
    assert len({name for name, _, _ in rows}) == len(rows)


def test_one_that_is_unknown_or_missing_is_refused_by_name(module):
    with pytest.raises(ValueError, match=r"unknown instruction set 'sse9'; this build has .*scalar"):
        module.set_isa("sse9")
    for name, _, present in module.isas():
        if not present:
            with pytest.raises(ValueError, match=f"this machine lacks the instruction set '{name}'"):
                module.set_isa(name)


@pytest.mark.parametrize("act", [None, "int8/row", "int8/g64"])
@pytest.mark.parametrize(
    "spec",
    [
        "int1/g32",
        "bipolar1/g64",
        "int2/g64",
        "int3/row",
        "uint4/g32+z",
        "int6/g64",
        "int8/g128",
        "nf4/g64",
        "e2m1/g32:e8m0",
        "bf16",
    ],
)
@pytest.mark.parametrize("m", [1, 2, 3, 7, 16, 17, 30, 70])
def test_all_give_the_same_bits(module, spec, act, m):
    g = torch.Generator().manual_seed(m)
    x, w = torch.randn(m, 192, generator=g), torch.randn(37, 192, generator=g)
    packed = ops.prepack(w.bfloat16() if spec == "bf16" else quantize(w, TensorFormat.parse(spec)))
    results = []
    for name, _, present in module.isas():
        if present:
            module.set_isa(name)
            results.append(ops.matmul(x, packed, act=None if act is None else TensorFormat.parse(act)))
    assert all(torch.equal(r, results[0]) for r in results)


def test_activations_are_rounded_as_division_rounds(module):
    """Quotients at and beside the middle between two codes, where a product with the reciprocal may round otherwise, and scales whose
    reciprocal is no normal number: the codes, read through a weight with ones on its diagonal, are those of numpy's division."""
    generator = np.random.default_rng(0)
    ones = ops.prepack(quantize(torch.eye(32), TensorFormat.parse("int2/tensor")))
    for exponent in (-121, -60, 0, 60, 120, 126):
        top = np.float32(np.ldexp(1 + generator.random(), exponent))
        middle = (generator.integers(-126, 126, (6, 32)) + np.float32(0.5)).astype(np.float32) * (top / np.float32(127))
        x = np.nextafter(middle, np.float32(np.inf) * generator.choice(np.float32([-1, 1]), middle.shape)).astype(
            np.float32
        )
        x[::2] = middle[::2]
        x[:, 0] = top
        scale = np.abs(x).max(1, keepdims=True) / np.float32(127)
        wanted = np.rint(x / scale) * scale if scale.min() > 0 else np.zeros_like(x)
        for name, _, present in module.isas():
            if present:
                module.set_isa(name)
                found = ops.matmul(torch.from_numpy(x), ones, act=TensorFormat.parse("int8/row")).numpy()
                np.testing.assert_array_equal(found, wanted, err_msg=f"{name} 2^{exponent}")


def test_a_row_that_is_not_finite_gives_nan_and_spares_the_others(module):
    x = torch.randn(3, 64)
    x[1, 5] = float("inf")
    w = ops.prepack(quantize(torch.randn(20, 64), TensorFormat.parse("int4/g32")))
    y = ops.matmul(x, w, act=TensorFormat.parse("int8/row"))
    assert y[1].isnan().all()
    assert y[[0, 2]].isfinite().all()


def test_probes_measure_something(module):
    assert module.probe_bandwidth(1 << 20, 1, 1) > 0
    assert module.probe_int8_peak(1, 1000) > 0


def test_peaks_are_what_the_machine_has(module):
    present = {name for name, _, usable in module.isas() if usable}
    assert module.probe_peak("fp32", 1, 1000) > 0
    assert (module.probe_peak("bf16", 1, 1000) > 0) == ("avx512bf16" in present)
    for kind in ("int8_tiles", "bf16_tiles"):
        assert (module.probe_peak(kind, 1, 1000) > 0) == ("amx" in present)
    with pytest.raises(ValueError, match="unknown kind of peak 'fp4'"):
        module.probe_peak("fp4", 1)
    with pytest.raises(ValueError, match="at least one thread"):
        module.probe_peak("fp32", 0)


LOAD = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("anybit._native", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
print(module.isa())
"""


@pytest.mark.skipif(platform.machine() != "x86_64", reason="needs x86-64")
@pytest.mark.parametrize(("processor", "isa"), [("Haswell", "avx2"), ("Nehalem", "scalar")])
def test_old_processors_can_load_the_module(processor, isa):
    """Under an emulator of them: nothing that loading runs may be made of instructions that they lack."""
    emulator = shutil.which("qemu-x86_64") or shutil.which("qemu-x86_64-static")
    if emulator is None:
        pytest.skip("needs qemu-x86_64 (Debian: qemu-user)")
    if "libasan" in os.environ.get("LD_PRELOAD", ""):
        pytest.skip("AddressSanitizer does not start under the emulator")
    python = str(Path(sys.executable).resolve())
    environment = {name: value for name, value in os.environ.items() if name != "ANYBIT_ISA"}
    command = [emulator, "-cpu", processor, python, "-c", LOAD, MODULE.__file__]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-1000:]
    assert done.stdout.strip() == isa
