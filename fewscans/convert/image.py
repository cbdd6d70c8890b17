"""PNG, JPEG, TIFF and BMP: 8 and 16 bit, gray and colour, as stored.

Pillow reads as many rows as a header says, whatever the data behind it are, so both are compared first
(`fewscans.convert.png`, `jpeg`, `tiff`, `bmp`). Orientation from EXIF is applied. Alpha that is the
same everywhere is dropped; otherwise the image is put on black, as a viewer with a dark background
shows it. Colour stays colour: gray is made when a store is made.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile, ImageOps

from fewscans.convert import Meta, Scan, Unreadable, check_size, join_equal_channels, make_finite
from fewscans.convert.alpha import without_alpha
from fewscans.convert.bmp import check_bmp, check_packed_bmp
from fewscans.convert.deep import deep_mode, raw_mode, read_deep
from fewscans.convert.jpeg import check_jpeg
from fewscans.convert.png import unpacked_png
from fewscans.convert.tiff import check_tiff

# TIFF tags (TIFF 6.0, section 8 and 19).
_BITS_PER_SAMPLE, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339
_WHITE_IS_ZERO = 0
_GRAY_MODES = ("L", "I;16", "I;16L", "I;16B", "I;16N", "I", "F")


def read_image(path: Path, kind: str) -> Scan:
    """Scan of a file whose content is `kind` (``PNG``, ``JPEG``, ``TIFF``, ``BMP``)."""
    with open(path, "rb") as handle, warnings.catch_warnings():
        # Metadata that is out of order does not make pixels wrong, and sizes are checked below.
        warnings.simplefilter("ignore")
        image = _open(handle, kind)
        check_size(*image.size)
        # Phones put a second picture into a JPEG; the first is the image.
        frames = getattr(image, "n_frames", 1) if kind != "JPEG" else 1
        if frames > 1:
            raise Unreadable(f"{frames} images in one file; one is read. Split it", "set-aside")
        image = _checked(handle, image, kind)
        mode, bits = image.mode, _bits(image)
        if deep := deep_mode(image):
            array, notes = read_deep(path, image, kind)
            return _scan(array, kind, deep, 16, notes)
        packed_bmp = kind == "BMP" and image.tile[0][0] != "raw"
        n_colours = _n_colours(image)
        image.load()
        if packed_bmp:
            check_packed_bmp(handle)
        if image.mode == "P" and (most := _most(image)) >= n_colours:
            raise Unreadable(f"damaged: colour {most} of a palette of {n_colours}")
        scale, intercept = _white_is_zero(image)
        array, notes = _pixels(ImageOps.exif_transpose(image))
        if mode == "I":
            array = _narrow(array, image)
    return _scan(array, kind, mode, bits, notes, scale, intercept)


def _open(handle: IO[bytes], kind: str) -> ImageFile.ImageFile:
    try:
        return Image.open(handle, formats=[kind])
    except Image.DecompressionBombError:
        raise Unreadable("more pixels than can be read", "set-aside") from None
    except Image.UnidentifiedImageError:
        raise Unreadable(f"{kind} of a kind that is not read, or its header is damaged") from None


def _checked(handle: IO[bytes], image: ImageFile.ImageFile, kind: str) -> ImageFile.ImageFile:
    """The image, opened, once its file holds what its header says."""
    if kind == "PNG":
        return _open(unpacked_png(handle), kind)
    if kind == "JPEG":
        check_jpeg(handle)
    elif kind == "TIFF":
        check_tiff(handle, image)
    else:
        check_bmp(handle, image)
    return image


def _most(image: Image.Image) -> int:
    """The largest stored value."""
    return int(np.asarray(image).max())


def _n_colours(image: Image.Image) -> int:
    """Colours of the palette of an image that is not yet loaded: later Pillow has 256, black ones among them."""
    palette = image.palette
    if palette is None:
        return 0
    return len(palette.palette) // (4 if palette.rawmode == "BGRX" else 3)


def _scan(
    array: npt.NDArray[np.generic],
    kind: str,
    mode: str,
    bits: int,
    notes: tuple[str, ...],
    scale: float = 1.0,
    intercept: float = 0.0,
) -> Scan:
    array, more = make_finite(np.ascontiguousarray(array))
    meta = Meta(kind, mode, bits, scale, intercept, notes=(*notes, *more))
    return Scan(join_equal_channels(array), (), meta)


def _pixels(image: Image.Image) -> tuple[npt.NDArray[np.generic], tuple[str, ...]]:
    """[C, H, W] of any Pillow mode, without alpha."""
    if image.mode in ("P", "PA"):
        has_alpha = image.mode == "PA" or "transparency" in image.info
        image = image.convert("RGBA" if has_alpha else "RGB")
    elif image.mode in ("RGBa", "La"):  # multiplied with its alpha already
        image = image.convert({"RGBa": "RGBA", "La": "LA"}[image.mode])
    elif image.mode == "1":
        image = image.convert("L")
    elif image.mode not in (*_GRAY_MODES, "LA", "RGB", "RGBA"):
        image = image.convert("RGB")  # CMYK, YCbCr, LAB, HSV, RGBX
    array = np.asarray(image)
    # Big-endian sources come as >u2, and what is stored is little-endian.
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    if array.ndim == 2:
        return array[None], ()
    array = np.moveaxis(array, -1, 0)
    return without_alpha(array) if array.shape[0] in (2, 4) else (array, ())


def _bits(image: Image.Image) -> int:
    tag = getattr(image, "tag_v2", {}).get(_BITS_PER_SAMPLE)
    if tag:
        return int(max(tag))
    depth = {"1": 1, "I;16": 16, "I;16B": 16, "I;16L": 16, "I": 32, "F": 32}
    return depth.get(image.mode, 16 if ";16" in raw_mode(image) else 8)


def _white_is_zero(image: Image.Image) -> tuple[float, float]:
    """(scale, intercept) for 16-bit TIFF with white = 0; Pillow itself turns 8 bits over only."""
    tag = getattr(image, "tag_v2", {}).get(_PHOTOMETRIC)
    if tag == _WHITE_IS_ZERO and image.mode.startswith("I;16"):
        return -1.0, 65535.0
    return 1.0, 0.0


def _narrow(array: npt.NDArray[np.generic], image: Image.Image) -> npt.NDArray[np.generic]:
    """What the file holds: Pillow widens signed 16-bit TIFF, and wraps unsigned 32-bit."""
    tags = getattr(image, "tag_v2", {_BITS_PER_SAMPLE: (16,)})  # PNG has 16 bits at most
    # Unsigned unless said else (TIFF 6.0, section 19).
    bits, sample_format = (
        max(tags.get(_BITS_PER_SAMPLE, (32,))),
        max(tags.get(_SAMPLE_FORMAT, (1,))),
    )
    if bits == 16:
        return array.astype(np.int16 if sample_format == 2 else np.uint16)
    return array.view(np.uint32) if bits == 32 and sample_format == 1 else array
