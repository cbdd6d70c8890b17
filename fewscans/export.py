"""Converted scans as files for a viewer: volumes as NIfTI, where they lay in the scanner, images as 16-bit PNG.

Files are named by the scan's key, and ``files.csv`` says what is in each: nothing else of the source goes with them.
"""

from __future__ import annotations

import csv
import gzip
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from fewscans.config.stages import ExportParams
from fewscans.convert import log
from fewscans.convert.chunks import read_converted
from fewscans.errors import Problems, UserError, did_you_mean

LIST = "files.csv"
COLUMNS = ("scan", "file", "shape", "spacing_mm", "slope", "intercept", "unit", "placed")
_TOP = 65535
# NIfTI's words for what an affine leads to (nifti1.h, NIFTI_XFORM_*).
_NOWHERE, _SCANNER, _ALIGNED = 0, 1, 2
# A qform has no shear: it is written where no corner of the volume is further off by it.
_SAME_MM = 1e-3


def export_scans(
    params: ExportParams,
    converted: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
) -> dict[str, Any]:
    """Write the folder `out`; facts for the side-car. It gets its name when it is whole.

    Physical value = value in the file * `slope` + `intercept`, as ``files.csv`` has them (for NIfTI 1 and 0). A volume
    lies where it did (`placed` is ``yes``); where nobody says, its axes are taken as RAS from the origin on (``no``).

    Raises
    ------
    UserError
        There is no such scan, `out` holds something else, or `converted` is not what convert wrote.
    """
    out = Path(out)
    index, read_pixels = read_converted(converted)
    kept = _chosen(index[index["status"] == "ok"], params)
    if out.is_dir() and any(out.iterdir()) and not (out / LIST).is_file():
        raise UserError(f"{out}: holds other files. Name a new folder.")
    part = out.with_name(f"{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    with open(part / LIST, "w", newline="", encoding="utf-8") as handle:
        table = csv.DictWriter(handle, COLUMNS)
        table.writeheader()
        for row in kept.to_dict("records"):
            spacing = [float(step) for step in row["spacing_mm"]]
            array = read_pixels(row)
            file, placed, slope, intercept = f"{row['scan']}.png", "", 1.0, 0.0
            if array.ndim == 4:
                affine, file = affine_of(row), f"{row['scan']}.nii.gz"
                placed = "no" if affine is None else "yes"
                _nifti(part / file, array, spacing, affine, row["format"])
            else:
                slope, intercept = _png(part / file, array)
            table.writerow({
                "scan": row["scan"], "file": file, "unit": row["unit"], "slope": slope, "intercept": intercept,
                "shape": _joined(array.shape[1:]), "spacing_mm": _joined(spacing), "placed": placed,
            })  # fmt: skip
    shutil.rmtree(out, ignore_errors=True)
    part.rename(out)
    log.info("%s: %d scans", out, len(kept))
    return {"scans": len(kept)}


def _chosen(kept: pd.DataFrame, params: ExportParams) -> pd.DataFrame:
    """Those that `params` asks for by key or path; all without a choice."""
    known = {*kept["scan"], *kept["path"]}
    problems = Problems(f"data set {params.dataset}")
    for name in params.scans:
        if name not in known:
            problems.add(
                "scans", f"'{name}' is no scan that was converted.{did_you_mean(name, known)}"
            )
    problems.raise_if_any()
    asked = kept["scan"].isin(params.scans) | kept["path"].isin(params.scans)
    return kept[asked] if params.scans else kept


def _joined(numbers: Sequence[float]) -> str:
    return " ".join(f"{number:g}" for number in numbers)


def affine_of(row: Any) -> npt.NDArray[np.float64] | None:
    """[4, 4] from (x, y, z) of a volume's array to RAS in mm, as a row of the index has it; None where nobody says."""
    numbers = [float(number) for number in row["affine"]]
    return np.reshape([*numbers, 0.0, 0.0, 0.0, 1.0], (4, 4)) if numbers else None


def _png(path: Path, array: npt.NDArray[np.float32]) -> tuple[float, float]:
    """[C, H, W] over the whole range of 16 bits; (slope, intercept).

    Whole numbers that fit are kept exactly: they are spread by a whole factor.
    """
    import SimpleITK as sitk  # noqa: N813

    wide = array.astype(np.float64)
    low, high = float(wide.min()), float(wide.max())
    factor = _TOP / (high - low) if low < high else 1.0
    if factor >= 1 and (wide == np.rint(wide)).all():
        factor = float(int(factor))
    stored = np.rint((wide - low) * factor).astype(np.uint16)
    colour = len(stored) == 3
    image = sitk.GetImageFromArray(np.moveaxis(stored, 0, -1) if colour else stored[0], colour)
    sitk.WriteImage(image, str(path))
    return 1 / factor, low


def _nifti(
    path: Path,
    array: npt.NDArray[np.float32],
    spacing_mm: Sequence[float],
    affine: npt.NDArray[np.float64] | None,
    kind: str,
) -> None:
    """[C, D, H, W], along superior, anterior, right, as (x, y, z[, C]) in RAS+.

    int16 where the values are whole numbers that fit, else float32. Of DICOM the affine is that of the scanner; another
    file may have been registered to something. Without `affine` the first voxel lies at the origin, without spacing
    voxels are cubes of 1 of an unknown unit.
    """
    import nibabel as nib

    whole = (array == np.rint(array)).all() and np.abs(array).max() <= np.iinfo(np.int16).max
    values = array.astype(np.int16 if whole else np.float32)
    steps = tuple(spacing_mm)[::-1] or (1.0,) * 3
    data = np.moveaxis(values.transpose(0, 3, 2, 1), 0, -1)
    placed = np.diag([*steps, 1.0]) if affine is None else affine
    image = nib.Nifti1Image(data[..., 0] if len(array) == 1 else data, placed)
    image.header.set_xyzt_units("mm" if len(spacing_mm) else "unknown")
    code = _SCANNER if kind == "DICOM" and affine is not None else _ALIGNED
    image.set_sform(placed, code)
    image.set_qform(placed, code)
    corners = np.array([*np.ndindex(2, 2, 2)]) * np.subtract(image.shape[:3], 1)
    off = image.get_qform() - placed
    if np.abs(corners @ off[:3, :3].T + off[:3, 3]).max() > _SAME_MM:
        image.set_qform(None, _NOWHERE)
    # Without the time of writing: the same bytes each time.
    path.write_bytes(gzip.compress(image.to_bytes(), mtime=0))
