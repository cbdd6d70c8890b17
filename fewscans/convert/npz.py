"""An .npz in MedMNIST's layout, a scan at a time.

That is train_images [n, H, W] or [n, H, W, 3], in 3D [n, D, H, W] or [n, D, H, W, 3], train_labels [n, 1]; the same
for val and test.

Arrays are read from the archive as a stream, a scan at a time; pickled objects are refused.
"""

from __future__ import annotations

import contextlib
import math
import os
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

import numpy as np
import numpy.typing as npt

from fewscans.convert import Meta, Scan, Unreadable, check_size, join_equal_channels, make_finite
from fewscans.errors import Problems, UserError

PARTS = ("train", "val", "test")
# Deflate packs 1,032 bytes into one at best (RFC 1951).
_MOST_PACKED = 1032


@dataclass(frozen=True)
class Member:
    """One array of the archive, by its header."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]


def read_members(path: str | os.PathLike[str], ndim: int | None = None) -> dict[str, Member]:
    """Images and labels of all parts, e.g. ``train_images``; no array is unpacked.

    With `ndim` they must be images (2) or volumes (3).

    Raises
    ------
    UserError
        Not an .npz, parts that are missing or don't match, volumes for images, several labels per
        scan, pickled objects.
    """
    problems = Problems(str(path))
    members = {}
    with _open_archive(path) as archive:
        names = {name.removesuffix(".npy") for name in archive.namelist()}
        for key in [f"{part}_{what}" for part in PARTS for what in ("images", "labels")]:
            if key not in names:
                continue
            with archive.open(f"{key}.npy") as handle:
                try:
                    shape, _, dtype = read_header(handle)
                except ValueError as error:
                    problems.add(key, f"its header is damaged ({error}).")
                    continue
                begins = handle.tell()
            if dtype.hasobject:
                problems.add(
                    key,
                    "holds Python objects (pickle), which are never loaded. Save plain numbers.",
                )
                continue
            said = begins + math.prod(shape) * dtype.itemsize
            _check_length(archive.getinfo(f"{key}.npy"), shape, said, problems, key)
            members[key] = Member(key, shape, dtype)
    if "train_images" not in names:
        shown = ", ".join(sorted(names)[:8]) or "nothing"
        problems.add(
            "train_images", f"is missing; the file has {shown}. MedMNIST's layout is needed."
        )
    for part in PARTS:
        _check_part(members, part, ndim, problems)
    problems.raise_if_any()
    return members


def _check_length(
    info: zipfile.ZipInfo, shape: tuple[int, ...], said: int, problems: Problems, key: str
) -> None:
    """Neither an array's header nor the archive's list may promise what cannot be there.

    `said`: bytes by the header. An array that is cut short keeps the scans that are whole.
    """
    there = info.file_size
    if said < there or (shape and shape[0] > there):
        problems.add(key, f"{said} bytes by its header, {there} there: one of them is wrong.")
    elif there > _MOST_PACKED * info.compress_size + 1024:
        problems.add(key, f"{info.compress_size} bytes never unpack to {there}: a damaged list.")


def _check_part(
    members: dict[str, Member], part: str, ndim: int | None, problems: Problems
) -> None:
    images, labels = members.get(f"{part}_images"), members.get(f"{part}_labels")
    if images is None:
        return
    shape = images.shape
    if images.dtype.kind not in "uifb":
        problems.add(images.name, f"{images.dtype} are no pixels.")
    if ndim is not None and not has_axes(shape[1:], ndim):
        other = 5 - ndim
        hint = f" Write `ndim: {other}` in the recipe." if has_axes(shape[1:], other) else ""
        axes = "H, W" if ndim == 2 else "D, H, W"
        problems.add(
            images.name, f"shape {list(shape)}: [n, {axes}] or [n, {axes}, 3] is needed.{hint}"
        )
    if labels is None:
        return
    if labels.dtype.kind not in "uibUS":
        problems.add(labels.name, f"{labels.dtype} are no classes.")
    if len(labels.shape) == 2 and labels.shape[1] > 1:
        problems.add(
            labels.name, f"{labels.shape[1]} labels per scan; one class per scan is read here."
        )
    elif labels.shape[:1] != shape[:1] or math.prod(labels.shape) != shape[0]:
        problems.add(labels.name, f"shape {list(labels.shape)} does not fit {shape[0]} images.")


def has_axes(shape: tuple[int, ...], ndim: int) -> bool:
    """Whether a scan has `ndim` axes of space, with or without colours behind them."""
    return len(shape) == ndim or (len(shape) == ndim + 1 and shape[-1] in (1, 3))


def row_path(part: str, number: int) -> str:
    """Path of a scan in an .npz: ``train/000012``."""
    return f"{part}/{number:06d}"


def label_rows_of(path: str | os.PathLike[str], ndim: int | None = None) -> list[dict[str, str]]:
    """Rows path, label, split of all scans; labels as text, empty where a part has none."""
    rows = []
    for key, member in read_members(path, ndim).items():
        part, _, what = key.partition("_")
        if what != "images":
            continue
        labels = [""] * member.shape[0]
        with np.load(path, allow_pickle=False) as arrays:
            if f"{part}_labels" in arrays.files:
                labels = [str(value) for value in arrays[f"{part}_labels"].reshape(-1).tolist()]
        rows += [
            {"path": row_path(part, i), "label": label, "split": part}
            for i, label in enumerate(labels)
        ]
    return rows


class NpzReader:
    """Scans of one archive, read in ascending order with one of them in memory."""

    def __init__(self, path: str | os.PathLike[str], ndim: int = 2) -> None:
        self.path, self.ndim = path, ndim
        self.members = read_members(path, ndim)
        self._archive = zipfile.ZipFile(path)
        self._part = ""
        self._handle: IO[bytes] | None = None
        self._next = 0
        self._whole: npt.NDArray[np.generic] | None = None

    def close(self) -> None:
        """Close the archive."""
        if self._handle is not None:
            self._handle.close()
        self._archive.close()

    def read(self, part: str, number: int) -> Scan:
        """Scan `number` of `part`; numbers within a part must not fall."""
        if part != self._part or number < self._next:
            self._begin(part)
        member = self.members[f"{part}_images"]
        shape = member.shape[1:]
        check_size(*shape[: self.ndim][::-1])
        try:
            array = self._read_next(member, number)
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
            raise Unreadable(f"the .npz is damaged here ({error})", format="NPZ") from None
        planes = np.moveaxis(array, -1, 0) if array.ndim > self.ndim else array[None]
        if planes.dtype == bool:
            planes = planes.astype(np.uint8)
        planes = np.ascontiguousarray(planes.astype(planes.dtype.newbyteorder("="), copy=False))
        planes, notes = make_finite(planes)
        mode = "RGB" if planes.shape[0] == 3 else "L"
        meta = Meta("NPZ", mode, 8 * planes.dtype.itemsize, notes=notes)
        return Scan(join_equal_channels(planes), (), meta)

    def _begin(self, part: str) -> None:
        if self._handle is not None:
            self._handle.close()
        self._handle = self._archive.open(f"{part}_images.npy")
        _, fortran, _ = read_header(self._handle)
        self._whole = None
        if fortran:  # the scans of such an array are interleaved: no stream gives one by one
            with np.load(self.path, allow_pickle=False) as arrays:
                self._whole = arrays[f"{part}_images"]
        self._part, self._next = part, 0

    def _read_next(self, member: Member, number: int) -> npt.NDArray[np.generic]:
        if self._whole is not None:
            self._next = number + 1
            return self._whole[number]
        shape = member.shape[1:]
        n_bytes = math.prod(shape) * member.dtype.itemsize
        handle = self._handle
        if handle is None:
            raise RuntimeError("_begin was not called")
        while self._next < number:
            _read_exactly(handle, n_bytes)
            self._next += 1
        data = _read_exactly(handle, n_bytes)
        self._next += 1
        return np.frombuffer(data, member.dtype).reshape(shape)


def _read_exactly(handle: IO[bytes], n_bytes: int) -> bytes:
    data = handle.read(n_bytes)
    if len(data) < n_bytes:
        raise EOFError("it is cut short")
    return data


def read_header(handle: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[np.generic]]:
    """(shape, whether in Fortran order, dtype) of a .npy stream, which then stands at its numbers.

    Raises
    ------
    ValueError
        It is no such header.
    """
    try:
        version = np.lib.format.read_magic(handle)
        if version == (1, 0):
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(handle)
        else:
            shape, fortran, dtype = np.lib.format.read_array_header_2_0(handle)
    except Exception as error:  # it is read as Python's own text, whose parser raises what it likes
        raise ValueError(" ".join(str(error).split())[:160]) from None
    if any(n < 0 for n in shape):
        raise ValueError(f"shape {list(shape)}")
    return shape, fortran, dtype


@contextlib.contextmanager
def _open_archive(path: str | os.PathLike[str]) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except FileNotFoundError:
        raise UserError(f"{path}: no such file.") from None
    except (
        zipfile.BadZipFile,
        EOFError,
        zlib.error,
        OSError,
        NotImplementedError,  # zipfile's word for a compression that it does not know
        RuntimeError,
    ) as error:
        raise UserError(f"{path}: not an .npz archive, or damaged ({error}).") from None
