"""Convert and normalise against only decoding the same files, and against the same steps in MONAI and TorchIO.

Files are made first: NIfTI volumes (gzipped), 16-bit PNG, single DICOM files, of smooth noise. Each turn reads all:
decoding (nibabel, Pillow, pydicom to an array in memory), ours (`write_chunk` and `make_store`: digests, index, pixels
and store on disk), and for volumes the peers, from file to an array in [0, 1]: canonical axes, spacing, percentiles,
crop and pad to the size. One thread each, turn about, in one process.

    python benchmarks/prepare.py --scans 24 --repeats 5 --out benchmarks/results/prepare.json

torchio is not installed with the rest: without it, its column is left out.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import torch
from common import now, since, spread, write_results
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid
from scipy import ndimage

from fewscans.config.recipe import RecipeSettings
from fewscans.config.stages import ConvertParams, NormaliseParams
from fewscans.convert.chunks import write_chunk
from fewscans.normalise import make_store

PERCENTILES = (0.5, 99.5)
SPACING_MM = 2.0


def texture(shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Smooth noise from -1000 to 1000 as int16."""
    noise = np.random.default_rng(seed).normal(size=shape)
    smooth = ndimage.gaussian_filter(noise, 2)
    return np.rint(smooth / np.abs(smooth).max() * 1000).astype(np.int16)


def write_nifti(path: Path, shape: tuple[int, ...], seed: int) -> Path:
    nib.save(nib.Nifti1Image(texture(shape, seed), np.diag([1.5, 1.5, 1.5, 1])), f"{path}.nii.gz")
    return Path(f"{path}.nii.gz")


def write_png(path: Path, shape: tuple[int, ...], seed: int) -> Path:
    Image.fromarray((texture(shape, seed) + 1000).astype(np.uint16)).save(f"{path}.png")
    return Path(f"{path}.png")


def write_dicom(path: Path, shape: tuple[int, ...], seed: int) -> Path:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = CTImageStorage, ExplicitVRLittleEndian
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[str(seed)])
    made = FileDataset(f"{path}.dcm", {}, file_meta=meta, preamble=b"\0" * 128)
    made.SOPClassUID, made.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
    made.Modality, made.PixelSpacing = "CT", [0.7, 0.7]
    made.Rows, made.Columns = shape
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
    made.BitsAllocated = made.BitsStored = 16
    made.HighBit, made.PixelRepresentation = 15, 1
    made.RescaleSlope, made.RescaleIntercept = 1, 0
    made.PixelData = texture(shape, seed).tobytes()
    made.save_as(f"{path}.dcm", enforce_file_format=True)
    return Path(f"{path}.dcm")


# Kind -> how a file is written, how it is only decoded.
KINDS: dict[str, tuple[Callable[..., Path], Callable[[Path], Any]]] = {
    "nifti": (write_nifti, lambda path: np.asanyarray(nib.load(path).dataobj)),
    "png": (write_png, lambda path: np.asarray(Image.open(path))),
    "dicom": (write_dicom, lambda path: pydicom.dcmread(path).pixel_array),
}


def ours(folder: Path, kind: str, size: int) -> None:
    with tempfile.TemporaryDirectory() as out:
        ndim = 3 if kind == "nifti" else 2
        given = {"spacing_mm": SPACING_MM} if ndim == 3 else {}
        write_chunk(ConvertParams(dataset="d", root=str(folder), ndim=ndim), Path(out, "0"))
        recipe = RecipeSettings(size=size, ndim=ndim, **given)
        make_store(NormaliseParams(dataset="d", recipe=recipe), [Path(out, "0")], Path(out, "s"))


def monai_steps(size: int) -> Callable[[str], Any]:
    from monai import transforms as mt

    return mt.Compose([
        mt.LoadImage(ensure_channel_first=True, image_only=True), mt.Orientation("RAS"), mt.Spacing((SPACING_MM,) * 3),
        mt.ScaleIntensityRangePercentiles(*PERCENTILES, 0.0, 1.0, clip=True), mt.ResizeWithPadOrCrop((size,) * 3),
    ])  # fmt: skip


def torchio_steps(size: int) -> Callable[[str], Any]:
    import torchio as tio

    steps = tio.Compose([
        tio.ToCanonical(), tio.Resample(SPACING_MM), tio.RescaleIntensity((0, 1), percentiles=PERCENTILES),
        tio.CropOrPad(size),
    ])  # fmt: skip
    return lambda path: steps(tio.ScalarImage(path)).data


def each(step: Callable[[Any], Any], paths: list[Path]) -> None:
    for path in paths:
        step(path)


def measure(kind: str, folder: Path, given: argparse.Namespace) -> dict[str, Any]:
    """Seconds of all files by each way, and the ratios of neighbours."""
    write, decode = KINDS[kind]
    (folder / "a").mkdir(parents=True)
    shape = (given.volume,) * 3 if kind == "nifti" else (given.image,) * 2
    paths = [write(folder / "a" / f"{i:04d}", shape, i) for i in range(given.scans)]
    ways = {"decode": partial(each, decode, paths), "ours": partial(ours, folder, kind, given.size)}
    if kind == "nifti":
        for name, make in (("monai", monai_steps), ("torchio", torchio_steps)):
            try:
                ways[name] = partial(each, make(given.size), paths)
            except ImportError:
                print(f"{name} is not installed")
    wall: dict[str, list[float]] = {name: [] for name in ways}
    cpu: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(given.repeats + 1):
        for name, run in ways.items():
            began = now()
            run()
            seconds = since(began)
            if turn:  # the first one imports
                wall[name].append(seconds[0])
                cpu[name].append(seconds[1])
    made: dict[str, Any] = {
        "kind": kind,
        "shape": list(shape),
        "scans": given.scans,
        "size": given.size,
    }
    for name in ways:
        made[name] = {"wall_s": spread(wall[name]), "cpu_s": spread(cpu[name])}
    pairs = {"ours_over_decode": ("ours", "decode")}
    pairs |= {
        f"{name}_over_ours": (name, "ours") for name in ways if name not in ("decode", "ours")
    }
    for name, (above, below) in pairs.items():
        made[name] = spread([a / b for a, b in zip(cpu[above], cpu[below], strict=True)])
    return made


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--scans", type=int, default=24, help="files of a kind")
    parser.add_argument("--volume", type=int, default=96, help="side of a volume in voxels")
    parser.add_argument("--image", type=int, default=512, help="side of an image in pixels")
    parser.add_argument("--size", type=int, default=64, help="side in the store")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, help="write the results to this JSON file")
    given = parser.parse_args()
    torch.set_num_threads(1)
    cases = []
    for kind in given.kinds:
        with tempfile.TemporaryDirectory() as folder:
            cases.append(made := measure(kind, Path(folder), given))
        medians = {k: v["median"] for k, v in made.items() if "over" in k}
        ours_s = made["ours"]["cpu_s"]["median"]
        print(f"{kind}: ours {ours_s:.2f} s of processor time for {given.scans}; {medians}")
    write_results(given.out, cases)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
