"""From a source to rows of the index, and its pixels to ``pixels.bin``: one scan, or the slices of one volume."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from fewscans.config.stages import ConvertParams
from fewscans.convert import Scan, Unreadable, log, paths, slices
from fewscans.convert.exclude import is_excluded
from fewscans.convert.fingerprint import digest_and_mean
from fewscans.convert.sources import Source
from fewscans.files import sha256_file
from fewscans.privacy.suspect import from_header


def record(
    source: Source, reader: Callable[[Source], Scan], params: ConvertParams, pixels: BinaryIO
) -> Iterator[dict[str, Any]]:
    """Rows of the scans that `source` gives, in order; their pixels and masks are appended to `pixels`.

    The source is decoded once. What cannot be used is a row with the reason. Rows of a private data set have what must
    not leak beside the rest (`fewscans.privacy.converted.hide`), which also logs them under pseudonyms.
    """
    hidden = params.private is not None
    blank = {**_blank(source), **from_header(source.file, hidden)}
    try:
        scan = reader(source)
        parts = _slices(source, scan, params) if params.slices is not None else [(source.path, scan)]  # fmt: skip
    except Unreadable as error:
        if not hidden:
            log.warning("%r: %s: %s", source.path, error.status, error.reason)
        yield {**blank, "status": error.status, "reason": error.reason, "format": error.format}
        return
    for path, part in parts:
        named = {"path": path, "scan": paths.scan_key(params.dataset, path)} if path != source.path else {}  # fmt: skip
        if isinstance(part, Unreadable):
            if not hidden:
                log.warning("%r: %s: %s", path, part.status, part.reason)
            yield {**blank, **named, "status": part.status, "reason": part.reason}
        else:
            yield {**blank, **named, **_written(part, blank["sha256"], pixels)}


def _slices(
    source: Source, scan: Scan, params: ConvertParams
) -> list[tuple[str, Scan | Unreadable]]:
    """(path, slice) of those that the table names, else of those that the rule takes."""
    assert params.slices is not None
    wanted = source.slices or slices.chosen(scan, params.slices)
    if not wanted:
        what = "no slice crosses its mask" if scan.mask is not None else "has no mask to be crossed"
        raise Unreadable(what, "set-aside", scan.meta.format)
    made: list[tuple[str, Scan | Unreadable]] = []
    for plane, number in wanted:
        path = slices.slice_path(source.path, plane, number)
        if is_excluded(path, params.exclude):
            continue
        if number > (n := slices.length(scan, plane)):
            made.append((path, Unreadable(f"no such slice; the volume has {n} {plane} ones")))
        else:
            made.append((path, slices.cut(scan, plane, number)))
    return made


def _blank(source: Source) -> dict[str, Any]:
    return {
        "scan": source.scan,
        "path": source.path,
        "format": "",
        "mode": "",
        "shape": [],
        "spacing_mm": [],
        "affine": [],
        "channels": 0,
        "bits": 0,
        "dtype": "",
        "offset": -1,
        "scale": 1.0,
        "intercept": 0.0,
        "unit": "",
        "mean": None,
        "sha256": _file_digest(source),
        "pixel_sha256": "",
        "status": "ok",
        "reason": "",
        "note": "",
        "volume": source.path,
        "mask_offset": -1,
        "mask_dtype": "",
        "mask_labels": 0,
    }


def _written(scan: Scan, file_digest: str, pixels: BinaryIO) -> dict[str, Any]:
    """What a row says of a scan whose pixels, and mask behind them, were appended to `pixels`."""
    data = np.ascontiguousarray(scan.array.astype(scan.array.dtype.newbyteorder("<"), copy=False))
    meta = scan.meta
    digest, mean = digest_and_mean(scan.array, meta.scale, meta.intercept)
    row = {
        "format": meta.format,
        "mode": meta.mode,
        "shape": list(scan.array.shape[1:]),
        "channels": scan.array.shape[0],
        "spacing_mm": list(scan.spacing_mm),
        "affine": _affine(scan),
        "bits": meta.bits,
        "dtype": scan.array.dtype.name,
        "offset": pixels.tell(),
        "scale": meta.scale,
        "intercept": meta.intercept,
        "unit": meta.unit,
        "note": "; ".join(meta.notes),
        "mean": mean,
        "pixel_sha256": digest,
        "sha256": file_digest or hashlib.sha256(data.data).hexdigest(),
    }
    pixels.write(data.data)
    if scan.mask is not None:
        row.update(mask_offset=pixels.tell(), mask_dtype=scan.mask.dtype.name)
        row["mask_labels"] = int(np.count_nonzero(scan.mask))
        little = scan.mask.dtype.newbyteorder("<")
        pixels.write(np.ascontiguousarray(scan.mask.astype(little, copy=False)).data)
    return row


def _affine(scan: Scan) -> list[float]:
    """12 numbers; to a picometre, so that the rounding of one processor or another is not in them."""
    return [] if scan.affine is None else (scan.affine[:3].round(9) + 0.0).ravel().tolist()


def _file_digest(source: Source) -> str:
    """SHA-256 of the file's bytes; empty where it has none of its own, or cannot be opened.

    Of a scan of several files: over their digests, in an order that no name decides.
    """
    try:
        if len(source.files) > 1:
            digests = sorted(map(_digest, source.files))
            return hashlib.sha256("".join(digests).encode()).hexdigest()
        return _digest(source.file) if source.file is not None and source.file.is_file() else ""
    except OSError:
        return ""


def _digest(file: Path) -> str:
    return _digest_once(file, file.stat().st_mtime_ns)


@lru_cache(maxsize=2)
def _digest_once(file: Path, changed: int) -> str:
    """Kept while the next volume comes from the same file, or from a header and its voxels."""
    return sha256_file(file)
