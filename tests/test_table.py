"""Label tables: reading them, and everything that can be wrong with them."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fewscans.config.models import Columns, DatasetSettings, SplitNames
from fewscans.config.stages import AuditParams, ConvertParams
from fewscans.convert.paths import normal_path, scan_key
from fewscans.convert.sources import list_scans
from fewscans.convert.table import check_dataset, read_labels, read_rows
from fewscans.errors import Problems, UserError


@dataclass
class Where:
    root: str | None = None
    table: str | None = None
    npz: str | None = None


def problems_of(root: Path, folds: int = 3, budgets=(), pool: bool = False, **dataset) -> str:
    """What `check_dataset` says of root/labels.csv."""
    table = dataset.setdefault("table", "labels.csv")
    found = Problems("config")
    where = Where(str(root), str(root / table) if table else None)
    made = DatasetSettings(root=str(root), **dataset)
    check_dataset("mine", made, where, found, folds=folds, budgets=budgets, pool=pool)
    return "\n".join(f"{place}: {message}" for place, message in found.lines)


def change(root: Path, **columns) -> None:
    """Overwrite columns of root/labels.csv; None drops one, a mapping changes single rows."""
    frame = pd.read_csv(root / "labels.csv", dtype=str, keep_default_na=False)
    for name, value in columns.items():
        if value is None:
            frame = frame.drop(columns=name)
        elif isinstance(value, dict):
            for row, cell in value.items():
                frame.loc[row, name] = cell
        else:
            frame[name] = value
    frame.to_csv(root / "labels.csv", index=False)


# --- reading --------------------------------------------------------------------------------------

ROWS = [
    {"path": "a b.png", "label": "x,y", "patient": "001"},
    {"path": "ü.png", "label": 'say "hi"', "patient": ""},
    {"path": " lead.png", "label": "line\nbreak", "patient": "1.0"},
]


@pytest.mark.parametrize(
    ("name", "delimiter"), [("t.csv", ","), ("t.csv", ";"), ("t.tsv", "\t"), ("T.CSV", "|")]
)
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_text_tables_come_back_as_written(tmp_path, write_table, name, delimiter, mark):
    path = write_table(tmp_path / name, ROWS, delimiter)
    path.write_bytes(mark + path.read_bytes())
    assert read_rows(path) == ROWS
    assert read_rows(path, ["path"]) == [{"path": row["path"]} for row in ROWS]


def test_parquet_is_text_too(tmp_path):
    frame = pd.DataFrame(
        {"path": ["a", "b", "c"], "patient": [1, None, 3], "age": [1.5, np.nan, 2.0]}
    )
    frame.to_parquet(tmp_path / "t.parquet")
    assert read_rows(tmp_path / "t.parquet") == [
        {"path": "a", "patient": "1", "age": "1.5"},
        {"path": "b", "patient": "", "age": ""},
        {"path": "c", "patient": "3", "age": "2"},
    ]


CELL = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=12)


@settings(max_examples=40, deadline=None)
@given(cells=st.lists(st.tuples(CELL, CELL), min_size=1, max_size=6))
def test_any_cell_survives_a_csv(tmp_path_factory, write_table, cells):
    rows = [{"path": path, "label": label} for path, label in cells]
    assert read_rows(write_table(tmp_path_factory.mktemp("t") / "t.csv", rows)) == rows


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("t.csv", b"", "is empty"),
        ("t.csv", b"path,path\na,b\n", "2 columns have this name"),
        ("t.csv", b"path,label\na,b,c\nd\n", "row 1 has 3"),
        ("t.csv", b"path,label\n\xff\xfe,b\n", "not UTF-8"),
        ("t.parquet", b"PAR1 no", "not a Parquet table"),
        ("t.xlsx", b"PK", "Save it as one of these"),
    ],
)
def test_tables_that_are_none_are_refused_in_words(tmp_path, name, content, says):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=says):
        read_rows(tmp_path / name)


def test_a_column_that_is_not_there_names_the_nearest(tmp_path, write_table):
    path = write_table(tmp_path / "t.csv", ROWS)
    with pytest.raises(UserError, match="Did you mean 'patient'") as caught:
        read_rows(path, ["pateint", "site", "path"])
    assert len(caught.value.problems) == 2


# --- paths ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "normal"),
    [
        ("a/b.png", "a/b.png"),
        ("./a//b.png", "a/b.png"),
        ("a/../b.png", "b.png"),
        ("..a/b", "..a/b"),
    ],
)
def test_paths_have_one_spelling(path, normal):
    assert normal_path(path) == normal
    assert scan_key("d", normal_path(path)) == scan_key("d", normal)


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "../x",
        "a/../../x",
        "C:\\x",
        "C:/x",
        "\\\\host\\x",
        "~/x",
        "",
        " ",
        ".",
        "a/..",
        "a\0b",
    ],
)
def test_paths_that_leave_the_root_are_refused(path):
    with pytest.raises(ValueError):
        normal_path(path)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.sampled_from(["a", "b", "..", ".", "", " "]), min_size=1, max_size=6).map("/".join)
)
def test_no_path_that_passes_leaves_the_root(path):
    try:
        normal = normal_path(path)
    except ValueError:
        return
    assert not normal.startswith(("/", "../"))
    assert ".." not in normal.split("/")
    assert normal_path(normal) == normal


def test_all_problems_with_paths_are_said_at_once(scan_folder, write_table):
    root = scan_folder(6, kinds=["png"])
    (root / "images" / "out.png").symlink_to("/etc/hostname")
    (root / "linked").symlink_to(root.parent)
    (root.parent / "outside.png").write_bytes(b"x")
    good = [row["path"] for row in read_rows(root / "labels.csv")]
    bad = [
        "/abs.png",
        "../up.png",
        good[0],
        f"./{good[1]}",
        "images/out.png",
        "linked/outside.png",
        "gone.png",
    ]
    write_table(root / "labels.csv", [{"path": path} for path in good + bad])
    with pytest.raises(UserError) as caught:
        list_scans(ConvertParams(dataset="d", root=str(root), table=str(root / "labels.csv")))
    text = str(caught.value)
    for expected in (
        "is absolute",
        "leaves root",
        "2 paths listed twice",
        "2 paths lead out of root",
        "'gone.png'",
    ):
        assert expected in text


def test_a_link_that_stays_inside_is_fine(scan_folder, write_table):
    root = scan_folder(4, kinds=["png"])
    (root / "link.png").symlink_to(root / read_rows(root / "labels.csv")[0]["path"])
    write_table(root / "labels.csv", [{"path": "link.png"}])
    assert (
        len(list_scans(ConvertParams(dataset="d", root=str(root), table=str(root / "labels.csv"))))
        == 1
    )


def test_missing_files_are_counted_and_the_first_20_named(scan_folder, write_table):
    root = scan_folder(2)
    rows = read_rows(root / "labels.csv") + [
        {**ROWS[0], "path": f"gone{i}.png", "split": "", "site": ""} for i in range(30)
    ]
    write_table(root / "labels.csv", rows)
    said = problems_of(root)
    assert "30 of 32 files are not there" in said
    assert said.count("gone") == 20
    assert "... and 10 more" in said


@pytest.mark.parametrize(
    ("prefix", "hint"),
    [
        ("scans/images/", "leave 'scans/' out of the paths"),
        ("", "Did you mean 'images/"),
        ("images\\", "Write '/'"),
    ],
)
def test_a_root_that_does_not_fit_is_explained(scan_folder, prefix, hint):
    root = scan_folder(4)
    frame = pd.read_csv(root / "labels.csv")
    change(root, path=prefix + frame["path"].str.removeprefix("images/"))
    said = problems_of(root, folds=2)
    assert "none of the 4 files is there" in said
    assert hint in said


# --- what a table says ----------------------------------------------------------------------------


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
    assert "3D is not read here" in found.lines[0][1]


# --- for the audit --------------------------------------------------------------------------------


def labels_of(root: Path, paths: list[str], **params) -> pd.DataFrame:
    params.setdefault("table", str(root / "labels.csv"))
    return read_labels(AuditParams(dataset="d", **params), pd.DataFrame({"path": paths}))


def test_labels_are_text_and_of_the_scans_asked_for(scan_folder):
    root = scan_folder(8, split=True, unlabelled=2)
    rows = read_rows(root / "labels.csv")
    change(root, path={0: f"./{rows[0]['path']}"}, patient={1: " p000 "}, age=["", *"1234567"])
    paths = [row["path"] for row in rows[:-1]]
    made = labels_of(root, paths, attributes=["age"])
    assert list(made.columns) == ["path", "label", "patient", "split", "site", "age"]
    assert made["path"].tolist() == paths
    assert made["patient"].tolist()[:2] == ["p000", "p000"]
    assert made["label"].tolist()[-1] == ""
    assert made["age"].tolist() == ["", *"123456"]
    assert all(isinstance(value, str) for value in made.to_numpy().ravel())


def test_labels_of_folders_and_npz(tmp_path):
    made = labels_of(tmp_path, ["ill/a.png", "well/b/c.png", "lone.png"], table=None)
    assert made["label"].tolist() == ["ill", "well", ""]
    assert made["patient"].tolist() == ["", "", ""]
    np.savez(tmp_path / "m.npz", train_images=np.zeros((2, 4, 4)), train_labels=[[3], [1]])
    made = labels_of(tmp_path, ["train/000001"], table=None, npz=str(tmp_path / "m.npz"))
    assert made.to_dict("records") == [
        {"path": "train/000001", "label": "1", "patient": "", "split": "train", "site": ""}
    ]


def test_labels_that_cannot_be_meant_are_refused(scan_folder):
    root = scan_folder(12, split=True)
    paths = [row["path"] for row in read_rows(root / "labels.csv")]
    with pytest.raises(UserError, match="is not listed"):
        labels_of(root, paths, classes=["benign", "other"])
    change(root, patient="one")
    with pytest.raises(UserError, match="more than one part"):
        labels_of(root, paths, split="official")
    # What is excluded does not count.
    assert len(labels_of(root, paths[:1], split="grouped")) == 1


def test_checking_tables_imports_nothing_heavy():
    code = (
        "import sys, fewscans.convert.table, fewscans.convert.sources;"
        "heavy = {'torch', 'pandas', 'numpy', 'pyarrow', 'SimpleITK', 'pydicom', 'nibabel', 'PIL'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    root = Path(__file__).parents[1]
    made = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    assert made.stdout.strip() == "[]"


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
