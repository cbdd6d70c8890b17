"""Everything that can be wrong with what a label table says."""

from __future__ import annotations

import fnmatch
import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from table_factory import Where, change, problems_of

from fewscans.config.models import Columns, DatasetSettings, SplitNames
from fewscans.convert.exclude import apply_exclude, is_excluded
from fewscans.convert.table import check_dataset, read_rows
from fewscans.errors import Problems


def test_a_good_table_has_no_problem(scan_folder):
    assert problems_of(scan_folder(24), budgets=["4", "50%", "all"]) == ""
    assert problems_of(scan_folder(24, split=True, name="o"), split="official") == ""


def test_a_missing_root_says_where_the_data_is_to_be_had(tmp_path):
    said = problems_of(tmp_path / "none", source="https://example.org/data")
    assert said.startswith("datasets.mine.root: no such folder")
    assert "https://example.org/data" in said


def test_missing_table_and_columns(scan_folder):
    root = scan_folder(12)
    assert "datasets.mine.table" in problems_of(root, table="other.csv")
    said = problems_of(root, columns=Columns(label="Label", site="hospital"), attributes=["age"])
    assert (
        "datasets.mine.columns.label: the table has no column 'Label'. Did you mean 'label'?"
        in said
    )
    assert "datasets.mine.columns.site" in said
    assert "datasets.mine.attributes: no column 'age'" in said
    change(root, patient=None, label=None, split=None, site=None)
    said = problems_of(root, split="official")
    for column in ("patient", "label", "split"):
        assert f"columns.{column}: the table has no column" in said
    assert "site" not in said
    assert "null if nobody knows" in said


def test_patients_may_be_unknown_and_pools_without_labels(scan_folder):
    root = scan_folder(12)
    change(root, patient=None)
    assert problems_of(root, columns=Columns(patient=None)) == ""
    change(root, label=None)
    assert problems_of(root, columns=Columns(patient=None), pool=True) == ""
    assert "columns.label" in problems_of(root, columns=Columns(patient=None))


def test_classes_that_are_too_few_or_not_announced(scan_folder):
    root = scan_folder(12)
    assert problems_of(root, classes=["benign", "malignant"]) == ""
    said = problems_of(root, classes=["benign", "malignent"])
    assert "'malignant' (6 rows) is not listed. Did you mean 'malignent'?" in said
    assert "no row has the label 'malignent'" in said
    change(root, label="benign")
    assert "at least two classes are needed; the labels hold only 'benign'" in problems_of(root)
    change(root, label="")
    assert "the labels hold none" in problems_of(root)


def test_more_folds_than_patients_of_a_class(scan_folder):
    root = scan_folder(12)  # three patients of either class
    assert problems_of(root, folds=3) == ""
    said = problems_of(root, folds=4)
    assert "class 'benign' has 3 patients, fewer than 4 folds" in said
    assert "class 'malignant'" in said
    # Scans of unknown patients are patients of their own.
    assert problems_of(root, folds=6, columns=Columns(patient=None)) == ""


def test_budgets_that_leave_a_class_empty_or_ask_for_too_many(scan_folder):
    root = scan_folder(24, classes=("a", "b", "c"))  # 12 patients, 8 in a training fold
    assert problems_of(root, budgets=["3", "8", "50%", "all"]) == ""
    said = problems_of(root, budgets=["2", "9", "10%"])
    assert "budgets: 2 patients: one of the 3 classes of datasets.mine would be empty" in said
    assert "budgets: 9 patients: datasets.mine trains on 8 at most. Use all." in said
    assert "budgets: 10% of 8 patients is 1" in said


def test_a_patient_in_two_parts_of_an_official_split(scan_folder):
    root = scan_folder(24, split=True)
    change(root, patient=dict.fromkeys((0, 19), "torn") | {5: "torn too", 9: "torn too"})
    said = problems_of(root, split="official")
    assert "2 patients in more than one part" in said
    assert "'torn (test, train)'" in said
    assert "'torn too" in said
    assert problems_of(root) == ""  # grouped folds don't use it


def test_parts_with_other_names(scan_folder):
    root = scan_folder(24, split=True)
    frame = pd.read_csv(root / "labels.csv")
    change(root, split=frame["split"].map({"train": "Lernen", "val": "Prüfen", "test": "Schluss"}))
    said = problems_of(root, split="official")
    assert "'Lernen' (" in said
    assert "split_names.train: no row" in said
    names = SplitNames(train=["Lernen"], val=["Prüfen"], test=["Schluss"])
    assert problems_of(root, split="official", split_names=names) == ""
    change(root, split={0: ""})
    assert "1 labelled row without a part" in problems_of(root, split="official", split_names=names)


def test_exclude_takes_exact_paths_and_globs_and_must_meet_something(scan_folder):
    root = scan_folder(12)
    rows = read_rows(root / "labels.csv")
    (root / rows[0]["path"]).unlink()
    assert problems_of(root, folds=2, exclude=[rows[0]["path"]]) == ""
    assert problems_of(root, folds=2, exclude=["images/p000-*"]) == ""
    assert "'scouts/*' meets no path" in problems_of(
        root, folds=2, exclude=["scouts/*", "images/p000*"]
    )


NAMES = st.text("ab[]*?/#.", max_size=5)


@given(NAMES, st.lists(NAMES, max_size=6))
def test_excluded_is_what_is_called_so_or_meets_a_glob(path, patterns):
    met = any(path == one or fnmatch.fnmatchcase(path, one) for one in patterns)
    assert is_excluded(path, patterns) == met


@given(st.lists(NAMES, max_size=6, unique=True), st.lists(NAMES, max_size=6))
def test_what_is_excluded_leaves_and_what_meets_nothing_is_told(paths, patterns):
    problems = Problems("d")
    kept = apply_exclude(paths, patterns, problems, "d")
    assert kept == [path for path in paths if not is_excluded(path, patterns)]

    def is_about(pattern: str, path: str) -> bool:
        if is_excluded(path, [pattern]) or pattern.startswith((f"{path}/", f"{path}#")):
            return True
        of_volumes = re.fullmatch("(.+)#[^#]+", pattern)  # of the files that its first part meets
        return of_volumes is not None and is_excluded(path, [of_volumes[1]])

    idle = [one for one in patterns if not any(is_about(one, path) for path in paths)]
    said = [f"'{one}' meets no path. Correct it or remove it." for one in idle]
    assert [message for _, message in problems.lines] == list(dict.fromkeys(said))


def test_everything_wrong_is_said_at_once(scan_folder):
    root = scan_folder(12)
    rows = read_rows(root / "labels.csv")
    change(root, path={1: rows[0]["path"], 2: "../x.png", 3: "gone.png"})
    said = problems_of(root, folds=9, budgets=["1"], exclude=["no*"], attributes=["age"])
    for expected in (
        "listed twice",
        "leaves root",
        "not there",
        "fewer than 9 folds",
        "budgets",
        "exclude",
        "age",
    ):
        assert expected in said


def test_a_folder_per_class_is_checked_too(tmp_path):
    from PIL import Image

    for name in ("ill/a.png", "ill/b.png", "well/a.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("L", (4, 4)).save(tmp_path / name)
    said = problems_of(tmp_path, folds=2, table=None)
    assert said == (
        "datasets.mine: class 'well' has 1 patient, fewer than 2 folds. Lower validation.folds, or leave the class out."
    )


def test_an_npz_is_checked_too(tmp_path):
    path = tmp_path / "m.npz"
    arrays = {f"{part}_images": np.zeros((4, 8, 8), np.uint8) for part in ("train", "test")}
    labels = {f"{part}_labels": np.array([[0], [1], [0], [1]]) for part in ("train", "test")}
    np.savez(path, **arrays, **labels)
    made, where = DatasetSettings(npz=str(path), split="official"), Where(npz=str(path))
    found = Problems("config")
    rows = check_dataset("m", made, where, found, budgets=["4", "5"])
    assert [row["label"] for row in rows] == ["0", "1"] * 4
    assert [line[1] for line in found.lines] == [
        "5 patients: datasets.m trains on 4 at most. Use all."
    ]
    np.savez(path, train_images=np.zeros((4, 8, 8, 8), np.uint8))
    found = Problems("config")
    assert check_dataset("m", made, where, found) == []
    assert "Write `ndim: 3` in the recipe" in found.lines[0][1]


# --- real data ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("covid_ct", {"split": "official"}),
        ("covid_ct", {}),
        ("busi_128", {"columns": Columns(patient=None)}),
        (
            "cxr_covid_multisite",
            {"columns": Columns(site="location"), "attributes": ["sex", "view"]},
        ),
    ],
)
def test_public_data_sets_pass(shared_data, name, settings):
    assert problems_of(shared_data(name), folds=5, budgets=["12", "all"], **settings) == ""


def test_an_unlabelled_public_set_passes_as_a_pool_only(shared_data):
    root = shared_data("luna_slices")
    assert problems_of(root, table="images.csv", pool=True) == ""
    assert "columns.label" in problems_of(root, table="images.csv")
