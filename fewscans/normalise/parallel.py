"""Scans one after the other, or some of them at once in processes of their own; results in the same order."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from fewscans.errors import UserError

Item = TypeVar("Item")
Made = TypeVar("Made")


def each(function: Callable[[Item], Made], items: Iterable[Item], workers: int) -> list[Made]:
    """`function` of each item, by `workers` processes; in this one, where that is one.

    Raises
    ------
    UserError
        A process was killed.
    """
    if workers <= 1:
        return [function(item) for item in items]
    from joblib import Parallel, delayed
    from joblib.externals.loky.process_executor import BrokenProcessPool

    try:
        return Parallel(n_jobs=workers)(delayed(function)(item) for item in items)
    except BrokenProcessPool as error:
        raise UserError(
            f"one of {workers} processes was killed, most likely for want of memory: each holds a scan. Give the job "
            f"more memory, or fewer workers (snakemake --set-threads normalise=1). ({str(error).splitlines()[0]})"
        ) from None
