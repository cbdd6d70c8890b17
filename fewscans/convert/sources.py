"""Which scans a data set has, and in which chunk each is converted. No pixels are read here."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from fewscans.config.stages import ConvertParams
from fewscans.convert import Scan, paths, read
from fewscans.convert.rows import read_rows
from fewscans.errors import Problems, UserError


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
        The file; None in an .npz.
    """

    scan: str
    path: str
    file: Path | None = None


def list_scans(params: ConvertParams) -> list[Source]:
    """All scans of a data set, of all chunks, by path.

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
        given = paths.walk_classes(root)
    normal = paths.normal_paths(given, problems, "table" if params.table else "root")
    found = list(dict.fromkeys(path for path in normal if path is not None))
    kept = paths.apply_exclude(found, params.exclude, problems, "convert")
    if not kept:
        problems.add("root", f"no scan is left below {root}.")
    paths.check_files(kept, root, problems, "table" if params.table else "root")
    problems.raise_if_any()
    return sorted(
        (Source(paths.scan_key(params.dataset, path), path, root / path) for path in kept),
        key=lambda source: source.path,
    )


def _list_npz(params: ConvertParams, problems: Problems) -> list[Source]:
    from fewscans.convert.npz import read_members, row_path

    found = []
    for key, member in read_members(str(params.npz), params.ndim).items():
        part, _, what = key.partition("_")
        if what == "images":
            found += [row_path(part, number) for number in range(member.shape[0])]
    kept = paths.apply_exclude(found, params.exclude, problems, "convert")
    problems.raise_if_any()
    return [Source(paths.scan_key(params.dataset, path), path) for path in sorted(kept)]


def in_chunk(sources: list[Source], chunk: int, chunks: int) -> list[Source]:
    """Those of `sources` that chunk number `chunk` of `chunks` converts."""
    return [source for source in sources if paths.chunk_of(source.scan, chunks) == chunk]


@contextlib.contextmanager
def open_reader(params: ConvertParams) -> Iterator[Callable[[Source], Scan]]:
    """Yield the function that reads a source; an .npz stays open as long."""
    if params.npz is None:
        yield lambda source: read(source.file or source.path, params.ndim)
        return
    from fewscans.convert.npz import NpzReader

    reader = NpzReader(params.npz, params.ndim)
    try:
        yield lambda source: reader.read(*_part_and_number(source.path))
    finally:
        reader.close()


def _part_and_number(path: str) -> tuple[str, int]:
    part, _, number = path.partition("/")
    return part, int(number)
