"""Label tables: reading them, the paths in them, and what the audit is given."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from table_factory import change, problems_of

from fewscans.config.stages import AuditParams, ConvertParams
from fewscans.convert.paths import normal_path, scan_key
from fewscans.convert.sources import list_scans
from fewscans.convert.table import read_labels, read_rows
from fewscans.errors import UserError

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
