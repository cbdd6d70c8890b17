"""The data sheet says what the scans are, what was left out and why, and what limits them; in words of ours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from audit_factory import Cohort, picture
from test_privacy import holding, make_lab

from fewscans.config.stages import AuditPageParams
from fewscans.report import exclusions
from fewscans.report.audited import Audited
from fewscans.report.datasheet import datasheet, markdown
from fewscans.report.exclusions import DUPLICATE, PATIENT

CUT = "the file is cut short (10 of {} bytes), or its header is wrong"


def cohort() -> Cohort:
    """CT of two spacings, site telling the class; broken and other files, contradictions, a tiny scan."""
    made = Cohort()
    for i in range(40):
        spacing = [0.5, 0.5] if i // 2 % 3 else [1.25, 1.25]
        made.add(
            f"{i:02d}.dcm", picture(i), "ab"[i % 2], f"p{i}", spacing_mm=spacing, format="DICOM"
        )
        made.table[-1]["site"] = ["north", "south"][i % 2]
    made.add("copy.png", made.pixels["00.dcm"], "b", "other")
    made.add("torn0.png", picture(50), "a", "torn")
    made.add("torn1.png", picture(51), "b", "torn")
    made.add("small.png", picture(52, (20, 20)), "a", "small", shape=[20, 20])
    for i in range(3):
        made.add(f"cut{i}.png", None, "a", f"c{i}", reason=CUT.format(20 + i))
    made.add(
        "bad.png",
        None,
        "a",
        "bad",
        reason="damaged (cannot identify image file '/home/Meier/bad.png')",
    )
    made.add("plan.dcm", None, "a", "x", status="set-aside", reason="holds no image (RTPLAN)")
    made.add("stranger.png", picture(53), in_table=False)
    return made  # fmt: skip


def audited(made: Cohort) -> Audited:
    found = made.audit()
    return Audited(
        pd.DataFrame(made.index), found.labels, found.duplicates, found.groups, found.findings,
        {"flags": found.flags}, lambda row: made.pixels[row["path"]],
    )  # fmt: skip


@pytest.fixture(scope="module")
def sheet() -> Any:
    return datasheet(audited(cohort()), AuditPageParams(dataset="d", modality="ct", private=True))


def answers(sheet: Any) -> dict[str, str]:
    return {e["question"]: e["answer"] for s in sheet["sections"] for e in s["entries"]}


def test_what_the_scans_are(sheet: Any) -> None:
    facts, said = sheet["facts"], answers(sheet)
    assert facts["modality"] == "ct"
    assert said["What are the instances?"] == "44 scans; modality: ct."
    assert facts["classes"] == {"a": 20, "b": 20}
    assert said["Are there labels?"] == "40 labelled (20 a, 20 b), 4 not."
    assert facts["spacing_mm"] == [0.5, 0.5, 1.25]
    assert facts["spacing_unknown"] == 4
    assert "Spacing: 0.5, 0.5, 1.25 mm; unknown of 4." in said["What are sizes and spacings?"]
    assert "40 DICOM, 4 PNG" in said["What kinds of files are they?"]


def test_what_was_left_out_and_why(sheet: Any) -> None:
    assert sheet["facts"]["left_out_by_reason"] == [
        {"status": "not-in-table", "reason": "", "files": 1},
        {"status": "set-aside", "reason": "holds no image", "files": 1},
        {"status": "unreadable", "reason": CUT.format("N").replace("10", "N"), "files": 3},
        {"status": "unreadable", "reason": "damaged", "files": 1},
    ]
    assert sheet["facts"]["left_out"] == {"not-in-table": 1, "set-aside": 1, "unreadable": 4}
    assert answers(sheet)["What was left out, and why?"] == (
        "1 not named by the label table; 1 no scan of the kind that is used (1: holds no image); 4 cannot be decoded "
        "(3: the file is cut short (N of N bytes), or its header is wrong; 1: damaged)."
    )
    assert sheet["facts"]["labels_taken_out_by_reason"] == [
        {"reason": PATIENT, "scans": 2}, {"reason": DUPLICATE, "scans": 2},
    ]  # fmt: skip
    assert f"4 labels taken out (2: {PATIENT}; 2: {DUPLICATE})" in markdown(sheet)
    assert "Meier" not in json.dumps(sheet)


def test_reasons_of_one_size_keep_it_and_many_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [("unreadable", CUT.format(20))] * 2 + [("unreadable", "holds no finite value")]
    rows.append(("ok", "contradiction: labelled 'a', but its duplicate x is labelled 'b'"))
    told = exclusions.left_out(pd.DataFrame(rows, columns=["status", "reason"]))
    assert [(row["reason"], row["files"]) for row in told] == [
        (CUT.format(20), 2), ("holds no finite value", 1),
    ]  # fmt: skip
    monkeypatch.setattr(exclusions, "MOST_SAID", 1)
    assert exclusions.in_words(told) == [
        f"3 cannot be decoded (2: {CUT.format(20)}; 1: other reasons, in the JSON)"
    ]
    assert exclusions.left_out(pd.DataFrame([rows[-1]], columns=["status", "reason"])) == []


def test_what_limits_it(sheet: Any) -> None:
    said = answers(sheet)["What limits what it can show?"]
    assert "Tiny images: 1" in said
    assert "Labels that contradict each other: 4" in said
    assert "The label can be told from site (AUC 1.00, 1.00 to 1.00)" in said
    clean = Cohort()
    clean.fill(12)
    few = answers(datasheet(audited(clean), AuditPageParams(dataset="d")))
    assert few["What limits what it can show?"] == "The audit has no warning."


def test_how_names_were_removed(sheet: Any) -> None:
    said = answers(sheet)["How were names removed?"]
    for words in ("pseudonyms (HMAC-SHA256", "days from a patient's first one", "PS3.15 table E.1-1",
                  "burned-in text and faces are flagged, not removed"):  # fmt: skip
        assert words in said
    # Each attribute of the profile is in one of the counts.
    counts = [
        int(word) for word in said.split("profile (")[1].replace(";", " ").split() if word.isdigit()
    ]
    assert sum(counts) == len(sheet["dicom_profile"]["attributes"])
    text = markdown(sheet)
    assert "**How were names removed?** Patients, files and sites have pseudonyms" in text
    assert "**How was it de-identified, and how was that checked?** *To be filled in" in text
    public = datasheet(audited(cohort()), AuditPageParams(dataset="d"))
    assert "How were names removed?" not in answers(public)
    # Reasons of public data sets quote no file either.
    assert public["facts"]["left_out_by_reason"] == sheet["facts"]["left_out_by_reason"]


def test_the_sheet_of_a_private_data_set_counts_its_broken_files_without_their_words(
    tmp_path: Path,
) -> None:
    lab, plant = make_lab(tmp_path / "lab")
    found = json.loads((lab.results / "datasheet/d.json").read_text(encoding="utf-8"))
    rows = found["facts"]["left_out_by_reason"]
    assert sum(row["files"] for row in rows) == 6
    assert {row["status"] for row in rows} == {"unreadable", "set-aside"}
    assert all(row["reason"] for row in rows)
    text = (lab.results / "datasheet/d.md").read_text(encoding="utf-8")
    assert all(f"{row['files']}: {row['reason']}"[:12] in text for row in rows)
    assert holding(list((lab.results / "datasheet").iterdir()), plant.planted | plant.also) == []
