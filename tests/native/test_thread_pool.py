"""Workers move off a core that a lower rank runs on, and are left free to run on all that the process may use; those whom all others
wait for sit out for a while (pool_check.cc).
"""

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from anybit import ops
from anybit.formats import TensorFormat
from anybit.tensors import quantize

_native = pytest.importorskip("anybit._native")
ACT = TensorFormat.parse("int8/g64")


@pytest.fixture
def product() -> Iterator[Callable[[], None]]:
    """Computes a product, which has to be the one of before; the number of threads is as it was in the end."""
    w, x = ops.prepack(quantize(torch.randn(256, 256), TensorFormat.parse("int4/g64"))), torch.randn(5, 256)
    before, expected = _native.threads(), ops.matmul(x, w, act=ACT)

    def again() -> None:
        assert torch.equal(ops.matmul(x, w, act=ACT), expected)

    yield again
    _native.set_threads(before)


def masks() -> dict[int, set[int]]:
    """The cores that each thread of this process may run on."""
    return {int(thread.name): os.sched_getaffinity(int(thread.name)) for thread in Path("/proc/self/task").iterdir()}


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="cores of threads are known on Linux only")
def test_threads_come_and_go_and_keep_their_cores(product) -> None:
    """More threads than cores too: results do not change, nor what any thread may run on, rested or not."""
    allowed = os.sched_getaffinity(0)
    for threads in (2, 3, len(allowed) + 2, 1, 2):
        _native.set_threads(threads)
        for _ in range(20):
            product()
        time.sleep(0.02)
        product()
        assert all(mask == allowed for mask in masks().values())


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="cores of threads are set on Linux only")
def test_a_process_of_one_core_computes_with_two_threads(product) -> None:
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        _native.set_threads(3)
        for _ in range(10):
            product()
    finally:
        os.sched_setaffinity(0, allowed)


def test_ranks_sit_out_and_come_back(tmp_path: Path) -> None:
    compiler, root = shutil.which("g++") or shutil.which("clang++"), Path(__file__).resolve().parents[2]
    if compiler is None:
        pytest.skip("needs a C++ compiler")
    program, native = tmp_path / "check", root / "native"
    sources = [root / "tests" / "native" / "pool_check.cc", native / "generic" / "thread_pool.cc"]
    command = [compiler, "-std=c++20", "-O1", f"-I{native}", *map(str, sources), "-lpthread", "-o", str(program)]
    subprocess.run(command, check=True, capture_output=True)
    done = subprocess.run([str(program)], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "right\n")
