"""Made pictures, and a data set of them to audit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from fewscans.audit import Audit, audit
from fewscans.config.stages import AuditParams
from fewscans.contracts import COLUMNS


def picture(seed: int, size: tuple[int, int] = (48, 40)) -> np.ndarray:
    """[1, H, W]: coarse blobs that no other seed has."""
    rng = np.random.default_rng(seed)
    coarse = rng.normal(size=(8, 8)).repeat(8, axis=0).repeat(8, axis=1)[: size[0], : size[1]]
    return (100 + 20 * coarse + rng.normal(size=size))[None].astype(np.float32)


class Cohort:
    """A made data set: `add` scans, then `audit`."""

    def __init__(self) -> None:
        self.pixels: dict[str, np.ndarray] = {}
        self.index: list[dict[str, Any]] = []
        self.table: list[dict[str, str]] = []

    def add(
        self,
        path: str,
        pixels: np.ndarray | None,
        label: str = "",
        patient: str = "",
        split: str = "",
        in_table: bool = True,
        **found: Any,
    ) -> None:
        """A scan; one without pixels cannot be read. `found`: what the index says otherwise."""
        row: dict[str, Any] = dict.fromkeys(COLUMNS["index"], "")
        row |= {
            "scan": f"key of {path}",
            "path": path,
            "status": "ok",
            "format": "PNG",
            "mode": "L",
        }
        row |= {"shape": [48, 40], "spacing_mm": [], "bits": 8, "mean": 0.0}
        if pixels is None:
            row |= {"status": "unreadable", "reason": "cut short", "shape": []}
        else:
            row["pixel_sha256"] = str(hash(pixels.tobytes()))
            self.pixels[path] = pixels
        self.index.append(row | found)
        if in_table:
            line = {"path": path, "label": label, "patient": patient, "split": split, "site": ""}
            self.table.append(line)

    def fill(self, n: int) -> None:
        """Add n patients of two classes without fault."""
        for i in range(n):
            self.add(f"fill/{i:02d}.png", picture(1000 + i), "ab"[i % 2], f"fill-{i:02d}")

    def audit(self, table: pd.DataFrame | None = None, **settings: Any) -> Audit:
        """What the audit finds, with these settings."""
        said = pd.DataFrame(self.table) if table is None else table
        params = AuditParams(dataset="d", **settings)
        return audit(pd.DataFrame(self.index), said, lambda row: self.pixels[row["path"]], params)


def labels_of(made: Audit) -> pd.DataFrame:
    """Its labels, by path."""
    return made.labels.set_index("path")


def found(made: Audit, check: str) -> pd.DataFrame:
    """Its findings of one check."""
    return made.findings[made.findings["check"] == check]
