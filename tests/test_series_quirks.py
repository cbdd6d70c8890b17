"""What happens to every file of real, peculiar DICOM: tables as expectations, and reference conversions."""

from __future__ import annotations

import csv
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest

from fewscans.config.stages import ConvertParams
from fewscans.convert import Unreadable, read
from fewscans.convert.sources import Source, list_scans, open_reader
from fewscans.convert.unfold import unfold

DATA = Path(__file__).parent / "data"
EXPECTED, FRAMES = DATA / "dicom_series_quirks.csv", DATA / "dicom_2d_frames.csv"
FIELDS = ["file", "scan", "outcome", "said", "shape", "spacing_mm"]
# Volume -> (reference, which of its volumes).
REFERENCES = {
    "mr_enhanced_philips/IM_0027_fMAP.dcm#1": ("mr_enhanced_philips__Philips_WIP_B0_NS_801_e2_fieldmaphz", 0),
    "mr_enhanced_philips/IM_0027_fMAP.dcm#2": ("mr_enhanced_philips__Philips_WIP_B0_NS_801_e1", 0),
    **{
        f"mr_enhanced_siemens_xa10/6_{t + 1}.dcm": ("mr_enhanced_siemens_xa10__Siemens_REST1_w_SMS_PF7-8_6", t)
        for t in range(4)
    },
    **{
        f"mr_siemens_mosaic/epi_pe_ap-0000{t + 1}.dcm": ("mr_siemens_mosaic__EPI_PEAP_3", t)
        for t in range(2)
    },
    **{f"mr_transfer_syntaxes/{n}.dcm": ("mr_transfer_syntaxes__1", 0) for n in (1, 3, 4, 5, 7, 9)},
}  # fmt: skip


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """A row per folder."""
    rows = list(csv.DictReader(EXPECTED.read_text().splitlines()))
    folders = sorted({row["file"].partition("/")[0] for row in rows})
    path = tmp_path_factory.mktemp("quirks") / "labels.csv"
    path.write_text("\n".join(["path", *folders]))
    return path


@pytest.fixture
def params(shared_data, table):
    root = shared_data("dicom_series_quirks")
    return ConvertParams(dataset="d", root=str(root), table=str(table), ndim=3)


def unfolded(params: ConvertParams) -> list[Source]:
    return [scan for one in list_scans(params) for scan in unfold(one, params)]


def test_what_happens_to_each_file_of_the_series(params):
    rows = []
    with open_reader(params) as reader:
        for source in unfolded(params):
            try:
                scan = reader(source)
                said = ["ok", "; ".join(scan.meta.notes), "x".join(map(str, scan.array.shape[1:]))]
                said.append("x".join(f"{mm:.4g}" for mm in scan.spacing_mm))
            except Unreadable as error:
                said = [error.status, error.reason, "", ""]
            for file in source.files or (source.file,):
                name = file.relative_to(params.root).as_posix()
                rows.append(dict(zip(FIELDS, [name, source.path, *said], strict=True)))
    expected = list(csv.DictReader(EXPECTED.read_text().splitlines()))
    assert sorted(rows, key=lambda row: (row["file"], row["scan"])) == expected
    files = (path for path in Path(params.root).glob("*/**/*") if path.is_file())
    there = {path.relative_to(params.root).as_posix() for path in files}
    there = {name for name in there if not name.startswith("reference/")}
    assert {row["file"] for row in rows} == there


def test_voxels_and_affine_are_those_of_the_reference(params, tmp_path):
    sources = {source.path: source for source in unfolded(params)}
    with open_reader(params) as reader:
        for path, (name, number) in REFERENCES.items():
            file = Path(params.root) / "reference" / f"{name}.nii.gz"
            reference = nib.load(file)
            if reference.ndim == 4:
                file = tmp_path / "one.nii"
                one = np.asanyarray(reference.dataobj)[..., number]
                reference = nib.Nifti1Image(one, reference.affine)
                nib.save(reference, file)
            expected, scan = read(file, 3), reader(sources[path])
            np.testing.assert_array_equal(scan.array, expected.array, err_msg=path)
            np.testing.assert_allclose(scan.spacing_mm, expected.spacing_mm, rtol=1e-4)
            ras = nib.as_closest_canonical(reference).affine
            np.testing.assert_allclose(scan.affine, ras, rtol=0, atol=1e-4, err_msg=path)
            np.testing.assert_allclose(expected.affine, ras, rtol=0, atol=1e-5, err_msg=path)


def test_physical_values_of_a_field_map_are_those_of_the_reference(params):
    path = "mr_enhanced_philips/IM_0027_fMAP.dcm#1"
    (source,) = [source for source in unfolded(params) if source.path == path]
    with open_reader(params) as reader:
        scan = reader(source)
    expected = read(Path(params.root) / "reference" / f"{REFERENCES[path][0]}.nii.gz", 3)
    np.testing.assert_allclose(scan.physical(), expected.physical(), atol=0.01)


def test_slices_of_one_study_are_the_same_in_a_mixed_folder(params):
    sources = {source.path: source for source in unfolded(params)}
    with open_reader(params) as reader:
        for n in (1, 2):
            whole = reader(sources[f"mr_hippocrop_study{n}"]).array[0]
            part = reader(sources[f"mr_hippocrop_two_studies_mixed#{n}"]).array[0]
            np.testing.assert_array_equal(part, whole[:12])


def test_what_happens_to_files_with_frames(shared_data):
    """In 3D they are volumes or set aside; in 2D a number names the frame that is meant."""
    root = shared_data("dicom_2d_quirks")
    rows = list(csv.DictReader((root / "labels.csv").read_text().splitlines()))
    happened = [
        {
            "file": row["path"],
            "whole": outcome(root / row["path"], 2),
            "last_frame": outcome(root / row["path"], 2, int(row["frames"]) - 1),
            "volume": outcome(root / row["path"], 3),
        }
        for row in rows
        if row["frames"].isdigit() and int(row["frames"]) > 1
    ]
    assert happened == list(csv.DictReader(FRAMES.read_text().splitlines()))


def outcome(path: Path, *how: int) -> str:
    """Shape of the scan, or the reason why there is none."""
    try:
        return "x".join(map(str, read(path, *how).array.shape))
    except Unreadable as error:
        return f"{error.status}: {error.reason}"


def test_no_single_slice_is_a_volume_and_every_file_has_a_reason(shared_data):
    root = shared_data("dicom_2d_quirks")
    said = [outcome(path, 3) for path in sorted((root / "files").iterdir())]
    assert len(said) == 128
    assert {text.partition(":")[0] for text in said} == {"set-aside", "unreadable"}
    assert any("one slice" in text for text in said)


def test_a_frame_is_that_of_pydicom(shared_data):
    root = shared_data("dicom_2d_quirks") / "files"
    for name in ("emri_small.dcm", "emri_small_big_endian.dcm", "emri_small_RLE.dcm"):
        stored = pydicom.dcmread(root / name).pixel_array
        for number in (0, 4, 9):
            np.testing.assert_array_equal(read(root / name, 2, number).array[0], stored[number])
