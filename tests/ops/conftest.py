"""Instruction sets of the native kernels that this machine has, one after the other."""

from __future__ import annotations

import pytest

from anybit.ops import native

ISAS = [name for name, _, present in native.load().isas() if present] if native.load() else []


@pytest.fixture(params=ISAS)
def isa(request):
    module = native.load()
    before = module.isa()
    module.set_isa(request.param)
    yield request.param
    module.set_isa(before)
