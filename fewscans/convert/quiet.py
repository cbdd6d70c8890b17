"""Without the remarks of readers on values that are out of order; what matters is in the index."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def muted() -> Iterator[None]:
    """Nothing is logged by pydicom; around many files, for changing a level empties what all loggers know."""
    logger = logging.getLogger("pydicom")
    level = logger.level
    if level != logging.CRITICAL:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        if level != logging.CRITICAL:
            logger.setLevel(level)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """`muted`, and nobody warns."""
    with muted(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
