"""A cohort on disk: DICOM and PNG files, labels.csv, labs.csv, faults.csv and its settings."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image as Pillow
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    UID,
    CTImageStorage,
    ExplicitVRLittleEndian,
    SecondaryCaptureImageStorage,
)

from fewscans.errors import UserError
from fewscans.files import atomic, write_json
from fewscans.phantom.cohort import Cohort, Image, make_cohort
from fewscans.phantom.labs import LAB_COLUMNS, lab_rows
from fewscans.phantom.settings import PhantomSettings

# Of files that cannot say it themselves (PNG, and DICOM without rescale): HU = value + intercept.
INTERCEPT_HU = -1024
LABEL_COLUMNS = ("path", "label", "patient", "site", "spacing_mm", "intercept_hu")
FAULT_COLUMNS = ("path", "fault", "other", "detail")
# All that a cohort's folder holds; a folder with anything else in it is not replaced.
NAMES = frozenset({"images", "labels.csv", "labs.csv", "faults.csv", "cohort.json"})
SLICE_MM = 5.0


def write_cohort(cohort: Cohort | PhantomSettings, folder: str | Path) -> Path:
    """Write a cohort into `folder`, whole or not at all; the path of its labels.csv.

    A cohort that stands there is replaced.

    Raises
    ------
    UserError
        `folder` holds something that no cohort has.
    """
    folder = Path(folder)
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise UserError(f"{folder}: not a folder. Give a new name or an empty folder.")
    strange = sorted({entry.name for entry in folder.iterdir()} - NAMES) if folder.exists() else []
    if strange:
        raise UserError(
            f"{folder}: holds {strange[0]}, which is none of a phantom cohort's files. "
            "Give a new name or an empty folder."
        )
    if isinstance(cohort, PhantomSettings):
        cohort = make_cohort(cohort)
    with atomic(folder, folder=True) as temporary:
        (temporary / "images").mkdir()
        for image in cohort.images:
            raw = encode(image, cohort.settings.seed)
            # Cut within the pixels: the header can be read and promises more than there is.
            raw = raw[: int(0.7 * len(raw))] if image.truncated else raw
            (temporary / image.path).write_bytes(raw)
        _write_csv(temporary / "labels.csv", LABEL_COLUMNS, (_row(i) for i in cohort.images))
        _write_csv(temporary / "labs.csv", LAB_COLUMNS, lab_rows(cohort))
        faults = ((f.path, f.fault, f.other, f.detail) for f in cohort.faults)
        _write_csv(temporary / "faults.csv", FAULT_COLUMNS, faults)
        write_json(temporary / "cohort.json", cohort.settings.model_dump(mode="json"))
    return folder / "labels.csv"


def encode(image: Image, seed: int) -> bytes:
    """Bytes of the file of `image`; its storage says how HU are put into it."""
    if image.storage == "png":
        buffer = io.BytesIO()
        Pillow.fromarray((image.hu - INTERCEPT_HU).astype(np.uint16)).save(buffer, "PNG")
        return buffer.getvalue()
    return _dicom(image, seed)


def _dicom(image: Image, seed: int) -> bytes:
    film = image.storage == "monochrome1"
    slope, intercept, bits, signed = 1.0, float(INTERCEPT_HU), 12, False
    if image.storage == "rescale-slope":
        slope, intercept, bits, signed = 0.5, -1000.0, 16, True
    stored = np.rint((image.hu - intercept) / slope).astype(np.int32)
    if film:
        stored = 2**bits - 1 - stored
    number = int(Path(image.path).stem.rpartition("-")[2])
    data = Dataset()
    data.SOPClassUID = SecondaryCaptureImageStorage if film else CTImageStorage
    data.SOPInstanceUID = _uid(seed, "instance", image.path)
    data.StudyInstanceUID = _uid(seed, "study", image.patient)
    data.SeriesInstanceUID = _uid(seed, "series", image.patient, "film" if film else "ct")
    data.FrameOfReferenceUID = _uid(seed, "frame", image.patient)
    data.Modality = "OT" if film else "CT"
    data.ImageType = ["DERIVED", "SECONDARY"] if film else ["ORIGINAL", "PRIMARY", "AXIAL"]
    data.PatientName = f"Phantom^{image.patient}"
    data.PatientID = image.patient
    data.PatientBirthDate, data.PatientSex = "", ""
    data.StudyDate = data.SeriesDate = data.AcquisitionDate = data.ContentDate = "20200101"
    data.StudyTime = data.SeriesTime = data.ContentTime = "120000"
    data.AccessionNumber = data.StudyID = data.ReferringPhysicianName = ""
    data.InstitutionName = image.site
    data.Manufacturer = "fewscans"
    data.SeriesNumber, data.AcquisitionNumber, data.InstanceNumber = 1, 1, number
    data.SamplesPerPixel = 1
    data.PhotometricInterpretation = "MONOCHROME1" if film else "MONOCHROME2"
    data.Rows, data.Columns = stored.shape
    data.PixelSpacing = [image.spacing_mm, image.spacing_mm]
    data.BitsAllocated, data.BitsStored, data.HighBit = 16, bits, bits - 1
    data.PixelRepresentation = int(signed)
    if film:
        data.ConversionType = "DF"  # digitised film
    else:
        data.KVP, data.SliceThickness = "120", SLICE_MM
        data.PatientPosition = "HFS"
        data.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        corner = round(-(stored.shape[0] - 1) / 2 * image.spacing_mm, 4)
        data.ImagePositionPatient = [corner, corner, SLICE_MM * number]
        data.RescaleSlope, data.RescaleIntercept, data.RescaleType = slope, intercept, "HU"
    data.PixelData = stored.astype("<i2" if signed else "<u2").tobytes()
    data["PixelData"].VR = "OW"
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = data.SOPClassUID
    meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    # Named, or pydicom would write its own version and another version other bytes.
    meta.ImplementationClassUID = _uid(0, "implementation")
    meta.ImplementationVersionName = "FEWSCANS"
    data.file_meta = meta
    buffer = io.BytesIO()
    data.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _uid(seed: int, *parts: str) -> UID:
    """UID from a hash (PS3.5 B.2: 2.25 and a number of 128 bits): the same each time."""
    text = "/".join(("fewscans-phantom", str(seed), *parts))
    return UID(f"2.25.{int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], 'big')}")


def _row(image: Image) -> tuple[str, ...]:
    says_itself = image.storage in ("dicom", "rescale-slope")
    intercept = "" if says_itself else str(INTERCEPT_HU)
    spacing = f"{image.spacing_mm:.4f}"
    return image.path, image.label, image.patient, image.site, spacing, intercept


def _write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    with open(path, "w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)
