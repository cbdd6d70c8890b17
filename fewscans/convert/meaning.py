"""What a label table says, in our names, and what cannot be meant. Standard library only."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from fewscans.convert import paths as path_rules
from fewscans.convert.rows import Row
from fewscans.convert.slices import split_slice
from fewscans.errors import Problems, did_you_mean

if TYPE_CHECKING:
    from fewscans.config.models import Columns, SplitNames

PARTS = ("train", "val", "test")


def label_rows(
    rows: Sequence[Row],
    columns: Columns,
    problems: Problems,
    place: str,
    *,
    attributes: Sequence[str] = (),
    official: bool = False,
    labelled: bool = True,
) -> list[Row]:
    """Rows with our names: path, label, patient, split (as the table calls it), site, attributes.

    A missing column, a path twice or outside become problems. `official`: the split column is
    needed; `labelled`: the label column is.
    """
    if not rows:
        problems.add(place, "the table has no rows.")
        return []
    header = list(rows[0])
    needed = (
        {"path", "patient"}
        | ({"split"} if official else set())
        | ({"label"} if labelled else set())
    )
    found = _columns_in(header, columns, problems, place, needed)
    for name in attributes:
        if name not in header:
            problems.add(f"{place}.attributes", f"no column '{name}'.{did_you_mean(name, header)}")
    if "path" not in found:
        return []
    normal = path_rules.normal_paths((row[found["path"]] for row in rows), problems, place)
    made: dict[str, Row] = {}
    for row, path in zip(rows, normal, strict=True):
        if path is None or path in made:
            continue
        cells = {ours: row[theirs].strip() for ours, theirs in found.items() if ours != "path"}
        line = {"path": path, "label": "", "patient": "", "split": "", "site": "", **cells}
        line.update(
            {name: row[name].strip() for name in attributes if name in header and name not in line}
        )
        made[path] = line
    return list(made.values())


def _columns_in(
    header: list[str], columns: Columns, problems: Problems, place: str, needed: set[str]
) -> dict[str, str]:
    """Ours -> theirs for columns that are there; one that is needed or was named must be."""
    found = {}
    default = type(columns)()
    for ours in ("path", "label", "patient", "split", "site", "mask"):
        theirs = getattr(columns, ours)
        if theirs is None:
            continue
        if theirs in header:
            found[ours] = theirs
        elif ours in needed or theirs != getattr(default, ours):
            near = [name for name in header if name.lower() == theirs.lower()]
            hint = f" Did you mean '{near[0]}'?" if near else did_you_mean(theirs, header)
            way = "; null if nobody knows whose scan is whose" if ours == "patient" else ""
            problems.add(
                f"{place}.columns.{ours}",
                f"the table has no column '{theirs}'.{hint} (Set the name here{way}.)",
            )
    return found


def check_meaning(
    rows: Sequence[Row],
    problems: Problems,
    place: str,
    *,
    classes: Sequence[str] | None,
    official: bool,
    split_names: SplitNames,
) -> None:
    """Note classes and parts of the split that nobody announced, and patients in two parts."""
    _check_classes(rows, classes, problems, place)
    if not official:
        return
    ours = part_names(split_names)
    unknown = Counter(row["split"] for row in rows if row["split"] and row["split"] not in ours)
    for name, n in unknown.items():
        problems.add(
            f"{place}.split_names",
            f"'{name}' ({n} rows) is no part of the split.{did_you_mean(name, ours)}",
        )
    lost = [row["path"] for row in rows if row["label"] and not row["split"]]
    if lost:
        problems.add(
            place,
            f"{path_rules.count(lost, 'labelled row')} without a part of the split:{path_rules.shown(lost)}",
        )
    for part in ("train", "test"):
        if rows and not any(ours.get(row["split"]) == part for row in rows):
            problems.add(
                f"{place}.split_names.{part}", "no row is in this part of the official split."
            )
    _check_one_part_each(rows, ours, problems, place)


def part_names(names: SplitNames) -> dict[str, str]:
    """What the table calls a part -> train, val or test."""
    return {name: part for part in PARTS for name in getattr(names, part)}


def _check_classes(
    rows: Sequence[Row], classes: Sequence[str] | None, problems: Problems, place: str
) -> None:
    if classes is None:
        return
    found = Counter(row["label"] for row in rows if row["label"])
    for name in [name for name in found if name not in classes]:
        problems.add(
            f"{place}.classes",
            f"'{name}' ({found[name]} rows) is not listed.{did_you_mean(name, classes)}",
        )
    for name in [name for name in classes if name not in found]:
        problems.add(
            f"{place}.classes", f"no row has the label '{name}'.{did_you_mean(name, found)}"
        )


def _check_one_part_each(
    rows: Sequence[Row], ours: Mapping[str, str], problems: Problems, place: str
) -> None:
    parts: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        if row["patient"] and row["split"] in ours:
            parts[row["patient"]].add(ours[row["split"]])
    torn = [
        f"{patient} ({', '.join(sorted(p))})" for patient, p in sorted(parts.items()) if len(p) > 1
    ]
    if torn:
        problems.add(
            place,
            f"{path_rules.count(torn, 'patient')} in more than one part of the official split. Correct the table, "
            f"exclude scans, or take split: grouped.{path_rules.shown(torn)}",
        )


def check_counts(
    rows: list[Row],
    training: set[str] | None,
    folds: int,
    budgets: Sequence[str],
    problems: Problems,
    place: str,
) -> None:
    """Classes, folds and budgets against the number of labelled patients.

    `training`: names of the parts of an official split that are trained on. A scan of nobody is its
    own patient.
    """
    everyone = _patients_by_class(rows)
    if len(everyone) < 2:
        have = f"only '{next(iter(everyone))}'" if everyone else "none"
        problems.add(place, f"at least two classes are needed; the labels hold {have}.")
        return
    n_training = len(set().union(*everyone.values()))
    if training is not None:
        kept = _patients_by_class(row for row in rows if row["split"] in training)
        for name in [name for name in everyone if name not in kept]:
            problems.add(
                place, f"class '{name}' has no scan in the training part of the official split."
            )
        n_training = len(set().union(*kept.values()))
    elif folds:
        for name, patients in everyone.items():
            if len(patients) < folds:
                n = f"{len(patients)} patient{'s' if len(patients) > 1 else ''}"
                problems.add(
                    place,
                    f"class '{name}' has {n}, fewer than {folds} folds. Lower validation.folds, or "
                    "leave the class out.",
                )
        n_training -= n_training // folds  # in the fold that tests fewest
    _check_budgets(budgets, n_training, len(everyone), problems, place)


def _check_budgets(
    budgets: Sequence[str], n_training: int, n_classes: int, problems: Problems, place: str
) -> None:
    for budget in budgets:
        if budget == "all":
            continue
        n = round(n_training * int(budget[:-1]) / 100) if budget.endswith("%") else int(budget)
        if n > n_training:
            problems.add(
                "budgets",
                f"{budget} patients: {place} trains on {n_training} at most. Use all.",
            )
        elif n < n_classes:
            what = (
                f"{budget} of {n_training} patients is {n}"
                if budget.endswith("%")
                else f"{budget} patients"
            )
            problems.add(
                "budgets",
                f"{what}: one of the {n_classes} classes of {place} would be empty. Raise it.",
            )


def _patients_by_class(rows: Iterable[Mapping[str, str]]) -> dict[str, set[tuple[str, str]]]:
    classes: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for row in rows:
        if row["label"]:
            whose = (
                ("patient", row["patient"])
                if row["patient"]
                else ("scan", split_slice(row["path"])[0])
            )
            classes[row["label"]].add(whose)
    return dict(sorted(classes.items()))
