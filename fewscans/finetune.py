"""Use one encoder on one fold with one seed: all protocols, budgets and draws in one process, each recorded alone.

A finished run stands in the cache under a digest of what it follows from (weights, pixels, labelled scans with their
targets and inner folds, test scans, settings, code, versions, threads, device), so that a killed job goes on where it
was, and a new budget computes only itself. Protocols without images never import torch.
"""

from __future__ import annotations

import json
import logging
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fewscans import keyed, protocols
from fewscans.config.stages import FinetuneParams
from fewscans.contracts import read_metadata, write_table
from fewscans.digest import code_digest
from fewscans.errors import UserError
from fewscans.files import Cache, atomic, digest, sha256_file
from fewscans.labelled import Budget, Fold, check_not_seen, pretraining_scans, read_fold
from fewscans.protocols.task import Outcome, Task

log = logging.getLogger("fewscans")


@dataclass(frozen=True)
class Files:
    """Where a job reads and writes."""

    labels: Path
    folds: Path
    budgets: Path
    predictions: Path
    cache: Path
    store: Path | None = None
    encoder: Path | None = None
    embeddings: Path | None = None


def finetune(params: FinetuneParams, files: Files) -> dict[str, Any]:
    """Write predictions (and embeddings) of every protocol, budget and draw; facts for the side-car.

    Raises
    ------
    UserError
        A file that the encoder needs is not given, tables do not fit together, or the encoder has seen test groups.
    """
    return Job(params, files).run()


class Job:
    """One encoder, recipe, fold and seed."""

    def __init__(self, params: FinetuneParams, files: Files) -> None:
        self.params, self.files = params, files
        self.method = params.settings.method
        needs = {protocols.NEEDS[name] for name in params.protocols if protocols.load(name)}
        self.needs_pixels = needs != {"nothing"}
        self.has_weights = self.method not in ("majority", "scratch", "scratch-long")
        self._check_given()
        self.encoder = self._read_encoder()
        self.flags = check_not_seen(self.encoder, files.encoder or Path(), files.folds, params.fold)
        self.store = None
        if self.needs_pixels:
            from fewscans.store import Store

            self.store = Store.open(files.store)
        self.fold = read_fold(
            params.fold, files.labels, files.folds, files.budgets,
            classes=params.classes, stored=None if self.store is None else set(self.store.scans),
        )
        self.cache = Cache(files.cache)
