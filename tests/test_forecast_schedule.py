"""List scheduling: legal, never better than the best, near it, and as bounds say."""

from __future__ import annotations

import random
from itertools import permutations

import pytest

from fewscans.forecast.schedule import Machine, Task, critical_path, order, remaining, run


def sampled(key: int, n: int, machine: Machine) -> list[Task]:
    """Tasks that wait for earlier ones, and fit."""
    draw = random.Random(key)
    return [
        Task(
            float(draw.randint(1, 9)),
            draw.randint(1, machine.cores or 2),
            draw.randint(0, machine.gpus or 0),
            tuple(sorted(draw.sample(range(place), min(place, draw.randint(0, 2))))),
        )
        for place in range(n)
    ]


def check_legal(tasks, machine, made):
    for place, task in enumerate(tasks):
        assert made.ends[place] == made.starts[place] + task.seconds
        assert all(
            made.starts[place] >= made.ends[before] + machine.notice_s for before in task.after
        )
    for moment in made.starts:
        now = [p for p in range(len(tasks)) if made.starts[p] <= moment < made.ends[p]]
        cpus = sum(min(tasks[p].cpus, machine.cores or tasks[p].cpus) for p in now)
        assert machine.cores is None or cpus <= machine.cores
        assert machine.gpus is None or sum(tasks[p].gpus for p in now) <= machine.gpus
        assert machine.slots is None or len(now) <= machine.slots
        held = [lane for p in now for lane in made.lanes[p]]
        assert len(held) == len(set(held))
    if machine.burst:
        count, span = machine.burst
        starts = sorted(made.starts)
        assert all(b - a >= span for a, b in zip(starts, starts[count:], strict=False))


def best(tasks, machine) -> float:
    """Seconds of the best schedule, by trying every order (each job as early as it then can)."""
    found = float("inf")
    for places in permutations(range(len(tasks))):
        at = {place: rank for rank, place in enumerate(places)}
        if any(at[b] > at[p] for p in places for b in tasks[p].after):
            continue
        found = min(found, _in_order(tasks, machine, places))
    return found


def _in_order(tasks, machine, places) -> float:
    starts, ends = {}, {}
    for place in places:
        task = tasks[place]
        ready = max((ends[b] for b in task.after), default=0.0)
        for moment in sorted({ready, *(e for e in ends.values() if e >= ready)}):
            span = [moment, *(s for s in starts.values() if moment < s < moment + task.seconds)]
            if all(_fits(tasks, machine, starts, ends, task, at) for at in span):
                break
        starts[place], ends[place] = moment, moment + task.seconds
    return max(ends.values())


def _fits(tasks, machine, starts, ends, task, moment) -> bool:
    now = [p for p in starts if starts[p] <= moment < ends[p]]
    cpus = sum(tasks[p].cpus for p in now) + task.cpus
    gpus = sum(tasks[p].gpus for p in now) + task.gpus
    return cpus <= machine.cores and gpus <= machine.gpus


@pytest.mark.parametrize("key", range(25))
def test_against_every_order(key):
    machine = Machine(cores=2 + key % 2, gpus=key % 3)
    tasks = sampled(key, 6, machine)
    made = run(tasks, machine)
    check_legal(tasks, machine, made)
    least = best(tasks, machine)
    assert least <= made.seconds <= 1.5 * least


def test_on_many_small_graphs_it_is_nearly_the_best():
    machine = Machine(cores=2, gpus=1)
    ratios = []
    for key in range(100, 130):
        tasks = sampled(key, 5, machine)
        ratios.append(run(tasks, machine).seconds / best(tasks, machine))
    assert sum(ratios) / len(ratios) < 1.05


@pytest.mark.parametrize("key", range(8))
@pytest.mark.parametrize(
    "machine",
    [
        Machine(4, 2),
        Machine(None, 3),
        Machine(8, None, slots=2),
        Machine(3, 1, notice_s=2.5),
        Machine(4, 2, burst=(3, 10.0)),
    ],
)
def test_bounds_on_larger_graphs(key, machine):
    tasks = sampled(key, 80, Machine(machine.cores or 2, machine.gpus or 0))
    made = run(tasks, machine)
    check_legal(tasks, machine, made)
    chain = critical_path(tasks, machine.notice_s)
    length = sum(tasks[p].seconds + machine.notice_s for p in chain)
    work = sum(t.seconds * t.cpus for t in tasks)
    late = 10.0 * (len(tasks) / 3) if machine.burst else 0.0
    assert made.seconds >= length
    assert made.seconds >= work / (machine.cores or float("inf"))
    assert made.seconds <= sum(t.seconds + machine.notice_s for t in tasks) + late
    assert made.peak_gpus <= (machine.gpus if machine.gpus is not None else 10**6)


def test_without_bounds_it_takes_the_critical_path():
    tasks = sampled(3, 40, Machine(4, 1))
    made = run(tasks, Machine())
    assert made.seconds == sum(tasks[p].seconds for p in critical_path(tasks))


def test_the_longest_way_to_go_comes_first():
    tasks = [Task(1), Task(1), Task(9, after=(1,))]
    made = run(tasks, Machine(cores=1))
    assert made.starts == [10.0, 0.0, 1.0]


def test_same_tasks_same_schedule():
    tasks = sampled(1, 60, Machine(4, 2))
    assert run(tasks, Machine(4, 2)) == run(list(tasks), Machine(4, 2))


def test_too_few_gpus_is_no_schedule_and_too_few_cores_take_all():
    assert run([Task(1, 1, 2)], Machine(4, 1)) is None
    assert run([Task(1, 1, 1)], Machine(4, 0)) is None
    made = run([Task(5, 64), Task(5, 64)], Machine(4))
    assert (made.seconds, made.peak_cpus) == (10.0, 4)


def test_submissions_come_in_bursts():
    made = run([Task(0.0)] * 7, Machine(burst=(3, 60.0)))
    assert sorted(made.starts) == [0, 0, 0, 60, 60, 60, 120]


def test_what_was_not_submitted_early_is_not_submitted_at_once_later():
    made = run([Task(500.0), *[Task(1.0, after=(0,))] * 5], Machine(burst=(2, 10.0)))
    assert sorted(made.starts) == [0, 500, 500, 510, 510, 520]


def test_a_place_is_held_until_the_end_is_noticed():
    made = run([Task(10), Task(10)], Machine(slots=1, notice_s=5))
    assert sorted(made.starts) == [0, 15]
    assert made.seconds == 30


def test_nothing_to_do():
    made = run([], Machine(2, 1))
    assert (made.seconds, made.peak_jobs) == (0.0, 0)
    assert critical_path([]) == []


def test_a_circle_is_an_error():
    with pytest.raises(ValueError, match="circle"):
        order([Task(1, after=(1,)), Task(1, after=(0,))])


def test_remaining_counts_the_longest_way():
    tasks = [Task(1), Task(2, after=(0,)), Task(7, after=(0,)), Task(3, after=(1, 2))]
    assert remaining(tasks) == [11, 5, 10, 3]
    assert critical_path(tasks) == [0, 2, 3]
