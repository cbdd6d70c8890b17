"""What the audit found and what was done about it, for the page."""

from __future__ import annotations

from typing import Any

from fewscans.figures.inputs import Results

TITLES = {
    "values": "Values brought to one scale",
    "unreadable": "Files that cannot be read",
    "not-in-table": "Files that the label table does not name",
    "blank": "Blank or constant images",
    "unlabelled": "Scans without a label",
    "exact-duplicate": "The same pixels in two patients",
    "near-duplicate": "Near duplicates in two patients",
    "duplicate-within-patient": "Duplicates within a patient",
    "duplicate-across-splits": "Duplicates across the official split",
    "patient-across-splits": "Patients on both sides of the official split",
    "contradiction": "Labels that contradict each other",
    "no-patient-ids": "No patient ids",
    "no-patient-id": "Scans without a patient id",
    "large-group": "A large group",
    "origin-across-splits": "Papers on both sides of the official split",
    "clipped": "Clipped at the bright end",
    "tiny": "Tiny images",
    "odd-shape": "Odd shapes",
    "outlier": "Intensity or size far from the others'",
    "burned-in": "Text in the pixels, suspected",
    "face": "A face, suspected",
    "class-balance": "Classes by site and official part",
    "shortcut": "Shortcuts: can the label be told from what should not tell it?",
    "class": "Classes",
}
RANK = {"error": 0, "warning": 1, "info": 2}
MOST_SHOWN = 50


def audit(results: Results, dataset: str) -> dict[str, Any]:
    """Findings by check, worst first: title, number, severity, actions, and the first rows."""
    found = results.audit(dataset, "findings")
    if found is None:
        return {"known": False, "checks": [], "n_warnings": 0}
    checks = []
    for check, part in found.fillna({"action": "", "path": "", "message": ""}).groupby(
        "check", sort=False
    ):
        counts = part.severity.value_counts().to_dict()
        found_as = sorted(counts, key=lambda name: RANK.get(name, 3))
        shown = part.head(MOST_SHOWN)
        checks.append(
            {
                "check": check,
                "title": TITLES.get(str(check), str(check).replace("-", " ")),
                "severity": found_as[0],
                "severities": [f"{counts[name]} {name}" for name in found_as]
                if len(counts) > 1
                else found_as,
                "n": len(part),
                "actions": [action for action in dict.fromkeys(part.action) if action],
                "rows": shown[["path", "message"]].to_dict("records"),
                "more": len(part) - len(shown),
            }
        )
    checks.sort(key=lambda item: RANK.get(item["severity"], 3))
    return {"known": True, "checks": checks, "n_warnings": int((found.severity != "info").sum())}
