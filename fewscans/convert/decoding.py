"""Stored pixels of a DICOM file, by pydicom and its decoders, or SimpleITK (GDCM) where they do not know the way.

JPEG-LS is decoded by pyjpegls, JPEG 2000 and HTJ2K by openjpeg; GDCM is left with lossless JPEG and JPEG of 12 bits.
"""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.pixels import get_decoder

from fewscans.convert import Unreadable
from fewscans.convert.codestreams import CHECKED, check_frames
from fewscans.convert.headers import Header, Pixels
from fewscans.convert.padding import Padding, behind_table, padding_of, scaled

# What a decoder has to know (PS3.3 C.7.6.3).
_OPTIONS = {
    "samples_per_pixel": "SamplesPerPixel", "photometric_interpretation": "PhotometricInterpretation",
    "planar_configuration": "PlanarConfiguration", "rows": "Rows", "columns": "Columns",
    "bits_allocated": "BitsAllocated", "bits_stored": "BitsStored", "pixel_representation": "PixelRepresentation",
}  # fmt: skip
# JPEG of 12 bits and lossless JPEG, and what Pillow cannot read of the rest.
_JPEG = (
    pydicom.uid.JPEGBaseline8Bit, pydicom.uid.JPEGExtended12Bit, pydicom.uid.JPEGLossless, pydicom.uid.JPEGLosslessSV1,
)  # fmt: skip
# pydicom's remarks on pixel data that are longer than rows, columns and frames say.
_MORE = re.compile(r"excess padding|sufficient to contain|non-conformant padding")


class Decoded(NamedTuple):
    """Frames as a decoder gives them.

    Attributes
    ----------
    planes : [frames, C, H, W]
        It may be of the bytes of the file, and is not to be written to.
    rescaled
        Whether the modality transformation is in it.
    padding
        Which of its numbers are padding.
    """

    planes: npt.NDArray[np.generic]
    rescaled: bool
    padding: Padding | None
    notes: tuple[str, ...]


def decode(path: Path, header: Header, pixels: Pixels, frame: int | None = None) -> Decoded:
    """All frames, or only the one with the number `frame`, from 0.

    Raises
    ------
    Unreadable
        No decoder knows the way, or the data are damaged.
    """
    notes: tuple[str, ...] = ()
    syntax = header.file_meta.get("TransferSyntaxUID")
    if not syntax:
        implicit, little = header.dataset.original_encoding
        syntax = _uncompressed(bool(implicit), little is not False)
        notes = ("no transfer syntax in the header: read as uncompressed",)
    try:
        with warnings.catch_warnings(record=True) as remarks:
            warnings.simplefilter("always")
            signed = check_frames(syntax, header, pixels.data, frame)
            array = _decoded(syntax, header, pixels, frame, signed)
    except Unreadable:
        raise
    except Exception as error:
        if not _gdcm_may_know(syntax) or not _fragments_are_whole(pixels.data):
            raise Unreadable(_pixel_reason(error)) from None
        planes, rescaled = _decode_gdcm(path, error)
        kept = planes if frame is None else planes[frame : frame + 1]
        padding, said = _scaled_padding(header)
        return Decoded(kept, rescaled, padding, (*notes, "decoded by GDCM", *said))
    if signed and not header.get("PixelRepresentation"):
        notes = (*notes, "signed numbers in a file that calls them unsigned: read as signed")
    if any(_MORE.search(str(remark.message)) for remark in remarks):
        notes = (*notes, "more pixel data than its header says were left alone")
    if array.dtype.byteorder == ">":
        array = array.astype(array.dtype.newbyteorder("="))
    photometric = header.get("PhotometricInterpretation")
    if photometric == "PALETTE COLOR":
        array = _apply_palette(array, header)
    padding, said = padding_of(header, pixels.keyword, array.dtype)
    notes = (*notes, *said)
    stored = array
    array, rescaled = _apply_modality_lut(array, header)
    if rescaled and padding is not None:
        padding, said = behind_table(padding.of(stored), array)
        notes = (*notes, *said)
    coloured = photometric == "PALETTE COLOR" or int(header.get("SamplesPerPixel") or 1) > 1
    return Decoded(_frames_first(array, coloured), rescaled, padding, notes)


def _scaled_padding(header: Header) -> tuple[Padding | None, tuple[str, ...]]:
    """Padding behind GDCM, which rescales, and notes."""
    signed = header.get("PixelRepresentation") == 1
    padding, notes = padding_of(header, "PixelData", np.dtype(np.int16 if signed else np.uint16))
    if padding is None or header.get("ModalityLUTSequence"):
        return None, notes
    try:
        slope = float(header.get("RescaleSlope") or 1.0)
        intercept = float(header.get("RescaleIntercept") or 0.0)
    except (TypeError, ValueError):
        return None, notes
    return scaled(padding, slope, intercept), notes


def _decoded(
    syntax: pydicom.uid.UID, header: Header, pixels: Pixels, frame: int | None, signed: bool
) -> npt.NDArray[np.generic]:
    """[(frames,) H, W (, colours)] by pydicom, whose decoder is told what the header says: no dataset is built."""
    options: dict[str, Any] = {
        ours: header.get(theirs) for ours, theirs in _OPTIONS.items() if theirs in header
    }
    # What the numbers are is said by the frame; PS3.5 A.4.4 wants the header to say the same.
    if signed:
        options["pixel_representation"] = 1
    options["number_of_frames"] = int(header.get("NumberOfFrames") or 1)
    if "ExtendedOffsetTable" in header:
        names = ("ExtendedOffsetTable", "ExtendedOffsetTableLengths")
        options["extended_offsets"] = tuple(header.get(name) for name in names)
    options |= {"pixel_keyword": pixels.keyword, "pixel_vr": pixels.vr, "view_only": True}
    decoder = get_decoder(syntax)
    if frame is not None and _begins_within_a_byte(syntax, header):
        return decoder.as_array(pixels.data, **options)[0][frame]
    return decoder.as_array(pixels.data, index=frame, **options)[0]


def _begins_within_a_byte(syntax: pydicom.uid.UID, header: Header) -> bool:
    """Whether frames of packed bits follow each other without a gap (PS3.5 8.1.1): pydicom finds none by itself."""
    packed = header.get("BitsAllocated") == 1 and not syntax.is_compressed
    return packed and int(header.get("Rows")) * int(header.get("Columns")) % 8 != 0


def _uncompressed(implicit: bool, little: bool) -> pydicom.uid.UID:
    if implicit:
        return pydicom.uid.ImplicitVRLittleEndian
    return pydicom.uid.ExplicitVRLittleEndian if little else pydicom.uid.ExplicitVRBigEndian


def _gdcm_may_know(syntax: pydicom.uid.UID) -> bool:
    """Whether GDCM decodes what may have no other decoder here; of damaged files it takes seconds and GB, in vain."""
    if syntax in CHECKED:
        return not get_decoder(syntax).is_available
    return syntax in _JPEG


def _fragments_are_whole(data: bytes) -> bool:
    """Whether items of compressed pixels reach to the end (PS3.5 A.4): GDCM makes room for what they say."""
    at = 0
    while at + 8 <= len(data):
        if data[at : at + 4] != b"\xfe\xff\x00\xe0":
            return data[at : at + 4] == b"\xfe\xff\xdd\xe0"
        at += 8 + int.from_bytes(data[at + 4 : at + 8], "little")
    return 0 < at <= len(data)


def _decode_gdcm(path: Path, first: Exception) -> tuple[npt.NDArray[np.generic], bool]:
    """Pixels by SimpleITK, which applies rescale slope and intercept itself."""
    import SimpleITK as sitk  # noqa: N813

    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(path))
    try:
        image = reader.Execute()
    except RuntimeError:
        raise Unreadable(_pixel_reason(first)) from None
    array = sitk.GetArrayFromImage(image)
    return _frames_first(array, image.GetNumberOfComponentsPerPixel() > 1), True


def _frames_first(array: npt.NDArray[np.generic], coloured: bool) -> npt.NDArray[np.generic]:
    """[(frames,) H, W (, colours)] -> [frames, C, H, W]."""
    if coloured and array.ndim in (3, 4) and array.shape[-1] in (3, 4):
        planes = np.moveaxis(array[..., :3], -1, -3)
    elif not coloured and array.ndim in (2, 3):
        planes = array[..., None, :, :]
    else:
        raise Unreadable(f"not an image (shape {array.shape})", "set-aside")
    return planes if planes.ndim == 4 else planes[None]


def _apply_palette(array: npt.NDArray[np.generic], header: Header) -> npt.NDArray[np.generic]:
    """Indices -> RGB; 16-bit tables that only repeat 8 bits become 8 bits."""
    from pydicom.pixels import apply_color_lut

    colour = apply_color_lut(array, header.dataset)[..., :3]
    if colour.dtype == np.uint16 and not (colour & 0xFF).any():
        return (colour >> 8).astype(np.uint8)
    if colour.dtype == np.uint16 and ((colour >> 8) == (colour & 0xFF)).all():
        return (colour >> 8).astype(np.uint8)
    return colour


def _apply_modality_lut(
    array: npt.NDArray[np.generic], header: Header
) -> tuple[npt.NDArray[np.generic], bool]:
    from pydicom.pixels import apply_modality_lut

    if header.get("ModalityLUTSequence"):
        return apply_modality_lut(array, header.dataset), True
    return array, False


def _pixel_reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    unknown = re.match(
        r"Unable to decompress '(.*)' pixel data because all plugins are missing", text
    )
    if unknown:
        return f"{unknown[1]} of a kind that no decoder here knows"
    if "less than expected" in text:
        return f"the file is cut short ({text.split(' - ')[0]})"
    if isinstance(error, NotImplementedError):
        return "compressed in a way that no decoder here knows"
    return f"pixels cannot be decoded ({text[:200]})"
