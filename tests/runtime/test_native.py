"""The native module is there, or the refusal says how to get it."""

from __future__ import annotations

import pytest

from anybit.errors import AnybitError
from anybit.ops import native as ops_native
from anybit.runtime import native
from anybit.runtime.sampling import Sampling, sample


def test_what_needs_the_module_says_so_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ops_native, "load", lambda: None)
    with pytest.raises(AnybitError, match="make native"):
        native.module()
    with pytest.raises(AnybitError, match="native module"):
        sample([1.0, 2.0], Sampling())


def test_the_module_has_the_engine() -> None:
    module = pytest.importorskip("anybit._native", reason="the native module is not built")
    assert native.module() is module and hasattr(module, "Engine")
