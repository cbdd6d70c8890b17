"""Folders and files of volumes as scans of a data set: names, labels, patients, chunks, and what reruns convert."""

from __future__ import annotations

import os
import shutil

import numpy as np
import pandas as pd
import pydicom
import pytest
from pydicom.dataset import Dataset
from series_factory import AXIAL, BODY, Series, converted

from fewscans.audit.scans import NO_PATIENT, join_table
from fewscans.config import load
from fewscans.config.stages import AuditParams, ConvertParams
from fewscans.config.values import ValueTable
from fewscans.convert import Scan
from fewscans.convert.chunks import read_converted, write_chunk
from fewscans.convert.sources import Source, list_scans
from fewscans.convert.table import read_labels
from fewscans.convert.unfold import unfold
from fewscans.errors import UserError
from fewscans.plan import expand
from fewscans.rawdata import _files, check_config, fingerprint
from fewscans.values import read_all


@pytest.fixture
def lab(write_dicom, tmp_path):
    """Three patients: one series, two series, one with a localiser and a text beside it."""
    root = tmp_path / "raw"
    for n, name in enumerate(("a/p1", "a/p2", "b/p3")):
        series = Series(write_dicom, root / name)
        series.body(body=BODY + 200 * n, SeriesInstanceUID=f"1.2.{n}")
        if name == "a/p2":
            series.body(body=BODY + 900, SeriesInstanceUID="1.2.9", SeriesNumber=7)
    series.slice(BODY[0], 0, SeriesInstanceUID="1.5", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])  # fmt: skip
    (root / "b/p3/notes.txt").write_text("not a scan")
    return root


def write(root, *rows, header="path,label,patient"):
    table = root / "labels.csv"
    table.write_text("\n".join([header, *rows]))
    return table


def params_of(root, table=None, **settings) -> ConvertParams:
    return ConvertParams(
        dataset="d", root=str(root), table=str(table) if table else None, ndim=3, **settings
    )


def converted_index(params, out) -> pd.DataFrame:
    for chunk in range(params.chunks):
        write_chunk(params.model_copy(update={"chunk": chunk}), out / str(chunk))
    return read_converted([out / str(chunk) for chunk in range(params.chunks)])[0]


def test_chunks_hold_all_volumes_and_the_row_that_named_them(lab, tmp_path):
    table = write(lab, "a/p1,x,1", "a/p2,x,2", "b/p3,y,3")
    index = converted_index(params_of(lab, table, chunks=3), tmp_path / "many")
    kept = index[index["status"] == "ok"]
    assert kept["path"].tolist() == ["a/p1", "a/p2#1", "a/p2#2", "b/p3"]
    assert kept["source"].tolist() == ["a/p1", "a/p2", "a/p2", "b/p3"]
    beside = index[index["status"] != "ok"]
    assert beside["status"].tolist() == ["set-aside", "unreadable"]
    assert set(beside["source"]) == {"b/p3"}
    whole = converted_index(params_of(lab, table), tmp_path / "one")
    same = ["scan", "path", "sha256", "pixel_sha256", "status", "reason", "note"]
    pd.testing.assert_frame_equal(index[same], whole[same])
    assert (index["sha256"].str.len() == 64).all()


def test_labels_and_patients_of_a_folder_are_those_of_all_its_volumes(lab, tmp_path):
    table = write(lab, "a/p1,x", "a/p2,x", "b/p3,y", header="path,label")
    index = converted_index(params_of(lab, table), tmp_path / "out")
    audit = AuditParams(dataset="d", root=str(lab), table=str(table), columns={"patient": None})
    labels = read_labels(audit, index)
    assert dict(zip(labels["path"], labels["label"], strict=True))["a/p2#2"] == "x"
    scans = join_table(index, labels, audit).set_index("path")
    first, second = scans.loc["a/p2#1"], scans.loc["a/p2#2"]
    # Nobody said whose they are, but one folder is not two patients.
    assert first["patient"] == second["patient"] == NO_PATIENT + first["scan"]
    assert scans.loc["a/p1", "patient"] != first["patient"]
    assert (scans.loc[scans["status"] == "ok", "target"] != "").all()


def test_a_folder_per_class_has_a_folder_or_a_file_per_series(lab, write_dicom, tmp_path):
    loose = Series(write_dicom, lab / "c")
    loose.body(body=BODY + 1500, SeriesInstanceUID="1.7")
    enhanced(loose, BODY + 2000)
    found = converted(lab)
    assert [path for path, scan in found.items() if isinstance(scan, Scan)] == [
        "a/p1", "a/p2#1", "a/p2#2", "b/p3", "c#1", "c/IM433",
    ]  # fmt: skip
    index = converted_index(params_of(lab), tmp_path / "out")
    labels = read_labels(AuditParams(dataset="d", root=str(lab)), index)
    classes = dict(zip(labels["path"], labels["label"], strict=True))
    assert (classes["c#1"], classes["c/IM433"], classes["a/p2#2"]) == ("c", "c", "a")


def unfolded(params: ConvertParams) -> list[Source]:
    return [scan for one in list_scans(params) for scan in unfold(one, params)]


def keys(params: ConvertParams) -> set[str]:
    return {scan.scan for scan in unfolded(params)}


def test_names_stay_when_files_are_added_elsewhere(lab, write_dicom):
    table = write(lab, "a/p1,x,1", "a/p2,x,2")
    before = keys(params_of(lab, table))
    Series(write_dicom, lab / "a/p0").body()
    write(lab, "a/p0,x,0", "a/p1,x,1", "a/p2,x,2")
    after = keys(params_of(lab, table))
    assert before < after
    assert len(after) == len(before) + 1


def test_what_lies_beside_stops_no_run(lab, tmp_path):
    table = write(lab, "b/p3,y,3")
    index = converted_index(params_of(lab, table, on_unreadable="stop"), tmp_path / "out")
    assert len(index) == 3
    write(lab, "a/p1,x,1", "b/p3,y,3")
    next((lab / "a/p1").iterdir()).unlink()
    for file in sorted((lab / "a/p1").iterdir())[:2]:
        file.unlink()
    with pytest.raises(UserError, match="cannot be used") as caught:
        converted_index(params_of(lab, table, on_unreadable="stop"), tmp_path / "stopped")
    assert [path for path, _ in caught.value.problems] == ["a/p1"]


def test_files_and_volumes_of_a_folder_can_be_excluded(lab):
    table = write(lab, "a/p2,x,2", "b/p3,y,3")
    patterns = ["b/p3/*.txt", "a/p2#2"]
    kept = [s.path for s in unfolded(params_of(lab, table, exclude=patterns))]
    assert kept[:2] == ["a/p2#1", "b/p3"]
    assert len(kept) == 3  # and the localiser
    with pytest.raises(UserError, match=r"'b/p4/\*' meets no path"):
        list_scans(params_of(lab, table, exclude=["b/p4/*"]))
    nothing = unfolded(params_of(lab, write(lab, "b/p3,y,3"), exclude=["b/p3/*"]))
    assert [s.problem.reason for s in nothing] == ["a folder with nothing to read"]


def test_values_by_path_are_those_of_a_folder_or_of_one_volume(lab):
    labs = lab / "labs.csv"
    labs.write_text("path,crp\na/p1,1\na/p2,2\na/p2#2,3\n")
    scans = pd.DataFrame({"path": ["a/p1", "a/p2#1", "a/p2#2", "b/p3"]})
    scans = scans.assign(dataset="d", patient="")
    given = ValueTable(table=str(labs), by="path")
    (made,) = read_all(scans, {"d": {"labs": given}}, "d")
    assert made.present.tolist() == [True, True, True, False]
    low, middle, high = made.x[:3, 0]
    assert low < middle < high


def test_headers_alone_are_read_to_find_volumes(lab):
    for file in (lab / "a/p1").iterdir():
        data = file.read_bytes()
        file.write_bytes(data[: data.index(b"\xe0\x7f\x10\x00") + 12])
    found = converted(lab, "a/p1")
    assert list(found) == ["a/p1"]
    assert "unreadable: " in found["a/p1"]
    assert "less" in found["a/p1"] or "cut short" in found["a/p1"]


def enhanced(series: Series, body: np.ndarray, **tags) -> None:
    """One enhanced object: frames from high to low, geometry and slopes in functional groups only."""

    def item(**said) -> Dataset:
        made = Dataset()
        for name, value in said.items():
            setattr(made, name, value)
        return made

    frames = [
        item(
            PlanePositionSequence=[item(ImagePositionPatient=[0, 0, 3 * k])],
            PixelValueTransformationSequence=[item(RescaleSlope=k + 1, RescaleIntercept=0)],
        )
        for k in reversed(range(len(body)))
    ]
    shared = item(
        PlaneOrientationSequence=[item(ImageOrientationPatient=AXIAL)],
        PixelMeasuresSequence=[item(PixelSpacing=[2, 1], SliceThickness=3)],
    )
    series.slice(
        np.ascontiguousarray(body[::-1]).reshape(-1, body.shape[2]),
        0,
        Rows=body.shape[1],
        NumberOfFrames=len(body),
        PerFrameFunctionalGroupsSequence=frames,
        SharedFunctionalGroupsSequence=[shared],
        ImagePositionPatient=None,
        ImageOrientationPatient=None,
        PixelSpacing=None,
        SliceThickness=None,
        SeriesInstanceUID="1.8",
        Modality="MR",
        **tags,
    )


def test_an_enhanced_object_is_a_volume_with_slopes_of_its_frames(write_dicom, tmp_path):
    enhanced(Series(write_dicom, tmp_path / "p1"), BODY)
    ((path, scan),) = converted(tmp_path, "p1").items()
    assert path.startswith("p1/IM")
    assert isinstance(scan, Scan)
    slopes = np.arange(1, 7).reshape(6, 1, 1)
    np.testing.assert_array_equal(scan.physical()[0], BODY[:, ::-1, ::-1] * slopes)
    assert scan.spacing_mm == (3.0, 2.0, 1.0)


def test_a_header_that_lies_about_frames_is_refused(write_dicom, tmp_path):
    enhanced(Series(write_dicom, tmp_path / "p1"), BODY)
    (file,) = (tmp_path / "p1").iterdir()
    dataset = pydicom.dcmread(file)
    dataset.NumberOfFrames, dataset.ImagePositionPatient = 10**9, [0, 0, 0]
    dataset.save_as(file)
    (said,) = converted(tmp_path, "p1").values()
    assert said == "unreadable: its header says 1000000000 frames and describes 6"


def test_positions_in_the_header_of_an_enhanced_object_are_not_those_of_frames(
    write_dicom, tmp_path
):
    enhanced(Series(write_dicom, tmp_path / "p1"), BODY)
    (file,) = (tmp_path / "p1").iterdir()
    dataset = pydicom.dcmread(file)
    dataset.ImagePositionPatient = [0, 0, 0]
    dataset.save_as(file)
    (scan,) = converted(tmp_path, "p1").values()
    assert scan.array.shape == (1, 6, 5, 4)


def test_a_mosaic_without_its_private_header_is_set_aside(write_dicom, tmp_path):
    series = Series(write_dicom, tmp_path / "p1")
    series.slice(BODY[0], 0, ImageType=["ORIGINAL", "PRIMARY", "M", "MOSAIC"])
    (said,) = converted(tmp_path, "p1").values()
    assert said.startswith("set-aside: a mosaic without its private header")


def test_a_number_names_a_frame_in_2d(write_dicom, tmp_path):
    (tmp_path / "raw").mkdir()
    clip = write_dicom(tmp_path / "raw/clip", BODY.reshape(-1, 4), Rows=5, NumberOfFrames=6)
    found = converted(tmp_path / "raw", "clip#2", "clip#6", "clip#7", ndim=2)
    np.testing.assert_array_equal(found["clip#2"].array[0], BODY[1])
    np.testing.assert_array_equal(found["clip#6"].array[0], BODY[5])
    assert found["clip#7"] == "unreadable: 6 frames; there is no number 7"
    whole = converted(tmp_path / "raw", "clip", ndim=2)["clip"]
    assert whole == "set-aside: 6 frames; name the one that is meant in the table, as PATH#1"
    # A file that is called so is meant by its own name.
    shutil.copy(clip, tmp_path / "raw/clip#2")
    assert "6 frames" in converted(tmp_path / "raw", "clip#2", ndim=2)["clip#2"]


def test_links_out_of_root_are_not_followed(lab, tmp_path, write_dicom):
    Series(write_dicom, tmp_path / "elsewhere").body()
    outside = next((tmp_path / "elsewhere").iterdir())
    (lab / "a/p1/link").symlink_to(outside)
    found = converted(lab, "a/p1")
    assert "leads out of root" in found["a/p1/link"]
    assert isinstance(found["a/p1"], Scan)


def test_the_workflow_checks_and_watches_folders(lab):
    write(lab, "a/p1,x,1", "a/p2,x,2", "b/p3#1,y,3", "b/none,y,4")
    raw = {
        "data_root": str(lab),
        "datasets": {"d": {"root": ".", "table": "labels.csv"}},
        "recipes": {"r": {"ndim": 3}},
        "encoders": {"e": {"method": "simclr", "backbone": "monai-test-resnet"}},
        "validation": {"folds": 2},
        "budgets": ["all"],
    }
    with pytest.raises(UserError) as refused:
        check_config(expand(load(raw)))
    said = "\n".join(f"{place}: {what}" for place, what in refused.value.problems)
    assert "1 of 4 files are not there" in said
    assert "b/none" in said
    write(lab, "a/p1,x,1", "a/p2,x,2", "b/p3#1,y,3", "a/p2#1,y,4")
    with pytest.raises(UserError, match="named by the row of a folder too"):
        check_config(expand(load(raw)))
    write(lab, "a/p1,x,1", "a/p2,x,2", "b/p3#1,y,3")
    made = fingerprint(load(raw), "d")
    for change in (
        lambda: os.utime(next((lab / "b/p3").iterdir()), (1, 1)),
        lambda: next((lab / "a/p2").iterdir()).unlink(),
    ):
        _files.cache_clear()
        assert fingerprint(load(raw), "d") == made
        change()
        _files.cache_clear()
        assert fingerprint(load(raw), "d") != made
        made = fingerprint(load(raw), "d")


def test_copies_under_one_uid_are_doubles(lab):
    for file in list((lab / "a/p1").iterdir()):
        shutil.copy(file, file.with_name(f"copy-{file.name}"))
    scan = converted(lab, "a/p1")["a/p1"]
    assert scan.meta.notes[0] == "6 doubled slices, equal to the first at the place, left out"
    one = next((lab / "a/p1").glob("copy-*"))
    dataset = pydicom.dcmread(one)
    dataset.RescaleSlope, dataset.RescaleIntercept = 2, 0
    dataset.save_as(one)
    assert "different slices at one place" in converted(lab, "a/p1")["a/p1"]
