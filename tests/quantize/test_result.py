import dataclasses

import pytest
import torch

from anybit.formats import TensorFormat
from anybit.quantize import rtn


def test_results_are_frozen_values() -> None:
    done = rtn.quantize(torch.randn(2, 8), TensorFormat.parse("int4/g8"))
    with pytest.raises(dataclasses.FrozenInstanceError):
        done.report.method = "other"  # type: ignore[misc]
    assert done.report.method == "rtn" and done.report.details == {}
