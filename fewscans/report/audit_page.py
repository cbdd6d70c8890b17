"""The audit's own page: what was found in words, tables and pictures; complete in itself, no script, no network.

Two of them: for those who hold the data, with paths; and one that may be shown, where scans are called by their keys.
"""

from __future__ import annotations

from typing import Any

import pandas as pd

from fewscans.config.stages import AuditPageParams
from fewscans.report.audit import RANK, TITLES
from fewscans.report.audit_template import page_template
from fewscans.report.audited import Audited, Names

MOST_PAIRS, MOST_SCANS = 24, 12  # shown with pictures; the tables hold all
MOST_GROUPS = 10
# Checks of single scans that a picture tells more of than words.
LOOKS = ("blank", "clipped", "tiny", "odd-shape", "outlier")


def page(audited: Audited, params: AuditPageParams, *, keys: bool) -> str:
    """HTML; with `keys` it names neither path nor patient."""
    names = Names(audited, keys)
    warned = audited.findings[audited.findings["severity"] != "info"]
    return page_template().render(
        title=f"Audit of {params.dataset}",
        lead=_lead(audited),
        n_warnings=len(warned),
        keys=keys,
        checks=_checks(audited, names),
        shortcuts=_shortcuts(audited),
        shortcut_method=audited.facts.get("shortcut", ""),
        contradictions=_pairs(audited, names, _opposite(audited.duplicates)),
        torn=_torn(audited, names),
        kept=params.contradictions == "keep",
        across=_pairs(audited, names, _across(audited.duplicates)),
        others=_pairs(audited, names, _other_patients(audited.duplicates)),
        threshold=f"{params.near_duplicate:g}",
        looks=[_look(audited, names, check) for check in LOOKS if len(audited.found(check))],
        balance=[_balance(audited, column) for column in ("split", "site")],
        groups=_groups(audited),
    )


def _scan(audited: Audited, names: Names, scan: str, target: str, split: str) -> dict[str, str]:
    """What a caption says of a scan, and its picture."""
    words = [f"labelled '{target}'" if target else "no label", f"{split} part" if split else ""]
    said = ", ".join(word for word in words if word)
    return {"name": names.scan(scan), "said": said, "src": audited.picture(scan)}


def _lead(audited: Audited) -> str:
    labels, usable, labelled = audited.labels, audited.usable, audited.labelled
    classes = ", ".join(
        f"{n} '{name}'"
        for name, n in labelled["target"].value_counts(sort=False).sort_index().items()
    )
    left_out = len(labels) - len(usable)
    patients = audited.n_patients
    whose = "of unknown patients" if patients is None else f"of {_n(patients, 'patient')}"
    said = (
        f"{_n(len(usable), 'scan')} {whose} in {_n(usable['group'].nunique(), 'group')}; "
        f"{len(labelled)} with a label that may be used"
    )
    return f"{said}{f' ({classes})' if classes else ''}. {_n(left_out, 'file')} left out."


def _n(n: int, word: str) -> str:
    return f"{n} {word}{'' if n == 1 else 's'}"


def _checks(audited: Audited, names: Names) -> list[dict[str, Any]]:
    """A row per check, the worst first: title, number, severity, what was done, its first messages."""
    made = []
    for check, part in audited.findings.groupby("check", sort=False):
        severity = min(part["severity"], key=lambda word: RANK.get(word, 3))
        rows = [
            {"name": names.scan(row.scan) if row.scan else "", "said": names.message(row.message)}
            for row in part.itertuples()
        ]
        # Beyond some rows the audit counts in one row: "and 25 more".
        rest = part["message"].str.fullmatch(r"and \d+ more")
        n = int((~rest).sum() + part.loc[rest, "value"].sum())
        actions = [action for action in dict.fromkeys(part["action"]) if action]
        title = TITLES.get(str(check), str(check).replace("-", " "))
        made.append(
            {"title": title, "n": n, "severity": severity, "actions": actions, "rows": rows}
        )
    return sorted(made, key=lambda row: RANK.get(row["severity"], 3))


def _shortcuts(audited: Audited) -> list[dict[str, Any]]:
    """A row per attribute, the strongest first; places of point and interval in percent of a scale of 0 to 1."""
    rows = audited.found("shortcut").sort_values("value", ascending=False, kind="stable")
    return [
        {
            "attribute": "all together" if row.attribute == "all" else row.attribute,
            "auc": f"{row.value:.2f}",
            "interval": f"{row.low:.2f} to {row.high:.2f}",
            "at": f"{100 * row.value:.1f}",
            "low": f"{100 * row.low:.1f}",
            "wide": f"{100 * (row.high - row.low):.1f}",
            "warn": row.severity != "info",
        }
        for row in rows.itertuples()
    ]


def _opposite(pairs: pd.DataFrame) -> pd.DataFrame:
    known = (pairs["target_a"] != "") & (pairs["target_b"] != "")
    return pairs[known & (pairs["target_a"] != pairs["target_b"])]


def _across(pairs: pd.DataFrame) -> pd.DataFrame:
    known = (pairs["split_a"] != "") & (pairs["split_b"] != "")
    return pairs[known & ((pairs["split_a"] == "test") != (pairs["split_b"] == "test"))]


def _other_patients(pairs: pd.DataFrame) -> pd.DataFrame:
    shown = pairs.index.isin([*_opposite(pairs).index, *_across(pairs).index])
    return pairs[(pairs["patient_a"] != pairs["patient_b"]) & ~shown]


def _torn(audited: Audited, names: Names) -> list[str]:
    """Contradictions within a patient, whose scans are no duplicates; each with the scan that it is about."""
    found = audited.found("contradiction")
    found = found[found["message"].str.contains("of the same patient", regex=False)]
    return [f"{names.scan(row.scan)}, {names.message(row.message)}" for row in found.itertuples()]


def _pairs(audited: Audited, names: Names, pairs: pd.DataFrame) -> dict[str, Any]:
    """The strongest pairs with pictures, and how many there are."""
    first = pairs.sort_values("correlation", ascending=False, kind="stable").head(MOST_PAIRS)
    shown = [
        {
            "kind": "same pixels" if row.kind == "exact" else f"correlation {row.correlation:.3f}",
            "patient": _whose(audited, row.patient_a == row.patient_b),
            "scans": [
                _scan(audited, names, row.scan_a, row.target_a, row.split_a),
                _scan(audited, names, row.scan_b, row.target_b, row.split_b),
            ],
        }
        for row in first.itertuples()
    ]
    return {"n": len(pairs), "shown": shown}


def _whose(audited: Audited, same: bool) -> str:
    if audited.n_patients is None:
        return "patients unknown"
    return "one patient" if same else "two patients"


def _look(audited: Audited, names: Names, check: str) -> dict[str, Any]:
    rows = audited.found(check)
    rows = rows[rows["scan"] != ""]
    shown = [
        {
            "name": names.scan(row.scan),
            "said": names.message(row.message),
            "src": audited.picture(row.scan),
        }
        for row in rows.head(MOST_SCANS).itertuples()
    ]
    return {"title": TITLES[check], "n": len(rows), "shown": shown}


def _balance(audited: Audited, column: str) -> dict[str, Any]:
    """Labelled scans by class and by `column`; no rows where it has no values."""
    given = audited.labelled[audited.labelled[column] != ""]
    counts = pd.crosstab(given[column], given["target"])
    rows = [
        {"name": name, "counts": [int(n) for n in row], "n": int(row.sum())}
        for name, row in counts.iterrows()
    ]
    word = {"split": "official part"}.get(column, column)
    return {"by": word, "classes": [str(name) for name in counts.columns], "rows": rows}


def _groups(audited: Audited) -> list[dict[str, Any]]:
    """Groups of more than one patient, the largest first, by number."""
    several = audited.groups[audited.groups["n_patients"] > 1].head(MOST_GROUPS)
    return [
        {"group": row.group[:10], "patients": row.n_patients, "scans": row.n_scans}
        for row in several.itertuples()
    ]
