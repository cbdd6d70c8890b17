"""A device without memory enough: what is at once there is halved, and what was to be computed is computed in parts."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

T = TypeVar("T")

# Flag of results of a training whose batch did not fit and was cut into micro-batches.
HALVED = "oom-halved"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the device had no memory left; cuDNN and cuBLAS say it in words of their own."""
    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and "_ALLOC_FAILED" in str(error)
    )


def give_back() -> None:
    """Return what torch holds in reserve to the device; called after the error and all it holds are gone."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def in_batches(
    make: Callable[[NDArray[np.int64]], T], index: NDArray[np.int64], batch: int
) -> list[T]:
    """What `make` returns for batches of `index` in turn, at most `batch` long, or half as long where memory runs out.

    For what each scan has alone (evaluation mode), so that the size of a batch changes no result.
    """
    made: list[T] = []
    first = 0
    while first < len(index):
        some = index[first : first + batch]
        try:
            made.append(make(some))
            first += len(some)
            continue
        except RuntimeError as error:  # torch.OutOfMemoryError is one
            if not is_out_of_memory(error) or len(some) == 1:
                raise
        give_back()
        batch = len(some) // 2
    return made
