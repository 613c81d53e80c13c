"""Without the native module every product still works, after one warning that says what to do."""

import subprocess
import sys

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
