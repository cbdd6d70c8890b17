"""What the audit must find in tables: contradictions, patients in two parts, what does not fit."""

from __future__ import annotations

import json
import logging

from audit_factory import Cohort, found, labels_of, picture

from fewscans.audit.findings import MOST_ROWS, Findings
from fewscans.config.stages import BudgetsParams, FoldsParams
from fewscans.split import make_budgets, make_folds

logging.getLogger("fewscans").setLevel(logging.WARNING)


def contradicting() -> Cohort:
    """Copies of two labels across train and test, in test alone, and in train alone; a torn patient."""
    cohort = Cohort()
    for i in range(12):
        part = ["train", "val", "test"][i % 3]
        cohort.add(f"fill/{i:02d}.png", picture(1000 + i), "ab"[i % 2], f"fill-{i:02d}", part)
    for name, parts in (
        ("across", "train test"),
        ("tested", "test test"),
        ("trained", "train val"),
    ):
        pixels = picture(sum(name.encode()))
        for number, (part, label) in enumerate(zip(parts.split(), "ab", strict=True)):
            path = f"{name}/{number}.png"
            cohort.add(path, pixels * (1 + number), label, f"{name} {number}", part)
    for number, label in enumerate("aab"):
        cohort.add(f"torn/{number}.png", picture(50 + number), label, "torn", "train")
    return cohort


def test_contradictory_labels_are_taken_out() -> None:
    made = contradicting().audit()
    labels = labels_of(made)
    doubtful = labels.index.str.startswith(("across", "tested", "trained", "torn"))
    assert (labels.loc[doubtful, "target"] == "").all()
    assert (labels.loc[doubtful, "status"] == "ok").all()
    assert (labels.loc[~doubtful, "target"] != "").all()
    assert labels.loc["across/0.png", "reason"] == (
        "contradiction: labelled 'a', but its duplicate across/1.png is labelled 'b'"
    )
    assert labels.loc["torn/0.png", "reason"] == (
        "contradiction: labelled 'a', but torn/2.png of the same patient is labelled 'b'"
    )
    assert set(found(made, "contradiction")["path"]) == set(labels.index[doubtful])
    kept = contradicting().audit(contradictions="keep")
    assert (kept.labels["target"] != "").all()
    assert set(found(kept, "contradiction")["action"]) == {"kept, as `contradictions: keep` says"}


def test_a_contradiction_that_is_kept_is_tested_and_labelled_and_one_that_is_excluded_is_neither() -> (
    None
):
    """Through folds and budgets; without its label a picture is for pretraining alone."""
    roles, used = {}, {}
    for rule in ("keep", "exclude"):
        made = contradicting().audit(contradictions=rule)
        folds = make_folds(made.labels, FoldsParams(dataset="d", folds=2))
        budgets, _ = make_budgets(made.labels, folds, BudgetsParams(dataset="d", budgets=["all"]))
        paths = made.labels.set_index("scan")["path"]
        doubtful = paths.index[paths.str.startswith(("across", "tested", "trained", "torn"))]
        assert len(doubtful) == 9
        table = folds.pivot(index="scan", columns="fold", values="role").loc[doubtful]
        roles[rule] = [set(row) for row in table.to_numpy().tolist()]
        # Scan and fold whose label a budget of all labels has.
        used[rule] = set(budgets[["scan", "fold"]].itertuples(index=False, name=None)) & {
            (scan, fold) for scan in doubtful for fold in ("0", "1")
        }
        clean = set(budgets["scan"]) - set(doubtful)
        assert clean == set(paths.index) - set(doubtful)
    # Of two folds, one tests it and the other has its label to train on.
    assert roles["keep"] == [{"train", "test"}] * 9
    assert len(used["keep"]) == 9
    assert roles["exclude"] == [{"train"}] * 9
    assert used["exclude"] == set()


def test_official_test_labels_stay_and_twins_are_marked() -> None:
    made = contradicting().audit(split="official")
    labels = labels_of(made)
    tested = labels["split"] == "test"
    assert (labels.loc[tested, "target"] != "").all()
    out = ["across/0.png", "trained/0.png", "trained/1.png", *(f"torn/{i}.png" for i in range(3))]
    assert sorted(labels.index[labels["target"] == ""]) == sorted(out)
    assert list(labels.index[labels["twin"]]) == ["across/1.png"]
    action = found(made, "contradiction").set_index("path")["action"]
    assert action["across/0.png"].startswith("label taken out; its group meets the official test")
    assert action["across/1.png"] == "kept: the official test set stays as published"
    crossing = found(made, "duplicate-across-splits")
    assert crossing["path"].tolist() == ["across/1.png"]
    assert crossing["message"].tolist() == [
        "test scan; near duplicate of training scan across/0.png"
    ]
    roles = make_folds(made.labels, FoldsParams(dataset="d", split="official"))
    role = dict(zip(roles["scan"], roles["role"], strict=True))
    assert role["key of across/0.png"] == "excluded"
    assert role["key of across/1.png"] == "test"


def test_files_tables_and_patients_that_do_not_fit() -> None:
    cohort = Cohort()
    cohort.fill(8)
    cohort.add("broken.png", None, "a", "X")
    cohort.add("bare.png", picture(1), "", "Y")
    cohort.add("stranger.png", picture(2), in_table=False)
    cohort.add("whose.png", picture(3), "a", "")
    made = cohort.audit()
    labels = labels_of(made)
    assert labels.loc["broken.png", ["status", "reason"]].tolist() == ["unreadable", "cut short"]
    assert labels.loc["stranger.png", "status"] == "not-in-table"
    assert labels.loc["whose.png", "patient"] == "scan:key of whose.png"
    rows = made.findings.set_index("check")
    assert rows.loc["unreadable", ["path", "message", "action"]].tolist() == [
        "broken.png", "cut short", "left out",
    ]  # fmt: skip
    assert rows.loc["unlabelled", ["path", "severity"]].tolist() == ["bare.png", "info"]
    assert rows.loc["not-in-table", "path"] == "stranger.png"
    assert rows.loc["no-patient-id", "path"] == "whose.png"
    assert "no-patient-ids" not in made.flags
    assert rows.loc["class", "message"].tolist() == [
        "class 'a': 5 scans, 5 patients, 5 groups", "class 'b': 4 scans, 4 patients, 4 groups",
    ]  # fmt: skip
    # What may not be used is in no training part either.
    roles = make_folds(made.labels, FoldsParams(dataset="d", folds=2)).drop_duplicates("scan")
    excluded = set(roles.loc[roles["role"] == "excluded", "scan"])
    assert excluded == {"key of broken.png", "key of stranger.png"}


def test_a_data_set_without_patients_says_so_once() -> None:
    cohort = Cohort()
    cohort.fill(8)
    for row in cohort.table:
        row["patient"] = ""
    made = cohort.audit()
    assert made.flags == ["no-patient-ids", "few-groups"]
    assert len(found(made, "no-patient-ids")) == 1
    assert len(found(made, "no-patient-id")) == 0
    assert made.labels["patient"].nunique() == 8


def test_patients_in_two_parts_are_found_with_a_grouped_split() -> None:
    cohort = Cohort()
    cohort.fill(8)
    cohort.add("1.png", picture(1), "a", "torn", "Training set")
    cohort.add("2.png", picture(2), "a", "torn", "holdout")
    names = {"train": ["Training set"], "val": [], "test": ["holdout"]}
    made = cohort.audit(split_names=names)
    assert labels_of(made).loc[["1.png", "2.png"], "split"].tolist() == ["train", "test"]
    (said,) = found(made, "patient-across-splits")["message"]
    assert said == "patient 'torn' is in the training and the test part"


def test_names_from_outside_stay_values() -> None:
    cohort = Cohort()
    cohort.fill(12)
    nasty = "<script>alert('x')</script>\n$(rm -rf .)"
    for row, label in zip(cohort.table, ["a", nasty] * 6, strict=True):
        row["label"] = label
        row[nasty] = label
    made = cohort.audit(attributes=[nasty])
    assert set(made.labels["target"]) == {"a", nasty}
    assert made.classes == [nasty, "a"]
    assert json.loads(made.labels["attributes"].iloc[0]) == {nasty: "a"}
    for frame in (made.labels, made.findings, made.groups, made.duplicates):
        assert nasty not in frame.columns
    told = made.findings[made.findings["attribute"] == nasty]
    assert told["severity"].tolist() == ["warning"]


def test_findings_are_counted_where_they_are_too_many() -> None:
    noted = Findings()
    for i in range(MOST_ROWS + 25):
        noted.add("blank", "warning", f"number {i}")
    noted.add("unreadable", "error", "broken")
    frame = noted.frame()
    assert frame["severity"].iloc[0] == "error"
    assert len(frame) == MOST_ROWS + 2
    assert frame.iloc[-1][["check", "message", "value"]].tolist() == ["blank", "and 25 more", 25.0]
