"""Predictions and embeddings of a fine-tuning job as the tables that everything after it reads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fewscans.config.stages import FinetuneParams
from fewscans.contracts import write_table
from fewscans.files import atomic
from fewscans.labelled import Budget, Fold
from fewscans.protocols.task import Outcome

# The largest number of float16: an embedding beyond it would be written as infinity.
HALF_MAX = 65504.0


@dataclass
class Record:
    """A finished run."""

    protocol: str
    budget: Budget
    outcome: Outcome
    device_seconds: float
    """Wall time of the run itself, as recorded when it was made."""
    digest: str
    recalled: bool
    """Whether it came from the cache."""
    code: str = ""
    """Digest of the code that makes it; what the cache holds under its digest was made by the same."""


def write_predictions(
    path: Path,
    params: FinetuneParams,
    fold: Fold,
    records: list[Record],
    flags: list[str],
    encoder: dict[str, Any],
) -> None:
    """Write a row per run and scan: test scans, then the labelled ones that an inner fold held out.

    `flags` hold for every run (`transductive`); `encoder` goes into the metadata as it is.
    """
    rows: list[dict[str, Any]] = []
    for record in records:
        rows += _rows(params, fold, record)
    runs = [_facts(params, record, flags) for record in records]
    write_table(
        path,
        "predictions",
        pd.DataFrame(rows),
        task="classification",
        classes=fold.classes,
        runs=runs,
        encoder=encoder,
    )


def _arm(params: FinetuneParams, record: Record) -> str:
    return f"{params.encoder}.{params.recipe_name}.{record.protocol}"


def _rows(params: FinetuneParams, fold: Fold, record: Record) -> Iterator[dict[str, Any]]:
    task, outcome = record.budget.task, record.outcome
    shared = {
        "dataset": params.dataset,
        "test_dataset": params.dataset,
        "condition": "clean",
        "arm": _arm(params, record),
        "fold": fold.name,
        "seed": params.seed,
        "budget": record.budget.name,
        "draw": record.budget.draw,
    }
    for position, prob in zip(task.test, outcome.test_prob, strict=True):
        yield {
            **shared,
            "role": "test",
            "inner": -1,
            **_scan(fold, position),
            "prob": prob.tolist(),
        }
    if outcome.val_prob is None:
        return
    for position, inner, prob in zip(task.labelled, task.inner, outcome.val_prob, strict=True):
        if not np.isnan(prob).any():
            yield {
                **shared,
                "role": "val",
                "inner": int(inner),
                **_scan(fold, position),
                "prob": prob.tolist(),
            }


def _scan(fold: Fold, position: int) -> dict[str, Any]:
    row = fold.table.iloc[position]
    return {
        "scan": row["scan"],
        "patient": row["patient"],
        "group": row["group"],
        "target": int(row["target"]),
    }


def _facts(params: FinetuneParams, record: Record, flags: list[str]) -> dict[str, Any]:
    return {
        "arm": _arm(params, record),
        "protocol": record.protocol,
        "budget": record.budget.name,
        "draw": record.budget.draw,
        "fold": params.fold,
        "seed": params.seed,
        "n_labelled_patients": record.budget.n_patients,
        "n_labelled_scans": len(record.budget.task.labelled),
        "choices": record.outcome.choices,
        "flags": [*flags, *record.outcome.flags],
        "device_seconds": record.device_seconds,
        "digest": record.digest,
        "code": record.code,
    }


def write_embeddings(
    folder: Path, fold: Fold, positions: NDArray[np.int64], values: NDArray[np.floating]
) -> None:
    """Write `embeddings.npy` (float16 [n, E]) and `embeddings.parquet` (row, scan, role)."""
    folder.mkdir(parents=True, exist_ok=True)
    half = np.clip(values, -HALF_MAX, HALF_MAX).astype(np.float16)
    with atomic(folder / "embeddings.npy") as temporary, open(temporary, "wb") as handle:
        np.save(handle, half, allow_pickle=False)
    rows = {
        "row": np.arange(len(positions)),
        "scan": [fold.scans[i] for i in positions],
        "role": [fold.roles[i] for i in positions],
    }
    write_table(folder / "embeddings.parquet", "embeddings", pd.DataFrame(rows))
