"""Who may be learnt from: the training scans of a fold and its pools, and no test group."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from fewscans.config.stages import PretrainParams
from fewscans.contracts import read_table
from fewscans.errors import Problems, UserError
from fewscans.fitted import check_fitted, whose
from fewscans.resident import Resident
from fewscans.store import Store

log = logging.getLogger("fewscans")


@dataclass(frozen=True)
class Sources:
    """Scans that an encoder may learn from, in order of their keys, and groups that it may not see.

    `labelled` are those of the training fold: no others' labels may be seen.
    """

    scans: list[str]
    excluded_groups: list[str]
    labelled: frozenset[str]
    fitted: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What the stores say of scans that they were fitted on, by data set."""


def open_pools(given: Sequence[str], place: Callable[[str], Path] = Path) -> dict[str, Store]:
    """Stores of ``--pool NAME=STORE ...`` by name; `place` says where each of these folders is read.

    Raises
    ------
    UserError
        Not so written, or no store.
    """
    return {name: Store.open(place(str(folder))) for name, folder in pairs("--pool", given).items()}


def pairs(flag: str, given: Sequence[str]) -> dict[str, Path]:
    """Path by name of ``flag NAME=PATH ...``; a UserError where it is not so written."""
    problems = Problems(flag)
    parts = [pair.partition("=") for pair in given]
    for pair, part in zip(given, parts, strict=True):
        if not all(part):
            problems.add(pair, "write NAME=PATH")
    problems.raise_if_any()
    return {name: Path(path) for name, _, path in parts}


def read_scans(
    params: PretrainParams,
    store: Store,
    folds: Path,
    pools: Mapping[str, Store],
    device: torch.device,
) -> tuple[Sources, Resident]:
    """Scans that a pretraining may learn from, by `folds`, and their pixels on the device.

    Raises
    ------
    UserError
        A store does not fit the recipe, was fitted on test scans, or see `choose_scans`.
    """
    opened = {params.dataset: store, **pools}
    stores = list(opened.values())
    table = read_table(folds, "folds")
    check_stores(params, opened)
    if not getattr(params.settings, "transductive", False):
        check_fitted(opened, table, params.fold, is_fitted=params.recipe.is_fitted)
    sources = choose_scans(table, params, stores)
    used = {k: one for k, one in opened.items() if any(scan in one for scan in sources.scans)}
    return replace(sources, fitted=whose(used)), load_scans(sources.scans, stores, device)


def check_stores(params: PretrainParams, stores: Mapping[str, Store]) -> None:
    """Refuse stores of another size or number of channels than the recipe's."""
    recipe = params.recipe
    for name, one in stores.items():
        if one.shape != recipe.shape:
            raise UserError(
                f"store of {name}: has {one.shape}, and the recipe says "
                f"{recipe.shape}. Make it again with this recipe."
            )


def choose_scans(folds: pd.DataFrame, params: PretrainParams, stored: list[Store]) -> Sources:
    """Training scans of the fold and its pools; with `transductive` those of the test fold too.

    Raises
    ------
    UserError
        The fold is not there, a test group would be seen, or nothing is left.
    """
    transductive = bool(getattr(params.settings, "transductive", False))
    if params.fold == "all" and not transductive:
        raise UserError(
            "fold 'all' is for transductive encoders only: it has no test groups. Name a fold."
        )
    rows = folds if params.fold == "all" else folds[folds["fold"] == params.fold]
    if rows.empty:
        known = ", ".join(sorted(set(folds["fold"])))
        raise UserError(f"no fold '{params.fold}' of data set {params.dataset}. Known: {known}")
    own = ["train", "test"] if transductive else ["train"]
    scans = getattr(params.settings, "scans", "all")
    roles = {"all": [*own, "pool"], "own": own, "pools": ["pool"]}[scans]
    chosen = rows[rows["role"].isin(roles)]
    excluded = set() if transductive else set(rows.loc[rows["role"] == "test", "group"])
    leaking = chosen[chosen["group"].isin(excluded)]
    if len(leaking):
        shown = [
            (str(scan), f"is in test group {group}")
            for scan, group in leaking[["scan", "group"]].values[:5]
        ]
        raise UserError(
            f"fold {params.fold}: pretraining would see {len(leaking)} scans of test groups. Make the folds again, or "
            "set `transductive: true`",
            shown,
        )
    wanted = sorted(set(chosen["scan"]))
    there = [scan for scan in wanted if any(scan in store for store in stored)]
    if len(there) < len(wanted):
        log.warning(
            "%d of %d training scans are in no store and are left out",
            len(wanted) - len(there),
            len(wanted),
        )
    if len(there) < 2:
        which = "" if scans == "all" else f" (`scans: {scans}`)"
        raise UserError(
            f"fold {params.fold}: {len(there)} training scans{which}; pretraining needs at least 2."
        )
    labelled = frozenset(chosen.loc[chosen["role"] == "train", "scan"])
    return Sources(there, sorted(excluded), labelled)


def load_scans(scans: list[str], stores: list[Store], device: torch.device) -> Resident:
    """`scans` on the device; each comes from the first store that has it."""
    parts, left = [], scans
    for store in stores:
        mine = [scan for scan in left if scan in store]
        left = [scan for scan in left if scan not in store]
        if mine:
            parts.append(Resident(store, mine, device))
    return Resident.join(parts)
