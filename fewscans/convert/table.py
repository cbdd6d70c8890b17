"""Label tables: what they say, and everything that is wrong with them, before any job starts.

Reading is done with the standard library (Parquet needs pyarrow, .npz needs numpy, both only then),
because the Snakefile reads these tables each time it is parsed. Cells are text; an empty one means:
not known.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from fewscans.convert import paths as path_rules
from fewscans.convert.exclude import apply_exclude
from fewscans.convert.meaning import check_counts, check_meaning, label_rows, part_names
from fewscans.convert.rows import Row, read_rows
from fewscans.errors import Problems, UserError

if TYPE_CHECKING:
    import pandas as pd

    from fewscans.config.models import Columns, DatasetSettings
    from fewscans.config.stages import AuditParams

__all__ = ["Place", "Row", "check_dataset", "read_labels", "read_rows"]


def read_labels(params: AuditParams, index: pd.DataFrame) -> pd.DataFrame:
    """Frame path, label, patient, split, site, attributes: text, for scans of `index` with a row.

    The row of a scan is that of its `source`: one that names a folder is about every volume in it.
    An empty cell means: not known, the patient included. `split` is as the table calls it. Without
    a table the first folder of a path is its class.

    Raises
    ------
    UserError
        With all that is wrong with the table.
    """
    import pandas as pd

    problems = Problems(f"data set {params.dataset}")
    attributes = params.attributes if params.table else []
    official = params.split == "official" and not params.pool
    # Without a table the class is that of the volume, not of the slice.
    volumes = index.get("volume", index["path"])
    rows, columns = _rows_of(params.table, params.npz, volumes.drop_duplicates(), params.columns)
    made = label_rows(
        rows,
        columns,
        problems,
        "table",
        attributes=attributes,
        official=official,
        labelled=not params.pool,
    )
    by_path = {row["path"]: row for row in made}
    sources = index.get("source", index["path"]) if params.table else volumes
    there = set(sources)
    made = [row for row in made if row["path"] in there]  # the others are excluded
    named = zip(index["path"], sources, strict=True)
    scans = [{**by_path[row], "path": path} for path, row in named if row in by_path]
    classes = None if params.pool else params.classes
    check_meaning(
        made, problems, "table", classes=classes, official=official, split_names=params.split_names
    )
    problems.raise_if_any()
    wanted = ["path", "label", "patient", "split", "site", *attributes]
    return pd.DataFrame(scans, columns=list(dict.fromkeys(wanted)), dtype=str)


def _rows_of(
    table: str | None,
    npz: str | None,
    paths: Iterable[str],
    columns: Columns,
    ndim: int | None = None,
) -> tuple[list[Row], Columns]:
    """(rows as they stand, names of their columns)."""
    if table is not None:
        return read_rows(table), columns
    named = type(columns)(patient=None)
    return (_npz_rows(npz, ndim) if npz is not None else _folder_rows(paths)), named


def _folder_rows(paths: Iterable[str]) -> list[Row]:
    return [{"path": path, "label": path_rules.class_of(path)} for path in paths]


def _npz_rows(npz: str, ndim: int | None) -> list[Row]:
    from fewscans.convert.npz import label_rows_of

    return label_rows_of(npz, ndim)


class Place(Protocol):
    """Resolved paths of a data set."""

    @property
    def root(self) -> str | None:
        """Folder of the scans."""

    @property
    def table(self) -> str | None:
        """Label table."""

    @property
    def npz(self) -> str | None:
        """File in MedMNIST's layout."""


def check_dataset(
    name: str,
    dataset: DatasetSettings,
    where: Place,
    problems: Problems,
    *,
    folds: int = 0,
    budgets: Sequence[str] = (),
    pool: bool = False,
    ndim: int = 2,
) -> list[Row]:
    """Label rows of a data set; everything wrong with it that shows without pixels is noted.

    Parameters
    ----------
    where
        Resolved paths.
    folds, budgets
        Of the config: a class needs a patient for each fold, a budget one for each class.
    pool
        Only pretrained on: labels, folds and budgets don't matter.
    ndim
        Axes of space that scans must have; an .npz tells them before it is unpacked.
    """
    place = f"datasets.{name}"
    ndim = 3 if dataset.slices is not None else ndim  # slices are cut from volumes
    if dataset.phantom is not None or not _check_there(dataset, where, problems, place):
        return []
    root = Path(where.root or ".")
    paths = path_rules.walk_classes(root, ndim) if where.root and not where.table else []
    try:
        rows, columns = _rows_of(where.table, where.npz, paths, dataset.columns, ndim)
    except UserError as error:
        for key, message in error.problems or [("", error.title)]:
            problems.add(
                f"{place}.{'table' if where.table else 'npz'}",
                f"{key}: {message}" if key else message,
            )
        return []
    official = dataset.split == "official" and not pool
    made = label_rows(
        rows,
        columns,
        problems,
        place,
        attributes=dataset.attributes if where.table else (),
        official=official,
        labelled=not pool,
    )
    kept = set(apply_exclude([row["path"] for row in made], dataset.exclude, problems, place))
    made = [row for row in made if row["path"] in kept]
    if where.root:
        named = [row["path"] for row in made]
        path_rules.check_files(named, root, problems, place, folders=ndim == 3)
        if where.table and ndim == 3:
            path_rules.check_apart(named, problems, place)
        _check_masks(dataset, made, root, problems, place)
    if made and not pool:
        check_meaning(
            made,
            problems,
            place,
            classes=dataset.classes,
            official=official,
            split_names=dataset.split_names,
        )
        training = {
            name for name, part in part_names(dataset.split_names).items() if part != "test"
        }
        check_counts(made, training if official else None, folds, budgets, problems, place)
    return made


def _check_masks(
    dataset: DatasetSettings, rows: Iterable[Row], root: Path, problems: Problems, place: str
) -> None:
    cells = [(row["path"], row.get("mask", "")) for row in rows]
    masks = path_rules.normal_masks(cells, problems, f"{place}.columns.mask")
    named = sorted({mask for _, mask in masks})
    path_rules.check_files(named, root, problems, f"{place}.columns.mask")
    if dataset.slices is not None and dataset.slices.crossing_mask and not masks:
        problems.add(
            f"{place}.slices.crossing_mask",
            f"no row of the table names a mask (column '{dataset.columns.mask}').",
        )


def _check_there(dataset: DatasetSettings, where: Place, problems: Problems, place: str) -> bool:
    source = f" The data set is to be had at: {dataset.source}." if dataset.source else ""
    if where.npz is not None and not Path(where.npz).is_file():
        problems.add(
            f"{place}.npz", f"no such file: {where.npz}.{source} Correct it, or data_root."
        )
        return False
    if where.npz is None and not Path(where.root or ".").is_dir():
        problems.add(
            f"{place}.root", f"no such folder: {where.root}.{source} Correct it, or data_root."
        )
        return False
    return True
