"""Compressed DICOM: two decoders agree to the voxel, and frames that lie about themselves go to none."""

from __future__ import annotations

import base64
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813
from pydicom.encaps import encapsulate
from pydicom.pixels import get_decoder
from pydicom.uid import HTJ2KLossless, JPEG2000Lossless, JPEGLSLossless

from fewscans.convert import Unreadable, decoding, read
from fewscans.convert.codestreams import said_by

RNG = np.random.default_rng(0)
JPEG_LS = (
    "MR_small_jpeg_ls_lossless.dcm", "emri_small_jpeg_ls_lossless.dcm", "CT1_JLSN.dcm", "JLSL_16_15_1_1F.dcm",
    "JPEGLSNearLossless_08.dcm", "JPEGLSNearLossless_16.dcm", "SC_rgb_jls_lossy_line.dcm",
    "SC_rgb_jls_lossy_sample.dcm",
)  # fmt: skip
JPEG_2000 = (
    "693_J2KI.dcm", "693_J2KR.dcm", "J2K_pixelrep_mismatch.dcm", "JPEG2000.dcm", "MR_small_jp2klossless.dcm",
    "emri_small_jpeg_2k_lossless.dcm", "SC_rgb_gdcm_KY.dcm", "MAROTECH_CT_JP2Lossy.dcm", "ELSCINT1_JP2vsJ2K.dcm",
    "RG3_J2KI.dcm", "TOSHIBA_J2K_SIZ0_PixRep1.dcm",
)  # fmt: skip

# y * 100 + x * 7 of 12 x 16 pixels as HTJ2K, reversible, made by OpenJPH through imagecodecs.
HTJ2K_FRAME = (
    "/0//UQApQAAAAAAQAAAADAAAAAAAAAAAAAAAEAAAAAwAAAAAAAAAAAABDwEB/1AACAACAAAACf9SAAwAAgABAAEEBEAB/1wAByCIiIiI/2QAFw"
    "ABT3BlbkpQSCBWZXIgMC4yNi4zLv+QAAoAAAAAAKEAAf+TwAAvbf9/b/7j/1P8x/8b/tX/Bv9j/3/+3H+8f/U/7t/8T/vf/Kf9Yf6Z/Sn/Yn6R"
    "v69/43/rp/jD+hv+qf6Cf6j/Te+/H80Pvx/mi+9r+dT7U77xPpOPu1/kq+73+Jr7A9ev1l/Xr9ZdCADGQgAxsQHAACqgABaIJEn+54Cnp0J3AM"
    "ZGo9FoNBr6CEB79iEB7LoA/9k="
)


@pytest.fixture
def files(shared_data) -> Path:
    return shared_data("dicom_2d_quirks") / "files"


def by_gdcm(path: Path) -> np.ndarray:
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(path))
    return sitk.GetArrayFromImage(reader.Execute())


@pytest.mark.parametrize("name", JPEG_LS)
def test_jpeg_ls_is_the_same_by_pyjpegls_and_by_gdcm(files, name):
    frame = 3 if name.startswith("emri") else None
    scan = read(files / name, frame=frame)
    assert not any("GDCM" in note for note in scan.meta.notes)
    other = by_gdcm(files / name)
    other = other[3] if frame else other.squeeze()
    expected = np.moveaxis(other, -1, 0) if other.ndim == 3 else other[None]
    np.testing.assert_array_equal(scan.physical(), expected)


@pytest.mark.parametrize("name", JPEG_2000)
def test_jpeg_2000_is_the_same_by_openjpeg_and_by_pillow(files, name):
    dataset = pydicom.dcmread(files / name)
    decoder = get_decoder(dataset.file_meta.TransferSyntaxUID)
    one, other = (
        decoder.as_array(dataset, decoding_plugin=plugin)[0] for plugin in ("pylibjpeg", "pillow")
    )
    # Lossy wavelets are of real numbers; rounding is the decoder's.
    lossy = dataset.file_meta.TransferSyntaxUID != JPEG2000Lossless
    np.testing.assert_allclose(one.astype(float), other.astype(float), rtol=0, atol=int(lossy))


def test_seven_bits_are_the_those_of_the_same_picture_in_fifteen(files):
    """No other decoder at hand knows 7 of 8 bits; the picture in 15 bits, signed, is the same by two of them."""
    seven = read(files / "JLSL_08_07_0_1F.dcm")
    fifteen = read(files / "JLSL_16_15_1_1F.dcm").array.astype(np.int32)
    assert (seven.array.dtype, seven.meta.bits) == (np.uint8, 7)
    exact = (fifteen + 2**14) * (127 / 32767)
    np.testing.assert_allclose(
        exact - seven.array, 0.5, atol=0.505
    )  # cut off, but for a rounding here and there


def test_htj2k_is_read(tmp_path, write_dicom):
    y, x = np.mgrid[:12, :16]
    pixels = (y * 100 + x * 7).astype(np.uint16)
    dataset = pydicom.dcmread(write_dicom(tmp_path / "a", pixels))
    dataset.file_meta.TransferSyntaxUID = HTJ2KLossless
    dataset.PixelData = encapsulate([base64.b64decode(HTJ2K_FRAME)])
    dataset.save_as(tmp_path / "a")
    np.testing.assert_array_equal(read(tmp_path / "a").array[0], pixels)


def test_signed_numbers_in_a_file_that_calls_them_unsigned_are_those_of_its_twin(files):
    lying, honest = (
        read(files / f"TOSHIBA_J2K_{name}.dcm") for name in ("SIZ1_PixRep0", "SIZ0_PixRep1")
    )
    np.testing.assert_array_equal(lying.physical(), honest.physical())
    assert "read as signed" in lying.meta.notes[0]
    assert honest.meta.notes == ()


def packed(path: Path, pixels: np.ndarray, syntax: str, write) -> tuple[pydicom.Dataset, bytes]:
    """(a file of compressed `pixels`, its one frame)."""
    dataset = pydicom.dcmread(write(path, pixels))
    dataset.compress(syntax)
    return dataset, pydicom.encaps.get_frame(dataset.PixelData, 0, number_of_frames=1)


@pytest.mark.parametrize("syntax", [JPEGLSLossless, JPEG2000Lossless])
@pytest.mark.parametrize("shape", [(40, 48), (40, 48, 3)])
def test_what_a_frame_says_of_itself(tmp_path, write_dicom, syntax, shape):
    pixels = RNG.integers(0, 200, shape, dtype=np.uint8)
    dataset, frame = packed(tmp_path / "a", pixels, syntax, write_dicom)
    dataset.save_as(tmp_path / "a")
    np.testing.assert_array_equal(
        read(tmp_path / "a").array, np.moveaxis(np.atleast_3d(pixels), -1, 0)
    )
    assert said_by(frame) == (40, 48, (*shape, 1)[2], False)
    assert said_by(frame[:8]) is None
    assert said_by(b"") is None


@pytest.mark.parametrize(
    ("syntax", "start", "at"),
    [(JPEGLSLossless, b"\xff\xf7", 5), (JPEG2000Lossless, b"\xff\x51", 6)],
)
def test_a_frame_of_another_size_than_its_file_goes_to_no_decoder(
    tmp_path, write_dicom, monkeypatch, syntax, start, at
):
    monkeypatch.setattr(decoding, "_decoded", lambda *_: pytest.fail("was asked"))
    pixels = RNG.integers(0, 4000, (40, 48), dtype=np.uint16)
    dataset, frame = packed(tmp_path / "a", pixels, syntax, write_dicom)
    lie = bytearray(frame)
    lie[frame.index(start) + at : frame.index(start) + at + 2] = b"\xff\xff"
    for damaged, said in (
        (bytes(lie), "a compressed frame of"),
        (frame[:20], "without its header or its end"),
    ):
        dataset.PixelData = encapsulate([damaged])
        dataset.save_as(tmp_path / "a")
        with pytest.raises(Unreadable, match=said):
            read(tmp_path / "a")


def test_jpeg_ls_without_its_end_goes_to_no_decoder(tmp_path, write_dicom, monkeypatch):
    """CharLS read behind such a frame for ten seconds."""
    monkeypatch.setattr(decoding, "_decoded", lambda *_: pytest.fail("was asked"))
    pixels = RNG.integers(0, 4000, (40, 48), dtype=np.uint16)
    dataset, frame = packed(tmp_path / "a", pixels, JPEGLSLossless, write_dicom)
    dataset.PixelData = encapsulate([frame.rstrip(b"\0")[:-2]])
    dataset.save_as(tmp_path / "a")
    with pytest.raises(Unreadable, match="without its header or its end"):
        read(tmp_path / "a")


def test_jpeg_ls_that_its_decoder_refuses_is_not_given_to_a_second_one(
    tmp_path, write_dicom, monkeypatch
):
    """GDCM took seconds and 2 GB for a frame of 4 kB."""
    monkeypatch.setattr(decoding, "_decode_gdcm", lambda *_: pytest.fail("was asked"))
    pixels = RNG.integers(0, 4000, (40, 48), dtype=np.uint16)
    dataset, frame = packed(tmp_path / "a", pixels, JPEGLSLossless, write_dicom)
    middle = len(frame) // 2
    dataset.PixelData = encapsulate([frame[:middle] + b"\xff\xd9" + frame[middle:]])
    dataset.save_as(tmp_path / "a")
    with pytest.raises(Unreadable, match="pixels cannot be decoded"):
        read(tmp_path / "a")
