"""Slices of volumes as scans: which, in which orientation, whose, and where they go."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from series_factory import BODY, Series

from fewscans.audit import audit
from fewscans.config import load
from fewscans.config.stages import AuditParams, ConvertParams, FoldsParams
from fewscans.convert import read, sources
from fewscans.convert.chunks import read_converted, write_chunk
from fewscans.convert.paths import row_of
from fewscans.convert.slices import split_slice
from fewscans.convert.table import read_labels
from fewscans.errors import UserError
from fewscans.split.folds import make_folds

RNG = np.random.default_rng(0)


def save(path, array, spacing=(1.0, 2.0, 3.0)):
    """[x, y, z] in RAS+ of its own spacing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, np.diag([*spacing, 1.0])), path)
    return path


def table(root, *rows, header="path,label,patient"):
    (root / "labels.csv").write_text("\n".join([header, *rows]))
    return str(root / "labels.csv")


def convert(root, out, listed=None, chunks=1, **slices):
    params = ConvertParams(dataset="d", root=str(root), table=listed, slices=slices, chunks=chunks)
    for chunk in range(chunks):
        write_chunk(params.model_copy(update={"chunk": chunk}), out / str(chunk))
    return read_converted([out / str(chunk) for chunk in range(chunks)])


def shown(index, pixels):
    """Path -> [H, W]."""
    return {row["path"]: pixels(row)[0] for row in index.to_dict("records") if row["offset"] >= 0}


def test_paths_of_slices():
    assert split_slice("a/p#2#coronal-10") == ("a/p#2", "coronal", 10)
    assert split_slice("a/p#coronal-0") == ("a/p#coronal-0", "", 0)
    assert row_of("a/p#2#axial-3", {"a/p"}) == "a/p"
    assert row_of("a/p#2#axial-3", {"a/p", "a/p#2#axial-3"}) == "a/p#2#axial-3"


@pytest.mark.parametrize(
    ("plane", "view", "spacing"),
    [
        ("axial", lambda xyz, n: xyz[::-1, ::-1, n].T, [2.0, 1.0]),
        ("coronal", lambda xyz, n: xyz[::-1, n, ::-1].T, [3.0, 1.0]),
        ("sagittal", lambda xyz, n: xyz[n, ::-1, ::-1].T, [3.0, 2.0]),
    ],
)
def test_planes_are_shown_as_dicom_shows_them_with_their_own_spacing(tmp_path, plane, view, spacing):  # fmt: skip
    xyz = RNG.integers(-500, 500, (4, 5, 6)).astype(np.int16)
    save(tmp_path / "raw/a/p.nii.gz", xyz)
    index, pixels = convert(tmp_path / "raw", tmp_path / "out", plane=plane)
    n = xyz.shape[["sagittal", "coronal", "axial"].index(plane)]
    found = shown(index, pixels)
    assert set(found) == {f"a/p.nii.gz#{plane}-{k + 1}" for k in range(n)}
    for k in range(n):
        np.testing.assert_array_equal(found[f"a/p.nii.gz#{plane}-{k + 1}"], view(xyz, k))
    assert all(list(step) == spacing for step in index["spacing_mm"])
    assert set(index["volume"]) == {"a/p.nii.gz"}
    assert index["scan"].is_unique
    assert index["pixel_sha256"].is_unique


def test_slices_of_an_axial_series_are_its_files(write_dicom, tmp_path):
    Series(write_dicom, tmp_path / "raw/a/p").body()
    index, pixels = convert(tmp_path / "raw", tmp_path / "out")
    found = shown(index, pixels)
    assert list(found) == [f"a/p#axial-{k + 1}" for k in range(len(BODY))]
    files = [read(path) for path in (tmp_path / "raw/a/p").iterdir()]
    assert {scan.physical()[0].tobytes() for scan in files} == {a.tobytes() for a in found.values()}
    assert list(index["spacing_mm"][0]) == list(files[0].spacing_mm) == [2.0, 1.0]


@pytest.mark.parametrize(
    ("rule", "numbers"),
    [
        ({"every": 4}, [2, 6, 10]),
        ({"every": 40}, [1]),
        ({"central": 3}, [5, 6, 7]),
        ({"central": 2, "every": 3}, [5, 8]),
        ({"central": 99}, list(range(1, 12))),
    ],
)
def test_rules(tmp_path, rule, numbers):
    save(tmp_path / "raw/a/p.nii", RNG.integers(0, 9, (3, 3, 11)).astype(np.int16))
    index, _ = convert(tmp_path / "raw", tmp_path / "out", **rule)
    assert sorted(split_slice(path)[2] for path in index["path"]) == numbers


def test_slices_of_an_npz_lie_as_they_are(tmp_path):
    volumes = RNG.integers(0, 99, (3, 4, 5, 6), dtype=np.uint8)
    np.savez(tmp_path / "m.npz", train_images=volumes, train_labels=np.array([0, 1, 0]))
    params = ConvertParams(dataset="d", npz=str(tmp_path / "m.npz"), slices={"plane": "sagittal"})
    write_chunk(params, tmp_path / "out")
    index, pixels = read_converted([tmp_path / "out"])
    found = shown(index, pixels)
    assert len(found) == 3 * 6
    np.testing.assert_array_equal(found["train/000001#sagittal-4"], volumes[1, :, :, 3])
    audited = AuditParams(dataset="d", npz=params.npz, columns={"patient": None})
    labels = read_labels(audited, index).set_index("path")
    assert labels.loc["train/000001#sagittal-4", "label"] == "1"
    made = audit(index, labels.reset_index(), pixels, audited).labels
    # Nobody says whose they are: the slices of a volume are one patient's.
    assert made.groupby(made["path"].str[:12])["patient"].nunique().tolist() == [1, 1, 1]
    assert made["patient"].nunique() == 3


def test_a_volume_is_decoded_once_for_all_of_its_slices(tmp_path, monkeypatch):
    for k in range(3):
        save(tmp_path / f"raw/a/p{k}.nii", RNG.integers(0, 9, (3, 4, 7)).astype(np.int16))
    opened = []
    decode = sources.read
    monkeypatch.setattr(sources, "read", lambda path, *rest: opened.append(path) or decode(path, *rest))  # fmt: skip
    index, _ = convert(tmp_path / "raw", tmp_path / "out", chunks=2)
    assert len(index) == 3 * 7
    assert sorted(path.name for path in opened) == ["p0.nii", "p1.nii", "p2.nii"]
    # All slices of a volume are in one chunk, and are the same as in one.
    assert (index.groupby("volume")["folder"].nunique() == 1).all()
    one, _ = convert(tmp_path / "raw", tmp_path / "whole")
    same = ["scan", "path", "sha256", "pixel_sha256", "shape"]
    pd.testing.assert_frame_equal(index[same], one[same])


def test_a_table_may_name_slices_with_labels_of_their_own(tmp_path):
    root = tmp_path / "raw"
    for k in range(2):
        save(root / f"p{k}.nii", RNG.integers(0, 99, (8, 8, 9)).astype(np.int16))
    rows = [*(f"p0.nii#axial-{n},{'ill' if n > 4 else 'well'},A" for n in (2, 4, 6)), "p1.nii,ill,B"]  # fmt: skip
    listed = table(root, *rows, "p0.nii#coronal-12,ill,A")
    index, pixels = convert(root, tmp_path / "out", listed, central=2)
    assert [split_slice(path)[1:] for path in index["path"]] == [
        ("axial", 2), ("axial", 4), ("axial", 6), ("coronal", 12), ("axial", 4), ("axial", 5)
    ]  # fmt: skip
    assert index["status"].tolist() == ["ok"] * 3 + ["unreadable"] + ["ok"] * 2
    assert index["reason"][3] == "no such slice; the volume has 8 coronal ones"
    params = AuditParams(dataset="d", root=str(root), table=listed)
    made = audit(index, read_labels(params, index), pixels, params)
    labels = made.labels.set_index("path")
    # Two labels of one patient are no contradiction here.
    assert labels["target"].to_dict() == {
        "p0.nii#axial-2": "well", "p0.nii#axial-4": "well", "p0.nii#axial-6": "ill",
        "p0.nii#coronal-12": "ill", "p1.nii#axial-4": "ill", "p1.nii#axial-5": "ill",
    }  # fmt: skip
    assert "contradiction" not in set(made.findings["check"])
    listed = table(root, *rows, "p0.nii,ill,A")
    with pytest.raises(UserError, match="named by the row of a folder too"):
        convert(root, tmp_path / "again", listed)


def test_neighbours_of_a_patient_are_on_one_side_of_every_split(tmp_path):
    root = tmp_path / "raw"
    rows = []
    for k in range(12):
        # Smooth from slice to slice: neighbours are near duplicates.
        base = RNG.normal(size=(12, 12, 1)) + 0.02 * RNG.normal(size=(12, 12, 6))
        save(root / f"p{k}.nii", (100 * base).astype(np.int16))
        rows.append(f"p{k}.nii,{'ab'[k % 2]},{k // 2 * 2 + k % 2}")
    listed = table(root, *rows)
    index, pixels = convert(root, tmp_path / "out", listed)
    params = AuditParams(dataset="d", root=str(root), table=listed)
    made = audit(index, read_labels(params, index), pixels, params)
    assert len(made.labels) == 72
    assert made.labels.groupby("patient")["group"].nunique().eq(1).all()
    assert len(made.duplicates) == 0  # within a volume they are no finding
    folds = make_folds(made.labels, FoldsParams(dataset="d", folds=3))
    held = folds[folds["role"] == "test"].merge(made.labels[["scan", "patient"]], on="scan")
    assert len(held) == 72
    assert held.groupby("patient")["fold"].nunique().eq(1).all()


def test_exclude_meets_slices_and_damaged_volumes_are_one_row(tmp_path):
    root = tmp_path / "raw"
    save(root / "a/p.nii", np.ones((3, 3, 4), np.int16))
    (root / "a/bad.nii").write_bytes((root / "a/p.nii").read_bytes()[:400])
    params = ConvertParams(dataset="d", root=str(root), slices={}, exclude=["a/p.nii#axial-[12]"])
    write_chunk(params, tmp_path / "out")
    index, _ = read_converted([tmp_path / "out"])
    assert index["path"].tolist() == ["a/bad.nii", "a/p.nii#axial-3", "a/p.nii#axial-4"]
    assert index["status"].tolist() == ["unreadable", "ok", "ok"]


def test_settings_that_do_not_fit_are_told():
    config = {
        "datasets": {
            "a": {"root": "r", "slices": {"plane": "oblique"}},
            "b": {"root": "r", "slices": {"crossing_mask": True}},
            "c": {"phantom": {}, "slices": {}},
        },
        "recipes": {"m": {"ndim": 3}},
        "encoders": {"simclr": {"method": "simclr", "backbone": "monai-test-resnet"}},
    }
    with pytest.raises(UserError) as caught:
        load(config)
    said = dict(caught.value.problems)
    assert "Known: axial, coronal, sagittal" in said["datasets.a.slices.plane"]
    assert "slices are images; write `ndim: 2`" in said["datasets.b.slices"]
    assert "masks are named in a `table`" in said["datasets.b.slices.crossing_mask"]
    assert "the generated cohort has no volumes" in said["datasets.c.slices"]
