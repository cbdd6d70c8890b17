"""Peak memory of convert and of normalise, in sizes of the largest scan, for few and for many scans.

Volumes of a ball in noise are written as NIfTI (gzipped, int16, with and without a slope, turned to RAS on the way) and
as DICOM series in one folder; one of them is the largest, the others have half its sides. `convert` and `normalise` of
all, in one chunk, are a process each; of the first number of NIfTI volumes also by recipes that look for the body and
correct its bias field. What is told is its peak (VmHWM) above what it holds (VmRSS) when all is imported and a small
data set was done by the same recipe, over the bytes of the largest scan as it is stored.

    python benchmarks/prepare_memory.py --out benchmarks/results/prepare_memory.json

Linux only. One chunk is what one job converts: all scans here, `chunk_mb`; none of it is counted as allowed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from fewscans.config.recipe import RecipeSettings
from fewscans.config.stages import ConvertParams, NormaliseParams
from fewscans.convert.chunks import write_chunk
from fewscans.normalise import make_store

KINDS = ("nifti", "nifti-slope", "series")
_BODY = {"foreground": True, "normalise": "zscore", "within": "foreground"}
RECIPES: dict[str, dict[str, Any]] = {"plain": {}, "body": _BODY, "n4": {**_BODY, "n4": 4}}
MB = 1e6


def write(kind: str, path: Path, side: int, seed: int) -> None:
    """One volume of `side` cubed: a ball, as bright as tissue, in air that is noisy."""
    if kind == "series":
        from prepare_files import write_series

        write_series(path, (side,) * 3, seed, False)
        return
    voxels = np.random.default_rng(seed).integers(-1000, -800, (side,) * 3, dtype=np.int16)
    along = (np.arange(side) - side / 2) ** 2
    voxels[along[:, None, None] + along[:, None] + along < (0.4 * side) ** 2] += 1500
    made = nib.Nifti1Image(voxels, np.diag([-1.0, 1, 1, 1]))
    if kind == "nifti-slope":
        made.header.set_slope_inter(2.5, -1024.0)
    nib.save(made, f"{path}.nii.gz")


def memory_mb(field: str) -> float:
    """A line of what the system says of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) * 1024 / MB


def do(step: str, folder: Path) -> None:
    """Convert the data set in `folder`, or normalise it by the recipe that `step` names."""
    if step == "convert":
        write_chunk(ConvertParams(dataset="d", root=str(folder / "raw"), ndim=3), folder / "0")
    else:
        recipe = RecipeSettings(size=64, ndim=3, **RECIPES[step])
        make_store(NormaliseParams(dataset="d", recipe=recipe), [folder / "0"], folder / "store")


def work(step: str, small: Path, folder: Path) -> None:
    """One step in this process; prints MB at its peak above those before."""
    do("convert", small)
    do("plain" if step == "convert" else step, small)
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
    before = memory_mb("VmRSS")
    do(step, folder)
    print(json.dumps(memory_mb("VmHWM") - before))


def measure(kind: str, scans: int, side: int, recipe: str = "plain") -> dict[str, Any]:
    """Peaks for one scan of `side` cubed and `scans` - 1 of half its sides."""
    with tempfile.TemporaryDirectory() as name:
        folder, small = Path(name, "all"), Path(name, "small")
        for where, sides in ((small, [16, 16]), (folder, [side, *[side // 2] * (scans - 1)])):
            (where / "raw/a").mkdir(parents=True)
            for k, n in enumerate(sides):
                write(kind, where / "raw/a" / str(k), n, k)
        largest, rest = 2 * side**3 / MB, (scans - 1) * 2 * (side // 2) ** 3 / MB
        made = {
            "kind": kind,
            "recipe": recipe,
            "scans": scans,
            "largest_mb": largest,
            "chunk_mb": largest + rest,
        }
        for step, what in (("convert", "convert"), ("normalise", recipe)):
            command = [sys.executable, __file__, "--worker", what, str(small), str(folder)]
            said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            made[f"{step}_mb"] = round(float(said), 1)
            made[f"{step}_in_scans"] = round(float(said) / largest, 2)
    return made


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--side", type=int, default=256, help="of the largest volume, in voxels")
    parser.add_argument("--scans", type=int, nargs="+", default=[4, 16, 64])
    parser.add_argument("--big", type=int, default=384, help="side of one volume alone; 0: none")
    parser.add_argument("--out", type=Path, help="write the results to this JSON file")
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        step, small, folder = given.worker
        work(step, Path(small), Path(folder))
        return 0
    from common import write_results  # not in the workers: it imports torch

    cases = []
    for kind in given.kinds:
        wanted = [(n, given.side, "plain") for n in given.scans] + [(1, given.big, "plain")]
        if kind == "nifti":
            wanted += [(given.scans[0], given.side, recipe) for recipe in ("body", "n4")]
        for scans, side, recipe in wanted:
            if not side:
                continue
            cases.append(made := measure(kind, scans, side, recipe))
            print(
                f"{kind}, {recipe}, {scans} scans, the largest {made['largest_mb']:.0f} MB: convert "
                f"{made['convert_in_scans']}, normalise {made['normalise_in_scans']} of it",
                flush=True,
            )
    write_results(given.out, cases)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
