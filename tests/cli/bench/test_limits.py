"""Thread counts are set for a while and put back; probes give figures that a machine can have."""

from __future__ import annotations

import pytest
import torch

from anybit.cli.bench import limits

native = pytest.importorskip("anybit._native")


def test_threads_are_put_back():
    before = native.threads(), torch.get_num_threads()
    with pytest.raises(KeyError), limits.threads(3):
        assert (native.threads(), torch.get_num_threads()) == (3, 3)
        raise KeyError
    assert (native.threads(), torch.get_num_threads()) == before


def test_probes_are_within_reason(monkeypatch):
    monkeypatch.setattr(limits, "LEAST_READ", 1 << 20)
    monkeypatch.setattr(limits, "last_level_cache", lambda: 1 << 18)
    assert 1e8 < limits.read_bandwidth(1, 1) < 1e13
    assert 1e8 < limits.peak("int8", 1) < 1e14


def test_reading_and_clearing_caches(monkeypatch):
    monkeypatch.setattr(limits, "LEAST_READ", 1 << 20)
    monkeypatch.setattr(limits, "last_level_cache", lambda: 1 << 18)
    assert isinstance(limits.evictor()(), int)  # a value that depends on every byte
    read = limits.reader()
    assert 1e8 < read() < 1e13


def test_peaks_are_those_the_machine_has():
    found = limits.peaks(1)
    assert {"int8", "fp32"} <= set(found) and all(1e7 < rate < 1e15 for rate in found.values())
