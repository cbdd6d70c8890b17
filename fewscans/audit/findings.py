"""What the audit found, in rows that a report can show: what, how bad, where, and what was done."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from fewscans.contracts import COLUMNS

MOST_ROWS = 200  # of one check; the rest is one row that says how many
LARGE_GROUP = 0.05  # share of the patients
FEW_AT_SITE = 5  # labelled scans that may be of one class by chance


@dataclass
class Findings:
    """Collects rows of the contract `findings`; `attribute` and `p` are of the shortcut test."""

    rows: list[dict[str, object]] = field(default_factory=list)

    def add(
        self,
        check: str,
        severity: str,
        message: str,
        action: str = "",
        *,
        scan: str = "",
        path: str = "",
        value: float = math.nan,
        low: float = math.nan,
        high: float = math.nan,
        attribute: str = "",
        p: float = math.nan,
    ) -> None:
        """Note one finding; `severity` is info, warning or error."""
        self.rows.append(
            {
                "check": check,
                "severity": severity,
                "scan": scan,
                "path": path,
                "message": message,
                "action": action,
                "value": value,
                "low": low,
                "high": high,
                "attribute": attribute,
                "p": p,
            }
        )

    def each(
        self, scans: pd.DataFrame, check: str, severity: str, messages: pd.Series | str, action: str
    ) -> None:
        """Note one finding per row of `scans` (`scan, path`)."""
        said = (
            messages if isinstance(messages, pd.Series) else pd.Series(messages, index=scans.index)
        )
        told = said.reindex(scans.index)
        for scan, path, words in zip(scans["scan"], scans["path"], told, strict=True):
            self.add(check, severity, str(words), action, scan=str(scan), path=str(path))

    def frame(self) -> pd.DataFrame:
        """All rows, by severity, then as noted; beyond 200 of one check they are counted in one."""
        frame = pd.DataFrame(self.rows, columns=[*COLUMNS["findings"], "attribute", "p"])
        nth = frame.groupby(["check", "severity"], sort=False).cumcount()
        kept = [frame[nth < MOST_ROWS]]
        for (check, severity), n in (
            frame[nth >= MOST_ROWS].groupby(["check", "severity"], sort=False).size().items()
        ):
            rest = Findings()
            rest.add(str(check), str(severity), f"and {n} more", value=float(n))
            kept.append(pd.DataFrame(rest.rows))
        joined = pd.concat(kept, ignore_index=True) if len(kept) > 1 else kept[0]
        rank = joined["severity"].map({"error": 0, "warning": 1, "info": 2})
        return joined.iloc[np.argsort(rank.to_numpy(), kind="stable")].reset_index(drop=True)


def note_files(
    found: Findings, scans: pd.DataFrame, blank: np.ndarray, constant: np.ndarray
) -> None:
    """Files that cannot be used or show nothing, and scans without a label."""
    broken = scans[~scans["status"].isin(["ok", "not-in-table"])]
    found.each(broken, "unreadable", "warning", broken["reason"].fillna("").astype(str), "left out")
    unlisted = scans[scans["status"] == "not-in-table"]
    found.each(
        unlisted, "not-in-table", "warning", "the label table does not name this file", "left out"
    )
    ok = (scans["status"] == "ok").to_numpy(bool)
    found.each(
        scans[ok & constant],
        "blank",
        "warning",
        "one value everywhere",
        "kept; joins no duplicates",
    )
    found.each(
        scans[ok & blank & ~constant], "blank", "warning", "one value in 99 % of the pixels", "kept"
    )
    bare = scans[ok & (scans["target"] == "").to_numpy()]
    found.each(bare, "unlabelled", "info", "no label", "joins pretraining")
    _note_values(found, scans[ok])


def _note_values(found: Findings, scans: pd.DataFrame) -> None:
    """Scans whose values were not taken as they stand: remarks of the reader, and a rescale unlike its format's."""
    remarks = scans.get("note", pd.Series("", index=scans.index)).fillna("").astype(str)
    told = scans[remarks != ""]
    found.each(
        told, "values", "info", remarks[told.index], "read so that it compares with the others"
    )
    for _, same in scans.groupby("format", sort=True):
        rescale = list(zip(same["scale"], same["intercept"], strict=True))
        seen = Counter(rescale)
        usual = max(sorted(seen), key=seen.__getitem__)
        other = same[[one != usual for one in rescale]]
        message = pd.Series(
            [
                f"stored values x {a:g} {b:+g}, elsewhere x {usual[0]:g} {usual[1]:+g}"
                for a, b in zip(other["scale"], other["intercept"], strict=True)
            ],
            index=other.index,
            dtype=object,
        )
        found.each(other, "values", "info", message, "rescaled to physical units")


def note_patients(found: Findings, scans: pd.DataFrame, groups: pd.DataFrame) -> None:
    """Missing patient ids, and a group so large that single linkage may have chained."""
    unknown = scans[~scans["known_patient"] & (scans["status"] == "ok")]
    if len(unknown) and not scans["known_patient"].any():
        found.add(
            "no-patient-ids",
            "warning",
            "no scan has a patient id: scans of one patient may be on both sides",
            "each scan is a patient of its own; duplicates are grouped",
            value=float(len(unknown)),
        )
    else:
        found.each(unknown, "no-patient-id", "warning", "no patient id", "a patient of its own")
    if len(groups) == 0:
        return
    n_patients, largest = scans["patient"].nunique(), groups.iloc[0]
    share = float(largest["n_patients"] / n_patients)
    # A single patient is no chain, however few patients there are.
    if largest["n_patients"] > 1 and share > LARGE_GROUP:
        found.add(
            "large-group",
            "warning",
            f"the largest group joins {largest['n_patients']} of {n_patients} patients",
            "kept together; if these are not duplicates, raise `near_duplicate`",
            value=share,
        )


def note_pairs(found: Findings, pairs: pd.DataFrame, official: bool) -> None:
    """Duplicates across patients, and across the official test part."""
    inside = pairs["patient_a"] == pairs["patient_b"]
    for kind, said in (("exact", "has the same pixels as"), ("near", "is a near duplicate of")):
        crossing = pairs[~inside & (pairs["kind"] == kind)]
        for row in crossing.itertuples():
            found.add(
                f"{kind}-duplicate",
                "warning",
                f"{said} {row.path_b} of another patient",
                "one group",
                scan=row.scan_a,
                path=row.path_a,
                value=row.correlation,
            )
    if inside.any():
        found.add(
            "duplicate-within-patient",
            "info",
            f"{int(inside.sum())} pairs of duplicates within one patient",
            "one group anyway",
            value=float(inside.sum()),
        )
    action = "grouped split: one group, on one side"
    if official:
        action = "training members of the group leave; the test set stays whole, marked `twin`"
    for row in pairs[(pairs["split_a"] == "test") != (pairs["split_b"] == "test")].itertuples():
        if not (row.split_a and row.split_b):
            continue
        tested, trained = ("a", "b") if row.split_a == "test" else ("b", "a")
        found.add(
            "duplicate-across-splits",
            "warning",
            f"test scan; {row.kind} duplicate of training scan {getattr(row, f'path_{trained}')}",
            action,
            scan=getattr(row, f"scan_{tested}"),
            path=getattr(row, f"path_{tested}"),
            value=row.correlation,
        )


def note_classes(found: Findings, scans: pd.DataFrame) -> None:
    """How many scans, patients and groups each class has."""
    labelled = scans[(scans["status"] == "ok") & (scans["target"] != "")]
    for label, members in labelled.groupby("target", sort=True):
        n = members["patient"].nunique()
        found.add(
            "class",
            "info",
            f"class '{label}': {len(members)} scans, {n} patients, "
            f"{members['group'].nunique()} groups",
            value=float(n),
        )


def note_across(found: Findings, what: str, names: list[str]) -> None:
    """Patients (`what`: patient) or papers (origin) on both sides of the official split."""
    for name in names:
        said = f"{what} '{name}' is in the training and the test part"
        found.add(f"{what}-across-splits", "warning", said)


def note_balance(found: Findings, scans: pd.DataFrame) -> None:
    """Classes by site and by official part; a warning where one has a class alone, or lacks one."""
    labelled = scans[(scans["status"] == "ok") & (scans["target"] != "")]
    classes = sorted(set(labelled["target"]))
    for column in ("site", "split"):
        given = labelled[labelled[column] != ""]
        if given[column].nunique() < 2:
            continue
        for name, members in given.groupby(column, sort=True):
            counts = members["target"].value_counts()
            said = ", ".join(f"{int(counts.get(label, 0))} '{label}'" for label in classes)
            lacking = [label for label in classes if label not in counts]
            few = len(members) < FEW_AT_SITE
            bad = len(classes) > 1 and bool(lacking) and (column == "split" or not few)
            told = "; no score of this class" if column == "split" else "; the site tells the label"
            found.add(
                "class-balance",
                "warning" if bad else "info",
                f"{column} '{name}': {said}{told if bad else ''}",
                value=float(len(members)),
            )


def note_shortcuts(found: Findings, table: pd.DataFrame) -> None:
    """One row per attribute: a warning where the label can be told from it."""
    for row in table.itertuples():
        source = "all attributes together" if row.attribute == "all" else row.attribute
        interval = f"95 % interval {row.low:.2f} to {row.high:.2f}; chance is 0.50"
        found.add(
            "shortcut",
            "warning" if row.warn else "info",
            f"label predicted from {source}: AUC {row.auc:.2f} ({interval})",
            "none; a network may learn this instead of the disease" if row.warn else "",
            value=row.auc,
            low=row.low,
            high=row.high,
            attribute=row.attribute,
            p=row.p_holm,
        )
