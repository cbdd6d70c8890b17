"""A store of all scans of a data set by one recipe."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from fewscans.config.recipe import RecipeSettings
from fewscans.config.stages import NormaliseParams
from fewscans.contracts import COLUMNS, write_table
from fewscans.convert import log
from fewscans.convert.chunks import read_converted, read_mask, read_values
from fewscans.errors import UserError
from fewscans.files import atomic, digest, write_json
from fewscans.fitted import FITTED
from fewscans.normalise.fit import fit
from fewscans.normalise.fitness import check_scans
from fewscans.normalise.nyul import Landmarks
from fewscans.normalise.parallel import each
from fewscans.normalise.scan import normalise_scan
from fewscans.store import ROWS, SEAL, VOXELS, voxel_digest

_STEPS = {"uint8": 255, "int16": 32767}


def make_store(
    params: NormaliseParams,
    converted: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    folds: Sequence[Path] = (),
    workers: int = 1,
) -> dict[str, Any]:
    """Write the store of a recipe into the folder `out`, by so many processes at most; facts for the side-car.

    Every scan with status ok is kept, by path. ``store.json`` is written last: where it stands, the
    store is whole. A recipe that is fitted asks `folds` on whom (see `fewscans.normalise.fit.chosen`),
    and ``store.json`` says it under `fitted`.

    Raises
    ------
    UserError
        There is no scan to store or to fit on, scans lack what the recipe needs (all are listed), or
        `converted` is not what convert wrote.
    """
    out, recipe = Path(out), params.recipe
    index, _ = read_converted(converted)
    kept = index[index["status"] == "ok"].reset_index(drop=True)
    if kept.empty:
        raise UserError(f"data set {params.dataset}: no readable scan to make a store of.")
    check_scans(kept, params)
    fitted = None
    if recipe.is_fitted:
        fitted = fit(kept, read_values, partial(_mask, recipe), params, folds, workers)
    dtype = "uint8" if set(kept["dtype"]) == {"uint8"} else "int16"
    out.mkdir(parents=True, exist_ok=True)
    (out / SEAL).unlink(missing_ok=True)
    shape = (len(kept), *recipe.shape.full)
    standard = None if fitted is None else np.array(fitted["landmarks"])
    with atomic(out / VOXELS) as temporary, open(temporary, "wb") as voxels:
        kind = np.dtype(dtype).newbyteorder("<")
        header = {"descr": kind.str, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(voxels, header)
        voxels.flush()
        write = _Row(temporary, voxels.tell(), kind, recipe, standard)
        rows = each(write, enumerate(kept.to_dict("records")), workers)
    columns = [*COLUMNS["rows"], *(["box"] if recipe.foreground else [])]
    frame = pd.DataFrame(rows, columns=columns)
    write_table(out / ROWS, "rows", frame, dataset=params.dataset)
    facts = {
        "dataset": params.dataset,
        "recipe": recipe.model_dump(mode="json"),
        "dtype": dtype,
        "n": len(kept),
        "scale": 1 / _STEPS[dtype],
        "intercept": 0.0,
        **recipe.shape.facts(),
        "digest": digest([dtype, list(shape), frame[["scan", "pixel_sha256"]].values.tolist()]),
        **({} if fitted is None else {FITTED: fitted}),
    }
    write_json(out / SEAL, facts)
    log.info("%s: %d scans, %s, %s", out, len(kept), dtype, recipe.shape)
    return facts


def _mask(recipe: RecipeSettings, row: Any) -> npt.NDArray[np.unsignedinteger] | None:
    """The scan's mask, where the recipe crops to it."""
    return read_mask(row) if recipe.foreground == "mask" else None


@dataclass(frozen=True)
class _Row:
    """Writes a scan to its place in the file of voxels, and says what rows.parquet says of it; a process has a copy."""

    voxels: Path
    begins: int
    dtype: np.dtype[Any]
    recipe: RecipeSettings
    standard: Landmarks | None

    def __call__(self, scan: tuple[int, dict[str, Any]]) -> dict[str, Any]:
        number, row = scan
        recipe, labels = self.recipe, _mask(self.recipe, row)
        made = normalise_scan(
            read_values(row), list(row["spacing_mm"]), recipe, labels, self.standard
        )
        whole = np.rint(made.x * _STEPS[self.dtype.name]).astype(self.dtype)
        # Not mapped: what is written would count as memory of the job.
        with open(self.voxels, "r+b") as voxels:
            voxels.seek(self.begins + number * whole.nbytes)
            voxels.write(whole.data)
        low, high = made.bounds
        return {
            "row": number,
            "scan": row["scan"],
            "shape": list(recipe.shape.axes),
            "spacing_mm": list(made.spacing_mm),
            "pixel_sha256": voxel_digest(whole),
            "scale": high - low,
            "intercept": low,
            "box": [edge for side in made.box or () for edge in side],
        }
