"""A discrete-event simulator of pipelines: tasks with dependencies on servers with rates.

A task needs some work (bytes, operations) of one server and starts once the tasks it waits for have ended and the server has a free
port; waiting tasks are served in the order in which they became ready, and of those ready at once in the order in which they were given.
Double buffering is a dependency: the task that fills a buffer waits for the one that emptied it. A memory that many cores share is one
server of the whole bandwidth: transfers in small chunks, one after the other, share it evenly.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from anybit.errors import AnybitError


@dataclass(frozen=True)
class Server:
    """`rate` units of work a second on each of `ports` equal ports; `latency` seconds before a task's work begins to count.

    A rate of infinity does any work in no time.
    """

    name: str
    rate: float
    ports: int = 1
    latency: float = 0.0

    def __post_init__(self) -> None:
        if not self.rate > 0 or self.ports < 1 or not self.latency >= 0:
            raise AnybitError(
                f"the server {self.name!r} needs a positive rate, at least one port and no negative latency; "
                f"got {self.rate}, {self.ports}, {self.latency}"
            )

    def seconds(self, work: float) -> float:
        """Of a task of so much work once it has a port."""
        return self.latency + work / self.rate


@dataclass(frozen=True)
class Task:
    """`work` of server `server` after all tasks of the numbers `after`. kind: for sums by kind."""

    server: str
    work: float
    after: tuple[int, ...] = ()
    kind: str = ""


@dataclass(frozen=True)
class Timeline:
    """start and end of every task in seconds; busy seconds of each server, over all its ports."""

    tasks: tuple[Task, ...]
    start: tuple[float, ...]
    end: tuple[float, ...]
    busy: Mapping[str, float]

    @property
    def makespan(self) -> float:
        """Seconds from the first start to the last end; 0 without tasks."""
        return max(self.end, default=0.0)

    def share(self, server: str, ports: int = 1) -> float:
        """The part of the whole time for which a server's ports were busy."""
        return self.busy.get(server, 0.0) / (ports * self.makespan) if self.makespan else 0.0

    def by_kind(self) -> dict[str, float]:
        """Seconds of work of each kind of task, added over all servers."""
        total: dict[str, float] = defaultdict(float)
        for task, start, end in zip(self.tasks, self.start, self.end, strict=True):
            total[task.kind] += end - start
        return dict(total)

    def critical_path(self) -> list[int]:
        """The tasks, first to last, that each began when the one before ended, back from the last end."""
        if not self.tasks:
            return []
        at = max(range(len(self.end)), key=lambda i: self.end[i])
        by_end: dict[float, list[int]] = defaultdict(list)
        for i, end in enumerate(self.end):
            by_end[end].append(i)
        path = [at]
        while self.start[at] > 0:
            candidates = [i for i in self.tasks[at].after if self.end[i] == self.start[at]]
            same = [i for i in by_end[self.start[at]] if self.tasks[i].server == self.tasks[at].server]
            following = [i for i in candidates or same if i not in path]
            if not following:
                break
            at = following[0]
            path.append(at)
        return path[::-1]


def simulate(servers: Sequence[Server], tasks: Sequence[Task]) -> Timeline:
    """When every task runs. AnybitError for unknown servers, negative work, and tasks that wait for a later one or for themselves."""
    known = {server.name: server for server in servers}
    if len(known) != len(servers):
        raise AnybitError("two servers have one name")
    followers: list[list[int]] = [[] for _ in tasks]
    waiting = [0] * len(tasks)
    for number, task in enumerate(tasks):
        if task.server not in known:
            raise AnybitError(f"task {number} needs the server {task.server!r}; known: {', '.join(known)}")
        if not task.work >= 0:
            raise AnybitError(f"task {number} has the work {task.work}, which is negative")
        for other in task.after:
            if not 0 <= other < number:
                raise AnybitError(f"task {number} waits for task {other}, which is not before it")
            followers[other].append(number)
        waiting[number] = len(set(task.after))
    start, end = [0.0] * len(tasks), [0.0] * len(tasks)
    busy: dict[str, float] = defaultdict(float)
    free = {server.name: server.ports for server in servers}
    queues: dict[str, list[tuple[float, int]]] = {server.name: [] for server in servers}
    # (time, 0 for an end or 1 for becoming ready, task): ends come first, so that freed ports are there for what is ready.
    events: list[tuple[float, int, int]] = [(0.0, 1, i) for i, count in enumerate(waiting) if count == 0]
    heapq.heapify(events)
    while events:
        now = events[0][0]
        touched = set()
        while events and events[0][0] == now:
            _, is_ready, number = heapq.heappop(events)
            name = tasks[number].server
            touched.add(name)
            if is_ready:
                heapq.heappush(queues[name], (now, number))
                continue
            free[name] += 1
            for follower in set(followers[number]):
                waiting[follower] -= 1
                if waiting[follower] == 0:
                    heapq.heappush(events, (now, 1, follower))
        for name in touched:
            queue, server = queues[name], known[name]
            while queue and free[name]:
                _, number = heapq.heappop(queue)
                free[name] -= 1
                start[number], end[number] = now, now + server.seconds(tasks[number].work)
                busy[name] += end[number] - now
                heapq.heappush(events, (end[number], 0, number))
    return Timeline(tuple(tasks), tuple(start), tuple(end), dict(busy))
