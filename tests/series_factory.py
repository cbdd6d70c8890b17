"""DICOM series of a known body or of a cohort, slice by slice, and what `convert` makes of a folder of them."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from scipy import ndimage

from fewscans.config.stages import ConvertParams
from fewscans.convert import Scan, Unreadable
from fewscans.convert.sources import list_scans, open_reader
from fewscans.convert.unfold import unfold

# [slices, rows, columns]; every voxel has a number of its own.
BODY = np.arange(6 * 5 * 4, dtype=np.int16).reshape(6, 5, 4)
AXIAL = [1, 0, 0, 0, 1, 0]
# A gantry tilted by 20 degrees: columns lean, the table moves along z.
_LEAN = float(np.radians(20))
TILTED = [1, 0, 0, 0, float(np.cos(_LEAN)), float(-np.sin(_LEAN))]


class Series:
    """Writes slices into a folder, under names that say nothing and in an order that is none."""

    def __init__(self, write_dicom: Callable[..., Path], folder: Path) -> None:
        self.write, self.folder, self.n = write_dicom, folder, 0

    def slice(self, pixels: np.ndarray, z: float, **tags: Any) -> Path:
        """One slice at (0, 0, z) mm of an axial series with pixels of 2 x 1 mm, 3 mm thick."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.n += 1
        name = self.folder / f"IM{(self.n * 7919) % 1000:03d}"
        said = {
            "SeriesInstanceUID": "1.2.3",
            "SeriesNumber": 1,
            "InstanceNumber": self.n,
            "ImagePositionPatient": [0, 0, z],
            "ImageOrientationPatient": AXIAL,
            "PixelSpacing": [2, 1],
            "SliceThickness": 3,
            "SOPInstanceUID": f"1.2.3.{zlib.crc32(str(name).encode())}",
            **tags,
        }
        return self.write(name, pixels, **said)

    def body(self, at: list[float] | None = None, body: np.ndarray = BODY, **tags: Any) -> None:
        """Slices of `body` at heights `at`, written in an order of their own."""
        heights = at if at is not None else [3.0 * k for k in range(len(body))]
        for k in np.random.default_rng(len(body)).permutation(len(body)):
            self.slice(body[k], heights[k], **tags)


def write_cohort(
    root: Path, write_dicom: Callable[..., Path], *, patients: int = 12, name: str = "Ward-"
) -> None:
    """A folder per patient with an axial CT series of soft tissue, in every second one with a ball; labels.csv."""
    slices, side = 10, 16
    rows = ["path,label,patient"]
    for n in range(patients):
        rng = np.random.default_rng(n)
        hu = ndimage.gaussian_filter(rng.normal(size=(slices, side, side)), 1) * 100 + 40
        if n % 2:
            centre = rng.uniform(4, 6, 3)[:, None, None, None]
            hu[np.linalg.norm(np.indices(hu.shape) - centre, axis=0) < 3] += 150
        Series(write_dicom, root / f"{n:02d}").body(
            [3.0 * k for k in range(slices)], np.rint(hu + 1024).astype(np.int16), Modality="CT",
            SeriesInstanceUID=f"1.2.{n + 1}", RescaleSlope=1, RescaleIntercept=-1024,
            PixelSpacing=[2, 2], PatientID=f"{name}{n:02d}",
        )  # fmt: skip
        rows.append(f"{n:02d},{'ball' if n % 2 else 'none'},{name}{n:02d}")
    (root / "labels.csv").write_text("\n".join(rows) + "\n")


def converted(
    root: Path, *rows: str, ndim: int = 3, table: Path | None = None
) -> dict[str, Scan | str]:
    """Path -> scan, or the reason why there is none, of the paths that a table names; without any: of `root`."""
    if rows:
        table = root / "labels.csv"
        table.write_text("\n".join(["path", *rows]))
    params = ConvertParams(
        dataset="d", root=str(root), table=str(table) if table else None, ndim=ndim
    )
    return dict(_read(params))


def _read(params: ConvertParams) -> Iterator[tuple[str, Scan | str]]:
    with open_reader(params) as reader:
        for source in (scan for one in list_scans(params) for scan in unfold(one, params)):
            try:
                yield source.path, reader(source)
            except Unreadable as error:
                yield source.path, f"{error.status}: {error.reason}"


def as_nifti(path: Path, voxels: np.ndarray, affine: np.ndarray) -> Path:
    """`voxels` ([slices, rows, columns]) of an LPS `affine` as NIfTI, which is in RAS."""
    ras = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    nib.save(nib.Nifti1Image(voxels.transpose(2, 1, 0), ras), path)
    return path
