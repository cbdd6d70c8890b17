"""Files of several volumes (4D) as scans of a data set: names, tables, masks, slices, patients, counts, privacy."""

from __future__ import annotations

import hashlib
import json

import nibabel as nib
import numpy as np
import pytest
from fourth_axis_factory import AFFINE, body, save, save_nifti

from fewscans.audit.scans import NO_PATIENT, join_table
from fewscans.config import load
from fewscans.config.stages import AuditParams, ConvertParams
from fewscans.contracts import read_table
from fewscans.convert import paths, read
from fewscans.convert.chunks import read_converted, read_mask, write_chunk
from fewscans.convert.sources import list_scans
from fewscans.convert.table import read_labels
from fewscans.cost.counts import Counts, count
from fewscans.errors import UserError
from fewscans.privacy.files import write_private
from fewscans.privacy.unpack import contents
from fewscans.rawdata import Place, _files
from scripts import audit, convert


@pytest.fixture
def lab(tmp_path):
    """Two files of three volumes, one of one."""
    root = tmp_path / "raw"
    save_nifti(root / "a/four.nii.gz", body(3))
    save(root / "b/four.mha", body(3) + 100)
    save_nifti(root / "b/one.nii", body(1)[0] + 500)
    return root


def write(root, *rows, header="path,label,patient"):
    table = root / "labels.csv"
    table.write_text("\n".join([header, *rows]))
    return table


def converted(root, out, table=None, chunks=1, ndim=3, **settings):
    """(index, reader of pixels)."""
    given = {"dataset": "d", "root": str(root), "table": str(table) if table else None}
    for chunk in range(chunks):
        params = ConvertParams(**given, ndim=ndim, chunk=chunk, chunks=chunks, **settings)
        write_chunk(params, out / str(chunk))
    return read_converted([out / str(chunk) for chunk in range(chunks)])


def said(index) -> list[str]:
    """What became of each path."""
    return [f"{row.path}: {row.status} {row.reason}".strip() for row in index.itertuples()]


def test_a_file_of_volumes_gives_them_all_without_a_table(lab, tmp_path):
    index, pixels = converted(lab, tmp_path / "one")
    assert index["path"].tolist() == [
        "a/four.nii.gz#1", "a/four.nii.gz#2", "a/four.nii.gz#3",
        "b/four.mha#1", "b/four.mha#2", "b/four.mha#3", "b/one.nii",
    ]  # fmt: skip
    assert set(index["status"]) == {"ok"}
    assert index["source"].tolist()[:4] == ["a/four.nii.gz"] * 3 + ["b/four.mha"]
    assert index["note"][1].startswith("volume 2 of 3, along its fourth axis; turned from")
    for k in range(3):
        alone = save_nifti(tmp_path / f"{k}.nii", body(3)[k])
        np.testing.assert_array_equal(pixels(index.iloc[k]), read(alone, 3).physical())
    assert index["sha256"][0] == hashlib.sha256((lab / "a/four.nii.gz").read_bytes()).hexdigest()
    many, _ = converted(lab, tmp_path / "many", chunks=4)
    same = ["scan", "path", "sha256", "pixel_sha256", "note", "source"]
    assert many[same].equals(index[same])
    labels = read_labels(AuditParams(dataset="d", root=str(lab)), index)
    assert labels["label"].tolist() == [*"aaabbbb"]


def test_a_pool_of_files_without_folders_has_no_classes(tmp_path):
    save_nifti(tmp_path / "raw/p.nii.gz", body(2))
    index, _ = converted(tmp_path / "raw", tmp_path / "out")
    assert index["path"].tolist() == ["p.nii.gz#1", "p.nii.gz#2"]
    labels = read_labels(AuditParams(dataset="d", root=str(tmp_path / "raw"), pool=True), index)
    assert set(labels["label"]) == {""}
    assert [paths.class_of(p) for p in ("p.nii.gz#1", "p.NRRD#2", "ill#1")] == ["", "", "ill"]


def test_a_table_names_a_file_or_volumes_of_it(lab, tmp_path):
    table = write(lab, "a/four.nii.gz,x,1", "b/four.mha#2,y,2", "b/one.nii#1,y,3")
    index, pixels = converted(lab, tmp_path / "out", table)
    assert index["path"].tolist()[3:] == ["b/four.mha#2", "b/one.nii#1"]
    assert index["note"][3].startswith("volume 2 of 3")
    assert pixels(index.iloc[3]).min() == body(3)[1].min() + 100
    params = AuditParams(dataset="d", root=str(lab), table=str(table))
    scans = join_table(index, read_labels(params, index), params)
    assert scans["patient"].tolist() == ["1", "1", "1", "2", "3"]
    assert scans["target"].tolist() == ["x", "x", "x", "y", "y"]
    bad = write(lab, "a/four.nii.gz#4,x,1", "b/one.nii#2,y,3", "b/four.mha#3,x,2")
    assert said(converted(lab, tmp_path / "bad", bad)[0]) == [
        "a/four.nii.gz#4: unreadable no such volume; it holds 3 volumes",
        "b/four.mha#3: ok",
        "b/one.nii#2: unreadable no such volume; it holds 1 volume",
    ]
    both = write(lab, "a/four.nii.gz,x,1", "a/four.nii.gz#2,y,2")
    with pytest.raises(UserError, match="named by the row of a folder too"):
        converted(lab, tmp_path / "both", both)


def test_volumes_named_one_by_one_are_one_patient_where_nobody_knows_them(lab, tmp_path):
    table = write(lab, "a/four.nii.gz#1,x", "a/four.nii.gz#3,x", "b/one.nii,y", header="path,label")
    index, _ = converted(lab, tmp_path / "out", table, chunks=3)
    params = AuditParams(dataset="d", root=str(lab), table=str(table), columns={"patient": None})
    scans = join_table(index, read_labels(params, index), params)
    assert scans["patient"][0] == scans["patient"][1] == NO_PATIENT + scans["scan"][0]
    assert scans["patient"][2] != scans["patient"][0]


def test_files_of_volumes_in_a_folder_that_is_named(lab, tmp_path):
    index, _ = converted(lab, tmp_path / "out", write(lab, "b,x,1"), exclude=["b/four.mha#[12]"])
    assert index["path"].tolist() == ["b/four.mha#3", "b/one.nii"]
    assert set(index["source"]) == {"b"}


def test_a_damaged_file_of_volumes_is_one_row(lab, tmp_path):
    path = lab / "a/four.nii.gz"
    path.write_bytes(path.read_bytes()[:-9])
    nib.save(nib.Nifti1Image(np.zeros((4, 5, 6, 1, 3), np.float32), AFFINE), lab / "b/vector.nii")
    index, _ = converted(lab, tmp_path / "out")
    assert [line for line in said(index) if "ok" not in line] == [
        "a/four.nii.gz: unreadable the file is cut short: its packed data break off",
        "b/vector.nii: set-aside 5 axes (4 x 5 x 6 x 1 x 3): several numbers per voxel; one volume is read. Split it",
    ]
    assert index["format"].tolist()[0] == "NIFTI"


def test_volumes_are_excluded_by_globs(lab, tmp_path):
    three = ["#1", "#2", "#3"]
    for pattern, left in (("*#[23]", ["#1", "#1", "b/one.nii"]), ("*.nii.gz#*", [*three, "b/one.nii"])):  # fmt: skip
        index, _ = converted(lab, tmp_path / f"{left}", exclude=[pattern])
        assert [path[-2:] if "#" in path else path for path in index["path"]] == left
    index, _ = converted(lab, tmp_path / "name", exclude=["a/four.nii.gz#2"])
    assert index["path"].tolist()[:2] == ["a/four.nii.gz#1", "a/four.nii.gz#3"]
    for wrong in ("*.png#2", "#2", "c#*"):
        with pytest.raises(UserError, match="meets no path"):
            list_scans(ConvertParams(dataset="d", root=str(lab), ndim=3, exclude=[wrong]))


def test_slices_of_volumes_of_a_file(lab, tmp_path):
    index, pixels = converted(lab, tmp_path / "out", ndim=2, slices={"plane": "axial", "central": 1})  # fmt: skip
    assert index["path"].tolist()[:2] == ["a/four.nii.gz#1#axial-2", "a/four.nii.gz#2#axial-2"]
    assert index["volume"].tolist()[:2] == ["a/four.nii.gz#1", "a/four.nii.gz#2"]
    assert set(index["whole"]) == {"a/four.nii.gz", "b/four.mha", "b/one.nii"}
    for k in range(2):
        whole = read(lab / "a/four.nii.gz", 3, k).physical()
        np.testing.assert_array_equal(pixels(index.iloc[k]), whole[:, 1, ::-1, ::-1])
    table = write(lab, "a/four.nii.gz#2#axial-3,x,1", "b/four.mha#coronal-1,y,2")
    named, _ = converted(lab, tmp_path / "named", table, ndim=2, slices={})
    assert named["path"].tolist() == [
        "a/four.nii.gz#2#axial-3", *(f"b/four.mha#{k}#coronal-1" for k in (1, 2, 3)),
    ]  # fmt: skip
    labels = read_labels(AuditParams(dataset="d", root=str(lab), table=str(table)), named)
    assert labels["label"].tolist() == ["x", "y", "y", "y"]


def test_in_2d_a_file_of_volumes_is_set_aside_as_before(lab, tmp_path):
    save_nifti(lab / "b/slice.nii", body(1, shape=(2, 4, 5))[0, :1])
    index, _ = converted(lab, tmp_path / "out", ndim=2)
    assert [line for line in said(index) if "ok" in line] == ["b/slice.nii: ok"]
    assert "a volume (3 x 5 x 4 x 3); 2D is read here" in said(index)[0]


def test_counts_of_the_plan_follow_what_was_found(lab, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _files.cache_clear()
    table = write(lab, "a/four.nii.gz,x,1", "b/four.mha,y,2", "b/one.nii,y,3")
    datasets = {"p": {"root": str(lab), "table": "labels.csv"}}
    config = load({"datasets": datasets, "recipes": {"m": {"ndim": 3, "size": 16}}})
    assert count(config, "p") == Counts(3, 3)
    params = ConvertParams(dataset="p", root=str(lab), table=str(table), ndim=3)
    write_chunk(params, tmp_path / "work/p/converted/0")
    facts = json.loads((tmp_path / "work/p/converted/0/counts.json").read_text())
    assert (facts["scans"], facts["sources"]) == (7, 3)
    assert count(config, "p") == Counts(7, 3)
    place = Place(root=str(lab), table=str(table), npz=None)
    whole = _files(place, "path", "mask").n_bytes
    write(lab, *(f"a/four.nii.gz#{k},x,1" for k in (1, 2, 3)), "b/four.mha,y,2", "b/one.nii,y,3")
    _files.cache_clear()
    assert _files(place, "path", "mask").n_bytes == whole  # a file is weighed once


# --- Decathlon ------------------------------------------------------------------------------------

NAMES = {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "KellerSpecial"}


@pytest.fixture
def tumours(tmp_path):
    """As Task01_BrainTumour: four modalities in one image, one label map of three axes."""
    root = tmp_path / "Task01"
    for n in range(2):
        save_nifti(root / f"imagesTr/B{n}.nii.gz", body(4, shape=(4, 5, 6)) + 50 * n)
        save_nifti(root / f"labelsTr/B{n}.nii.gz", (body(1, shape=(4, 5, 6))[0] % 4).astype("u1"))
    listed = [{"image": f"./imagesTr/B{n}.nii.gz", "label": f"./labelsTr/B{n}.nii.gz"} for n in range(2)]  # fmt: skip
    said = {"name": "x", "modality": NAMES, "training": listed, "test": [], "numTraining": 2, "numTest": 0}  # fmt: skip
    (root / "dataset.json").write_text(json.dumps(said))
    return root


def test_modalities_of_the_decathlon_are_named_and_have_the_label_map(tumours, tmp_path):
    index, _ = converted(tumours, tmp_path / "out", tumours / "dataset.json", mask_column="mask")
    assert len(index) == 8
    names = [note.rpartition("; modality ")[2] for note in index["note"]]
    assert names == [*NAMES.values()] * 2
    wanted = read(tumours / "labelsTr/B0.nii.gz", 3).array[0]
    for row in index.to_dict("records"):
        np.testing.assert_array_equal(read_mask(row), wanted)
    params = AuditParams(dataset="d", root=str(tumours), table=str(tumours / "dataset.json"))
    scans = join_table(index, read_labels(params, index), params)
    assert scans["patient"].tolist() == ["B0"] * 4 + ["B1"] * 4
    assert set(scans["split"]) == {"train"}


def test_one_modality_is_picked_by_exclude_or_by_a_table(tumours, tmp_path):
    table = tumours / "dataset.json"
    index, _ = converted(tumours, tmp_path / "a", table, exclude=["*#[134]"], mask_column="mask")
    assert index["path"].tolist() == ["imagesTr/B0.nii.gz#2", "imagesTr/B1.nii.gz#2"]
    assert index["note"].str.endswith("modality T1w").all()
    own = write(tumours, "imagesTr/B0.nii.gz#1,x,1", "imagesTr/B1.nii.gz#1,y,2")
    index, _ = converted(tumours, tmp_path / "b", own)
    assert index["note"].str.endswith("modality FLAIR").all()
    # A list of another length names nothing.
    said = json.loads(table.read_text()) | {"modality": {"0": "FLAIR", "1": "T1w"}}
    table.write_text(json.dumps(said))
    assert not converted(tumours, tmp_path / "c", table)[0]["note"].str.contains("modality").any()


# --- privacy --------------------------------------------------------------------------------------


def test_volumes_of_private_files_are_those_of_open_ones_without_names(tumours, tmp_path):
    rows = [f"imagesTr/B1.nii.gz#{k},y,KELLER1" for k in (2, 4)]
    table = write(tumours, "imagesTr/B0.nii.gz,x,KELLER0", *rows)

    def through(out, private):
        place = {"dataset": "d", "root": str(tumours), "table": str(table)}
        if private:
            write_private(out / "private-key", hashlib.sha256(b"a key").digest())
            place |= {"private": str(out / "private"), "key": str(out / "private-key")}
        folder, labels = out / "converted/0", out / "labels.parquet"
        said = json.dumps({**place, "ndim": 3})
        assert convert.main(["--params", said, "--out", str(folder)]) == 0
        words = ["--converted", str(folder), "--labels", str(labels), "--out", str(out / "audit")]
        assert audit.main(["--params", json.dumps(place), *words]) == 0
        return read_table(labels, "labels"), read_table(folder / "index.parquet", "index")

    (shown, plain), (hidden, index) = (through(tmp_path / str(p), p) for p in (False, True))
    assert len(shown) == len(hidden) == 6
    for column in ("patient", "group"):
        one, other = (
            {frozenset(part["pixel_sha256"]) for _, part in labels.groupby(column)}
            for labels in (shown, hidden)
        )
        assert one == other
    targets = [one.set_index("pixel_sha256")["target"].sort_index() for one in (shown, hidden)]
    assert targets[0].equals(targets[1])
    assert plain["note"].str.endswith("modality KellerSpecial").sum() == 2
    assert index["note"].str.endswith("modality ...").sum() == 2
    assert index["note"].str.endswith("modality FLAIR").sum() == 1
    outside = [p for p in (tmp_path / "True").rglob("*") if p.is_file()]
    outside = [p for p in outside if "private" not in p.relative_to(tmp_path).as_posix()]
    assert {p.name for p in outside} > {"index.parquet", "labels.parquet", "counts.json"}
    for path in outside:
        for place, data in contents(path, path.name):
            for name in (b"KELLER", b"Keller", b"imagesTr", b"B1.nii"):
                assert name not in data, place
