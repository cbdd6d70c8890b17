"""Scans one after the other, or some of them at once in processes of their own; results in the same order."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import TypeVar

from fewscans.errors import UserError

Item = TypeVar("Item")
Made = TypeVar("Made")
_LINUX = sys.platform == "linux"
_PR_SET_PDEATHSIG = 1  # prctl(2)
# Of a worker: how often it comes for more.
_SHARES = 10


def each(function: Callable[[Item], Made], items: Iterable[Item], workers: int) -> list[Made]:
    """`function` of each item, by `workers` processes; in this one, where that is one.

    On Linux processes are forked, with all that is imported: they begin at once. They end with this one, even if it is
    killed. What `function` raises is raised here.

    Raises
    ------
    UserError
        A process was killed.
    """
    if workers <= 1:
        return [function(item) for item in items]
    context = get_context("fork" if _LINUX else "spawn")
    given = list(items)
    # Some at a time cost less than one by one, and what is left at the end is shared out all the same.
    at_once = max(1, len(given) // (_SHARES * workers))
    try:
        with ProcessPoolExecutor(workers, context, _end_with, (os.getpid(),)) as pool:
            return list(pool.map(function, given, chunksize=at_once))
    except BrokenProcessPool:
        raise UserError(
            f"one of {workers} processes was killed, most likely for want of memory: each holds a scan. Give the job "
            "more memory, or fewer workers (snakemake --set-threads normalise=1)."
        ) from None


def _end_with(parent: int) -> None:
    """Have this process killed when `parent` is gone, whatever ended that."""
    if _LINUX:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it was gone before that was said
            os._exit(1)
