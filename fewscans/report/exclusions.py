"""What a data set leaves out, counted by reason, in words of ours alone.

A reason may quote a file or name another scan, and a data sheet is passed on. So what no source of ours says is left
out of it (`fewscans.privacy.words`), of public data sets too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from fewscans.privacy.words import own_words

WHAT = {
    "unreadable": "cannot be decoded",
    "not-in-table": "not named by the label table",
    "set-aside": "no scan of the kind that is used",
}
MOST_SAID = 12  # reasons of one status in a sentence; the rest is counted
# How `fewscans.audit.groups` words a contradiction between scans of one patient; all others are between duplicates.
_OF_PATIENT = "of the same patient"
PATIENT = "another scan of the same patient has another label"
DUPLICATE = "a duplicate has another label"
_NUMBER = re.compile(r"\d+")


def left_out(labels: pd.DataFrame) -> list[dict[str, Any]]:
    """`{status, reason, files}` of files that are not used, by status, then the most frequent first.

    labels: contract `labels`. Reasons that differ in numbers only are one, with ``N`` for each number.
    """
    rows = labels[labels["status"] != "ok"]
    said = [
        "" if status == "not-in-table" else own_words(reason)
        for status, reason in zip(rows["status"], rows["reason"], strict=True)
    ]
    return [
        {"status": status, "reason": reason, "files": n}
        for status, part in pd.Series(said, dtype=object).groupby(rows["status"].to_numpy(object))
        for reason, n in _counted(part)
    ]


def labels_taken_out(labels: pd.DataFrame) -> list[dict[str, Any]]:
    """`{reason, scans}` of scans whose label contradicts another's."""
    doubtful = labels.loc[
        (labels["status"] == "ok") & labels["reason"].str.startswith("contradiction"), "reason"
    ]
    of_patient = int(doubtful.str.contains(_OF_PATIENT, regex=False).sum())
    counts = {PATIENT: of_patient, DUPLICATE: len(doubtful) - of_patient}
    return [{"reason": reason, "scans": n} for reason, n in counts.items() if n]


def _counted(reasons: pd.Series) -> Iterator[tuple[str, int]]:
    """Reason -> number; of the same words, whatever their numbers."""
    alike = reasons.groupby([_NUMBER.sub("N", reason) for reason in reasons])
    counted = [
        (str(part.iloc[0] if part.nunique() == 1 else words), len(part)) for words, part in alike
    ]
    yield from sorted(counted, key=lambda one: (-one[1], one[0]))


def in_words(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """A phrase for each status of `left_out`, with its reasons."""
    told = []
    for status in dict.fromkeys(row["status"] for row in rows):
        own = [row for row in rows if row["status"] == status]
        n = sum(row["files"] for row in own)
        reasons = [f"{row['files']}: {row['reason']}" for row in own[:MOST_SAID] if row["reason"]]
        if rest := sum(row["files"] for row in own[MOST_SAID:]):
            reasons.append(f"{rest}: other reasons, in the JSON")
        said = f" ({'; '.join(reasons)})" if reasons else ""
        told.append(f"{n} {WHAT.get(status, status)}{said}")
    return told
