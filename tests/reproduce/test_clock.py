"""Medians of processor time: of cases that spend known shares of it, and with the settings of threads put back."""

from __future__ import annotations

import time
from types import SimpleNamespace

import torch

from anybit.ops import native
from anybit.reproduce import clock


def test_medians_over_rounds_of_what_the_clock_says(monkeypatch):
    ticks = iter(float(t) for t in (0, 1, 0, 1, 0, 5, 10, 12, 20, 27, 30, 33, 40, 46, 50, 59))
    monkeypatch.setattr(clock.time, "thread_time", lambda: next(ticks))
    calls: list[str] = []
    seen: list[tuple[str, int, int]] = []
    found = clock.medians(
        {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")},
        3,
        what="x",
        progress=lambda *a: seen.append(a),
    )
    assert found == {"a": 6.0, "b": 3.0}
    assert calls == ["a", "a", "b", "b", "a", "b", "a", "b", "a", "b"] and seen == [
        ("x", 0, 3),
        ("x", 1, 3),
        ("x", 2, 3),
    ]


def test_the_first_copy_is_called_and_not_counted(monkeypatch):
    ticks = iter(float(t) for t in (0, 10, 14, 20, 28))
    monkeypatch.setattr(clock.time, "thread_time", lambda: next(ticks))
    made, calls = iter("abc"), []
    cases = {"x": clock.copies(lambda: next(made), calls.append, 3)}
    assert clock.medians(cases, 2, evict=4) == {"x": 3.0}  # (4 / 2 + 8 / 2) / 2
    assert calls == ["a", "c", "a", "b", "c", "a", "b", "c"]


def test_waiting_is_not_counted_and_work_is():
    def work() -> None:
        end = time.thread_time() + 0.02
        while time.thread_time() < end:
            pass

    found = clock.medians({"sleep": lambda: time.sleep(0.01), "work": work}, 3, evict=1 << 20)
    assert found["sleep"] < found["work"]


def test_threads_are_put_back():
    module = native.load()
    before = torch.get_num_threads(), module and module.threads()
    with clock.one_thread():
        assert torch.get_num_threads() == 1 and (module is None or module.threads() == 1)
    assert (torch.get_num_threads(), module and module.threads()) == before


def test_reading_is_of_as_many_bytes_in_every_copy(monkeypatch):
    module = native.load()
    if module is not None:
        read = []
        monkeypatch.setattr(native, "load", lambda: SimpleNamespace(read_through=read.append))
        for case in clock.reading(1 << 16, 3):
            case()
        assert [block.nbytes for block in read] == 3 * [1 << 16] and len({block.ctypes.data for block in read}) == 3
    monkeypatch.setattr(native, "load", lambda: None)
    assert [float(case()) for case in clock.reading(4096, 2)] == [1024.0, 1024.0]
