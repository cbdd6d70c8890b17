"""BIDS and the Decathlon: which scans, whose, with which labels, from the files that say so."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from fewscans.config import load
from fewscans.config.models import Columns
from fewscans.config.stages import AuditParams, ConvertParams
from fewscans.convert.chunks import read_converted, write_chunk
from fewscans.convert.layouts import table_beside
from fewscans.convert.rows import read_rows, read_table
from fewscans.convert.table import read_labels
from fewscans.errors import UserError
from fewscans.plan import expand
from fewscans.rawdata import check_config, layout, resolve

BODY = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6)


def scan(path: Path, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(BODY + np.int16(seed), np.diag([1, 1, 2, 1])), path)


def said(root: Path, **files: object) -> None:
    """Write files of text or JSON; '__' in a name is '/'."""
    for name, what in files.items():
        path = root / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(what if isinstance(what, str) else json.dumps(what))


def cells(rows: list[dict[str, str]], *columns: str) -> list[tuple[str, ...]]:
    return [tuple(row[column] for column in columns) for row in rows]


def problems(table: Path) -> str:
    with pytest.raises(UserError) as caught:
        read_rows(table)
    return str(caught.value)


def config(root: Path, table: str | None = None, **more: object):
    dataset = {"root": str(root), **({"table": table} if table else {}), **more}
    text = {"datasets": {"mine": dataset}, "recipes": {"main": {"ndim": 3, "size": 16}}}
    text |= {"validation": {"folds": 2}, "budgets": ["all"]}
    return load(text | {"encoders": {"s": {"method": "simclr", "backbone": "monai-test-resnet"}}})


# --- BIDS -----------------------------------------------------------------------------------------


@pytest.fixture
def bids(tmp_path):
    """Two participants of a site each, one with two visits; four more so that folds are possible."""
    said(tmp_path, dataset_description_dot_json={"Name": "x", "BIDSVersion": "1.10.0"})
    for number, visits in ((1, ("a", "b")), (2, ("a",))):
        for visit in visits:
            scan(
                tmp_path / f"sub-0{number}/ses-{visit}/anat/sub-0{number}_ses-{visit}_T1w.nii.gz",
                number,
            )
    for number in (3, 4, 5, 6):
        scan(tmp_path / f"sub-0{number}/anat/sub-0{number}_run-1_T1w.nii.gz", number)
    scan(tmp_path / "derivatives/x/sub-01/anat/sub-01_T1w.nii.gz")
    scan(tmp_path / "sub-03/anat/sub-04_T1w.nii.gz")  # of somebody else: no name that BIDS knows
    scan(tmp_path / "sub-03/anat/strange.nii.gz")
    lines = ["participant_id\tgroup\tsite\tage"]
    lines += [f"sub-0{n}\t{'patient' if n % 2 else 'control'}\tS{n % 2}\tn/a" for n in range(1, 7)]
    (tmp_path / "participants.tsv").write_text("\n".join(lines))
    return tmp_path


def test_scans_are_those_that_bids_names_with_labels_of_participants(bids):
    table = table_beside(bids)
    assert table == bids / "participants.tsv"
    rows = read_rows(table)
    assert cells(rows, "path", "patient", "session", "group", "site", "age") == [
        ("sub-03/anat/sub-03_run-1_T1w.nii.gz", "sub-03", "", "patient", "S1", ""),
        ("sub-04/anat/sub-04_run-1_T1w.nii.gz", "sub-04", "", "control", "S0", ""),
        ("sub-05/anat/sub-05_run-1_T1w.nii.gz", "sub-05", "", "patient", "S1", ""),
        ("sub-06/anat/sub-06_run-1_T1w.nii.gz", "sub-06", "", "control", "S0", ""),
        ("sub-01/ses-a/anat/sub-01_ses-a_T1w.nii.gz", "sub-01", "a", "patient", "S1", ""),
        ("sub-01/ses-b/anat/sub-01_ses-b_T1w.nii.gz", "sub-01", "b", "patient", "S1", ""),
        ("sub-02/ses-a/anat/sub-02_ses-a_T1w.nii.gz", "sub-02", "a", "control", "S0", ""),
    ]
    assert {row["suffix"] for row in rows} == {"T1w"}
    assert {row["datatype"] for row in rows} == {"anat"}
    assert cells(rows[:1], "run") == [("1",)]
    assert len({tuple(row) for row in rows}) == 1


def test_sidecars_are_inherited_and_the_nearest_wins(bids):
    said(
        bids,
        T1w_dot_json={"Manufacturer": "A", "EchoTime": 0.01, "PatientName": "NN", "Modality": "MR"},
        **{"ses-b_T1w_dot_json": {"Manufacturer": "B"}, "T2w_dot_json": {"Manufacturer": "C"}},
        **{"sub-01__sub-01_T1w_dot_json": {"EchoTime": 0.02}},
        **{"sub-03__anat__sub-03_run-1_T1w_dot_json": {"Manufacturer": "D", "EchoTime": [1, 2]}},
        **{"sub-04__anat__sub-04_run-2_T1w_dot_json": {"Manufacturer": "E"}},
    )
    (bids / "ses-b_T1w.json").rename(bids / "sub-01/sub-01_ses-b_T1w.json")
    assert "two sidecars at one level: sub-01_T1w.json, sub-01_ses-b_T1w.json" in problems(
        bids / "participants.tsv"
    )
    (bids / "sub-01/sub-01_ses-b_T1w.json").rename(bids / "sub-01/ses-b/sub-01_ses-b_T1w.json")
    rows = {row["path"].rpartition("/")[2]: row for row in read_rows(bids / "participants.tsv")}
    found = {name: (row["Manufacturer"], row["EchoTime"]) for name, row in rows.items()}
    assert found["sub-01_ses-a_T1w.nii.gz"] == ("A", "0.02")
    assert found["sub-01_ses-b_T1w.nii.gz"] == ("B", "0.02")
    assert found["sub-02_ses-a_T1w.nii.gz"] == ("A", "0.01")
    assert found["sub-03_run-1_T1w.nii.gz"] == ("D", "")
    assert found["sub-04_run-1_T1w.nii.gz"] == ("A", "0.01")
    assert not any("PatientName" in row for row in rows.values())


def test_a_table_of_ones_own_joins_by_participant_and_visit(bids):
    (bids / "mine.csv").write_text(
        "participant_id,session_id,label\n01,ses-b,worse\nsub-01,a,same\n02,n/a,same\n"
    )
    said(bids, **{"sub-01__sub-01_sessions_dot_tsv": "session_id\tweight\nses-a\t70\nses-b\tn/a\n"})
    rows = {row["path"].rpartition("/")[2]: row for row in read_rows(bids / "mine.csv")}
    assert rows["sub-01_ses-b_T1w.nii.gz"]["label"] == "worse"
    assert rows["sub-01_ses-a_T1w.nii.gz"]["label"] == "same"
    assert rows["sub-02_ses-a_T1w.nii.gz"]["label"] == "same"
    assert rows["sub-03_run-1_T1w.nii.gz"]["label"] == ""
    assert rows["sub-01_ses-a_T1w.nii.gz"]["weight"] == "70"
    assert "group" not in rows["sub-01_ses-a_T1w.nii.gz"]


def test_a_table_with_paths_is_a_plain_one_in_a_layout_too(bids):
    (bids / "mine.csv").write_text("path,participant_id\nsub-03/anat/strange.nii.gz,sub-03\n")
    assert cells(read_rows(bids / "mine.csv"), "path") == [("sub-03/anat/strange.nii.gz",)]
    assert len(read_table(bids / "participants.tsv")) == 6


def test_bids_goes_before_the_decathlon_and_a_table_counts_where_it_is_named(bids):
    said(bids, dataset_dot_json={"training": [], "modality": {}})
    (bids / "labels.csv").write_text("participant_id,label\nsub-03,a\n")
    assert resolve(config(bids), "mine").table == str(bids / "participants.tsv")
    assert resolve(config(bids, "labels.csv"), "mine").table == str(bids / "labels.csv")
    labels = {row["patient"]: row["label"] for row in read_rows(bids / "labels.csv")}
    assert labels["sub-03"] == "a"
    assert labels["sub-04"] == ""


def test_what_is_wrong_with_bids_is_said_all_at_once(bids, tmp_path_factory):
    table = bids / "participants.tsv"
    good = table.read_text()
    said(bids, T1w_dot_json="{", **{"sub-01__sub-01_sessions_dot_tsv": "visit\na\n"})
    table.write_text(good + "\nsub-01\tcontrol\tS1\t4")
    text = problems(table)
    assert "3 problems" in text
    assert (
        "1 participant with two rows that differ. Name the visit in a column 'session_id'" in text
    )
    assert "T1w.json" in text
    assert "has no column 'session_id'" in text
    (bids / "T1w.json").unlink()
    (bids / "sub-01/sub-01_sessions.tsv").unlink()
    table.write_text(good.replace("sub-0", "sub-9"))
    assert "no row is of a participant of the folder, such as 'sub-03'" in problems(table)
    empty = tmp_path_factory.mktemp("empty")
    said(empty, dataset_description_dot_json={})
    assert table_beside(empty) == empty / "dataset_description.json"
    assert "no scan in" in problems(empty / "dataset_description.json")


def test_bids_from_config_to_labels(bids, tmp_path_factory):
    columns = {"label": "group"}
    made = config(bids, columns=columns, attributes=["Manufacturer"])
    place = resolve(made, "mine")
    assert place.table == str(bids / "participants.tsv")
    check_config(expand(made))
    before = layout(made, "mine")
    said(bids, T1w_dot_json={"Manufacturer": "A"})
    assert layout(made, "mine") != before
    out = tmp_path_factory.mktemp("out")
    write_chunk(ConvertParams(dataset="mine", root=place.root, table=place.table, ndim=3), out)
    index, _ = read_converted([out])
    assert index["status"].tolist() == ["ok"] * 7
    params = AuditParams(
        dataset="mine", table=place.table, columns=Columns(**columns), attributes=["Manufacturer"]
    )
    labels = read_labels(params, index)
    assert labels["patient"].nunique() == 6
    assert sorted(set(labels["label"])) == ["control", "patient"]
    assert set(labels["Manufacturer"]) == {"A"}
    with pytest.raises(UserError, match="the table has no column 'diagnosis'"):
        check_config(expand(config(bids, columns={"label": "diagnosis"})))


# --- Decathlon ------------------------------------------------------------------------------------


@pytest.fixture
def decathlon(tmp_path):
    for n in range(6):
        scan(tmp_path / f"imagesTr/case_{n}.nii.gz", n)
        scan(tmp_path / f"labelsTr/case_{n}.nii.gz")
    scan(tmp_path / "imagesTs/case_9.nii.gz", 9)
    training = [
        {"image": f"./imagesTr/case_{n}.nii.gz", "label": f"./labelsTr/case_{n}.nii.gz"}
        for n in range(6)
    ]
    said(tmp_path, dataset_dot_json={
        "name": "x", "modality": {"0": "MRI"}, "labels": {"0": "background", "1": "a"}, "numTraining": 6, "numTest": 1,
        "training": training, "test": ["./imagesTs/case_9.nii.gz"],
    })  # fmt: skip
    return tmp_path


def test_images_of_the_decathlon_with_their_label_maps(decathlon):
    table = table_beside(decathlon)
    assert table == decathlon / "dataset.json"
    rows = read_rows(table)
    assert cells(rows[:1], "path", "mask", "patient", "split", "label", "modality") == [
        ("imagesTr/case_0.nii.gz", "labelsTr/case_0.nii.gz", "case_0", "train", "", "MRI")
    ]
    assert cells(rows[6:], "path", "mask", "split") == [("imagesTs/case_9.nii.gz", "", "test")]


def test_classes_of_the_decathlon_come_from_a_table_of_ones_own(decathlon, tmp_path_factory):
    lines = [f"case_{n},{'ab'[n % 2]}" for n in range(6)]
    (decathlon / "labels.csv").write_text("\n".join(["patient,label", *lines]))
    made = config(decathlon, "labels.csv")
    check_config(expand(made))
    rows = read_rows(decathlon / "labels.csv")
    assert cells(rows[:2], "path", "label") == [
        ("imagesTr/case_0.nii.gz", "a"),
        ("imagesTr/case_1.nii.gz", "b"),
    ]
    assert rows[6]["label"] == ""
    out = tmp_path_factory.mktemp("out")
    place = resolve(made, "mine")
    write_chunk(ConvertParams(dataset="mine", root=place.root, table=place.table, ndim=3), out)
    index, _ = read_converted([out])
    assert len(index) == 7
    (decathlon / "labels.csv").write_text("patient,label\nnobody,a\n")
    assert "no row of" in problems(decathlon / "labels.csv")


def test_what_is_wrong_with_a_dataset_json_is_said_all_at_once(decathlon):
    path = decathlon / "dataset.json"
    good = json.loads(path.read_text())
    good["training"][2] = {"label": "x"}
    path.write_text(json.dumps(good | {"numTraining": 20, "test": {}}))
    text = problems(path)
    assert "3 problems" in text
    assert "says 20, and 'training' lists 6" in text
    assert "1 line without an image" in text
    assert "test " in text
    (decathlon / "imagesTr/case_1.nii.gz").unlink()
    path.write_text(json.dumps(good | {"training": good["training"][:2]} | {"numTraining": 2}))
    with pytest.raises(UserError, match=r"case_1\.nii\.gz"):
        check_config(expand(config(decathlon)))


def test_another_dataset_json_is_none_of_the_decathlon(tmp_path):
    for text in ("[]", "{", '{"training": 1}'):
        (tmp_path / "dataset.json").write_text(text)
        assert table_beside(tmp_path) is None


def test_the_public_decathlon_set_is_the_list_of_its_file(shared_data):
    folder = shared_data("hippocampus_nifti")
    rows = read_rows(table_beside(folder))
    there = {path.name for path in (folder / "imagesTr").glob("*.nii.gz")}
    assert len(rows) == 60
    assert {Path(row["path"]).name for row in rows} < there  # strays are in no list
    assert all((folder / row["mask"]).is_file() for row in rows)
