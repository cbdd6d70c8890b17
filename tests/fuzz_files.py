"""Whole files of every kind that is read, small, several of a kind; fuzzing damages them."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from conftest import dicom_file
from convert_factory import raw_png
from fourth_axis_factory import body, save
from PIL import Image

Files = dict[str, bytes]

_RNG = np.random.default_rng(0)
GRAY = _RNG.integers(0, 256, (24, 20), dtype=np.uint8)
DEEP = _RNG.integers(0, 65536, (24, 20), dtype=np.uint16)
COLOUR = _RNG.integers(0, 256, (24, 20, 3), dtype=np.uint8)
BODY = _RNG.integers(-900, 900, (9, 8, 7), dtype=np.int16)


def _pillow(kind: str, **options: object) -> Callable[[Path, np.ndarray], list[Files]]:
    def make(folder: Path, pixels: np.ndarray) -> Files:
        made = io.BytesIO()
        Image.fromarray(pixels).save(made, format=kind, **options)
        return {"a": made.getvalue()}

    return make


def _images(
    kind: str, *cases: tuple[np.ndarray, dict[str, object]]
) -> Callable[[Path], list[Files]]:
    def make(folder: Path) -> list[Files]:
        return [_pillow(kind, **options)(folder, pixels) for pixels, options in cases]

    return make


def _png(folder: Path) -> list[Files]:
    """What Pillow writes, and gray of 16 bits with alpha."""
    files = _images("PNG", (GRAY, {}), (DEEP, {}), (COLOUR, {}))(folder)
    return [*files, {"a": raw_png(np.stack([DEEP, DEEP.T.reshape(DEEP.shape)], axis=-1), 4)}]


def _folder(folder: Path, write: Callable[[Path], object]) -> Files:
    """Whatever `write` leaves in an empty folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    write(folder)
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def _dicom(folder: Path) -> list[Files]:
    import pydicom
    from pydicom.uid import (
        DeflatedExplicitVRLittleEndian,
        ExplicitVRBigEndian,
        ImplicitVRLittleEndian,
        JPEG2000Lossless,
        JPEGLSLossless,
        RLELossless,
    )

    def twice(pixels: np.ndarray) -> np.ndarray:
        return pixels.repeat(2, 0).repeat(2, 1)  # a wavelet of five levels has no smaller images

    def packed(here: Path, pixels: np.ndarray, syntax: str) -> None:
        dataset = pydicom.dcmread(dicom_file(here / "a", pixels, Modality="US"))
        dataset.compress(syntax)
        dataset.save_as(here / "a")

    def palette(here: Path) -> None:
        table = bytes(range(256))
        colours = {
            f"{c}PaletteColorLookupTable{what}": value
            for c in ("Red", "Green", "Blue")
            for what, value in (("Descriptor", [256, 0, 8]), ("Data", table))
        }
        dicom_file(here / "a", GRAY, PhotometricInterpretation="PALETTE COLOR", **colours)

    plain = [
        lambda here, s=syntax: dicom_file(here / "a", DEEP, syntax=s, RescaleSlope=2, RescaleIntercept=-1024)
        for syntax in (ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian)
    ]  # fmt: skip
    big = lambda here: dicom_file(here / "a", DEEP.byteswap(), syntax=ExplicitVRBigEndian)  # noqa: E731
    signed = lambda here: dicom_file(here / "a", BODY[0], PhotometricInterpretation="MONOCHROME1")  # noqa: E731
    compressed = [
        lambda here, p=pixels, s=syntax: packed(here, p, s)
        for pixels, syntax in (
            (COLOUR, RLELossless), (DEEP, JPEGLSLossless), (COLOUR, JPEGLSLossless),
            (twice(DEEP), JPEG2000Lossless), (twice(COLOUR), JPEG2000Lossless),
        )
    ]  # fmt: skip
    return [_folder(folder, write) for write in (*plain, big, signed, *compressed, palette)]


def _series(folder: Path) -> list[Files]:
    def write(here: Path, lean: float) -> None:
        for k, pixels in enumerate(BODY):
            dicom_file(
                here / f"{k}", pixels, SeriesInstanceUID="1.2.3", SOPInstanceUID=f"1.2.3.{k}",
                ImagePositionPatient=[0, lean * k, 3 * k], ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
                SliceThickness=3, RescaleSlope=1, RescaleIntercept=-1024,
            )  # fmt: skip

    return [_folder(folder, lambda here: write(here, 0)), _folder(folder, lambda here: write(here, 0.5))]  # fmt: skip


def _nifti(end: str, kinds: str) -> Callable[[Path], list[Files]]:
    def make(folder: Path) -> list[Files]:
        import nibabel as nib

        made = []
        for kind, dtype, order in (
            (kinds, np.int16, "<"),
            (kinds.replace("1", "2"), np.float32, ">"),
        ):
            image_type = getattr(nib, kind)
            header = image_type.header_class(endianness=order)
            header.set_data_dtype(dtype)
            affine = np.array([[0, -1, 0, 5], [1.5, 0, 0, 6], [0, 0.1, 3, 7], [0, 0, 0, 1]])
            image = image_type(BODY.transpose(2, 1, 0).astype(dtype), affine, header)
            made.append(_folder(folder, lambda here, i=image: nib.save(i, here / f"a{end}")))
        return made

    return make


def _itk(*ends: str) -> Callable[[Path], list[Files]]:
    def make(folder: Path) -> list[Files]:
        import SimpleITK as sitk  # noqa: N813

        made = []
        for end in ends:
            for packed in (False, True):
                image = sitk.GetImageFromArray(BODY)
                image.SetSpacing((0.7, 1.5, 3))
                made.append(
                    _folder(folder, lambda here, e=end, i=image, p=packed: sitk.WriteImage(
                        i, str(here / f"a{e}"), useCompression=p))
                )  # fmt: skip
        return made

    return make


def _npy(folder: Path) -> list[Files]:
    arrays = [BODY, BODY.astype(">f4"), np.asfortranarray(BODY)]
    return [_folder(folder, lambda here, a=array: np.save(here / "a.npy", a)) for array in arrays]


def _fourth_axis(folder: Path) -> list[Files]:
    made = []
    for name, packed in (
        ("a.nii", False), ("a.nii.gz", True), ("a.nrrd", True), ("a.mha", False), ("a.mha", True), ("a.npy", True),
        ("first.nrrd", False), ("packed.nrrd", True),
    ):  # fmt: skip
        volumes = body(3, shape=BODY.shape[::-1])
        made.append(_folder(folder, lambda here, n=name, v=volumes, p=packed: save(here / n, v, p)))
    return made


def _npz(folder: Path) -> list[Files]:
    arrays = {"train_images": np.stack([BODY] * 3), "train_labels": np.arange(3)[:, None] % 2}
    arrays |= {"test_images": BODY[None], "test_labels": np.zeros((1, 1), int)}
    return [
        _folder(folder, lambda here, s=save: s(here / "a.npz", **arrays))
        for save in (np.savez, np.savez_compressed)
    ]


def _analyze(folder: Path) -> list[Files]:
    import nibabel as nib

    image = nib.AnalyzeImage(BODY.transpose(2, 1, 0), np.diag([-1, 1, 3, 1]))
    pair = _folder(folder, lambda here: nib.save(image, here / "a.hdr"))
    return [*_nifti(".hdr", "Nifti1Pair")(folder), pair]


# Reader -> its files; in each case the scan is the first name in order, or the folder.
READERS: dict[str, Callable[[Path], list[Files]]] = {
    "png": _png,
    "jpeg": _images("JPEG", (GRAY, {}), (COLOUR, {}), (COLOUR, {"progressive": True})),
    "tiff": _images("TIFF", (GRAY, {}), (DEEP, {}), (COLOUR, {"compression": "tiff_lzw"}),
                    (DEEP, {"compression": "tiff_adobe_deflate"}), (GRAY, {"compression": "packbits"})),
    "bmp": _images("BMP", (GRAY, {}), (COLOUR, {})),
    "dicom": _dicom,
    "series": _series,
    "nii": _nifti(".nii", "Nifti1Image"),
    "nii.gz": _nifti(".nii.gz", "Nifti1Image"),
    "hdr": _analyze,
    "nrrd": _itk(".nrrd", ".nhdr"),
    "mha": _itk(".mha", ".mhd"),
    "npy": _npy,
    "4d": _fourth_axis,
    "npz": _npz,
}  # fmt: skip
FLAT = ("png", "jpeg", "tiff", "bmp", "dicom")


def read_files(reader: str, folder: Path, names: list[str]) -> list:
    """Scans of the files in `folder` as `convert` reads them.

    Raises
    ------
    Unreadable, UserError
        What every damaged file should give.
    """
    from fewscans.config.stages import ConvertParams
    from fewscans.convert import read
    from fewscans.convert.npz import NpzReader
    from fewscans.convert.sources import list_scans, open_reader
    from fewscans.convert.unfold import unfold

    if reader in ("series", "4d"):
        table = folder.with_suffix(".csv")
        table.write_text(f"path\n{folder.name}")
        params = ConvertParams(dataset="d", root=str(folder.parent), table=str(table), ndim=3)
        with open_reader(params) as one:
            return [one(scan) for source in list_scans(params) for scan in unfold(source, params)]
    if reader == "npz":
        whole = NpzReader(folder / names[0], 3)
        try:
            return [
                whole.read(key.partition("_")[0], i)
                for key, member in whole.members.items()
                if key.endswith("images")
                for i in range(member.shape[0])
            ]
        finally:
            whole.close()
    ends = (".hdr", ".nhdr", ".mhd")
    name = next((name for name in names if name.endswith(ends)), names[0])
    return [read(folder / name, 2 if reader in FLAT else 3)]
