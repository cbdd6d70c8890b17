"""Data sheet of a data set, with the headings of "Datasheets for Datasets" (Gebru et al. 2021, section 3).

Counts come from the audit; what only the user knows from `datasheet` of the config. No path, no patient and no name of
a site stands in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from fewscans.config.stages import AuditPageParams
from fewscans.privacy.annex_e import EDITION, profile, summary
from fewscans.report.audit import TITLES
from fewscans.report.audited import Audited
from fewscans.report.exclusions import in_words, labels_taken_out, left_out

SCHEMA_VERSION = 1
OPEN = "*To be filled in: `datasheet: {{{field}: ...}}` of this data set in the config.*"
# Heading -> (what is asked, field of `datasheet`), after what was measured.
ASKED: dict[str, tuple[tuple[str, str], ...]] = {
    "Motivation": (
        ("For what purpose was it made?", "purpose"),
        ("Who made it?", "creators"),
        ("Who funded it?", "funding"),
    ),
    "Composition": (("How was it de-identified, and how was that checked?", "deidentification"),),
    "Collection process": (
        ("How were scans acquired and chosen?", "collection"),
        ("Was it reviewed by an ethics board?", "ethics"),
        ("Did patients consent?", "consent"),
    ),
    "Preprocessing/cleaning/labeling": (("Who labelled, by what standard?", "labelling"),),
    "Uses": (("What should it be used for, and what not?", "uses"),),
    "Distribution": (
        ("Who may have it, and where?", "distribution"),
        ("Under what licence?", "licence"),
    ),
    "Maintenance": (("Who answers for it and corrects it?", "maintenance"),),
}


def datasheet(audited: Audited, params: AuditPageParams) -> dict[str, Any]:
    """Facts, then sections of questions; `answer` is None where only the user could say.

    Of a private data set also what became of each attribute of DICOM's profile, `dicom_profile`.
    """
    facts = measured(audited, params)
    said = {
        "Composition": _composition(facts),
        "Collection process": [("Where is it to be had?", params.source)] if params.source else [],
        "Preprocessing/cleaning/labeling": _preprocessing(facts, params),
        "Uses": [("What limits what it can show?", _limits(facts))],
    }
    sections = []
    for heading, asked in ASKED.items():
        entries: list[dict[str, Any]] = [
            {"question": question, "answer": answer, "from": "the data"}
            for question, answer in said.get(heading, [])
        ]
        for question, field in asked:
            answer = params.datasheet.get(field, "").strip()  # type: ignore[call-overload]
            entries.append(
                {"question": question, "answer": answer or None, "from": f"datasheet.{field}"}
            )
        sections.append({"heading": heading, "entries": entries})
    head = {"schema_version": SCHEMA_VERSION, "dataset": params.dataset}
    made = {**head, "facts": facts, "sections": sections}
    if params.private:
        keys = ("tag", "name", "action", "treated")
        rows = [dict(zip(keys, row, strict=True)) for row in profile()]
        made["dicom_profile"] = {"edition": EDITION, "attributes": rows}
    return made


def measured(audited: Audited, params: AuditPageParams) -> dict[str, Any]:
    """Counts and ranges, by name; lengths are [least, median, most]."""
    labels, usable, labelled = audited.labels, audited.usable, audited.labelled
    index = audited.rows.loc[usable["scan"]]
    shapes = [list(shape) for shape in index["shape"]]
    spacing = [list(value) for value in index["spacing_mm"] if value is not None and len(value)]
    states = labels.loc[labels["status"] != "ok", "status"].value_counts().sort_index()
    doubtful = labels_taken_out(labels)
    warned = audited.findings[audited.findings["severity"] != "info"]
    shortcuts = warned[warned["check"] == "shortcut"]
    return {
        "modality": params.modality,
        "files": len(labels),
        "scans": len(usable),
        "labelled": len(labelled),
        "unlabelled": len(usable) - len(labelled),
        "classes": _counts(labelled["target"]),
        "patients": audited.n_patients,
        "groups": int(usable["group"].nunique()),
        "sites": int(usable.loc[usable["site"] != "", "site"].nunique()),
        "official_parts": _counts(usable.loc[usable["split"] != "", "split"]),
        "formats": _counts(index["format"]),
        "colour_modes": _counts(index["mode"]),
        "bits": _counts(index["bits"]),
        "width_px": _range(shape[-1] for shape in shapes),
        "height_px": _range(shape[-2] for shape in shapes),
        "slices": _range(shape[0] for shape in shapes if len(shape) > 2),
        "spacing_mm": _range(value[-1] for value in spacing),
        "slice_spacing_mm": _range(value[0] for value in spacing if len(value) > 2),
        "spacing_unknown": len(shapes) - len(spacing),
        "left_out": {str(state): int(n) for state, n in states.items()},
        "left_out_by_reason": left_out(labels),
        "labels_taken_out": sum(row["scans"] for row in doubtful),
        "labels_taken_out_by_reason": doubtful,
        "twins_across_the_split": int(usable["twin"].sum()) if "twin" in usable else 0,
        "duplicate_pairs": _counts(audited.duplicates["kind"]),
        "warnings": _counts(warned["check"]),
        "shortcuts": [
            {"attribute": row.attribute, "auc": row.value, "low": row.low, "high": row.high}
            for row in shortcuts.itertuples()
        ],
    }


def _counts(values: pd.Series) -> dict[str, int]:
    """Value -> number, by name."""
    counts = values.fillna("").astype(str).value_counts()
    return {str(name): int(counts[name]) for name in sorted(counts.index)}


def _range(values: Iterable[float]) -> list[float] | None:
    """[least, median, most]; None of nothing."""
    given = [float(value) for value in values]
    return [round(float(np.quantile(given, q)), 4) for q in (0, 0.5, 1)] if given else None


def _composition(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    patients = facts["patients"]
    who = "patients unknown" if patients is None else f"{patients} patients"
    kinds = [_listed(facts[key]) for key in ("formats", "colour_modes")]
    sites = f"{facts['sites']} sites named" if facts["sites"] else "sites not named"
    spacing = "unknown"
    if facts["spacing_mm"]:
        spacing = f"{_span(facts['spacing_mm'])} mm"
        if facts["slice_spacing_mm"]:
            spacing += f", between slices {_span(facts['slice_spacing_mm'])} mm"
        if facts["spacing_unknown"]:
            spacing += f"; unknown of {facts['spacing_unknown']}"
    size = f"width {_span(facts['width_px'])}, height {_span(facts['height_px'])} pixels"
    if facts["slices"]:
        size += f", {_span(facts['slices'])} slices"
    pairs = _listed(facts["duplicate_pairs"])
    return [
        ("What are the instances?", f"{facts['scans']} scans; modality: {facts['modality']}."),
        ("Whose are they?", f"{who}, {facts['groups']} groups that share no duplicate; {sites}."),
        (
            "Are there labels?",
            f"{facts['labelled']} labelled ({_listed(facts['classes'])}), {facts['unlabelled']} not.",
        ),
        ("What are sizes and spacings?", f"{size} (least, median, most). Spacing: {spacing}."),
        ("What kinds of files are they?", f"{kinds[0]}; colour modes {kinds[1]}."),
        ("Are there recommended splits?", _listed(facts["official_parts"]) + "."),
        ("Are there duplicates?", f"Pairs: {pairs}."),
    ]


def _preprocessing(facts: Mapping[str, Any], params: AuditPageParams) -> list[tuple[str, str]]:
    out = in_words(facts["left_out_by_reason"])
    if params.exclude:
        out.append(f"what {len(params.exclude)} patterns of `exclude` name")
    said = [("What was left out, and why?", ("; ".join(out) or "nothing") + ".")]
    why = "; ".join(
        f"{row['scans']}: {row['reason']}" for row in facts["labels_taken_out_by_reason"]
    )
    kept = "kept, as the config says"
    if params.contradictions != "keep":
        out_of = f"{facts['labels_taken_out']} labels taken out{f' ({why})' if why else ''}"
        kept = f"{out_of}; their scans may join pretraining"
    said.append(("What was done about labels that contradict each other?", f"{kept}."))
    if params.private:
        said.append(("How were names removed?", _names_removed()))
    return said


def _names_removed() -> str:
    attributes = "; ".join(f"{n} {what}" for what, n in summary())
    return (
        "Patients, files and sites have pseudonyms (HMAC-SHA256, the key with who holds the data), dates are days from "
        "a patient's first one, and of a file's header an allow-list of numbers and terms is passed on. Of the "
        f"attributes of DICOM's basic confidentiality profile (PS3.15 table E.1-1, {EDITION}): {attributes} (each of "
        "them in the data sheet's JSON, `dicom_profile`). Pixels are as they were: burned-in text and faces are "
        "flagged, not removed."
    )


def _limits(facts: Mapping[str, Any]) -> str:
    """Warnings of the audit, in words."""
    said = [
        f"{TITLES.get(check, check)}: {n}"
        for check, n in facts["warnings"].items()
        if check != "shortcut"
    ]
    told = [
        f"{one['attribute']} (AUC {one['auc']:.2f}, {one['low']:.2f} to {one['high']:.2f})"
        for one in facts["shortcuts"]
        if one["attribute"] != "all"
    ]
    if told:
        said.append(f"The label can be told from {', '.join(told)}")
    return ". ".join(said or ["The audit has no warning"]) + "."


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{n} {name or 'unnamed'}" for name, n in counts.items()) or "none"


def _span(values: Sequence[float]) -> str:
    least, middle, most = (f"{value:g}" for value in values)
    return least if least == most else f"{least}, {middle}, {most}"


def markdown(sheet: Mapping[str, Any]) -> str:
    """The sheet as a page of Markdown."""
    lines = [
        f"# Data sheet: {plain(sheet['dataset'])}",
        "",
        'Headings follow "Datasheets for Datasets" (Gebru et al., Communications of the ACM 64(12), 2021).',
    ]
    for section in sheet["sections"]:
        lines += ["", f"## {section['heading']}"]
        for entry in section["entries"]:
            field = entry["from"].removeprefix("datasheet.")
            answer = OPEN.format(field=field) if entry["answer"] is None else plain(entry["answer"])
            lines += ["", f"**{entry['question']}** {answer}"]
    return "\n".join(lines) + "\n"


def plain(text: str) -> str:
    """`text` on one line, with nothing that Markdown or HTML would take for its own."""
    line = " ".join(text.split())
    for mark in ("\\", "<", "*", "_", "[", "#", "|"):
        line = line.replace(mark, f"\\{mark}")
    return line
