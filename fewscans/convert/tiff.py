"""A TIFF whose strips or tiles hold what its header says (TIFF 6.0, sections 3, 8, 9, 13 and 15).

Pillow reads as many rows as the header says, whatever the strips hold. The length of each is compared: as it stands in
the file, unpacked where it is deflated, and of the last one where it is packed by LZW or PackBits. CCITT and JPEG
within TIFF have no length to compare.
"""

from __future__ import annotations

import io
import struct
from typing import IO, Any

from PIL import Image

from fewscans.convert import Unreadable
from fewscans.convert.packed import unpack

_WIDTH, _LENGTH, _BITS, _COMPRESSION, _FILL_ORDER = 256, 257, 258, 259, 266
_OFFSETS, _SAMPLES, _ROWS, _COUNTS, _PLANAR = 273, 277, 278, 279, 284
_TILE_WIDTH, _TILE_LENGTH, _TILE_OFFSETS, _TILE_COUNTS = 322, 323, 324, 325
_PHOTOMETRIC, _SUBSAMPLING, _YCBCR, _APART = 262, 530, 6, 2
_NONE, _LZW, _DEFLATE, _PACKBITS = 1, 5, (8, 32946), 32773
_WRONG = "a strip or tile of {} bytes, and {} by its header: one of them is wrong"


def check_tiff(handle: IO[bytes], image: Any) -> None:
    """Refuse strips or tiles that are not those of `image`, opened and not yet loaded.

    Raises
    ------
    Unreadable
        Too many or few of them; one that lies on another or leaves the file; one with more or fewer bytes than its
        rows need.
    """
    tags = image.tag_v2
    tiled = _TILE_OFFSETS in tags
    keys = (_TILE_OFFSETS, _TILE_COUNTS) if tiled else (_OFFSETS, _COUNTS)
    offsets, counts = (tuple(tags.get(key, ())) for key in keys)
    planes = _planes(tags)
    n = (_n_tiles(tags) if tiled else _n_strips(tags)) * len(planes)
    if not len(offsets) == len(counts) == n:
        raise Unreadable(f"{len(offsets)} strips or tiles, and {n} by its header: one of them is wrong")  # fmt: skip
    there = handle.seek(0, 2)
    end = 8
    for begins, count in sorted(zip(offsets, counts, strict=True)):
        if begins < end or begins + count > there:
            raise Unreadable("the file is cut short, or its header says wrongly where its rows are")
        end = begins + count
    packing = tags.get(_COMPRESSION, _NONE)
    subsampled = tags.get(_PHOTOMETRIC) == _YCBCR and tags.get(_SUBSAMPLING, (2, 2)) != (1, 1)
    if packing != _NONE and subsampled:
        return  # fewer samples than pixels: libtiff makes colours of them, by its own count
    sizes = [size for depth in planes for size in _sizes(tags, depth, tiled)]
    if packing == _NONE:
        for count, n_bytes in zip(counts, sizes, strict=True):
            if count != n_bytes:
                raise Unreadable(_WRONG.format(count, n_bytes))
    elif packing in _DEFLATE:
        for begins, count, n_bytes in zip(offsets, counts, sizes, strict=True):
            handle.seek(begins)
            if unpack(io.BytesIO(handle.read(count)), n_bytes, keep=False)[1]:
                raise Unreadable(_WRONG.format("more", n_bytes))
    elif packing in (_LZW, _PACKBITS):
        handle.seek(offsets[-1])
        packed = handle.read(counts[-1])
        if _unpacks_to(packed, sizes[-1] + 1, packing, tags.get(_FILL_ORDER, 1)):
            raise Unreadable(_WRONG.format("more", sizes[-1]))


def _planes(tags: Any) -> tuple[int, ...]:
    """Bits of a pixel in each plane: one of all samples, or one for each."""
    bits, samples = tags.get(_BITS, (1,)), tags.get(_SAMPLES, 1)
    if len(bits) not in (1, samples):
        raise Unreadable(f"damaged: {samples} samples of a pixel, and bits of {len(bits)}")
    each = bits if len(bits) == samples else bits * samples
    return tuple(each) if tags.get(_PLANAR, 1) == _APART else (sum(each),)


def _n_tiles(tags: Any) -> int:
    return -(-tags[_WIDTH] // tags[_TILE_WIDTH]) * -(-tags[_LENGTH] // tags[_TILE_LENGTH])


def _n_strips(tags: Any) -> int:
    return -(-tags[_LENGTH] // _rows_per_strip(tags))


def _rows_per_strip(tags: Any) -> int:
    return int(min(tags.get(_ROWS, tags[_LENGTH]), tags[_LENGTH]))


def _sizes(tags: Any, depth: int, tiled: bool) -> list[int]:
    """Bytes of each strip or tile of a plane, unpacked."""
    if tiled:
        return [tags[_TILE_LENGTH] * ((tags[_TILE_WIDTH] * depth + 7) // 8)] * _n_tiles(tags)
    row, rows = (tags[_WIDTH] * depth + 7) // 8, _rows_per_strip(tags)
    return [row * min(rows, tags[_LENGTH] - top) for top in range(0, tags[_LENGTH], rows)]


def _unpacks_to(packed: bytes, n_bytes: int, packing: int, fill_order: int) -> bool:
    """Whether libtiff finds `n_bytes` in a strip: asked by a TIFF of one row that has nothing else."""
    fields = (
        (_WIDTH, n_bytes), (_LENGTH, 1), (_BITS, 8), (_COMPRESSION, packing), (_PHOTOMETRIC, 1),
        (_FILL_ORDER, fill_order), (_OFFSETS, 8), (_SAMPLES, 1), (_ROWS, 1), (_COUNTS, len(packed)),
    )  # fmt: skip
    table = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in fields)
    whole = struct.pack("<2sHI", b"II", 42, 8 + len(packed)) + packed
    whole += struct.pack("<H", len(fields)) + table + bytes(4)
    try:
        with Image.open(io.BytesIO(whole), formats=["TIFF"]) as asked:
            asked.load()
    except (OSError, Image.DecompressionBombError):
        return False
    return True
