"""CLAIM 2024 as a list to go through: which item the run answers, and where; which only the authors can.

Tejani et al., "Checklist for Artificial Intelligence in Medical Imaging (CLAIM): 2024 update", Radiology: Artificial
Intelligence 6(4), e240300. Items are named in short, in our words; the paper has its own. Their numbers, order and
parts were held against two transcriptions of its table and a summary of it: all 44 agree (docs/notes/0014-privacy.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fewscans.report.datasheet import plain

AUTHORS = ""  # only they can say
TABLE, REPORT = "`ablation_table.csv`", "`report.html`"
SHEET, PAGE = "data sheet", "audit page"

# Item -> what it asks in short, and where the run answers it.
ITEMS: dict[str, tuple[tuple[str, str], ...]] = {
    "Title and abstract": (
        ("Named as a study of AI, with its kind", AUTHORS),
        ("Summary of the study", f"{REPORT}: the answer in words; the rest is yours"),
    ),
    "Introduction": (
        ("Background, intended use and role", AUTHORS),
        ("Aims, objectives, hypotheses", "config: `compare` (metric, baseline, smallest gain)"),
    ),
    "Study design": (
        ("Prospective or retrospective", AUTHORS),
        ("Goal of the study", "config: `compare`"),
    ),
    "Data": (
        ("Sources of data", f"{SHEET}: collection, distribution"),
        ("Inclusion and exclusion", f"{SHEET}: preprocessing; criteria of the clinic are yours"),
        ("Preprocessing", f"{REPORT}: recipes"),
        ("Selection of subsets", f"{REPORT}: budgets and draws"),
        ("De-identification", f"{SHEET}: composition"),
        ("Missing data", f"{SHEET}: labelled and not, left out"),
        ("Acquisition protocol", f"{SHEET}: sizes, spacings, collection; the protocol is yours"),
    ),
    "Reference standard": (
        ("Definition", f"{SHEET}: labelling"),
        ("Rationale", AUTHORS),
        ("Source of annotations", f"{SHEET}: labelling"),
        ("Annotation of the test set", AUTHORS),
        ("Variability between and within raters", AUTHORS),
    ),
    "Data partitions": (
        ("How data were assigned", f"{REPORT}: folds; `results/plan.json`"),
        (
            "Unit that no two partitions share",
            f"{PAGE}: groups of patients joined by duplicates",
        ),
    ),
    "Testing data": (
        ("Intended sample size", f"{TABLE}: the smallest difference that could have been shown"),
    ),
    "Model": (
        ("Description", f"{REPORT}: pretrained encoders; `results/plan.json`"),
        ("Software and versions", f"{REPORT}: versions and digests"),
        ("Initialisation of parameters", f"{REPORT}: encoders, baselines"),
    ),
    "Training": (
        ("Training", f"{REPORT}: settings as they came out; `results/plan.json`"),
        ("Choice of the final model", f"{REPORT}: best by inner validation"),
        ("Ensembles", "none are made"),
    ),
    "Evaluation": (
        ("Metrics", f"{TABLE}"),
        ("Significance and uncertainty", f"{TABLE}: intervals, verdicts, their method"),
        ("Robustness or sensitivity", f"{TABLE}: seeds, draws, ablations"),
        ("Explainability", f"{REPORT}: embeddings, reconstructions; no more is made"),
        ("Internal data", f"{TABLE}"),
        ("External data", AUTHORS),
        ("Trial registration", AUTHORS),
    ),
    "Results: data": (
        ("Patients and scans included and excluded", f"{SHEET}: preprocessing"),
        (
            "Characteristics in each partition",
            f"{PAGE}: classes by part and site; demographics are yours",
        ),
    ),
    "Results: performance of the model": (
        ("Performance with uncertainty", f"{TABLE}"),
        ("Diagnostic performance and its precision", f"{TABLE}"),
        ("Analysis of failures", AUTHORS),
    ),
    "Discussion": (
        ("Limitations", f"{SHEET}: uses"),
        ("Implications for practice, clinical role", AUTHORS),
    ),
    "Other": (
        ("Protocol or further technical details", "config and `results/plan.json`"),
        ("Availability of software, model, data", f"{SHEET}: distribution"),
        ("Funding, role of funders", f"{SHEET}: motivation"),
    ),
}


def claim(sheet: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row per item: number, section, what it asks, where it is answered ("" = by the authors alone), what is said."""
    rows: list[dict[str, Any]] = []
    for section, items in ITEMS.items():
        for asked, where in items:
            rows.append({"item": len(rows) + 1, "section": section, "asked": asked, "where": where})
    said = _said(sheet["facts"], sheet["sections"])
    return [{**row, "said": said.get(row["asked"], "")} for row in rows]


def _said(facts: Mapping[str, Any], sections: list[dict[str, Any]]) -> dict[str, str]:
    """What the data sheet knows already, by item."""
    answers = {entry["from"]: entry["answer"] or "" for s in sections for entry in s["entries"]}
    left_out = sum(facts["left_out"].values())
    patients = "patients unknown" if facts["patients"] is None else f"{facts['patients']} patients"
    return {
        "Sources of data": answers["datasheet.collection"],
        "De-identification": answers["datasheet.deidentification"],
        "Definition": answers["datasheet.labelling"],
        "Source of annotations": answers["datasheet.labelling"],
        "Missing data": f"{facts['unlabelled']} scans without a label",
        "Unit that no two partitions share": f"{facts['groups']} groups",
        "Patients and scans included and excluded": (
            f"{facts['scans']} scans, {patients}; {left_out} files left out, "
            f"{facts['labels_taken_out']} labels taken out"
        ),
        "Availability of software, model, data": answers["datasheet.licence"],
        "Funding, role of funders": answers["datasheet.funding"],
    }


def markdown(dataset: str, rows: list[dict[str, Any]]) -> str:
    """The list as a table of Markdown, with boxes to tick."""
    n = sum(bool(row["where"]) for row in rows)
    lines = [
        f"# CLAIM 2024: {plain(dataset)}",
        "",
        "Items of the Checklist for Artificial Intelligence in Medical Imaging (Tejani et al., Radiology: Artificial "
        "Intelligence 6(4), e240300, 2024), in short: read them in the paper. "
        f"Of {len(rows)} items this run says something to {n}; it fills in no page numbers, and it judges nothing.",
        "",
        "| item | asks for | answered in | said | page |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        where = row["where"] or "*by the authors*"
        lines.append(f"| {row['item']} | {row['asked']} | {where} | {plain(row['said'])} | |")
    return "\n".join(lines) + "\n"
