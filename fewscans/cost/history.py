"""What jobs took: Snakemake's benchmark files, kept with the settings that they were measured under.

A benchmark file (``work/benchmarks/RULE/JOB.tsv``) has seconds and memory but no settings, and is overwritten. So at
the end of each run those that it wrote are added to ``work/history.json``::

    {"format": 1, "measured": {KEY: [[seconds, rss_mb, amount], ...]}}

KEY is a digest of the rule with all settings that change the pace of the work, `amount` the declared seconds of the
job: more epochs are more of the same work, so a measurement is scaled, and is never taken for what it is not. The
last `KEPT` of each key stay. Jobs that found their work finished in the cache, or went on with an earlier start's, are
told by the training seconds that their outputs record, and are left out. Those of a run that was killed are lost.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fewscans.files import write_json

FORMAT = 1
KEPT = 20
# Of the same amount: as good as the same settings.
SAME = 0.05
FILE = "history.json"
LOOKED_AT_S = 120.0
# Clocks of file systems and of this machine may differ a little.
CLOCK_S = 2.0


@dataclass(frozen=True)
class Measured:
    """One job, done."""

    seconds: float
    rss_mb: float
    amount: float


class History:
    """Measurements by key."""

    def __init__(self, measured: dict[str, list[Measured]] | None = None) -> None:
        self.measured = measured or {}

    @classmethod
    def read(cls, work: str | Path) -> History:
        """Of a working folder; empty where there is none or it cannot be read."""
        try:
            raw = json.loads(Path(work, FILE).read_text(encoding="utf-8"))
            if raw.get("format") != FORMAT:
                return cls()
            return cls({k: [Measured(*one) for one in v] for k, v in raw["measured"].items()})
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return cls()

    def write(self, work: str | Path) -> None:
        """Into a working folder."""
        shown = {
            key: [[one.seconds, one.rss_mb, one.amount] for one in found]
            for key, found in self.measured.items()
        }
        write_json(Path(work, FILE), {"format": FORMAT, "measured": shown})

    def add(self, key: str, one: Measured) -> None:
        """Add a measurement; the oldest goes."""
        self.measured[key] = [*self.measured.get(key, []), one][-KEPT:]

    def like(self, key: str, amount: float) -> tuple[list[float], bool] | None:
        """(seconds of jobs of this key, brought to `amount`; whether theirs was the same); None without any.

        Where some were of the same amount, the others are not asked.
        """
        found = self.measured.get(key)
        if not found or amount <= 0:
            return None
        same = [one.seconds for one in found if abs(one.amount / amount - 1) <= SAME]
        if same:
            return same, True
        return [one.seconds * amount / one.amount for one in found if one.amount > 0], False

    def rss_mb(self, key: str) -> tuple[float, bool]:
        """(most memory that a job of this key was seen with, 0 where none was; whether it was looked at often enough).

        Snakemake looks every now and then: what a job takes for some seconds only is easily missed.
        """
        found = self.measured.get(key, [])
        longest = max((one.seconds for one in found if one.rss_mb > 0), default=0.0)
        return max((one.rss_mb for one in found), default=0.0), longest >= LOOKED_AT_S


def quantile(values: list[float], share: float) -> float:
    """Of few values, linear between them."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    low, high = math.floor(place), math.ceil(place)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


# -- after a run -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Job:
    """A job of the plan, as far as its measurement goes."""

    rule: str
    benchmark: Path
    key: str
    amount: float
    trained: Path | None = None
    """File with the training seconds: encoder.json, predictions.parquet."""


def collect(work: str | Path, jobs: Iterator[Job], since: float) -> int:
    """Add what was measured after `since` (seconds since 1970) to the history of `work`; how many jobs."""
    history, added = History.read(work), 0
    for job in jobs:
        found = _read_benchmark(job.benchmark, since - CLOCK_S)
        if found is None or job.amount <= 0:
            continue
        seconds, rss = found
        if job.trained is not None and _training_seconds(job.trained) > seconds + 1:
            continue  # made before, here only found
        history.add(job.key, Measured(round(seconds, 2), round(rss, 1), round(job.amount, 3)))
        added += 1
    if added:
        history.write(work)
    return added


def _read_benchmark(path: Path, since: float) -> tuple[float, float] | None:
    with contextlib.suppress(OSError, ValueError, IndexError):
        if path.stat().st_mtime < since:
            return None
        head, *rows = path.read_text(encoding="utf-8").splitlines()
        row = dict(zip(head.split("\t"), rows[-1].split("\t"), strict=False))
        rss = row.get("max_rss", "")
        return float(row["s"]), float(rss) if rss.replace(".", "", 1).isdigit() else 0.0
    return None


def _training_seconds(path: Path) -> float:
    """Seconds that the output says it took to make; infinity where it cannot be read."""
    try:
        if path.suffix == ".json":
            return float(json.loads(path.read_text(encoding="utf-8"))["device_seconds"])
        import pyarrow.parquet as pq

        metadata = pq.read_schema(path).metadata or {}
        runs = json.loads(metadata[b"fewscans"])["runs"]
        return float(sum(one["device_seconds"] for one in runs))
    except (OSError, ValueError, KeyError, TypeError):
        return math.inf
