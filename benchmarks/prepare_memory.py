"""Peak memory of convert and of normalise, against the largest scan and a chunk, for few and for many scans.

Volumes of noise are written as NIfTI (gzipped, int16, with and without a slope) and as DICOM series; one of them is
the largest, the others have half its sides. `convert` and `normalise` of all, in one chunk, are a process each. What is
told is its peak (VmHWM) above what it holds when all is imported, in sizes of the largest scan as it is stored.

    python benchmarks/prepare_memory.py --side 256 --scans 2 8 --out benchmarks/results/prepare_memory.json
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from fewscans.config.recipe import RecipeSettings
from fewscans.config.stages import ConvertParams, NormaliseParams
from fewscans.convert.chunks import write_chunk
from fewscans.normalise import make_store

KINDS = ("nifti", "nifti-slope", "series")
MB = 1e6


def noise(side: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(-1000, 1000, (side,) * 3, dtype=np.int16)


def write(kind: str, path: Path, side: int, seed: int) -> None:
    import nibabel as nib

    if kind == "series":
        return write_series(path, noise(side, seed), seed)
    made = nib.Nifti1Image(noise(side, seed), np.diag([-1.0, 1, 1, 1]))
    if kind == "nifti-slope":
        made.header.set_slope_inter(2.0, -1024.0)
    nib.save(made, f"{path}.nii.gz")
    return None


def write_series(folder: Path, voxels: np.ndarray, seed: int) -> None:
    from prepare import write_dicom
    from pydicom import dcmread

    folder.mkdir()
    for k, plane in enumerate(voxels):
        # The header of a slice of another measure, with a place in space and these pixels.
        made = dcmread(write_dicom(folder / f"{k:04d}", (8, 8), k))
        made.Rows, made.Columns = plane.shape
        made.PixelData = plane.tobytes()
        made.SeriesInstanceUID, made.PatientID = f"1.2.{seed}", str(seed)
        made.ImagePositionPatient, made.ImageOrientationPatient = [0, 0, k], [1, 0, 0, 0, 1, 0]
        made.SliceThickness = 1
        made.save_as(folder / f"{k:04d}.dcm")


def peak_mb(field: str = "VmHWM") -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024 / MB
    raise OSError("this system does not tell the memory of a process")


def work(step: str, folder: Path) -> None:
    """One step in this process; prints MB above those of the imports."""
    import nibabel
    import pydicom
    import scipy.sparse

    del nibabel, pydicom, scipy
    before = peak_mb("VmRSS")
    if step == "convert":
        write_chunk(ConvertParams(dataset="d", root=str(folder / "raw"), ndim=3), folder / "0")
    else:
        recipe = RecipeSettings(size=32, ndim=3)
        make_store(NormaliseParams(dataset="d", recipe=recipe), [folder / "0"], folder / "store")
    print(json.dumps(peak_mb() - before))


def measure(kind: str, scans: int, side: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "raw/a").mkdir(parents=True)
        for k in range(scans):
            write(kind, folder / "raw/a" / str(k), side if k == 0 else side // 2, k)
        largest = 2 * side**3 / MB
        chunk = (2 * side**3 + (scans - 1) * 2 * (side // 2) ** 3) / MB
        made = {"kind": kind, "scans": scans, "largest_mb": largest, "chunk_mb": chunk}
        for step in ("convert", "normalise"):
            command = [sys.executable, __file__, "--worker", step, str(folder)]
            said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            made[f"{step}_mb"] = float(said)
            made[f"{step}_in_scans"] = round(float(said) / largest, 2)
    return made


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--side", type=int, default=256, help="of the largest volume, in voxels")
    parser.add_argument("--scans", type=int, nargs="+", default=[2, 8])
    parser.add_argument("--out", type=Path, help="write the results to this JSON file")
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        work(given.worker[0], Path(given.worker[1]))
        return 0
    from common import write_results  # not in the workers: it imports torch

    cases = [measure(kind, n, given.side) for kind in given.kinds for n in given.scans]
    for made in cases:
        print(
            f"{made['kind']}, {made['scans']} scans, the largest {made['largest_mb']:.0f} MB: convert "
            f"{made['convert_in_scans']}, normalise {made['normalise_in_scans']} of it"
        )
    write_results(given.out, cases)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
