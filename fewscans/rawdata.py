"""Where raw scans are, whether all are there, and a fingerprint of them. Light: imported at each parse."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from fewscans.config import Config
from fewscans.config.values import ValueTable
from fewscans.convert.layouts import is_layout, table_beside
from fewscans.convert.pairs import files_of
from fewscans.convert.paths import named_file, split_number
from fewscans.convert.rows import read_rows
from fewscans.convert.slices import split_slice
from fewscans.convert.table import check_dataset
from fewscans.convert.values import check_tables
from fewscans.errors import Problems, UserError
from fewscans.files import digest
from fewscans.plan import Plan

# Of a chunk of scans: more files than this are two jobs' work (half a minute of DICOM, some minutes of packed NIfTI).
CHUNK_BYTES = 2_000_000_000
MOST_CHUNKS = 512
# Values of a generated cohort.
LABS = "labs.csv"


@dataclass(frozen=True)
class Place:
    """Resolved paths of a data set; None where it has no such thing."""

    root: str | None = None
    table: str | None = None
    npz: str | None = None


def resolve(config: Config, name: str) -> Place:
    """Where data set `name` is: relative roots start at ``data_root``, relative tables at the root.

    A folder in a layout that is known (BIDS, Decathlon) has a table without naming it.
    """
    dataset = config.datasets[name]
    if dataset.phantom is not None:
        raw = Path(config.work, name, "raw")
        return Place(str(raw), str(raw / "labels.csv"))
    if dataset.npz is not None:
        return Place(npz=str(Path(config.data_root, dataset.npz)))
    root = Path(config.data_root, dataset.root or ".")
    table = root / dataset.table if dataset.table else table_beside(root)
    return Place(str(root), str(table) if table else None)


def resolve_values(config: Config, name: str) -> dict[str, ValueTable]:
    """Tables of values of data set `name`: files resolved, columns of the label table left out where none are named."""
    dataset, place = config.datasets[name], resolve(config, name)
    root = Path(place.root) if place.root is not None else Path(place.npz or ".").parent
    taken = [column for column in dataset.columns.model_dump().values() if column is not None]
    return {
        key: given.model_copy(
            update={"table": str(root / given.table), "exclude": [*given.exclude, *taken]}
        )
        for key, given in dataset.values.items()
    }


def check_config(plan: Plan) -> None:
    """Everything that tables and folders can tell before any job starts, all problems at once.

    Raises
    ------
    UserError
        Folder, table, column or file not there; paths that leave the root; doubled rows; classes or patients too few.
    """
    problems = Problems("data sets")
    for name, dataset in plan.config.datasets.items():
        if dataset.phantom is not None:
            _check_phantom(name, dataset.values, problems)
            continue
        place = resolve(plan.config, name)
        rows = check_dataset(
            name,
            dataset,
            place,
            problems,
            folds=plan.config.validation.folds if dataset.split == "grouped" else 0,
            budgets=plan.config.budgets,
            pool=name not in plan.evaluated,
            ndim=plan.config.ndim,
        )
        tables = resolve_values(plan.config, name)
        check_tables(tables, rows, dataset.columns.label, problems, f"datasets.{name}")
    _check_weights(plan, problems)
    problems.raise_if_any()


def _check_phantom(name: str, values: Mapping[str, ValueTable], problems: Problems) -> None:
    """A generated cohort has one table of values; others may be named by their whole path."""
    for key, given in values.items():
        if given.table != LABS and not Path(given.table).is_absolute():
            problems.add(
                f"datasets.{name}.values.{key}.table",
                f"a generated cohort has {LABS} alone. Name that.",
            )


def _check_weights(plan: Plan, problems: Problems) -> None:
    for name, encoder in plan.encoders.items():
        start = getattr(encoder.settings, "start", None)
        if start and "/" in start and not Path(start).exists():
            problems.add(
                f"encoders.{name}.start",
                f"{start}: no such file or folder. Give a .safetensors or .pth file, or an encoder's folder.",
            )
        weights = getattr(encoder.settings, "weights", None)
        if weights and not Path(weights).is_file():
            problems.add(
                f"encoders.{name}.weights",
                f"{weights}: no such file. Give a .safetensors or .pth file.",
            )


def fingerprint(config: Config, name: str) -> str:
    """Digest of the scans' paths, sizes and modification times: what `convert` depends on. Labels are not in it."""
    dataset = config.datasets[name]
    if dataset.phantom is not None:
        return "generated"
    return _files(resolve(config, name), dataset.columns.path, dataset.columns.mask).digest


def chunks_of(config: Config, name: str) -> int:
    """Jobs that convert data set `name`: as asked for, else by the bytes of its files.

    A power of two, so that another scan hardly ever changes it. A generated cohort and an .npz, which is read from its
    beginning by each chunk, have one.
    """
    dataset = config.datasets[name]
    if dataset.chunks is not None:
        return dataset.chunks
    place = resolve(config, name)
    if dataset.phantom is not None or place.npz:
        return 1
    try:
        n_bytes = _files(place, dataset.columns.path, dataset.columns.mask).n_bytes
    except UserError:  # what is wrong with the table is said elsewhere, in words
        return 1
    chunks = 1
    while n_bytes > chunks * CHUNK_BYTES and chunks < MOST_CHUNKS:
        chunks *= 2
    return chunks


@dataclass(frozen=True)
class Files:
    """What is kept of the files of a data set while the workflow is parsed: each job of it is asked for them."""

    digest: str
    n_bytes: int


@lru_cache
def _files(place: Place, path_column: str, mask_column: str) -> Files:
    """Of all files that are converted, masks too; looked at once."""
    if place.npz:
        found = _stat(Path(place.npz))
        return Files(digest([found]), max(0, found[0]))
    files = _listed(place, path_column, mask_column)
    # Rows that name slices, frames, or volumes of one folder or file, name its files several times.
    sizes = {(split_number(split_slice(path)[0])[0], max(0, size)) for path, size, _ in files}
    return Files(digest(files), sum(size for _, size in sizes))


def _listed(place: Place, path_column: str, mask_column: str) -> list[list[Any]]:
    """[path, bytes, time] of each file."""
    assert place.root is not None
    if place.table:
        paths = []
        for row in read_rows(place.table):
            if row.get(mask_column, "").strip():
                paths.append(row[mask_column].strip())
            if not row.get(path_column):  # a fault that is told elsewhere
                continue
            named = named_file(row[path_column], Path(place.root))[0]
            # A folder of volumes depends on all that is in it.
            paths += _files_below(named, place.root) if named.is_dir() else [row[path_column]]
    else:
        paths = _files_below(Path(place.root), place.root)
    root = Path(place.root)
    files = [(path, named_file(path, root)[0]) for path in paths]
    # Of a header that is apart from its voxels, both files count.
    return [[path, *_stat(one)] for path, file in files for one in files_of(file) or (file,)]


def layout(config: Config, name: str) -> str:
    """Digest of what a layout says of data set `name` in files beside its table; empty where it has a plain table."""
    table = resolve(config, name).table
    if config.datasets[name].phantom is not None or table is None or not is_layout(Path(table)):
        return ""
    return digest(read_rows(table))


def _files_below(folder: Path, root: str) -> list[str]:
    return sorted(
        str(Path(here, file).relative_to(root))
        for here, _, files in os.walk(folder)
        for file in files
    )


def _stat(path: Path) -> list[int]:
    try:
        found = path.stat()
    except OSError:
        return [-1, -1]
    return [found.st_size, int(found.st_mtime)]
