"""How often a job may start: trainings that outlast a time limit go on in a next start, and that is planned for."""

from __future__ import annotations

import math
from collections.abc import Iterable

from fewscans.cluster.site import Site
from fewscans.cost.model import Estimate

# Rules whose jobs go on where an earlier start stopped.
CONTINUES = ("pretrain", "pretrain_ranks", "finetune", "tune")
# Each start gives up a part of its time: start-up, the last checkpoint, the way back into the queue.
USABLE = 0.8
# For what goes wrong besides, as for every other rule (the profile's `retries`).
SPARE = 2


def starts(p95_s: float, limit_min: int | None) -> int:
    """Starts that a job of `p95_s` seconds needs under a limit; 1 where it fits or there is none."""
    if limit_min is None or p95_s <= 0:
        return 1
    return max(1, math.ceil(p95_s / (USABLE * 60 * limit_min)))


def retries(site: Site | None, rule: str, estimates: Iterable[Estimate]) -> int | None:
    """Retries of a rule whose longest job needs several starts; None: the profile's number is enough.

    A job that requeues itself keeps its attempt; these are for clusters that refuse that.
    """
    partition = site.partition("gpu") if site is not None else None
    if rule not in CONTINUES or partition is None:
        return None
    limit = partition.max_runtime
    if limit is not None and site is not None and rule == "finetune":
        limit = max(1, limit // site.pack)
    needed = max((starts(one.p95, limit) for one in estimates), default=1)
    return None if needed == 1 else needed - 1 + SPARE
