"""The simulator against schedules worked out by hand and against the recurrences of queues and pipelines."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anybit.errors import AnybitError
from anybit.hardware.pipeline import Server, Task, simulate

WORK = st.lists(st.floats(0.1, 5), min_size=1, max_size=12)


@given(WORK, WORK)
def test_two_stages_follow_the_recurrence_of_a_flow_shop(first: list[float], second: list[float]) -> None:
    """Stage 2 of piece i begins when stage 1 of i and stage 2 of i - 1 have ended."""
    pieces = list(zip(first, second, strict=False))
    tasks = []
    for a, b in pieces:
        tasks.append(Task("one", a))
        tasks.append(Task("two", b, (len(tasks) - 1,)))
    timeline = simulate([Server("one", 2.0), Server("two", 4.0)], tasks)
    end_one = end_two = 0.0
    for i, (a, b) in enumerate(pieces):
        end_one += a / 2
        end_two = max(end_one, end_two) + b / 4
        assert timeline.end[2 * i] == pytest.approx(end_one) and timeline.end[2 * i + 1] == pytest.approx(end_two)
    assert timeline.makespan == pytest.approx(end_two)
    assert timeline.busy["two"] == pytest.approx(sum(b for _, b in pieces) / 4)


@pytest.mark.parametrize("buffers", [1, 2, 3])
def test_buffers_limit_how_far_a_producer_runs_ahead(buffers: int) -> None:
    """Produce 1 s, consume 3 s: with one buffer they take turns, with two or more the consumer never waits again."""
    tasks: list[Task] = []
    fills: list[int] = []
    empties: list[int] = []
    for i in range(10):
        after = (empties[i - buffers],) if i >= buffers else ()
        tasks.append(Task("producer", 1, after))
        fills.append(len(tasks) - 1)
        tasks.append(Task("consumer", 3, (fills[-1],)))
        empties.append(len(tasks) - 1)
    makespan = simulate([Server("producer", 1), Server("consumer", 1)], tasks).makespan
    assert makespan == (40 if buffers == 1 else 31)


@settings(deadline=None)
@given(WORK, st.integers(1, 4))
def test_ports_serve_in_order(work: list[float], ports: int) -> None:
    timeline = simulate([Server("pool", 1.0, ports)], [Task("pool", w) for w in work])
    free = [0.0] * ports
    for w, start in zip(work, timeline.start, strict=True):
        free.sort()
        assert start == pytest.approx(free[0])
        free[0] += w
    assert timeline.makespan == pytest.approx(max(free))
    assert timeline.share("pool", ports) == pytest.approx(sum(work) / (ports * max(free)))


def test_those_ready_first_are_served_first_and_ends_free_ports_in_time() -> None:
    tasks = [Task("a", 2), Task("b", 1), Task("a", 1, (1,), "early"), Task("b", 1, (1,)), Task("a", 1, (3,), "late")]
    timeline = simulate([Server("a", 1), Server("b", 1)], tasks)
    assert timeline.start == (0, 0, 2, 1, 3) and timeline.by_kind()["early"] == 1
    assert timeline.critical_path() == [0, 2, 4]


def test_a_shared_memory_is_shared_evenly_by_chunks() -> None:
    """Four cores read 100 chunks each through one memory and work on them: the memory is busy all the time, all end together."""
    tasks: list[Task] = []
    for chunk in range(100):
        for core in range(4):
            before = (4 * 2 * (chunk - 1) + 2 * core,) if chunk else ()
            tasks.append(Task("memory", 10.0, before))
            tasks.append(Task(f"core{core}", 1.0, (len(tasks) - 1,)))
    servers = [Server("memory", 100.0), *(Server(f"core{i}", 100.0) for i in range(4))]
    timeline = simulate(servers, tasks)
    assert timeline.makespan == pytest.approx(40.0, abs=0.02) and timeline.share("memory") > 0.999
    ends = [max(e for e, t in zip(timeline.end, tasks, strict=True) if t.server == f"core{i}") for i in range(4)]
    assert max(ends) - min(ends) < 0.5


def test_latency_and_infinite_rates() -> None:
    timeline = simulate(
        [Server("slow", 1, latency=0.5), Server("fast", math.inf)], [Task("slow", 1), Task("fast", 9, (0,))]
    )
    assert timeline.end == (1.5, 1.5)
    assert (
        simulate([], []).makespan == 0 and simulate([], []).critical_path() == [] and simulate([], []).share("x") == 0
    )


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000))
def test_any_graph_keeps_its_promises(seed: int) -> None:
    rng = np.random.default_rng(seed)
    servers = [Server("a", 1.0), Server("b", 2.0, 2), Server("c", 0.5, 1, 0.1)]
    tasks = [
        Task(
            "abc"[rng.integers(3)],
            float(rng.integers(0, 4)),
            tuple(rng.integers(0, i, rng.integers(0, 3)).tolist()) if i else (),
        )
        for i in range(30)
    ]
    timeline = simulate(servers, tasks)
    for i, task in enumerate(tasks):
        assert all(timeline.end[j] <= timeline.start[i] for j in task.after)
    for server in servers:
        spans = [(timeline.start[i], timeline.end[i]) for i, t in enumerate(tasks) if t.server == server.name]
        for moment in {s for s, _ in spans}:
            assert sum(s <= moment < e for s, e in spans) <= server.ports
    path = timeline.critical_path()
    assert timeline.end[path[-1]] == timeline.makespan and timeline.start[path[0]] == 0
    assert all(timeline.end[a] == timeline.start[b] for a, b in pairwise(path))


def test_impossible_pipelines_are_refused() -> None:
    with pytest.raises(AnybitError, match="task 0 needs the server 'x'; known: a"):
        simulate([Server("a", 1)], [Task("x", 1)])
    with pytest.raises(AnybitError, match="task 0 waits for task 1, which is not before it"):
        simulate([Server("a", 1)], [Task("a", 1, (1,)), Task("a", 1)])
    with pytest.raises(AnybitError, match="work -1"):
        simulate([Server("a", 1)], [Task("a", -1)])
    with pytest.raises(AnybitError, match="two servers"):
        simulate([Server("a", 1), Server("a", 1)], [])
    with pytest.raises(AnybitError, match="positive rate"):
        Server("a", 0)
