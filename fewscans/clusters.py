"""How well classes part in an embedding: silhouette and Davies-Bouldin of out-of-fold test embeddings."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import davies_bouldin_score, silhouette_score

from fewscans.contracts import read_table
from fewscans.errors import UserError

INDICES = ("silhouette", "davies_bouldin")


def cluster_indices(values: NDArray[np.floating], labels: NDArray[np.int64]) -> dict[str, float]:
    """Silhouette in [-1, 1] (higher is better) and Davies-Bouldin >= 0 (lower is better) of classes as clusters.

    Features are standardised by the mean and standard deviation of these very rows, so that both indices weigh each
    feature alike; distances are Euclidean. NaN with fewer than two classes, or no more scans than classes.

    Parameters
    ----------
    values
        [n, E] embeddings.
    labels
        [n] class indices.
    """
    classes = len(np.unique(labels))
    if classes < 2 or len(labels) <= classes or not np.isfinite(values).all():
        return dict.fromkeys(INDICES, float("nan"))
    x = values.astype(np.float64)
    spread = x.std(axis=0)
    x = (x - x.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    return {
        "silhouette": float(silhouette_score(x, labels)),
        "davies_bouldin": float(davies_bouldin_score(x, labels)),
    }


def fold_indices(folder: str | os.PathLike[str], targets: Mapping[str, int]) -> dict[str, float]:
    """Indices of one fold's test embeddings, as `scripts/finetune.py` left them in `folder`.

    Parameters
    ----------
    folder
        With ``embeddings.npy`` and ``embeddings.parquet``.
    targets
        Class index of each labelled test scan; other rows are not counted.

    Raises
    ------
    UserError
        A file is not there.
    """
    folder = Path(folder)
    missing = [
        (str(folder / name), "no such file. Fine-tune again.")
        for name in ("embeddings.npy", "embeddings.parquet")
        if not (folder / name).is_file()
    ]
    if missing:
        raise UserError("embeddings are missing", missing)
    rows = read_table(folder / "embeddings.parquet", "embeddings")
    rows = rows[(rows["role"] == "test") & rows["scan"].isin(set(targets))]
    stored = np.load(folder / "embeddings.npy", allow_pickle=False)
    values = np.asarray(stored[rows["row"].to_numpy(dtype=np.int64)], dtype=np.float32)
    return cluster_indices(
        values, np.array([targets[scan] for scan in rows["scan"]], dtype=np.int64)
    )
