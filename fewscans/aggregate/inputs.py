"""The predictions that a plan names, read and held against each other and against the splits."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from fewscans.contracts import COLUMNS, read_metadata, read_table
from fewscans.errors import Problems
from fewscans.files import digest

SHOWN = 12  # problems of one kind
RUN = ["arm", "budget", "draw", "fold", "seed"]
TEXTS = ["arm", "budget", "fold", "role", "scan", "patient", "group"]
SCANS = ["scan", "patient", "group", "target"]
# What makes a state of labels or splits; the rest (paths, reasons) may change without changing a score.
SAID = [
    "scan",
    "patient",
    "group",
    "target",
    "status",
    "pixel_sha256",
    "fold",
    "role",
    "budget",
    "draw",
    "inner",
]
READ = [*TEXTS, "dataset", "condition", "draw", "seed", "inner", "target"]


@dataclass
class Dataset:
    """One data set's predictions."""

    name: str
    classes: list[str]
    rows: pd.DataFrame
    """A row per predicted scan (columns of the contract but `prob`), sorted by run, role, inner fold and scan."""
    prob: NDArray[np.float64]
    """[len(rows), K]."""
    runs: pd.DataFrame
    """A row per run (arm, budget, draw, fold, seed) with what its metadata says."""
    encoders: dict[tuple[str, str, str, int], dict[str, Any]]
    """(encoder, recipe, fold, seed) -> what its file says."""
    twins: frozenset[str]
    """Test scans with a duplicate in the official training part."""
    flags: frozenset[str]
    """Of the audit: what holds for every row (`no-patient-ids`)."""
    digests: dict[str, str]
    """Of the label table (`data`) and of folds and budgets (`splits`); "" where the file is not here."""


def read_datasets(plan: Mapping[str, Any], root: str | os.PathLike[str] = ".") -> Iterator[Dataset]:
    """Each data set of `plan`, in its order; files are looked for below `root`.

    Raises
    ------
    UserError
        Before anything is scored: every file that is not there. Then, for each data set: what does not fit together
        (classes, test scans, labels, splits), so that no table mixes results of two states of the data.
    """
    root = Path(root)
    problems = Problems(
        "predictions are missing; run the workflow, or `scripts/finetune.py`, first"
    )
    for run in plan["runs"]:
        if run["arms"] and not (root / run["predictions"]).is_file():
            problems.add(run["predictions"], "no such file")
    _raise_some(problems)
    for name in plan["datasets"]:
        yield _read_dataset(plan, name, root)


def _raise_some(problems: Problems) -> None:
    """Raise with the first few problems, and say how many more there are."""
    more = len(problems.lines) - SHOWN
    if more > 0:
        problems.lines = [*problems.lines[:SHOWN], ("...", f"and {more} more")]
    problems.raise_if_any()


def _read_dataset(plan: Mapping[str, Any], name: str, root: Path) -> Dataset:
    problems = Problems(f"{name}: predictions do not fit together")
    tables, runs, encoders = [], [], {}
    classes: dict[tuple[str, ...], str] = {}
    for run in plan["runs"]:
        if run["dataset"] != name or not run["arms"]:
            continue
        path = root / run["predictions"]
        table, metadata = _read_file(path, run, problems)
        classes.setdefault(tuple(metadata.get("classes", ())), run["predictions"])
        encoders[run["encoder"], run["recipe"], run["fold"], run["seed"]] = metadata.get(
            "encoder", {}
        )
        runs += metadata.get("runs", [])
        if table is not None:
            tables.append(table)
    if len(classes) > 1:
        for found, where in classes.items():
            problems.add(
                where,
                f"has the classes {', '.join(found) or '(none)'}. Classes changed; fine-tune again.",
            )
    _raise_some(problems)
    if not tables:
        problems.add(name, "the plan has no run for it")
        problems.raise_if_any()
    rows, prob = _join(pa.concat_tables(tables), len(next(iter(classes))), problems)
    _raise_some(problems)
    facts = pd.DataFrame(runs)
    labels, folds, budgets = _side_tables(plan["datasets"][name], root)
    _check_runs(rows, facts, problems)
    _check_code(facts, encoders, problems)
    _check_scans(rows, facts, labels, list(next(iter(classes))), folds, budgets, problems)
    _raise_some(problems)
    stated = (
        read_metadata(root / plan["datasets"][name]["labels"]).get("flags", [])
        if len(labels)
        else []
    )
    twins = (
        labels.loc[labels["twin"].fillna(False).astype(bool), "scan"] if "twin" in labels else []
    )
    return Dataset(
        name, list(next(iter(classes))), rows, prob, facts, encoders, frozenset(twins), frozenset(stated),
        {"data": _digest(labels), "splits": _digest(folds) and digest([_digest(folds), _digest(budgets)])},
    )  # fmt: skip


def _read_file(
    path: Path, run: Mapping[str, Any], problems: Problems
) -> tuple[pa.Table | None, dict[str, Any]]:
    """Rows of one file, where they are those of `run`."""
    where = run["predictions"]
    missing = [
        column for column in COLUMNS["predictions"] if column not in pq.read_schema(path).names
    ]
    if missing:
        problems.add(where, f"is no table of predictions: columns missing: {', '.join(missing)}")
        return None, {}
    table = pq.read_table(path, columns=[*READ, "prob"])
    table = table.filter(pa.compute.equal(table["condition"], "clean"))
    for column in ("dataset", "fold", "seed"):
        found = set(table[column].unique().to_pylist())
        if found - {run[column]}:
            shown = ", ".join(sorted(map(str, found)))
            problems.add(
                where,
                f"was made for {column} {shown}, and the plan says {run[column]}. Remove it; run again.",
            )
    absent = sorted(set(run["arms"]) - set(table["arm"].unique().to_pylist()))
    if absent:
        problems.add(where, f"lacks {', '.join(absent)}: older than the config. Fine-tune again.")
    # A protocol that was taken out of the config may still stand in the file.
    table = table.filter(pa.compute.is_in(table["arm"], pa.array(run["arms"])))
    metadata = read_metadata(path)
    return table, {
        **metadata,
        "runs": [one for one in metadata.get("runs", []) if one["arm"] in run["arms"]],
    }


def _join(
    table: pa.Table, n_classes: int, problems: Problems
) -> tuple[pd.DataFrame, NDArray[np.float64]]:
    """Rows as a frame with categorical texts, and their probabilities [n, K], in an order of their own."""
    lists = table["prob"].combine_chunks()
    lengths = np.unique(pa.compute.list_value_length(lists).to_numpy(zero_copy_only=False))
    if set(lengths.tolist()) != {n_classes}:
        problems.add(
            "prob",
            f"has lists of length {lengths.tolist()} for {n_classes} classes. Fine-tune again.",
        )
        return pd.DataFrame(), np.empty((0, n_classes))
    prob = lists.flatten().to_numpy(zero_copy_only=False).reshape(-1, n_classes)
    rows = pd.DataFrame(
        {column: table[column].to_numpy() for column in ("draw", "seed", "inner", "target")}
    )
    for column in TEXTS:
        values = table[column].combine_chunks().dictionary_encode()
        rows[column] = pd.Categorical.from_codes(
            values.indices.to_numpy(zero_copy_only=False), values.dictionary.to_pylist()
        )
    bad = ~np.isfinite(prob).all(axis=1)
    for key, _ in rows[bad].groupby(RUN, observed=True):
        problems.add(
            _say(key), "has probabilities that are no numbers: its training diverged. Lower its lr."
        )
    keys = [rows[c].cat.codes if c in TEXTS else rows[c] for c in (*RUN, "role", "inner")]
    # By name, not by code: codes hang on the order of files.
    scans = rows["scan"].cat.codes.map(
        dict(enumerate(np.argsort(np.argsort(rows["scan"].cat.categories))))
    )
    order = np.lexsort([scans, *reversed(keys)])
    return rows.iloc[order].reset_index(drop=True), prob[order]


def _say(key: Any) -> str:
    return " ".join(
        [str(key[0]), *(f"{name} {value}" for name, value in zip(RUN[1:], key[1:], strict=True))]
    )


def _side_tables(
    entry: Mapping[str, Any], root: Path
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Labels, folds and budgets; empty where the file is not here (a table may be rebuilt from predictions alone)."""
    found = []
    for key, contract in (
        ("labels", "labels"),
        ("folds_file", "folds"),
        ("budgets_file", "budgets"),
    ):
        if entry.get(key) and (root / entry[key]).is_file():
            found.append(read_table(root / entry[key], contract))
        else:
            found.append(pd.DataFrame(columns=list(COLUMNS[contract])))
    return found[0], found[1], found[2]


def _digest(table: pd.DataFrame) -> str:
    """Of what a table says, whatever the order of its rows; "" of an empty one."""
    if table.empty:
        return ""
    lines = (
        table[[column for column in SAID if column in table]].astype(str).agg("\x1f".join, axis=1)
    )
    return digest(sorted(lines))


def _check_runs(rows: pd.DataFrame, facts: pd.DataFrame, problems: Problems) -> None:
    """Each run once, with rows and with facts."""
    twice = rows.duplicated([*RUN, "role", "inner", "scan"])
    for key, part in rows[twice].groupby(RUN, observed=True):
        problems.add(
            _say(key), f"predicts {len(part)} scans twice, from two runs. Remove one of the files."
        )
    stated = {tuple(key) for key in facts[RUN].itertuples(index=False)} if len(facts) else set()
    found = {tuple(key) for key in rows[RUN].drop_duplicates().itertuples(index=False)}
    for key in sorted(found ^ stated, key=str):
        problems.add(
            _say(key), "stands in the rows or in the metadata, not in both. Fine-tune again."
        )


def _check_code(
    facts: pd.DataFrame, encoders: Mapping[tuple[Any, ...], Mapping[str, Any]], problems: Problems
) -> None:
    """Each protocol and each pretraining method by one state of the code; files that do not say are passed over."""
    states: dict[str, dict[str, str]] = {}
    for run in facts.to_dict("records") if "code" in facts else []:
        if isinstance(run["code"], str) and run["code"]:
            found = states.setdefault(f"protocol {run['protocol']}", {})
            found.setdefault(run["code"], f"{run['arm']} fold {run['fold']} seed {run['seed']}")
    for (name, recipe, fold, seed), said in encoders.items():
        if said.get("code"):
            found = states.setdefault(f"encoders by {said.get('method', name)}", {})
            found.setdefault(said["code"], f"{name}.{recipe} fold {fold} seed {seed}")
    for what, found in states.items():
        if len(found) > 1:
            problems.add(
                what,
                f"made by {len(found)} states of the code (e.g. {'; '.join(found.values())}): it was edited while jobs "
                "waited. Run again.",
            )


def _check_scans(
    rows: pd.DataFrame,
    facts: pd.DataFrame,
    labels: pd.DataFrame,
    classes: list[str],
    folds: pd.DataFrame,
    budgets: pd.DataFrame,
    problems: Problems,
) -> None:
    """All runs of a fold tested on the same scans, groups and labels, and on those of the split as it is now."""
    test = rows[rows["role"] == "test"]
    again = "made from another state of labels or splits. Fine-tune again."
    for column in ("patient", "group", "target"):
        changed = test.groupby("scan", observed=True)[column].nunique() > 1
        for scan in changed.index[changed]:
            problems.add(
                scan, f"has one {column} in some predictions and another in others: {again}"
            )
    split = (
        folds[folds["role"] == "test"].groupby("fold")["scan"].agg(frozenset) if len(folds) else {}
    )
    labelled = (
        set(labels.loc[(labels["status"] == "ok") & (labels["target"] != ""), "scan"])
        if len(labels)
        else None
    )
    for fold, part in test.groupby("fold", observed=True):
        expected = None
        if fold in split and labelled is not None:
            expected = split[fold] & labelled
        for key, run in part.groupby(RUN, observed=True):
            scans = frozenset(run["scan"])
            expected = scans if expected is None else expected
            if scans != expected:
                problems.add(
                    _say(key),
                    f"tests {len(scans ^ expected)} scans more or fewer than its fold has: {again}",
                )
    if labelled is not None:
        truth = labels.set_index("scan")["target"]
        seen = test[["scan", "target"]].drop_duplicates()
        told = np.array([truth.get(scan, "") for scan in seen["scan"]], dtype=object)
        used = np.array([classes[i] for i in seen["target"]], dtype=object)
        for scan in seen["scan"][told != used]:
            problems.add(str(scan), f"has another label now: {again}")
    if len(budgets) and len(facts):
        sizes = budgets.groupby(["fold", "budget", "draw"]).size().to_dict()
        for run in facts.itertuples(index=False):
            now = sizes.get((run.fold, run.budget, run.draw))
            if now != run.n_labelled_scans:
                key = (run.arm, run.budget, run.draw, run.fold, run.seed)
                problems.add(
                    _say(key),
                    f"learned from {run.n_labelled_scans} labelled scans, now there are {now or 0}: {again}",
                )
