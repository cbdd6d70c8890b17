"""The demo's cohort through convert and audit: every planted fault is found, and said what was done about it."""

from __future__ import annotations

import pandas as pd
import pytest

# Fault in faults.csv -> checks of the audit of which one must name the file (or the one it was copied from).
FOUND_BY = {
    "exact-duplicate": {"exact-duplicate"},
    "near-duplicate": {"near-duplicate"},
    "monochrome1": {"values"},
    "rescale-slope": {"values"},
    "truncated": {"unreadable"},
    "no-label": {"unlabelled"},
    "two-labels": {"contradiction"},
}


@pytest.fixture(scope="module")
def audited(tmp_path_factory):
    """(faults, findings, labels) of the demo's cohort."""
    from scripts.audit import main as audit
    from scripts.convert import main as convert
    from scripts.phantom import main as phantom

    folder = tmp_path_factory.mktemp("demo")
    raw = folder / "raw"
    place = f'"dataset": "phantom", "root": "{raw}", "table": "{raw}/labels.csv"'
    assert (
        phantom(["--params", '{"cohort": {"n_patients": 150, "seed": 0}}', "--out", str(raw)]) == 0
    )
    assert convert(["--params", "{" + place + "}", "--out", str(folder / "converted")]) == 0
    assert (
        audit(
            [
                "--params",
                "{" + place + "}",
                "--converted",
                str(folder / "converted"),
                "--labels",
                str(folder / "labels.parquet"),
                "--out",
                str(folder / "audit"),
            ]
        )
        == 0
    )
    faults = pd.read_csv(raw / "faults.csv", dtype=str, keep_default_na=False)
    return (
        faults,
        pd.read_parquet(folder / "audit/findings.parquet"),
        pd.read_parquet(folder / "labels.parquet"),
    )


def test_every_planted_fault_is_found_and_acted_upon(audited):
    faults, findings, _ = audited
    assert set(faults["fault"]) == set(FOUND_BY)
    for row in faults.itertuples():
        said = findings[findings["check"].isin(FOUND_BY[row.fault])]
        named = said[
            said["path"].eq(row.path) | said["message"].str.contains(row.path, regex=False)
        ]
        assert len(named), f"{row.path}: {row.fault} was not found"
        assert (named["action"] != "").all()


def test_nothing_else_is_wrong_with_the_cohort(audited):
    faults, findings, _ = audited
    planted = set(faults["path"]) | set(faults["other"]) - {""}
    warned = findings[(findings["severity"] != "info") & (findings["check"] != "contradiction")]
    assert set(warned["path"]) <= planted, warned[~warned["path"].isin(planted)].to_string()


def test_duplicates_share_a_group_and_contradictions_lose_their_label(audited):
    faults, _, labels = audited
    group = labels.set_index("path")["group"]
    for row in faults[faults["fault"].isin(["exact-duplicate", "near-duplicate"])].itertuples():
        assert group[row.path] == group[row.other]
    torn = faults.loc[faults["fault"] == "two-labels", "path"]
    patients = labels.set_index("path").loc[torn, "patient"]
    assert (labels[labels["patient"].isin(patients)]["target"] == "").all()
