"""A chunk of converted scans: ``pixels.bin`` with their arrays, ``index.parquet`` that lists them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from fewscans.config.stages import ConvertParams
from fewscans.contracts import COLUMNS, read_metadata, read_table, write_table
from fewscans.convert import log, to_physical
from fewscans.convert.paths import shown, split_number
from fewscans.convert.quiet import muted
from fewscans.convert.record import record
from fewscans.convert.slices import split_slice
from fewscans.convert.sources import in_chunk, list_scans, open_reader
from fewscans.convert.unfold import unfold
from fewscans.errors import UserError
from fewscans.files import atomic, write_json
from fewscans.privacy.converted import decoders_kept, hide
from fewscans.privacy.suspect import FROM_HEADER

__all__ = [
    "INDEX",
    "PIXELS",
    "read_converted",
    "read_mask",
    "read_pixels",
    "read_values",
    "write_chunk",
]

INDEX, PIXELS, COUNTS = "index.parquet", "pixels.bin", "counts.json"
# Values that are read in one go.
_BLOCK = 2**20


def write_chunk(params: ConvertParams, out: str | os.PathLike[str]) -> dict[str, Any]:
    """Convert one chunk into the folder `out`; facts for the side-car.

    One scan is in memory at a time, and the headers of one folder. A file that cannot be used is listed in the index
    with a reason.

    Raises
    ------
    UserError
        The data set's paths are wrong; or files are unreadable and `on_unreadable` is ``stop`` (all
        are listed).
    """
    out = Path(out)
    everything = list_scans(params)
    sources = in_chunk(everything, params.chunk, params.chunks)
    out.mkdir(parents=True, exist_ok=True)
    # The index is the seal: it must not stand beside pixels of another run.
    (out / INDEX).unlink(missing_ok=True)
    with (
        atomic(out / PIXELS) as temporary,
        open(temporary, "wb") as pixels,
        open_reader(params) as reader,
    ):
        rows, beside = [], set()
        with decoders_kept(params.private, params.dataset, f"convert.{params.chunk}"), muted():
            for named, source in ((one, scan) for one in sources for scan in unfold(one, params)):
                for row in record(source, reader, params, pixels):
                    # Of a slice that the table names: its row, not that of its volume.
                    own = row["path"].removeprefix(row["volume"]) if named.slices else ""
                    rows.append(
                        {**row, "source": f"{named.path}{own}", "whole": _whole(named.path)}
                    )
                beside |= {source.path} if source.beside else set()
        _check_readable(rows, params, beside, whole=len(sources) == len(everything))
        facts: dict[str, Any] = {"dataset": params.dataset, "pixels_bytes": pixels.tell()}
    if params.private is not None:
        rows, facts["key_mark"] = hide(rows, params)
        facts["chunk"] = params.chunk
    columns = [*COLUMNS["index"], "note", "source", *FROM_HEADER]
    columns += ["volume"] if params.slices is not None else []
    # Rows may name frames or volumes of one file one by one.
    apart = params.slices is not None or any(one.number for one in everything)
    columns += ["whole"] if apart else []
    columns += (
        ["mask_offset", "mask_dtype", "mask_labels"] if any(one.mask for one in everything) else []
    )
    frame = pd.DataFrame(rows, columns=columns)
    write_table(out / INDEX, "index", frame, **facts)
    if params.read_ndim == 3 or params.table is None:  # else a row of the table is a scan
        used = frame.loc[frame["status"] == "ok", "source"]
        rule = params.slices and params.slices.model_dump()
        counts = {"scans": len(used), "sources": int(used.nunique()), "slices": rule}
        write_json(out / COUNTS, counts)
    return _summary(frame, out)


def _whole(path: str) -> str:
    """The file or folder that a slice, frame or volume named by a path is in."""
    return split_number(split_slice(path)[0])[0]


def _check_readable(
    rows: list[dict[str, Any]], params: ConvertParams, beside: set[str], whole: bool
) -> None:
    """`beside`: paths of what only lies beside volumes; `whole`: this chunk is the whole data set."""
    bad = [
        (row["path"], f"{row['status']}: {row['reason']}") for row in rows if row["status"] != "ok"
    ]
    stopping = [(path, why) for path, why in bad if path not in beside]
    if stopping and params.on_unreadable == "stop":
        raise UserError(
            f"data set {params.dataset}: files that cannot be used. Repair them, list them in "
            "exclude, or set on_unreadable: leave-out",
            stopping,
        )
    if rows and whole and len(bad) == len(rows):
        listed = shown([f"{path}: {reason}" for path, reason in bad])
        raise UserError(
            f"data set {params.dataset}: not one of {len(rows)} files can be used.{listed}"
        )


def _summary(frame: pd.DataFrame, out: Path) -> dict[str, Any]:
    kinds = Counter(frame.loc[frame["status"] == "ok", "format"])
    left_out = Counter(frame.loc[frame["status"] != "ok", "status"])
    listed = ", ".join(f"{n} {kind}" for kind, n in sorted(kinds.items())) or "none"
    log.info(
        "%s: %d scans (%s)%s",
        out,
        sum(kinds.values()),
        listed,
        "".join(f", {n} {status}" for status, n in sorted(left_out.items())),
    )
    return {"scans": int(sum(kinds.values())), "formats": dict(kinds), "left_out": dict(left_out)}


def read_converted(
    folders: Sequence[str | os.PathLike[str]],
) -> tuple[pd.DataFrame, Callable[[Any], npt.NDArray[np.float32]]]:
    """Index of all chunks by path, with the column `folder`; and a function from row to pixels.

    The function takes a row (Series, mapping or named tuple) and gives physical values, [C, (D,) H, W]
    float32.

    Raises
    ------
    UserError
        A folder is no chunk, or its pixels don't belong to its index.
    """
    frames = []
    for folder in map(Path, folders):
        frame, n_bytes = _read_index(folder)
        if not (folder / PIXELS).is_file() or (folder / PIXELS).stat().st_size != n_bytes:
            raise UserError(
                f"{folder}: {PIXELS} is missing or cut short. Remove the folder and convert again."
            )
        frames.append(frame.assign(folder=str(folder)))
    if not frames:
        raise UserError("no folder of converted scans was given.")
    index = pd.concat([f for f in frames if len(f)] or frames[:1], ignore_index=True)
    doubled = index.loc[index["scan"].duplicated(), "path"].tolist()
    if doubled:
        raise UserError(
            f"scans stand in more than one chunk; convert all chunks again.{shown(doubled)}"
        )
    return index.sort_values("path", kind="stable", ignore_index=True), read_pixels


def _read_index(folder: Path) -> tuple[pd.DataFrame, int]:
    path = folder / INDEX
    if not path.is_file():
        raise UserError(
            f"{folder}: no {INDEX}; this is not a folder that convert wrote, or it was interrupted."
        )
    try:
        return read_table(path, "index"), int(read_metadata(path)["pixels_bytes"])
    except (KeyError, ValueError, OSError) as error:
        raise UserError(
            f"{path}: cannot be read ({error}). Remove the folder and convert again."
        ) from None


def read_mask(row: Any) -> npt.NDArray[np.unsignedinteger] | None:
    """Label map [(D,) H, W] of a row of `read_converted` as a mapping; None where it has none."""
    if int(row.get("mask_offset", -1)) < 0:
        return None
    shape = tuple(int(n) for n in row["shape"])
    dtype = np.dtype(row["mask_dtype"]).newbyteorder("<")
    path = Path(row["folder"]) / PIXELS
    flat = np.fromfile(path, dtype, count=int(np.prod(shape)), offset=int(row["mask_offset"]))
    return flat.reshape(shape)


def read_pixels(row: Any) -> npt.NDArray[np.float32]:
    """Physical values [C, (D,) H, W] of a row of `read_converted`."""
    stored = _Stored.of(row)
    made = np.empty(stored.shape, np.float32)
    flat = made.reshape(-1)
    with open(stored.path, "rb") as handle:
        handle.seek(stored.offset)
        # A block at a time: the volume as it was stored is never there beside its values.
        for start in range(0, flat.size, _BLOCK):
            part = flat[start : start + _BLOCK]
            block = np.fromfile(handle, stored.dtype, count=part.size)
            part[:] = to_physical(block, stored.scale, stored.intercept)
    return made


def read_values(row: Any) -> npt.NDArray[np.generic]:
    """The numbers of `read_pixels`, as 16 bits or 8 where these hold them: a volume is no larger than it was stored."""
    stored = _Stored.of(row)
    whole = stored.dtype.kind in "iu" and stored.dtype.itemsize <= 2 and stored.scale == 1.0
    shift = stored.intercept
    if not whole or not shift.is_integer() or (shift and stored.dtype.itemsize < 2):
        return read_pixels(row)
    count = int(np.prod(stored.shape))
    array = np.fromfile(stored.path, stored.dtype, count=count, offset=stored.offset)
    array = array.reshape(stored.shape)
    if not shift:
        return array
    limits = np.iinfo(np.int16)
    if not limits.min <= min(shift, int(array.min()) + shift) or not (
        max(shift, int(array.max()) + shift) <= limits.max
    ):
        return read_pixels(row)
    shifted = array.view("<i2")
    shifted += np.int16(shift)  # wraps round on the way to numbers that fit
    return shifted


class _Stored(NamedTuple):
    """Where the pixels of a scan are, and what they mean."""

    path: Path
    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    scale: float
    intercept: float

    @classmethod
    def of(cls, row: Any) -> _Stored:
        cell = (lambda name: getattr(row, name)) if isinstance(row, tuple) else row.__getitem__
        if cell("status") != "ok":
            raise ValueError(f"{cell('path')} has no pixels: {cell('reason')}")
        shape = (int(cell("channels")), *(int(n) for n in cell("shape")))
        dtype = np.dtype(cell("dtype")).newbyteorder("<")
        path, offset = Path(cell("folder")) / PIXELS, int(cell("offset"))
        return cls(path, offset, shape, dtype, float(cell("scale")), float(cell("intercept")))
