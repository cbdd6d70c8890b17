"""A picture of the schedule: when each rule runs, and which rule holds each GPU (or how many cores)."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.ticker import MaxNLocator

from fewscans.errors import UserError
from fewscans.figures import style
from fewscans.files import atomic
from fewscans.forecast.jobs import Job
from fewscans.forecast.place import Place
from fewscans.forecast.schedule import Schedule
from fewscans.forecast.totals import ORDER, schedule_here
from fewscans.forecast.words import count, duration

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# More GPUs than this are drawn as a sum over rules, not each on a line of its own.
MOST_LANES = 16
UNITS = ((172_800, 86_400.0, "days"), (7200, 3600.0, "hours"), (180, 60.0, "minutes"))


def draw(
    jobs: Sequence[Job], place: Place, path: str | os.PathLike[str], gpus: int | None = None
) -> None:
    """Write the picture as PNG; `gpus` cards in place of those there are.

    Raises
    ------
    UserError
        There is nothing to draw.
    """
    if not jobs:
        raise UserError("nothing to draw: no job has to run.")
    units = place.units(jobs)
    rules = [jobs[unit[0]].rule for unit in units]
    names = sorted(set(rules), key=lambda rule: (ORDER.index(rule) if rule in ORDER else 99, rule))
    here = schedule_here(jobs, place, gpus)
    unit_s, unit = _unit(here.seconds)
    lanes = 1 + max((lane for held in here.lanes for lane in held), default=-1)
    with style.look() as look:
        colours = {rule: look.colour(number) for number, rule in enumerate(names)}
        tall = (
            0.22 * len(names) + 0.5,
            1.1 if lanes > MOST_LANES or not lanes else 0.16 * lanes + 0.5,
        )
        figure = style.new(style.WIDE_INCH, sum(tall) + 0.7)
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=tall)
        word = "submission" if len(units) < len(jobs) else "job"
        _rules(above, here, rules, names, colours, unit_s, word)
        if 0 < lanes <= MOST_LANES:
            _lanes(below, here, rules, colours, unit_s, lanes)
        else:
            tasks = place.tasks(jobs, cards=True if gpus else None)
            held = [t.gpus if lanes else t.cpus for t in tasks]
            _sum(below, here, rules, names, colours, unit_s, held, "GPUs" if lanes else "cores")
        below.set_xlabel(f"{unit} since the start")
        below.set_xlim(0, here.seconds / unit_s)
        style.title(above, _title(jobs, here, place, lanes), style.WIDE_INCH)
        with atomic(path) as temporary:
            figure.savefig(temporary, format="png", metadata={"Software": None})


def _unit(seconds: float) -> tuple[float, str]:
    return next(((s, word) for least, s, word in UNITS if seconds >= least), (1.0, "seconds"))


def _title(jobs: Sequence[Job], here: Schedule, place: Place, lanes: int) -> str:
    unknown = sum(job.expected_s is None for job in jobs)
    with_ = f" with {count(lanes, 'GPU')}" if lanes else ""
    left_out = f", {count(unknown, 'job')} of unknown length drawn as nothing" if unknown else ""
    return f"{count(len(jobs), 'job')}{with_}: {duration(here.seconds)}{left_out}"


def steps(starts: Any, ends: Any, amounts: Any) -> tuple[Any, Any]:
    """(times, sums): what is held from each time on; ends come before starts of the same moment."""
    times = np.concatenate([starts, ends])
    changes = np.concatenate([amounts, -np.asarray(amounts)])
    at, place = np.unique(np.round(times, 6), return_inverse=True)
    return at, np.cumsum(np.bincount(place, weights=changes))


def _rules(
    axes: Axes,
    here: Schedule,
    rules: list[str],
    names: list[str],
    colours: dict[str, Any],
    unit_s: float,
    word: str,
) -> None:
    """A row per rule: as high as the share of its most jobs at once."""
    starts, ends = np.array(here.starts), np.array(here.ends)
    of = np.array(rules)
    for row, rule in enumerate(names):
        mine = of == rule
        at, running = steps(starts[mine], ends[mine], np.ones(mine.sum()))
        most = max(1.0, running.max())
        axes.fill_between(
            at / unit_s, row + 0.4, row + 0.4 - 0.8 * running / most, step="post",
            color=colours[rule], linewidth=0,
        )  # fmt: skip
        # A job too short to be seen still has its mark.
        axes.plot([at[0] / unit_s] * 2, [row - 0.4, row + 0.4], color=colours[rule], lw=1.0)
        label = f"{mine.sum():,} {word}s, {most:.0f} at once" if mine.sum() > 1 else f"1 {word}"
        axes.text(
            1.01, row, label, transform=axes.get_yaxis_transform(), va="center",
            fontsize=style.SMALL_PT, color=style.MUTED,
        )  # fmt: skip
    axes.set_yticks(range(len(names)), [style.shown(name, 16) for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)


def _lanes(
    axes: Axes,
    here: Schedule,
    rules: list[str],
    colours: dict[str, Any],
    unit_s: float,
    lanes: int,
) -> None:
    """A row per GPU; thin white lines between jobs where these are long enough to be told apart."""
    held: dict[int, list[int]] = {lane: [] for lane in range(lanes)}
    for job, cards in enumerate(here.lanes):
        for lane in cards:
            held[lane].append(job)
    apart = here.seconds / 400
    for lane, mine in held.items():
        bars = [(here.starts[j] / unit_s, (here.ends[j] - here.starts[j]) / unit_s) for j in mine]
        axes.broken_barh(
            bars, (lane - 0.4, 0.8),
            facecolors=[colours[rules[j]] for j in mine],
            edgecolors="white",
            linewidths=[0.4 if here.ends[j] - here.starts[j] > apart else 0.0 for j in mine],
        )  # fmt: skip
    axes.set_yticks(range(lanes), [f"GPU {lane + 1}" for lane in range(lanes)])
    axes.set_ylim(lanes - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)


def _sum(
    axes: Axes,
    here: Schedule,
    rules: list[str],
    names: list[str],
    colours: dict[str, Any],
    unit_s: float,
    held: list[int],
    word: str,
) -> None:
    """What is in use at each time, rules on top of each other."""
    starts, ends = np.array(here.starts), np.array(here.ends)
    of, amounts = np.array(rules), np.array(held, float)
    grid = np.unique(np.round(np.concatenate([starts, ends]), 6))
    layers = []
    for rule in names:
        mine = of == rule
        at, sums = steps(starts[mine], ends[mine], amounts[mine])
        layers.append(np.concatenate([[0.0], sums])[np.searchsorted(at, grid, side="right")])
    axes.stackplot(
        grid / unit_s, layers, step="post", colors=[colours[rule] for rule in names], linewidth=0
    )
    top = np.sum(layers, axis=0).max()
    axes.set_ylim(0, max(1, math.ceil(top)))
    axes.set_ylabel(f"{word} in use")
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
