"""Colour of 16 bits, and gray of 16 bits with alpha, which Pillow cuts down to 8 bits in silence.

SimpleITK reads colour. It does not read gray with alpha, whose pixels are four bytes in a PNG, as those of RGBA with 8
bits are: filters and passes of a PNG go by bytes of a pixel (PNG, third edition, sections 8 and 9), so Pillow reads it
as such, and the bytes are put together again. TIFF of 16-bit gray with alpha is read by neither, and refused.
"""

from __future__ import annotations

import io
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from fewscans.convert import Unreadable
from fewscans.convert.alpha import ON_BLACK, without_alpha

Found = tuple[npt.NDArray[np.generic], tuple[str, ...]]
_BITS_PER_SAMPLE = 258  # TIFF 6.0, section 8
_ORIENTATION = 274
# Bits and kind of colour of an IHDR (PNG, section 11.2.1), and where they stand in a file.
_BITS_AND_COLOUR, _CHECKSUM = slice(24, 26), slice(29, 33)
_RGBA = bytes((8, 6))


def raw_mode(image: Any) -> str:
    """How the bytes of an image that is not yet loaded lie in the file, e.g. ``RGB;16B``."""
    tiles = getattr(image, "tile", None) or []
    arguments = tiles[0][3] if tiles else ""
    return str(arguments[0] if isinstance(arguments, tuple) and arguments else arguments)


def deep_mode(image: Any) -> str:
    """Mode of an image that Pillow would cut down to 8 bits, e.g. ``RGB;16``; "" for others. Not yet loaded."""
    tag, raw = getattr(image, "tag_v2", {}).get(_BITS_PER_SAMPLE, ()), raw_mode(image)
    if raw.startswith("LA;16"):
        return "LA;16"  # Pillow calls it RGBA
    deep = (len(tag) >= 3 and max(tag) == 16) or raw.startswith(("RGB;16", "RGBA;16"))
    return f"{image.mode};16" if deep else ""


def read_deep(path: Path, image: Any, kind: str) -> Found:
    """([C, H, W] uint16 upright, notes) of an image with a `deep_mode`, without alpha.

    Raises
    ------
    Unreadable
        SimpleITK does not decode it, or not with 16 bits.
    """
    raw, unpacked = raw_mode(image), image.fp
    array = _gray_alpha(unpacked) if raw.startswith("LA;16") else _colour(path, kind)
    if kind == "PNG":  # may stand behind the rows, so Pillow loads them first
        array = _upright(array, image.getexif().get(_ORIENTATION, 1))
    if raw.startswith("RGBX;16"):  # the fourth sample has no meaning (TIFF 6.0, ExtraSamples 0)
        return array[:3], ()
    if raw.startswith("RGBa;16"):  # multiplied with its alpha already, so on black
        return array[:3], () if (array[3] == 65535).all() else (ON_BLACK,)
    return without_alpha(array) if len(array) in (2, 4) else (array, ())


def _colour(path: Path, kind: str) -> npt.NDArray[np.generic]:
    import SimpleITK as sitk  # noqa: N813

    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    reader = sitk.ImageFileReader()
    reader.SetImageIO(f"{kind}ImageIO")  # by content; the name may lie
    reader.SetFileName(str(path))
    try:
        array = np.moveaxis(sitk.GetArrayFromImage(reader.Execute()), -1, 0)
    except RuntimeError:
        raise Unreadable("16-bit colour that cannot be decoded") from None
    if array.dtype != np.uint16:  # ITK reads tiles, planes and turned images with 8 bits
        raise Unreadable(
            "16-bit colour in tiles, planes or turned is not read; save it in strips, upright"
        )
    return array


def _gray_alpha(unpacked: io.BytesIO) -> npt.NDArray[np.generic]:
    """[2, H, W] of a PNG of 16-bit gray with alpha."""
    data = bytearray(unpacked.getvalue())
    if data[12:16] != b"IHDR":
        raise Unreadable("damaged: it does not begin with its header")
    data[_BITS_AND_COLOUR] = _RGBA
    data[_CHECKSUM] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
        pairs = np.asarray(image)
    return np.moveaxis(pairs.view(">u2").astype(np.uint16), -1, 0)


def _upright(array: npt.NDArray[np.generic], turned: int) -> npt.NDArray[np.generic]:
    """[C, H, W] as it is to be seen, by the orientation of EXIF (CIPA DC-008, 4.6.4)."""
    if turned in (5, 6, 7, 8):
        array = array.swapaxes(1, 2)
    if turned in (3, 4, 7, 8):
        array = array[:, ::-1]
    return array[:, :, ::-1] if turned in (2, 3, 6, 7) else array
