"""Convert and normalise against only decoding the same files, against MONAI and TorchIO, and two cores against one.

Files are made first (`prepare_files.py`): NIfTI volumes, gzipped and not; PNG of 8 and 16 bit; DICOM series, several in
one folder, not compressed and in JPEG 2000. Each turn reads all:

- decoding: nibabel, Pillow or pydicom, file by file to an array in memory;
- least: decoding, SHA-256 of each file and of its pixels, and the pixels written once and read once, with nothing else;
- ours: `write_chunk` and `make_store` (digests, index, pixels and store on disk);
- the peers, from file to an array in [0, 1]: for volumes canonical axes, spacing, percentiles, crop and pad to the
  size; for pictures percentiles, the longer side to the size, pad.

One thread each, turn about, in one process, what was written removed before each turn; then two chunks by one process
and by two, as the workflow runs jobs, one store by one process and by two, and two stores by one process and by two.
Times are of the processor; those of two cores are of the wall, and want a quiet machine.

    python benchmarks/prepare.py --repeats 5 --out benchmarks/results/prepare.json

torchio is not installed with the rest: without it, its column is left out.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import torch
from common import now, since, spread, write_results
from PIL import Image
from prepare_files import WRITERS

from fewscans.config.recipe import RecipeSettings
from fewscans.config.stages import ConvertParams, NormaliseParams
from fewscans.convert.chunks import write_chunk
from fewscans.normalise import make_store

PERCENTILES = (0.5, 99.5)
SPACING_MM = 2.0
DECODERS: dict[str, Callable[[Path], Any]] = {
    "nifti": lambda path: np.asanyarray(nib.load(path).dataobj),
    "png": lambda path: np.asarray(Image.open(path)),
    "series": lambda path: pydicom.dcmread(path).pixel_array,
}


def decode(kind: str, paths: list[Path]) -> None:
    for path in paths:
        DECODERS[kind.partition("-")[0]](path)


def least(kind: str, paths: list[Path], out: Path) -> None:
    """What no way of preparing files leaves out that tells copies apart and keeps pixels for several recipes."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with open(out, "w+b", buffering=0) as handle:
        for path in paths:
            array = np.ascontiguousarray(DECODERS[kind.partition("-")[0]](path))
            hashlib.sha256(path.read_bytes())
            hashlib.sha256(array.data)
            at = handle.tell()
            handle.write(array.data)
            handle.seek(at)
            handle.readinto(np.empty_like(array).data)
    out.unlink()


def convert(folder: Path, ndim: int, out: Path, chunk: int = 0, chunks: int = 1) -> None:
    given = ConvertParams(dataset="d", root=str(folder), ndim=ndim, chunk=chunk, chunks=chunks)
    write_chunk(given, out / str(chunk))


def normalise(
    out: Path, ndim: int, size: int, chunks: Sequence[int] = (0,), workers: int = 1
) -> None:
    spacing = {"spacing_mm": SPACING_MM} if ndim == 3 else {}
    recipe = RecipeSettings(size=size, ndim=ndim, **spacing)
    folders = [out / str(chunk) for chunk in chunks]
    params = NormaliseParams(dataset="d", recipe=recipe)
    make_store(params, folders, out / f"s{chunks[0]}", workers=workers)


def monai_steps(ndim: int, size: int) -> Callable[[str], Any]:
    from monai import transforms as mt

    scale = mt.ScaleIntensityRangePercentiles(*PERCENTILES, 0.0, 1.0, clip=True)
    load = mt.LoadImage(ensure_channel_first=True, image_only=True)
    pad = mt.ResizeWithPadOrCrop((size,) * ndim)
    if ndim == 2:
        smaller = mt.Resize(size, "longest", mode="bilinear", anti_aliasing=True)
        return mt.Compose([load, scale, smaller, pad])
    return mt.Compose([load, mt.Orientation("RAS"), mt.Spacing((SPACING_MM,) * 3), scale, pad])


def torchio_steps(ndim: int, size: int) -> Callable[[str], Any]:
    import torchio as tio

    scale = tio.RescaleIntensity((0, 1), percentiles=PERCENTILES)
    if ndim == 2:
        steps = tio.Compose([scale, tio.Resize((size, size, 1))])
    else:
        steps = tio.Compose([tio.ToCanonical(), tio.Resample(SPACING_MM), scale, tio.CropOrPad(size)])  # fmt: skip
    return lambda path: steps(tio.ScalarImage(path)).data


def each(step: Callable[[Any], Any], paths: list[Path]) -> None:
    for path in paths:
        step(path)


def peers(kind: str, paths: list[Path], ndim: int, size: int) -> dict[str, Callable[[], None]]:
    """Those that are installed; they read one series only where it is alone in a folder, so none for series."""
    found: dict[str, Callable[[], None]] = {}
    for name, make in (("monai", monai_steps), ("torchio", torchio_steps)):
        if kind.startswith("series"):
            continue
        try:
            found[name] = partial(each, make(ndim, size), paths)
        except ImportError:
            print(f"{name} is not installed")
    return found


def measure(kind: str, folder: Path, given: argparse.Namespace) -> dict[str, Any]:
    """Seconds of all files by each way, and the ratios of neighbours."""
    ndim = 2 if kind.startswith("png") else 3
    n, shape = given.scans, (given.volume,) * 3
    if ndim == 2:
        n, shape = given.pictures, (given.image,) * 2
    if kind.startswith("series"):
        n, shape = given.series, (given.slices, given.image, given.image)
    paths = make_files(kind, folder / "raw", n, shape)
    out = folder / "out"
    ways: dict[str, Callable[[], None]] = {
        "decode": partial(decode, kind, paths),
        "least": partial(least, kind, paths, out / "least.bin"),
        "convert": partial(convert, folder / "raw", ndim, out),
        "normalise": partial(normalise, out, ndim, given.size),
        **peers(kind, paths, ndim, given.size),
    }
    wall: dict[str, list[float]] = {name: [] for name in ways}
    cpu: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(given.repeats + 1):
        for path in paths:  # headers of files that have changed since are parsed again
            os.utime(path)
        shutil.rmtree(out, ignore_errors=True)
        for name, run in ways.items():
            began = now()
            run()
            seconds = since(began)
            if turn:  # the first one imports
                wall[name].append(seconds[0])
                cpu[name].append(seconds[1])
    ours = [a + b for a, b in zip(cpu["convert"], cpu["normalise"], strict=True)]
    made: dict[str, Any] = {
        "kind": kind, "shape": list(shape), "files": len(paths), "scans": n, "size": given.size,
        "megabytes": round(sum(path.stat().st_size for path in paths) / 1e6, 1),
        **{name: {"wall_s": spread(wall[name]), "cpu_s": spread(cpu[name])} for name in ways},
        "ours_over_decode": spread([a / b for a, b in zip(ours, cpu["decode"], strict=True)]),
        "least_over_decode": spread([a / b for a, b in zip(cpu["least"], cpu["decode"], strict=True)]),
    }  # fmt: skip
    for name in [name for name in ("monai", "torchio") if name in ways]:
        made[f"{name}_over_ours"] = spread([a / b for a, b in zip(cpu[name], ours, strict=True)])
    return made


def make_files(kind: str, raw: Path, n: int, shape: tuple[int, ...]) -> list[Path]:
    """Series all in one folder, other files too."""
    (raw / "a").mkdir(parents=True)
    return [path for i in range(n) for path in WRITERS[kind](raw / "a" / f"{i:04d}", shape, i)]


def two_cores(folder: Path, given: argparse.Namespace) -> dict[str, Any]:
    """Wall time of one process over that of two: of two chunks, of a store of them, and of a store of each.

    The last has nothing in common between the two: what the machine allows.
    """
    n, side = given.many, given.volume
    few = make_files("nifti", folder / "raw", min(8, n), (side,) * 3)
    for i in range(len(few), n):
        shutil.copy(few[i % len(few)], folder / "raw/a" / f"copy{i:04d}.nii")
    out = folder / "out"
    made: dict[str, Any] = {"kind": "two cores", "scans": n, "shape": [side] * 3}
    found: dict[str, list[float]] = {"convert": [], "normalise": [], "apart": []}
    with contextlib.ExitStack() as pools:
        one, two = (
            pools.enter_context(ProcessPoolExecutor(k, get_context("fork"))) for k in (1, 2)
        )
        for turn in range(given.repeats + 1):
            seconds: dict[str, list[float]] = {name: [] for name in found}
            for pool in (one, two):
                shutil.rmtree(out, ignore_errors=True)
                began = time.perf_counter()
                for job in [pool.submit(convert, folder / "raw", 3, out, k, 2) for k in (0, 1)]:
                    job.result()
                seconds["convert"].append(time.perf_counter() - began)
            for workers in (1, 2):
                began = time.perf_counter()
                normalise(out, 3, given.size, (0, 1), workers)
                seconds["normalise"].append(time.perf_counter() - began)
            for pool in (one, two):
                began = time.perf_counter()
                for job in [pool.submit(normalise, out, 3, given.size, (k,)) for k in (0, 1)]:
                    job.result()
                seconds["apart"].append(time.perf_counter() - began)
            if turn:
                for name, (alone, both) in seconds.items():
                    found[name].append(alone / both)
    for name, ratios in found.items():
        made[f"{name}_one_over_two"] = {**spread(ratios), "best": round(max(ratios), 3)}
    return made


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    kinds = [*WRITERS, "two-cores"]
    parser.add_argument("--kinds", nargs="+", choices=kinds, default=kinds)
    parser.add_argument("--scans", type=int, default=12, help="volumes of a kind")
    parser.add_argument("--pictures", type=int, default=100, help="pictures of a kind")
    parser.add_argument("--series", type=int, default=3, help="DICOM series in the folder")
    parser.add_argument("--slices", type=int, default=60, help="slices of a series")
    parser.add_argument("--volume", type=int, nargs="+", default=[96], help="sides of volumes in voxels")  # fmt: skip
    parser.add_argument("--image", type=int, default=512, help="side of an image in pixels")
    parser.add_argument("--many", type=int, default=320, help="volumes of the measure of two cores")
    parser.add_argument("--size", type=int, default=64, help="side in the store")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, help="write the results to this JSON file")
    given = parser.parse_args()
    torch.set_num_threads(1)
    cases = []
    sides, scans = given.volume, given.scans
    for kind in given.kinds:
        for side in sides if kind.startswith("nifti") else sides[:1]:
            # As many voxels of each size.
            given.volume, given.scans = side, max(2, round(scans * (sides[0] / side) ** 3))
            with tempfile.TemporaryDirectory() as folder:
                way = two_cores if kind == "two-cores" else partial(measure, kind)
                made = way(Path(folder), given)
            cases.append(made)
            ratios = {k: v["median"] for k, v in made.items() if "over" in k}
            print(f"{kind}, {made['scans']} of {made['shape']}: {ratios}", flush=True)
    write_results(given.out, cases)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
