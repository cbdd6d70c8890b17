"""Scans with something identifying in every place where it can hide, and a label table that names who they are."""

from __future__ import annotations

import contextlib
import csv
import json
import logging
import os
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
from audit_factory import picture
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

KINDS = ("dcm", "png", "jpg", "tif", "nii", "nii.gz")
PER_KIND = 4
# Every planted text has this in it, and a number of its own.
MARK = "Zqx"


class Planter:
    """Gives texts that stand nowhere else, and remembers them."""

    def __init__(self) -> None:
        self.planted: dict[str, str] = {}
        self.also: dict[str, str] = {}

    def text(self, where: str) -> str:
        """A text for this place."""
        made = f"{MARK}{len(self.planted):04d}plant"
        self.planted[made] = where
        return made

    def uid(self, where: str) -> str:
        """The same for a UID."""
        made = generate_uid(
            prefix="1.2.826.0.1.3680043.8.498.", entropy_srcs=[where, str(len(self.planted))]
        )
        self.planted[str(made)] = where
        return str(made)

    def day(self, where: str, iso: bool = False) -> str:
        """The same for a date; neither way of writing it may be found."""
        made = (
            f"19{31 + len(self.planted) % 40}0{1 + len(self.planted) % 9}1{len(self.planted) % 9}"
        )
        dashed = f"{made[:4]}-{made[4:6]}-{made[6:]}"
        self.planted[dashed if iso else made], self.also[made if iso else dashed] = where, where
        return dashed if iso else made


def _dicom(path: Path, pixels: np.ndarray, plant: Planter) -> None:
    data = Dataset()
    data.file_meta = pydicom.dataset.FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = pydicom.uid.CTImageStorage
    data.file_meta.MediaStorageSOPInstanceUID = plant.uid("file meta: SOP instance")
    data.file_meta.SourceApplicationEntityTitle = plant.text("file meta: AE title")
    data.file_meta.PrivateInformationCreatorUID = plant.uid("file meta: private creator")
    data.file_meta.PrivateInformation = plant.text("file meta: private").encode()
    data.preamble = plant.text("preamble").encode().ljust(128, b"\0")
    data.PatientName = f"{plant.text('family name')}^{plant.text('given name')}"
    for name in ("PatientID", "InstitutionName", "ReferringPhysicianName", "AccessionNumber", "StudyDescription",
                 "SeriesDescription", "PatientAddress", "StationName", "ProtocolName", "ImageComments", "StudyID",
                 "OtherPatientIDs", "DeviceSerialNumber", "RequestedProcedureDescription"):  # fmt: skip
        setattr(data, name, plant.text(name))
    # Words that are passed on once they are checked: these are of no list.
    data.Modality, data.Manufacturer = plant.text("Modality"), plant.text("Manufacturer")
    data.RescaleType = plant.text("RescaleType")
    for name in ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"):
        setattr(data, name, plant.uid(name))
    data.PatientBirthDate, data.StudyDate = plant.day("birth date"), plant.day("study date")
    data.AcquisitionDateTime = plant.day("acquisition date") + "101500"
    inner = Dataset()
    inner.ReferencedSOPInstanceUID = plant.uid("nested UID")
    inner.RequestedProcedureDescription = plant.text("nested text")
    inner.PersonName = plant.text("nested name")
    deeper = Dataset()
    deeper.PatientComments = plant.text("nested twice")
    inner.RequestAttributesSequence = [deeper]
    data.ReferencedImageSequence = [inner]
    # Of the profile are the two sequences (gender identity, and its code), and no attribute in them; pydicom 3.0
    # knows neither by name.
    identity, code = Dataset(), Dataset()
    code.CodeMeaning, code.CodeValue = plant.text("meaning of a code"), plant.text("code")
    code.CodingSchemeDesignator = "99CLINIC"
    identity.add_new(0x00100044, "SQ", [code])
    data.add_new(0x00100041, "SQ", [identity])
    block = data.private_block(0x0011, plant.text("private creator"), create=True)
    block.add_new(0x01, "LO", plant.text("private text"))
    block.add_new(0x02, "OB", plant.text("private bytes").encode())
    data.Rows, data.Columns = pixels.shape
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated = data.BitsStored = 16
    data.HighBit, data.PixelRepresentation = 15, 1
    data.RescaleSlope, data.RescaleIntercept = 1, -1024
    data.PixelSpacing = [0.5, 0.5]
    data.PixelData = pixels.astype("<i2").tobytes()
    # As it stands: else pydicom would put its own UID into the file's header.
    data.save_as(path, enforce_file_format=False, implicit_vr=False, little_endian=True)


def _png(path: Path, pixels: np.ndarray, plant: Planter) -> None:
    said = PngInfo()
    said.add_text("Author", plant.text("tEXt"))
    said.add_text("Comment", plant.text("zTXt"), zip=True)
    said.add_itxt("Title", plant.text("iTXt"))
    said.add_itxt("Description", plant.text("packed iTXt"), zip=True)
    Image.fromarray(pixels).save(path, pnginfo=said)
    # Pillow puts public chunks before the pixels only.
    body = b"tEXtSource\0" + plant.text("tEXt behind the pixels").encode()
    chunk = (len(body) - 4).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")
    data = path.read_bytes()
    path.write_bytes(data[:-12] + chunk + data[-12:])


def _jpeg(path: Path, pixels: np.ndarray, plant: Planter) -> None:
    exif = Image.Exif()
    exif[0x010E], exif[0x013B] = plant.text("EXIF description"), plant.text("EXIF artist")
    exif.get_ifd(0x8769)[0xA430] = plant.text("EXIF owner")
    Image.fromarray(pixels).save(path, exif=exif, comment=plant.text("JPEG comment"), quality=95)


def _tiff(path: Path, pixels: np.ndarray, plant: Planter) -> None:
    tags = {
        270: plant.text("TIFF description"),
        315: plant.text("TIFF artist"),
        316: plant.text("TIFF computer"),
    }
    Image.fromarray(pixels).save(path, tiffinfo={**tags, 65000: plant.text("TIFF private tag")})


def _nifti(path: Path, pixels: np.ndarray, plant: Planter) -> None:
    image = nib.Nifti1Image(pixels.T[:, :, None].astype(np.int16), np.eye(4))
    image.header["descrip"] = plant.text("descrip").encode()
    image.header["aux_file"] = plant.text("aux_file").encode()
    image.header["intent_name"] = plant.text("intent").encode()
    image.header["db_name"] = plant.text("db_name").encode()
    image.header.extensions.append(
        nib.nifti1.Nifti1Extension("comment", plant.text("extension").encode())
    )
    nib.save(image, path)


WRITE = {"dcm": _dicom, "png": _png, "jpg": _jpeg, "tif": _tiff, "nii": _nifti, "nii.gz": _nifti}


def plant_scans(root: Path, table_name: str = "labels.csv") -> Planter:
    """Scans of every kind below `root`, broken ones too, and their table; what was planted."""
    plant = Planter()
    root.mkdir(parents=True)
    rows: list[list[str]] = []
    columns = ["path", "label", "patient", "site", "seen", "referrer", "ward", "age", "remark"]
    sites = [plant.text("site") for _ in range(2)]
    for number, kind in enumerate(kind for kind in KINDS for _ in range(PER_KIND)):
        patient, folder = plant.text("patient of the table"), plant.text("name of a folder")
        for scan in range(2):
            path = root / folder / f"{plant.text('name of a file')}_{scan}.{kind}"
            path.parent.mkdir(exist_ok=True)
            pixels = np.clip(picture(10 * number + scan)[0], 0, 255).astype(np.uint8)
            WRITE[kind](path, pixels, plant)
            day = plant.day("date in the table", iso=True)
            rows.append([
                str(path.relative_to(root)), ["benign", "malignant"][number % 2], patient, sites[number % 2],
                day, plant.text("referrer"), f"{50000000 + number}", f"{40 + number}",
                plant.text("column that nobody asked for"),
            ])  # fmt: skip
    plant.planted |= {
        f"{50000000 + number}": "id of a ward" for number in range(len(KINDS) * PER_KIND)
    }
    for name, content in _broken(plant).items():
        (root / name).write_bytes(content)
        rows.append(
            [name, "benign", plant.text("patient of a broken file"), sites[0], "", "", "", "", ""]
        )
    # One pair of equal pixels in two patients, with labels that contradict each other.
    copy = rows[PER_KIND * 2 + 2].copy()
    source = root / copy[0]
    copy[0], copy[2] = f"{plant.text('name of a copy')}.png", plant.text("patient of a copy")
    copy[1] = "benign" if copy[1] == "malignant" else "malignant"
    (root / copy[0]).write_bytes(source.read_bytes())
    rows.append(copy)
    with open(root / table_name, "w", newline="", encoding="utf-8") as handle:
        csv.writer(handle).writerows([columns, *rows])
    return plant


def _broken(plant: Planter) -> dict[str, bytes]:
    """Files whose faults make decoders speak."""
    said = plant.text("in a broken file").encode()
    return {
        f"{plant.text('name of a broken file')}.png": b"\x89PNG\r\n\x1a\n" + said * 40,
        f"{plant.text('name of a broken file')}.tif": b"II*\0\x08\0\0\0" + said * 40,
        f"{plant.text('name of a broken file')}.jpg": b"\xff\xd8\xff\xe0" + said * 40,
        f"{plant.text('name of a broken file')}.dcm": b"\0" * 128 + b"DICM" + said * 40,
        f"{plant.text('name of a broken file')}.txt": said * 40,
        f"{plant.text('name of a broken file')}.nii": (348).to_bytes(4, "little") + said * 40,
    }


PLACE = {
    "table": "labels.csv",
    "attributes": ["seen", "referrer", "ward", "age"],
    "origin": "referrer",
}


@contextlib.contextmanager
def logged(path: Path) -> Iterator[None]:
    """Everything that is printed or logged inside goes to the file `path`, as a rule's `&> {log}` does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush(), sys.stderr.flush()
    with open(path, "wb") as handle:
        before = os.dup(1), os.dup(2)
        stream = os.fdopen(os.dup(handle.fileno()), "w")
        handler = logging.StreamHandler(stream)
        logging.getLogger().addHandler(handler)
        level = logging.getLogger("fewscans").level
        logging.getLogger("fewscans").setLevel(logging.INFO)
        try:
            os.dup2(handle.fileno(), 1), os.dup2(handle.fileno(), 2)
            with contextlib.redirect_stdout(stream), contextlib.redirect_stderr(stream):
                yield
        finally:
            os.dup2(before[0], 1), os.dup2(before[1], 2)
            os.close(before[0]), os.close(before[1])
            logging.getLogger("fewscans").setLevel(level)
            logging.getLogger().removeHandler(handler)
            stream.close()


class Lab:
    """A folder in which stages are run as their rules run them."""

    def __init__(self, folder: Path, key: Path | None = None, chunks: int = 2) -> None:
        self.folder, self.key, self.chunks = folder, key, chunks
        self.work, self.results, self.logs = (folder / name for name in ("work", "results", "logs"))

    def run(self, module: ModuleType, log: str, params: dict[str, Any], *words: object) -> int:
        """Exit code of a script; what it says is in the log."""
        with logged(self.logs / f"{log}.log"):
            return module.main(["--params", json.dumps(params), *map(str, words)])

    def place(self, **more: Any) -> dict[str, Any]:
        """Settings that convert and audit share."""
        root = self.folder / "raw"
        key = str(self.key) if self.key else None
        said = {"dataset": "d", "root": str(root), "table": str(root / "labels.csv")}
        return {**said, "private": str(self.work / "private"), "key": key, **more}

    def converted(self) -> list[Path]:
        """Folders of the chunks."""
        return [self.work / "d/converted" / str(chunk) for chunk in range(self.chunks)]

    def through_the_audit(self) -> None:
        """Convert, audit, page and data sheet, store, folds and budgets."""
        from scripts import audit, audit_page, convert, normalise, split

        for chunk, out in enumerate(self.converted()):
            params = self.place(chunk=chunk, chunks=self.chunks)
            assert self.run(convert, f"convert/d.{chunk}", params, "--out", out) == 0
        more = {"attributes": PLACE["attributes"], "origin": PLACE["origin"]}
        labels, tables = self.work / "d/labels.parquet", self.work / "d/audit"
        given = ["--converted", *self.converted()]
        made = ["--labels", labels, "--out", tables]
        assert self.run(audit, "audit/d", self.place(**more), *given, *made) == 0
        out = self.results / "datasheet/d"
        words = ["--labels", labels, "--audit", tables, "--page", tables / "audit.html"]
        words += ["--shown", self.results / "audit/d.html", "--sheet", out]
        assert self.run(audit_page, "audit_page/d", {"dataset": "d"}, *given, *words) == 0
        recipe = {"dataset": "d", "recipe": {"size": 32}}
        assert (
            self.run(normalise, "normalise/d", recipe, *given, "--out", self.work / "d/main/store")
            == 0
        )
        self.split(split, labels)

    def split(self, module: ModuleType, labels: Path) -> None:
        """Folds and budgets."""
        folds, both = self.work / "d/folds.parquet", ["--labels", labels]
        with logged(self.logs / "folds/d.log"):
            said = json.dumps({"dataset": "d", "folds": 3})
            assert (
                module.main(["folds", "--params", said, *map(str, both), "--out", str(folds)]) == 0
            )
        with logged(self.logs / "budgets/d.log"):
            said = json.dumps({"dataset": "d", "budgets": ["6", "all"]})
            out = ["--folds", str(folds), "--out", str(self.work / "d/budgets.parquet")]
            assert module.main(["budgets", "--params", said, *map(str, both), *out]) == 0

    def outside(self) -> list[Path]:
        """Every file that was written but the private ones and the scans."""
        kept = [self.work / "private", self.folder / "raw"]
        files = (path for path in self.folder.rglob("*") if path.is_file())
        return sorted(p for p in files if not any(p.is_relative_to(folder) for folder in kept))
