"""The scan factory: tiny scans of real file kinds, made in a test's own folder."""

from __future__ import annotations

import csv
import importlib.util
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

# Before numpy and torch: tests run two at a time, also in the processes that they start, and the
# bytes of a result depend on the number of threads.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
os.environ.setdefault("MPLBACKEND", "agg")
# What somebody measured on this machine, and the cluster somebody works on, are not what is tested.
os.environ["FEWSCANS_CALIBRATION"] = os.devnull
os.environ.pop("FEWSCANS_SITE", None)

import numpy as np  # noqa: E402 - after the lines above
import pytest  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402

# A slow machine is no bug, and a test that failed once must fail again.
settings.register_profile(
    "fewscans", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("fewscans")

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared" / "data"


@pytest.fixture
def shared_data() -> Callable[[str], Path]:
    """`shared_data("covid_ct")` -> folder of a public data set; skips where it is not there."""

    def find(name: str) -> Path:
        folder = SHARED / name
        if not folder.is_dir():
            pytest.skip(f"needs the public data set {name} in {SHARED}")
        return folder

    return find


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the test's own, in which it works."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def script() -> Callable[[str], ModuleType]:
    """`script("convert").main([...])` runs scripts/convert.py in this process."""

    def load(name: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(
            f"scripts_{name}", ROOT / "scripts" / f"{name}.py"
        )
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
        return module

    return load


def dicom_file(path: Path, stored: np.ndarray, **tags: Any) -> Path:
    """Write `stored` ([H, W] or [H, W, 3]) as uncompressed DICOM; `tags` replace or add elements."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[path.name])
    meta.TransferSyntaxUID = tags.pop("syntax", ExplicitVRLittleEndian)
    made = Dataset()
    made.file_meta = meta
    made.SOPClassUID = CTImageStorage
    made.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    made.Modality = "CT"
    made.Rows, made.Columns = stored.shape[:2]
    made.SamplesPerPixel = stored.shape[2] if stored.ndim == 3 else 1
    made.PhotometricInterpretation = "RGB" if stored.ndim == 3 else "MONOCHROME2"
    if stored.ndim == 3:
        made.PlanarConfiguration = 0
    bits = 8 * stored.dtype.itemsize
    made.BitsAllocated, made.BitsStored, made.HighBit = bits, bits, bits - 1
    made.PixelRepresentation = int(stored.dtype.kind == "i")
    made.PixelSpacing = [0.5, 0.5]
    for name, value in tags.items():
        if value is None:
            if name in made:
                delattr(made, name)
        else:
            setattr(made, name, value)
    made["PixelData"] = _pixel_element(stored)
    made.save_as(path, enforce_file_format=True)
    return path


def _pixel_element(stored: np.ndarray) -> Any:
    from pydicom.dataelem import DataElement

    data = stored.tobytes()
    return DataElement(
        0x7FE00010, "OW" if stored.itemsize > 1 else "OB", data + b"\0" * (len(data) % 2)
    )


@pytest.fixture(scope="session")
def write_dicom() -> Callable[..., Path]:
    """`write_dicom(path, stored, RescaleSlope=2, Modality="CR", ...)` -> path; None drops an element."""
    return dicom_file


def make_pixels(size: tuple[int, int], target: int, key: Sequence[int]) -> np.ndarray:
    """[H, W] in [0, 1]: smooth texture that no other key has, and a disc (0), square (1), ... of its class."""
    rng = np.random.default_rng(list(key))
    y, x = np.mgrid[0 : size[0], 0 : size[1]] / max(size)
    image = np.zeros(size)
    for _ in range(6):
        fy, fx, phase = rng.uniform(-4, 4), rng.uniform(-4, 4), rng.uniform(0, 2 * np.pi)
        image += np.cos(2 * np.pi * (fy * y + fx * x) + phase)
    image = 0.35 + 0.04 * image + 0.01 * rng.standard_normal(size)
    cy, cx = rng.uniform(0.3, 0.6, 2)
    distance = np.hypot(y - cy, x - cx) if target % 2 == 0 else np.maximum(abs(y - cy), abs(x - cx))
    image[distance < 0.15 + 0.05 * (target // 2)] += 0.35
    return np.clip(image, 0, 1)


@pytest.fixture
def scan_folder(tmp_path: Path) -> Callable[..., Path]:
    """`scan_folder(n=12)` -> root with images/ and labels.csv (path, label, patient, split, site).

    Parameters
    ----------
    n
        Scans; the last patient may have fewer than `per_patient`.
    classes
        Dealt to patients in turn, so that each has as many patients as the others (or one more).
    kinds
        ``png`` (8 bit), ``png16``, ``dicom`` (HU), dealt to patients so that they tell nothing of the class.
    split
        Fill the column: of five patients of a class one is test, one val, three train.
    unlabelled
        The last so many scans have no label.
    """

    def make(
        n: int = 12,
        *,
        classes: Sequence[str] = ("benign", "malignant"),
        per_patient: int = 2,
        kinds: Sequence[str] = ("png", "dicom"),
        size: tuple[int, int] = (28, 32),
        split: bool = False,
        unlabelled: int = 0,
        seed: int = 0,
        name: str = "scans",
    ) -> Path:
        root = tmp_path / name
        (root / "images").mkdir(parents=True)
        rows = []
        for number in range(n):
            patient = number // per_patient
            target, turn = patient % len(classes), patient // len(classes)
            kind = kinds[turn % len(kinds)]
            pixels = make_pixels(size, target, (seed, number))
            path = write_scan(
                root / "images" / f"p{patient:03d}-{number % per_patient}", pixels, kind
            )
            rows.append(
                {
                    "path": path.relative_to(root).as_posix(),
                    "label": classes[target] if number < n - unlabelled else "",
                    "patient": f"p{patient:03d}",
                    "split": ("test", "val", "train", "train", "train")[turn % 5] if split else "",
                    "site": "abc"[patient % 3],
                }
            )
        write_csv(root / "labels.csv", rows)
        return root

    return make


def write_scan(stem: Path, pixels: np.ndarray, kind: str) -> Path:
    """Write [H, W] in [0, 1] as one of the factory's kinds; its path."""
    from PIL import Image

    if kind == "dicom":
        stored = np.rint(pixels * 1400).astype(np.int16)
        return dicom_file(stem.with_suffix(".dcm"), stored, RescaleSlope=1, RescaleIntercept=-1000)
    depth = np.uint16 if kind == "png16" else np.uint8
    path = stem.with_suffix(".png")
    Image.fromarray(np.rint(pixels * np.iinfo(depth).max).astype(depth)).save(path)
    return path


def write_csv(path: Path, rows: Sequence[dict[str, str]], delimiter: str = ",") -> Path:
    """Write `rows` (all with the keys of the first) as a table."""
    with open(path, "w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.fixture(scope="session")
def write_table() -> Callable[..., Path]:
    """`write_table(path, rows, delimiter=",")` -> path of a label table."""
    return write_csv


@pytest.fixture
def make_converted(tmp_path: Path) -> Callable[..., Path]:
    """`make_converted(root, dataset="d")` -> folder of one chunk with all scans of root/labels.csv."""
    from fewscans.config.stages import ConvertParams
    from fewscans.convert.chunks import write_chunk

    def convert(root: Path, dataset: str = "d", **settings: Any) -> Path:
        out = tmp_path / "work" / dataset / "converted" / "0"
        table = str(root / "labels.csv") if (root / "labels.csv").exists() else None
        write_chunk(ConvertParams(dataset=dataset, root=str(root), table=table, **settings), out)
        return out

    return convert


@pytest.fixture
def make_store(tmp_path: Path, make_converted: Callable[..., Path]) -> Callable[..., Path]:
    """`make_store(root, dataset="d", size=16)` -> folder of a store; further settings are the recipe's."""
    from fewscans.config.models import RecipeSettings
    from fewscans.config.stages import NormaliseParams
    from fewscans.normalise import make_store as write_store

    def make(root: Path, dataset: str = "d", size: int = 16, **recipe: Any) -> Path:
        out = tmp_path / "work" / dataset / "main" / "store"
        params = NormaliseParams(dataset=dataset, recipe=RecipeSettings(size=size, **recipe))
        write_store(params, [make_converted(root, dataset)], out)
        return out

    return make
