"""Files for the measures of convert and normalise: smooth noise as NIfTI, PNG, and DICOM series with a usual header."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian, JPEG2000Lossless, generate_uid
from scipy import ndimage

# Of a CT slice, beside what tells where it lies and how it is stored.
_USUAL = {
    "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"], "StudyDate": "20240101", "SeriesDate": "20240101",
    "AcquisitionDate": "20240101", "ContentDate": "20240101", "StudyTime": "101010", "SeriesTime": "101010",
    "AcquisitionTime": "101010", "AccessionNumber": "1", "Modality": "CT", "Manufacturer": "SIEMENS",
    "InstitutionName": "House", "ReferringPhysicianName": "Nobody", "StationName": "CT1",
    "StudyDescription": "Thorax", "SeriesDescription": "Lung 3.0", "ManufacturerModelName": "Sensation",
    "PatientName": "Nobody", "PatientBirthDate": "19500101", "PatientSex": "O", "PatientAge": "074Y",
    "BodyPartExamined": "CHEST", "KVP": 120, "DataCollectionDiameter": 500, "SoftwareVersions": "1",
    "ProtocolName": "Thorax", "ReconstructionDiameter": 358, "DistanceSourceToDetector": 1040,
    "DistanceSourceToPatient": 570, "GantryDetectorTilt": 0, "TableHeight": 150, "RotationDirection": "CW",
    "ExposureTime": 500, "XRayTubeCurrent": 200, "Exposure": 100, "FilterType": "0", "GeneratorPower": 24,
    "FocalSpots": 1.2, "ConvolutionKernel": "B60f", "PatientPosition": "HFS", "StudyID": "1", "AcquisitionNumber": 1,
    "PositionReferenceIndicator": "", "WindowCenter": -600, "WindowWidth": 1200, "RescaleType": "HU",
}  # fmt: skip


def texture(shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Smooth noise from -1000 to 1000 as int16."""
    noise = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    smooth = ndimage.gaussian_filter(noise, 2)
    return np.rint(smooth / np.abs(smooth).max() * 1000).astype(np.int16)


def write_nifti(path: Path, shape: tuple[int, ...], seed: int, ending: str) -> list[Path]:
    """One volume, gzipped where `ending` says so."""
    made = Path(f"{path}.{ending}")
    nib.save(nib.Nifti1Image(texture(shape, seed), np.diag([1.5, 1.5, 1.5, 1])), made)
    return [made]


def write_png(path: Path, shape: tuple[int, ...], seed: int, bits: int) -> list[Path]:
    """One gray image."""
    values = texture(shape, seed).astype(np.int32) + 1000
    gray = (values // 8).astype(np.uint8) if bits == 8 else values.astype(np.uint16)
    Image.fromarray(gray).save(f"{path}.png")
    return [Path(f"{path}.png")]


def write_series(path: Path, shape: tuple[int, ...], seed: int, compressed: bool) -> list[Path]:
    """Axial slices of 0.7 mm, 3 mm from one to the next, beside those of other series, named as archives do."""
    study, series, frame = (generate_uid(entropy_srcs=[str(seed), kind]) for kind in "abc")
    planes = (texture(shape, seed) + 1024).astype(np.uint16)
    made = []
    for k, plane in enumerate(planes):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = CTImageStorage
        meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[str(seed), str(k)])
        meta.TransferSyntaxUID = UID(JPEG2000Lossless if compressed else ExplicitVRLittleEndian)
        header = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
        for name, value in _USUAL.items():
            setattr(header, name, value)
        header.SOPClassUID, header.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
        header.StudyInstanceUID, header.SeriesInstanceUID = study, series
        header.FrameOfReferenceUID, header.PatientID = frame, f"P{seed}"
        header.SeriesNumber, header.InstanceNumber = seed + 1, k + 1
        header.ImagePositionPatient, header.ImageOrientationPatient = (
            [-179, -179, 3 * k],
            [1, 0, 0, 0, 1, 0],
        )
        header.SliceThickness, header.SliceLocation, header.PixelSpacing = 3, 3 * k, [0.7, 0.7]
        header.Rows, header.Columns = plane.shape
        header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
        header.BitsAllocated, header.BitsStored, header.HighBit = 16, 16, 15
        header.PixelRepresentation, header.RescaleSlope, header.RescaleIntercept = 0, 1, -1024
        header.PixelData = encapsulate([_jpeg2000(plane)]) if compressed else plane.tobytes()
        made.append(path.with_name(f"IM{seed:03d}{k:05d}"))
        header.save_as(made[-1], enforce_file_format=True)
    return made


def _jpeg2000(plane: np.ndarray) -> bytes:
    packed = io.BytesIO()
    Image.fromarray(plane).save(packed, "JPEG2000", no_jp2=True, irreversible=False)
    return packed.getvalue()


WRITERS: dict[str, Callable[[Path, tuple[int, ...], int], list[Path]]] = {
    "nifti-gz": lambda *where: write_nifti(*where, "nii.gz"),
    "nifti": lambda *where: write_nifti(*where, "nii"),
    "png-8": lambda *where: write_png(*where, 8),
    "png-16": lambda *where: write_png(*where, 16),
    "series": lambda *where: write_series(*where, False),
    "series-jpeg2000": lambda *where: write_series(*where, True),
}
