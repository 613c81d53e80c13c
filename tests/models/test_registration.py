"""`import anybit.models` is enough for transformers to know anybit, in either order of imports, and does not load transformers."""

import subprocess
import sys

import pytest

KNOWN = "from transformers.quantizers.auto import AUTO_QUANTIZER_MAPPING as m; assert 'anybit' in m, sorted(m)"


@pytest.mark.parametrize(
    "program",
    [
        f"import anybit.models; {KNOWN}",
        f"import transformers.quantizers.auto; import anybit.models; {KNOWN}",
        f"import anybit.models, transformers; transformers.AutoModelForCausalLM; {KNOWN}",
        "import sys, anybit.models; assert 'transformers.quantizers' not in sys.modules",
    ],
)
def test_registration(program):
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
