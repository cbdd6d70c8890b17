"""Orders that look random and hang on nothing but names and a key."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterable, Sequence

import numpy as np
import pandas as pd

from fewscans.files import canonical_json


def hash_order(names: Sequence[str], *key: int | str) -> np.ndarray:
    """Indices that sort `names` by a hash of (key, name), in whatever order they were given.

    A name's place among others depends on these two names alone, so that leaving one out moves no
    other.
    """
    # JSON, not a join: ("a", "b-c") and ("a-b", "c") must differ, and names hold any character.
    hashed = [hashlib.sha256(canonical_json([*key, name]).encode()).digest() for name in names]
    return np.array(sorted(range(len(names)), key=lambda i: (hashed[i], names[i])), dtype=np.int64)


def majority(labels: Iterable[str]) -> str:
    """The label that stands most often; of equally frequent ones the first by name."""
    values, counts = np.unique(
        np.asarray(list(labels), dtype=object).astype(str), return_counts=True
    )
    return str(values[np.argmax(counts)])


def majority_by(frame: pd.DataFrame, unit: str) -> pd.Series:
    """Label of each unit (`patient` or `group`) that has one, by majority of its scans; sorted."""
    labelled = frame[frame["target"] != ""]
    counts = labelled.groupby([unit, "target"], sort=True).size().rename("n").reset_index()
    # Stable sort: of equal counts the first target by name stays in front.
    first = counts.sort_values([unit, "n"], ascending=[True, False], kind="stable").drop_duplicates(
        unit
    )
    return pd.Series(
        first["target"].to_numpy(), index=pd.Index(first[unit], name=unit), dtype=object
    )


def deal(classes: pd.Series, k: int, *key: int | str) -> dict[Hashable, int]:
    """Unit -> fold 0..k-1: each class is dealt in hash order, from where the last class ended.

    A class of at least k units is in every fold; folds differ by at most one unit in each class and
    in all.
    """
    dealt: dict[Hashable, int] = {}
    for label in sorted(set(classes)):
        units = [str(unit) for unit in classes.index[classes == label]]
        for i in hash_order(units, *key):
            dealt[units[i]] = len(dealt) % k
    return dealt
