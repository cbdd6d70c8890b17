"""When each job would run: list scheduling, the job with the longest way still to go first.

With one kind of machine this is Graham's rule: never longer than twice the best schedule, and usually within some
per cent of it. Snakemake's own scheduler takes what is ready in much the same way.
"""

from __future__ import annotations

import heapq
from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Task:
    """What a job holds, and for how long."""

    seconds: float
    cpus: int = 1
    gpus: int = 0
    after: tuple[int, ...] = ()


@dataclass(frozen=True)
class Machine:
    """What there is; None: as much as is asked for."""

    cores: int | None = None
    gpus: int | None = None
    slots: int | None = None
    """Most jobs in flight."""
    burst: tuple[float, float] | None = None
    """(starts, seconds): at most so many starts in any span of so long."""
    notice_s: float = 0.0
    """From a job's end until those who wait for it are started."""


@dataclass(frozen=True)
class Schedule:
    """A start for each task, in the order of the tasks."""

    starts: list[float]
    ends: list[float]
    lanes: list[tuple[int, ...]]
    """Numbers of the GPUs that each task holds, where their number is bounded."""
    seconds: float
    """Until the last end is noticed."""
    peak_jobs: int
    peak_cpus: int
    peak_gpus: int


def order(tasks: Sequence[Task]) -> list[int]:
    """Every task after those that it waits for.

    Raises
    ------
    ValueError
        They wait for each other in a circle.
    """
    left = [len(task.after) for task in tasks]
    following = followers(tasks)
    ready = [place for place, count in enumerate(left) if count == 0]
    found = []
    while ready:
        place = ready.pop()
        found.append(place)
        for after in following[place]:
            left[after] -= 1
            if left[after] == 0:
                ready.append(after)
    if len(found) != len(tasks):
        raise ValueError("jobs wait for each other in a circle")
    return found


def followers(tasks: Sequence[Task]) -> list[list[int]]:
    """Tasks that wait for each."""
    found: list[list[int]] = [[] for _ in tasks]
    for place, task in enumerate(tasks):
        for before in task.after:
            found[before].append(place)
    return found


def remaining(tasks: Sequence[Task], notice_s: float = 0.0) -> list[float]:
    """Seconds from each task's start to the end of the longest chain behind it."""
    following = followers(tasks)
    found = [0.0] * len(tasks)
    for place in reversed(order(tasks)):
        rest = max((found[after] for after in following[place]), default=0.0)
        found[place] = tasks[place].seconds + notice_s + rest
    return found


def critical_path(tasks: Sequence[Task], notice_s: float = 0.0) -> list[int]:
    """The longest chain: no machine is faster than its seconds."""
    if not tasks:
        return []
    length = remaining(tasks, notice_s)
    following = followers(tasks)
    place = max((p for p in range(len(tasks)) if not tasks[p].after), key=lambda p: (length[p], -p))
    chain = [place]
    while following[place]:
        place = max(following[place], key=lambda p: (length[p], -p))
        chain.append(place)
    return chain


def run(tasks: Sequence[Task], machine: Machine) -> Schedule | None:
    """The schedule of `tasks` on `machine`; None where a task asks for more GPUs than there are.

    Like Snakemake, a task that asks for more cores than there are gets all.
    """
    if machine.gpus is not None and any(task.gpus > machine.gpus for task in tasks):
        return None
    return _Simulation(tasks, machine).go()


class _Simulation:
    """State while time goes from event to event."""

    def __init__(self, tasks: Sequence[Task], machine: Machine) -> None:
        self.tasks = tasks
        self.machine = machine
        self.following = followers(tasks)
        self.left = [len(task.after) for task in tasks]
        length = remaining(tasks, machine.notice_s)
        self.rank = [(-length[place], place) for place in range(len(tasks))]
        # What is ready, by what it asks for: few shapes, so that choosing stays cheap with thousands of jobs.
        self.ready: dict[tuple[int, int], list[tuple[float, int]]] = defaultdict(list)
        self.events: list[tuple[float, int, int]] = []
        self.cpus = self.gpus = self.jobs = 0
        # The last starts, as many as may fall into one span.
        self.recent: deque[float] = deque(maxlen=int(machine.burst[0]) or 1 if machine.burst else 1)
        self.peak = [0, 0, 0]
        self.free = list(range(machine.gpus)) if machine.gpus is not None else []
        self.starts = [0.0] * len(tasks)
        self.ends = [0.0] * len(tasks)
        self.lanes: list[tuple[int, ...]] = [()] * len(tasks)

    def go(self) -> Schedule:
        for place, count in enumerate(self.left):
            if count == 0:
                self._make_ready(place)
        now = last = 0.0
        self._start_all(now)
        while self.events:
            now = self.events[0][0]
            while self.events and self.events[0][0] <= now:
                _, kind, place = heapq.heappop(self.events)
                if kind == 0:
                    self._end(place)
                elif kind == 1:
                    last = now
                    self.jobs -= 1
                    self._notice(place)
            self._start_all(now)
        return Schedule(self.starts, self.ends, self.lanes, last, *self.peak)

    def _shape(self, place: int) -> tuple[int, int]:
        task = self.tasks[place]
        cores = self.machine.cores
        return task.cpus if cores is None else min(task.cpus, cores), task.gpus

    def _make_ready(self, place: int) -> None:
        heapq.heappush(self.ready[self._shape(place)], self.rank[place])

    def _end(self, place: int) -> None:
        cpus, gpus = self._shape(place)
        self.cpus -= cpus
        self.gpus -= gpus
        for lane in self.lanes[place]:
            heapq.heappush(self.free, lane)

    def _notice(self, place: int) -> None:
        for after in self.following[place]:
            self.left[after] -= 1
            if self.left[after] == 0:
                self._make_ready(after)

    def _start_all(self, now: float) -> None:
        machine = self.machine
        while machine.slots is None or self.jobs < machine.slots:
            fitting = [
                (heap[0], shape)
                for shape, heap in self.ready.items()
                if heap
                and (machine.cores is None or self.cpus + shape[0] <= machine.cores)
                and (machine.gpus is None or self.gpus + shape[1] <= machine.gpus)
            ]
            if not fitting:
                return
            if machine.burst is not None and len(self.recent) == self.recent.maxlen:
                allowed = self.recent[0] + machine.burst[1]
                if allowed > now:
                    heapq.heappush(self.events, (allowed, 2, -1))
                    return
            (_, place), shape = min(fitting)
            heapq.heappop(self.ready[shape])
            self._start(place, shape, now)

    def _start(self, place: int, shape: tuple[int, int], now: float) -> None:
        self.recent.append(now)
        self.jobs += 1
        self.cpus += shape[0]
        self.gpus += shape[1]
        used = (self.jobs, self.cpus, self.gpus)
        self.peak = [max(pair) for pair in zip(self.peak, used, strict=True)]
        if self.machine.gpus is not None:
            self.lanes[place] = tuple(heapq.heappop(self.free) for _ in range(shape[1]))
        end = now + self.tasks[place].seconds
        self.starts[place], self.ends[place] = now, end
        heapq.heappush(self.events, (end, 0, place))
        heapq.heappush(self.events, (end + self.machine.notice_s, 1, place))
