"""Slices, volumes and layouts of private data sets: the same scans, labels and groups as in the open, without names."""

from __future__ import annotations

import hashlib
import json

import nibabel as nib
import numpy as np
import pytest

from fewscans.contracts import read_table
from fewscans.privacy.files import write_private
from fewscans.privacy.unpack import contents
from scripts import audit, convert

RNG = np.random.default_rng(0)
NAMES = ("MEIER", "HUBER", "WEBER", "KELLER")


def through(root, out, private, **settings):
    """Labels of a data set that went through convert and audit."""
    place = {"dataset": "d", "root": str(root), "table": str(root / "labels.csv")}
    if private:
        write_private(out / "private-key", hashlib.sha256(b"a key").digest())
        place |= {"private": str(out / "private"), "key": str(out / "private-key")}
    folder, labels = out / "converted/0", out / "labels.parquet"
    said = json.dumps(place | settings)
    assert convert.main(["--params", said, "--out", str(folder)]) == 0
    words = ["--converted", str(folder), "--labels", str(labels), "--out", str(out / "audit")]
    assert audit.main(["--params", json.dumps(place), *words]) == 0
    return read_table(labels, "labels")


def volumes(root):
    for name in NAMES:
        path = root / name / "scan.nii.gz"
        path.parent.mkdir(parents=True)
        voxels = RNG.integers(-500, 500, (6, 7, 4)).astype(np.int16)
        nib.save(nib.Nifti1Image(voxels, np.eye(4)), path)


def partition(labels, column):
    """How scans fall apart by `column`, told by their pixels and so by no name."""
    return {frozenset(part["pixel_sha256"]) for _, part in labels.groupby(column)}


@pytest.mark.parametrize("patients", ["known", "unknown"])
@pytest.mark.parametrize("named", ["slices", "volumes"])
def test_slices_of_private_volumes_have_the_labels_and_patients_of_open_ones(
    tmp_path, patients, named
):
    root = tmp_path / "raw"
    volumes(root)
    rows = ["path,label,patient"]
    for k, name in enumerate(NAMES):
        file, whose = f"{name}/scan.nii.gz", name if patients == "known" else ""
        marks = [f"#axial-{i + 1}" for i in range(4)] if named == "slices" else [""]
        rows += [f"{file}{mark},{'ab'[(k + i) % 2]},{whose}" for i, mark in enumerate(marks)]
    (root / "labels.csv").write_text("\n".join(rows))
    shown, hidden = (through(root, tmp_path / str(p), p, slices={}) for p in (False, True))
    assert len(shown) == len(hidden) == 16
    for column in ("patient", "group"):
        assert partition(hidden, column) == partition(shown, column)
    labels = [frame.set_index("pixel_sha256")["target"].sort_index() for frame in (shown, hidden)]
    assert labels[0].equals(labels[1])
    private = [tmp_path / "True/private", tmp_path / "True/private-key"]
    outside = [p for p in (tmp_path / "True").rglob("*") if p.is_file()]
    outside = [p for p in outside if not any(p.is_relative_to(one) for one in private)]
    assert outside
    for path in outside:
        for place, data in contents(path, path.name):
            assert not any(name.encode() in data for name in NAMES), place
