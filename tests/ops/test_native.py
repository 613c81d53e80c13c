"""Without the native module every product still works, after one warning that says what to do; memory to measure reading with."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from anybit.ops import native

PROGRAM = """
import sys, warnings
sys.modules["anybit._native"] = None
import torch
from anybit import ops
from anybit.formats import TensorFormat
from anybit.tensors import quantize
w = quantize(torch.randn(8, 32), TensorFormat.parse("int4/g32"))
x = torch.randn(2, 32)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    for _ in range(2):
        assert torch.allclose(ops.matmul(x, ops.prepack(w)), x @ w.dequantize().T, atol=1e-5)
    assert torch.equal(ops.embedding(torch.tensor([3]), ops.prepack(w)), w.dequantize()[[3]])
assert len(caught) == 1 and "make native" in str(caught[0].message), [str(c.message) for c in caught]
"""


def test_reference_path_without_the_native_module():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="mappings are described by Linux only")
def test_bytes_to_read_may_lie_on_huge_pages():
    """As packed weights do: in a mapping that is advised to and not shared, for shared ones never have them."""
    data = native.bytes_to_read(3 << 20)
    at, inside = data.ctypes.data, False
    assert data.nbytes == 3 << 20 and at % (2 << 20) == 0 and int(data.min()) == 1
    for line in Path("/proc/self/smaps").read_text().splitlines():
        bounds = re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line)
        if bounds:
            inside = int(bounds[1], 16) <= at < int(bounds[2], 16)
        elif inside and line.startswith("VmFlags:"):
            flags = line.split()[1:]
            assert "hg" in flags and "sh" not in flags
            return
    pytest.fail("the mapping was not found")
