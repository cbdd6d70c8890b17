"""From files that hospitals produce to arrays in physical units; imports wait for a file.

A file's kind is found from its content, never from its name. What cannot be used ends as
`Unreadable` with a reason in words; damaged files are the rule in real folders, not a fault of
ours.
"""

from __future__ import annotations

import contextlib
import gzip
import logging
import math
import os
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from fewscans.convert.kinds import KINDS
from fewscans.convert.pairs import header_of, is_metaimage, is_nrrd

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

log = logging.getLogger("fewscans")

# Pixels of one image; beyond, a few bytes of a damaged or hostile file could fill the memory.
MAX_PIXELS = 2**27
# Voxels of a series, whose slices are all there: 2,048 of 512 x 512.
MAX_VOXELS = 2**29
# Values that are scaled in one go; whole numbers below are float32, with 16 bits added to them too.
_BLOCK, _EXACT = 2**16, 2.0**23
# Bytes of a file that tell its kind: a NIfTI-2 header has 540.
_HEAD = 544


# An outcome that is recorded, not an error that ends a run.
class Unreadable(Exception):  # noqa: N818
    """A scan that cannot be used.

    Parameters
    ----------
    reason
        Why, in words.
    status
        ``unreadable`` (damaged, or no image) or ``set-aside`` (whole, but not one image or volume).
    format
        Kind of file, where known.
    """

    def __init__(self, reason: str, status: str = "unreadable", format: str = "") -> None:
        self.reason = reason
        self.status = status
        self.format = format
        super().__init__(reason)


@dataclass(frozen=True)
class Meta:
    """What a file says about its pixels: ``physical = stored * scale + intercept``."""

    format: str
    mode: str
    bits: int
    scale: float = 1.0
    intercept: float = 0.0
    unit: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Scan:
    """One image or volume as it was stored.

    Attributes
    ----------
    array : [C, H, W] or [C, D, H, W]
        C is 1 or 3; native dtype. Three equal channels are kept as one (their luma is the same
        number). Volumes that say where they lie are in RAS: D from the feet up, H from back
        to front, W from left to right.
    spacing_mm : tuple of float
        Along each axis of space; empty where the file does not say (never guessed).
    meta : Meta
        Kind, colour mode, bits, and the way to physical values.
    affine : [4, 4] or None
        From (x, y, z), the last axes of `array` backwards, to RAS in mm; None for images, and where nobody says.
    mask : the axes of space, unsigned, or None
        Its label map, where the data set has one; 0 is nothing.
    """

    array: npt.NDArray[np.generic]
    spacing_mm: tuple[float, ...]
    meta: Meta
    affine: npt.NDArray[np.float64] | None = None
    mask: npt.NDArray[np.unsignedinteger] | None = None

    def physical(self) -> npt.NDArray[np.float32]:
        """The array as float32: HU or whatever else the file's unit is."""
        return to_physical(self.array, self.meta.scale, self.meta.intercept)


def to_physical(
    array: npt.NDArray[np.generic], scale: float, intercept: float
) -> npt.NDArray[np.float32]:
    """``array * scale + intercept`` as float32, rounded once."""
    import numpy as np

    if scale == 1.0 and intercept == 0.0:
        return array.astype(np.float32)
    small = array.dtype.kind in "iu" and array.dtype.itemsize <= 2
    if scale == 1.0 and small and intercept.is_integer() and abs(intercept) < _EXACT:
        made = array.astype(np.float32)
        made += np.float32(intercept)  # whole numbers that float32 holds: nothing to be rounded
        return made
    made = np.empty(array.shape, np.float32)
    flat, into = np.ascontiguousarray(array).reshape(-1), made.reshape(-1)
    # By blocks: as float64 a volume would be several times itself.
    for start in range(0, flat.size, _BLOCK):
        part = slice(start, start + _BLOCK)
        into[part] = flat[part].astype(np.float64) * scale + intercept
    return made


def sniff(head: bytes) -> str:
    """Kind of a file by its first bytes: ``PNG``, ``DICOM``, ``NIFTI``, ``MHA``, ..., ``GZIP``, or empty."""
    if head[128:132] == b"DICM":  # first: a preamble may pose as TIFF (PS3.10 7.1)
        return "DICOM"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head[:4] in (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+"):
        return "TIFF"
    if head.startswith(b"BM") and len(head) >= 26:
        return "BMP"
    if head.startswith(b"\x1f\x8b"):
        return "GZIP"
    sizes = (int.from_bytes(head[:4], "little"), int.from_bytes(head[:4], "big"))
    if 348 in sizes and head[344:348] in (b"n+1\x00", b"ni1\x00"):
        return "NIFTI"
    if 540 in sizes and head[4:8] in (b"n+2\x00", b"ni2\x00"):
        return "NIFTI"
    if 348 in sizes and _is_analyze(head, "little" if sizes[0] == 348 else "big"):
        return "ANALYZE"
    if is_nrrd(head):
        return "NRRD"
    if is_metaimage(head):
        return "MHA"
    if head.startswith(b"\x93NUMPY"):
        return "NPY"
    # DICOM without preamble begins with an element of group 2 or 8, in either byte order.
    if head[:2] in (b"\x02\x00", b"\x08\x00", b"\x00\x02", b"\x00\x08") and len(head) > 132:
        return "DICOM"
    return ""


def _is_analyze(head: bytes, order: Literal["little", "big"]) -> bool:
    """Whether a header of 348 bytes has axes and a data type of Analyze 7.5 (``dim``, ``datatype``)."""
    axes, code = (int.from_bytes(head[i : i + 2], order) for i in (40, 70))
    return len(head) >= 348 and 1 <= axes <= 7 and code in (1, 2, 4, 8, 16, 32, 64, 128)


def read(path: str | os.PathLike[str], ndim: int = 2, frame: int | None = None) -> Scan:
    """Read one image of any kind, or one volume where `ndim` is 3.

    `frame`, from 0, is one of several: in 2D in a DICOM file, in 3D in another one that `count_volumes` says to hold
    several.

    Raises
    ------
    Unreadable
        With a reason in words, for everything that is wrong with the file.
    """
    path = header_of(Path(path))
    with in_words(path):
        kind = kind_of(path)
    with in_words(path, kind):
        if frame is not None:
            return _read_part(path, kind, frame) if ndim == 3 else _read_frame(path, kind, frame)
        return _reader(kind, ndim)(path, kind)


def count_volumes(path: str | os.PathLike[str]) -> int:
    """Number of volumes in a file along an axis of its own (4D), each read by `read`; 1 for all DICOM and images.

    Where they are several, the file was looked through: all of them are there.

    Raises
    ------
    Unreadable
        The file cannot be used, whichever volume is meant.
    """
    path = header_of(Path(path))
    with in_words(path):
        kind = kind_of(path)
    with in_words(path, kind):
        if kind in ("NIFTI", "ANALYZE"):
            from fewscans.convert import volume

            return volume.count_volumes(path, kind)
        if kind in ("NRRD", "MHA"):
            from fewscans.convert import itk

            return itk.count_volumes(path, kind)
        if kind == "NPY":
            from fewscans.convert import npy

            return npy.count_volumes(path)
    return 1


@contextlib.contextmanager
def in_words(path: Path, kind: str = "") -> Iterator[None]:
    """Whatever goes wrong with a file of `kind` inside is raised as `Unreadable`, with a reason in words."""
    try:
        yield
    except Unreadable as error:
        raise Unreadable(error.reason, error.status, error.format or kind) from None
    except MemoryError:
        raise Unreadable("does not fit into the memory of this machine", format=kind) from None
    except OSError as error:
        raise Unreadable(_os_reason(error), format=kind) from None
    except Exception as error:
        # Decoders raise anything on broken bytes, and one bad file must not end a run of thousands.
        log.debug("%s", path, exc_info=True)
        raise Unreadable(f"damaged ({_one_line(error)})", format=kind) from None


def kind_of(path: Path) -> str:
    """Kind of a file by its content, unpacked where it is gzip; `Unreadable` where it is none that is read."""
    if path.is_dir():
        raise Unreadable("is a folder, not a file")
    if not path.is_file():
        raise Unreadable("no such file" if not path.exists() else "is not a regular file")
    with open(path, "rb") as handle:
        head = handle.read(_HEAD)
    if not head:
        raise Unreadable("the file is empty (0 bytes)")
    kind = sniff(head)
    if kind == "GZIP":
        try:
            with gzip.open(path, "rb") as handle:
                kind = sniff(handle.read(_HEAD))
        except (OSError, EOFError, zlib.error):
            raise Unreadable("damaged: its gzip stream breaks off") from None
        if kind != "NIFTI":
            raise Unreadable("gzip of something else than a NIfTI image; unpack it")
    if not kind:
        raise Unreadable(f"not an image of a kind that is read ({KINDS})")
    return kind


def _reader(kind: str, ndim: int) -> Callable[[Path, str], Scan]:
    if kind in ("NRRD", "MHA"):
        from fewscans.convert.itk import read_itk

        return lambda path, kind: read_itk(path, kind, ndim)
    if kind == "NPY":
        from fewscans.convert.npy import read_npy

        return lambda path, kind: read_npy(path, kind, ndim)
    if kind in ("NIFTI", "ANALYZE") and ndim == 3:
        from fewscans.convert.volume import read_volume

        return read_volume
    if kind == "DICOM" and ndim == 3:
        from fewscans.convert.series_pixels import read_one_volume

        return read_one_volume
    if ndim == 3:
        raise Unreadable("this is an image; volumes are read where `ndim` is 3", "set-aside")
    if kind == "DICOM":
        from fewscans.convert.dicom import read_dicom

        return read_dicom
    if kind in ("NIFTI", "ANALYZE"):
        from fewscans.convert.nifti import read_nifti

        return read_nifti
    from fewscans.convert.image import read_image

    return read_image


def _read_frame(path: Path, kind: str, frame: int) -> Scan:
    if kind != "DICOM":
        raise Unreadable("has no numbered frames; only DICOM has", "set-aside")
    from fewscans.convert.dicom import read_dicom

    return read_dicom(path, kind, frame)


def _read_part(path: Path, kind: str, number: int) -> Scan:
    if kind in ("NIFTI", "ANALYZE"):
        from fewscans.convert.volume import read_volume

        return read_volume(path, kind, number)
    if kind in ("NRRD", "MHA"):
        from fewscans.convert.itk import read_itk

        return read_itk(path, kind, 3, number)
    if kind == "NPY":
        from fewscans.convert.npy import read_npy

        return read_npy(path, kind, 3, number)
    raise Unreadable("has no numbered volumes", "set-aside")


def _os_reason(error: OSError) -> str:
    if error.errno is not None:
        return f"cannot be opened ({error.strerror})"
    if "truncated" in str(error):
        return f"the file is cut short ({_one_line(error)})"
    return f"damaged ({_one_line(error)})"


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{text[:160]}..." if len(text) > 160 else text or type(error).__name__


def check_size(*lengths: int, most: int | None = None) -> None:
    """Refuse an image without pixels, or with more than `most` (`MAX_PIXELS`), before it is unpacked."""
    most = MAX_PIXELS if most is None else most
    shown = " x ".join(map(str, lengths))
    if min(lengths) < 1:
        raise Unreadable(f"has no pixels ({shown})")
    if math.prod(lengths) > most:
        raise Unreadable(
            f"{shown} pixels: more than the {most // 10**6} million that are read",
            "set-aside",
        )


def join_equal_channels(array: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    """[C, ...] -> [1, ...] where all channels are equal, so that gray saved as RGB is gray."""
    if array.shape[0] > 1 and all((array[0] == other).all() for other in array[1:]):
        return array[:1]
    return array


def make_finite(array: npt.NDArray[np.generic]) -> tuple[npt.NDArray[np.generic], tuple[str, ...]]:
    """Put the smallest number in place of values that are none; a note says how many they were."""
    import numpy as np

    if array.dtype.kind != "f":
        return array, ()
    bad = ~np.isfinite(array)
    n_bad = int(bad.sum())
    if not n_bad:
        return array, ()
    if n_bad == array.size:
        raise Unreadable("holds no finite value")
    array = array.copy()
    array[bad] = array[~bad].min()
    return array, (f"{n_bad} values that are not finite became the smallest one",)
