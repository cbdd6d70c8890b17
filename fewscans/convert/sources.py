"""Which scans a data set has, and in which chunk each is converted. No pixels are read here."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from fewscans.config.stages import ConvertParams
from fewscans.convert import Scan, Unreadable, in_words, paths, read
from fewscans.convert.exclude import apply_exclude
from fewscans.convert.pairs import files_of
from fewscans.convert.rows import read_rows
from fewscans.convert.slices import split_slice
from fewscans.errors import Problems, UserError

if TYPE_CHECKING:
    from fewscans.convert.series import Volume


@dataclass(frozen=True)
class Source:
    """A scan before it is read.

    Attributes
    ----------
    scan : str
        Its key.
    path : str
        Relative to the data set's root, with '/'; ``train/000012`` in an .npz.
    file : Path or None
        The file, or a folder of volumes until they are found (`fewscans.convert.unfold`); None in an .npz.
    number : int
        Frame or volume that is meant, from 1; 0: all.
    files : tuple of Path
        Those that it consists of, where it is put together from several.
    volume : Volume or None
        Planes of a DICOM volume.
    problem : Unreadable or None
        Why it is not to be read, where that is known already.
    beside : bool
        Whether it only lies beside volumes, in a folder that was named: a localiser stops no run.
    slices : tuple of (plane, number)
        Those that the table names of this volume; without any the rule of the data set takes them.
    mask : Path or None
        Its label map.
    note : str
        What is known of it from elsewhere than its file.
    """

    scan: str
    path: str
    file: Path | None = None
    number: int = 0
    files: tuple[Path, ...] = ()
    volume: Volume | None = None
    problem: Unreadable | None = None
    beside: bool = False
    slices: tuple[tuple[str, int], ...] = ()
    mask: Path | None = None
    note: str = ""


def list_scans(params: ConvertParams) -> list[Source]:
    """All scans of a data set, of all chunks, by path; a folder of volumes is one until it is unfolded.

    Raises
    ------
    UserError
        With everything wrong: paths that are absolute, leave root, stand twice or are not there; no
        scan at all.
    """
    problems = Problems(f"data set {params.dataset}")
    if params.npz is not None:
        return _list_npz(params, problems)
    if params.root is None:
        raise UserError(f"data set {params.dataset}: give root (with table or not), or npz.")
    root = Path(params.root)
    if not root.is_dir():
        raise UserError(f"data set {params.dataset}: root: no such folder: {root}")
    if params.table is not None:
        rows = read_rows(params.table, [params.path_column])
        given = [row[params.path_column] for row in rows]
    else:
        given = paths.walk_classes(root, params.read_ndim)
    normal = paths.normal_paths(given, problems, "table" if params.table else "root")
    found = list(dict.fromkeys(path for path in normal if path is not None))
    kept = apply_exclude(found, params.exclude, problems, "convert")
    if not kept:
        problems.add("root", f"no scan is left below {root}.")
    place = "table" if params.table else "root"
    masks = _masks(params, set(kept), problems)
    paths.check_files(kept, root, problems, place, folders=params.read_ndim == 3)
    if params.table is not None and params.read_ndim == 3:
        paths.check_apart(kept, problems, place)
    problems.raise_if_any()
    made = []
    for path, numbers in _by_volume(kept, params).items():
        key, masked = paths.scan_key(params.dataset, path), masks.get(path)
        file, number = paths.named_file(path, root)
        named = Source(key, path, file, number, files_of(file), slices=numbers)
        made.append(replace(named, mask=root / masked if masked else None))
    return made


def _by_volume(kept: list[str], params: ConvertParams) -> dict[str, tuple[tuple[str, int], ...]]:
    """Path of each source, sorted -> the slices of it that are named."""
    found: dict[str, list[tuple[str, int]]] = {}
    for path in sorted(kept):
        volume, plane, number = split_slice(path) if params.slices is not None else (path, "", 0)
        found.setdefault(volume, []).extend([(plane, number)] if plane else [])
    return {path: tuple(sorted(numbers)) for path, numbers in sorted(found.items())}


def _masks(params: ConvertParams, kept: set[str], problems: Problems) -> dict[str, str]:
    """Path of a source -> that of its mask, from the table; empty cells are left out."""
    if params.table is None or params.mask_column is None:
        return {}
    rows = read_rows(params.table)
    if not rows or params.mask_column not in rows[0]:
        return {}
    found: dict[str, str] = {}
    cells = [(row[params.path_column], row[params.mask_column].strip()) for row in rows]
    for path, mask in paths.normal_masks(cells, problems, "table"):
        if path in kept:
            found[split_slice(path)[0] if params.slices is not None else path] = mask
    paths.check_files(sorted(set(found.values())), Path(str(params.root)), problems, "table")
    return found


def _list_npz(params: ConvertParams, problems: Problems) -> list[Source]:
    from fewscans.convert.npz import read_members, row_path

    found = []
    for key, member in read_members(str(params.npz), params.read_ndim).items():
        part, _, what = key.partition("_")
        if what == "images":
            found += [row_path(part, number) for number in range(member.shape[0])]
    kept = apply_exclude(found, params.exclude, problems, "convert")
    problems.raise_if_any()
    return [Source(paths.scan_key(params.dataset, path), path) for path in sorted(kept)]


def in_chunk(sources: list[Source], chunk: int, chunks: int) -> list[Source]:
    """Those of `sources` that chunk number `chunk` of `chunks` converts."""
    return [source for source in sources if paths.chunk_of(source.scan, chunks) == chunk]


@contextlib.contextmanager
def open_reader(params: ConvertParams) -> Iterator[Callable[[Source], Scan]]:
    """Yield the function that reads a source; an .npz stays open as long."""
    if params.npz is None:
        yield lambda source: _read(source, params.read_ndim)
        return
    from fewscans.convert.npz import NpzReader

    reader = NpzReader(params.npz, params.read_ndim)
    try:
        yield lambda source: reader.read(*_part_and_number(source.path))
    finally:
        reader.close()


def _read(source: Source, ndim: int) -> Scan:
    scan = _read_pixels(source, ndim)
    if source.note:
        scan = replace(scan, meta=replace(scan.meta, notes=(*scan.meta.notes, source.note)))
    if source.mask is None:
        return scan
    from fewscans.convert.masks import with_mask

    return with_mask(scan, source.mask, ndim)


def _read_pixels(source: Source, ndim: int) -> Scan:
    if source.problem is not None:
        raise source.problem
    if source.volume is not None:
        from fewscans.convert.series_pixels import read_series

        with in_words(Path(source.path), "DICOM"):
            return read_series(source.volume)
    frame = source.number - 1 if source.number else None
    return read(source.file or source.path, ndim, frame)


def _part_and_number(path: str) -> tuple[str, int]:
    part, _, number = path.partition("/")
    return part, int(number)
