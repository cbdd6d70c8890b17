"""Whose scans a store was fitted on: no test group's may be among them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import pandas as pd

from fewscans.errors import UserError

FITTED = "fitted"
SHOWN = 5
# Roles in a fold that may be learnt from.
LEARNT = ("train", "pool")


class Stored(Protocol):
    """A store, as far as it is looked at here."""

    facts: dict[str, Any]


def check_fitted(
    stores: Mapping[str, Stored], folds: pd.DataFrame, fold: str, *, is_fitted: bool
) -> None:
    """Refuse stores (by data set) that were fitted on a scan which `fold` of the table `folds` keeps from learning.

    That is a scan of a test group, whatever its role, and a copy of a test scan.

    Raises
    ------
    UserError
        One was, or a recipe that is fitted (`is_fitted`) has a store that does not say on whom.
    """
    rows = folds[folds["fold"] == fold]
    tested = rows["group"].isin(rows.loc[rows["role"] == "test", "group"])
    kept_out = rows[tested | ~rows["role"].isin(LEARNT)]
    role_of = dict(zip(kept_out["scan"], kept_out["role"], strict=True))
    for name, store in stores.items():
        if is_fitted and FITTED not in store.facts:
            raise UserError(
                f"store of {name}: does not say whose scans it was fitted on. Make it again with this recipe."
            )
        seen = [scan for scan in store.facts.get(FITTED, {}).get("scans", []) if scan in role_of]
        if seen:
            lines = [(scan, f"has the role {role_of[scan]} there") for scan in seen[:SHOWN]]
            raise UserError(
                f"store of {name}: was fitted on {len(seen)} scans that fold '{fold}' keeps from training. Use the "
                "store of this fold, made by these folds",
                lines,
            )


def whose(stores: Mapping[str, Stored]) -> dict[str, dict[str, Any]]:
    """By data set, what each store that was fitted says of it, for encoder.json; nothing of others."""
    return {name: store.facts[FITTED] for name, store in stores.items() if FITTED in store.facts}
