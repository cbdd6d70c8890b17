"""The demo's cohort: nothing but the lesion tells, faults are where the list says, bytes repeat."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pydicom
import pytest
from PIL import Image as Pillow
from pydantic import ValidationError
from pydicom.pixels import apply_modality_lut
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fewscans.audit.thumbnails import thumbnail, unit_vectors
from fewscans.errors import UserError
from fewscans.files import sha256_file
from fewscans.phantom import Cohort, Image, PhantomSettings, files, make_cohort, write_cohort
from fewscans.phantom.anatomy import SITES
from fewscans.phantom.cohort import _target as target_of
from fewscans.phantom.cohort import make_patient
from fewscans.phantom.labs import lab_rows
from scripts.phantom import main

N_SEEDS = 50
SMALL = PhantomSettings(n_patients=20, seed=1, size_px=48)
KINDS = {"exact-duplicate": 2, "near-duplicate": 3, "monochrome1": 3, "rescale-slope": 3,
         "truncated": 2, "two-labels": 1}  # fmt: skip


@pytest.fixture(scope="module")
def demo() -> Cohort:
    return make_cohort(PhantomSettings())


@pytest.fixture(scope="module")
def folder(demo: Cohort, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cohort(demo, tmp_path_factory.mktemp("phantom") / "raw").parent


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as handle:
        return list(csv.DictReader(handle))


def read_hu(path: Path) -> np.ndarray:
    """HU by pydicom and Pillow alone, as the documentation of the faults says."""
    if path.suffix == ".png":
        with Pillow.open(path) as picture:
            assert picture.mode == "I;16"
            return np.asarray(picture).astype(np.int32) - 1024
    data = pydicom.dcmread(path)
    if data.PhotometricInterpretation == "MONOCHROME1":
        assert "RescaleSlope" not in data
        return 2**data.BitsStored - 1 - data.pixel_array.astype(np.int32) - 1024
    return apply_modality_lut(data.pixel_array, data)


# --- what must not tell ---------------------------------------------------------------------------


def attributes(own: list[Image]) -> dict[str, float]:
    """Of one patient, everything that must not tell the class, from the images themselves."""
    image = own[0]
    made: dict[str, float] = {f"site {s.name}": float(image.site == s.name) for s in SITES}
    made |= {f"stored {s}": float(image.storage == s) for s in ("png", "monochrome1")}
    made |= {"images": len(own), "rows": image.hu.shape[0], "spacing": image.spacing_mm}
    made["mean"] = np.mean([i.hu.mean() for i in own])
    masks = [i.lesion_mask for i in own]
    made["area_mm2"] = np.mean([m.sum() * i.spacing_mm**2 for m, i in zip(masks, own, strict=True)])
    centres = [[(m.sum(a) @ np.arange(len(m))) / m.sum() / len(m) for a in (1, 0)] for m in masks]
    made["row"], made["column"] = np.mean(centres, axis=0)
    made["off centre"] = np.mean(np.abs(np.array(centres) - 0.5))
    made["lesion mean"] = np.mean([i.lesion_mean_hu for i in own])
    made["lesion core mean"] = np.mean([i.hu[i.lesion_mask > 0.999].mean() for i in own])
    return made


def texture(own: list[Image]) -> float:
    """What may tell: the spread of HU inside the lesion."""
    return float(np.mean([i.hu[i.lesion_mask > 0.999].std() for i in own]))


@pytest.fixture(scope="module")
def seeds() -> list[tuple[np.ndarray, np.ndarray, np.ndarray, list[str]]]:
    """(attributes [n, A], targets [n], texture [n], names of the attributes) of 50 cohorts."""
    made = []
    for seed in range(N_SEEDS):
        cohort = make_cohort(PhantomSettings(n_patients=40, seed=seed, size_px=64))
        patients: dict[str, list[Image]] = {}
        # A planted copy is another patient's lesion with this patient's label.
        copies = {fault.path for fault in cohort.faults if fault.other}
        for image in cohort.images:
            if image.path not in copies:
                patients.setdefault(image.patient, []).append(image)
        values = [attributes(own) for own in patients.values()]
        made.append(
            (
                np.array([list(v.values()) for v in values], dtype=float),
                np.array([own[0].target for own in patients.values()]),
                np.array([texture(own) for own in patients.values()]),
                list(values[0]),
            )
        )
    return made


def cross_validated_auc(x: np.ndarray, y: np.ndarray, seed: int) -> float:
    """Mean over folds: pooled over folds, a null would lie below 0.5."""
    scores = []
    for train, test in StratifiedKFold(4, shuffle=True, random_state=seed).split(x, y):
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1)).fit(x[train], y[train])
        scores.append(roc_auc_score(y[test], model.decision_function(x[test])))
    return float(np.mean(scores))


@pytest.mark.slow
def test_no_shortcut_over_50_seeds(seeds) -> None:
    scores = [cross_validated_auc(x, y, seed) for seed, (x, y, _, _) in enumerate(seeds)]
    assert np.mean(scores) <= 0.55
    # The same predictor, given what may tell, finds it: the test above is not blind.
    told = [
        cross_validated_auc(np.column_stack([x, t]), y, seed)
        for seed, (x, y, t, _) in enumerate(seeds[:10])
    ]
    assert np.mean(told) > 0.75


@pytest.mark.slow
def test_no_attribute_alone_tells(seeds) -> None:
    # Some 2,000 patients: a standard error of 0.013.
    x, y = np.concatenate([s[0] for s in seeds]), np.concatenate([s[1] for s in seeds])
    aucs = {name: roc_auc_score(y, x[:, k]) for k, name in enumerate(seeds[0][3])}
    assert {name: round(auc, 3) for name, auc in aucs.items() if abs(auc - 0.5) > 0.04} == {}
    assert roc_auc_score(y, np.concatenate([s[2] for s in seeds])) > 0.85


def test_lesion_has_its_mean_in_both_classes(demo: Cohort) -> None:
    # Of the matter itself; noise and the texture's share at the border cancel over patients.
    off: dict[int, list[float]] = {0: [], 1: []}
    for image in demo.images:
        inside = image.lesion_mask > 0.999
        if image.label and inside.any():
            off[image.target].append(image.hu[inside].mean() - image.lesion_mean_hu)
    if demo.faults:  # altered copies count too, but are few
        assert abs(np.mean(off[0])) < 12
        assert abs(np.mean(off[1])) < 12


# --- what the cohort is ---------------------------------------------------------------------------


def test_patients_and_classes(demo: Cohort) -> None:
    copies = {fault.path for fault in demo.faults if fault.other}
    own = Counter(image.patient for image in demo.images if image.path not in copies)
    assert len(own) == 150
    assert set(own.values()) == {1, 2, 3, 4}
    share = np.mean(list({i.patient: i.target for i in demo.images}.values()))
    assert 0.40 < share < 0.50
    assert {image.storage for image in demo.images} == {
        "dicom",
        "png",
        "monochrome1",
        "rescale-slope",
    }
    assert len({image.hu.shape for image in demo.images}) == 2


def test_a_patient_does_not_depend_on_others() -> None:
    few = PhantomSettings(n_patients=20, seed=4, size_px=48)
    many = PhantomSettings(n_patients=60, seed=4, size_px=48)
    for a, b in zip(make_patient(few, 7), make_patient(many, 7), strict=True):
        assert (a.path, a.target, a.site) == (b.path, b.target, b.site)
        np.testing.assert_array_equal(a.hu, b.hu)


def test_values_are_ct_like(demo: Cohort) -> None:
    hu = np.concatenate([image.hu.ravel() for image in demo.images])
    assert hu.min() >= -1024
    assert hu.max() <= 3071
    assert np.mean(hu < -600) > 0.1  # lung and air
    assert np.mean((hu > -150) & (hu < 250)) > 0.3  # soft tissue and fat
    assert 0.002 < np.mean(hu > 300) < 0.1  # bone


def test_only_planted_copies_look_alike(demo: Cohort) -> None:
    v = unit_vectors(np.stack([thumbnail(i.hu.astype(np.float32)) for i in demo.images]))
    patients = np.array([image.patient for image in demo.images])
    similar = v @ v.T
    linked = {
        tuple(sorted((patients[a], patients[b])))
        for a, b in zip(*np.nonzero(similar >= 0.98), strict=True)
        if patients[a] != patients[b]
    }
    of = {image.path: image.patient for image in demo.images}
    planted = {tuple(sorted((of[f.path], of[f.other]))) for f in demo.faults if f.other}
    assert linked == planted
    # ... and with a distance: no other pair of patients comes near the threshold.
    for a, b in planted:
        similar[np.ix_(patients == a, patients == b)] = 0
        similar[np.ix_(patients == b, patients == a)] = 0
    assert similar[patients[:, None] != patients].max() < 0.95


# --- what is on disk ------------------------------------------------------------------------------


def test_table_and_files_agree(demo: Cohort, folder: Path) -> None:
    table = rows(folder / "labels.csv")
    assert list(table[0])[:4] == ["path", "label", "patient", "site"]
    found = {str(p.relative_to(folder)) for p in (folder / "images").iterdir()}
    assert [row["path"] for row in table] == [image.path for image in demo.images]
    assert {row["path"] for row in table} == found
    assert [row["label"] for row in table] == [image.label for image in demo.images]


def test_every_whole_file_reads_back_to_hu(demo: Cohort, folder: Path) -> None:
    storages = Counter()
    for image in demo.images:
        if not image.truncated:
            np.testing.assert_array_equal(
                read_hu(folder / image.path), image.hu, err_msg=image.path
            )
            storages[image.storage] += 1
    assert storages["monochrome1"] == storages["rescale-slope"] == 3
    assert min(storages["dicom"], storages["png"]) > 50


def test_dicom_headers(demo: Cohort, folder: Path) -> None:
    uids = set()
    for image in demo.images:
        if image.storage == "png":
            continue
        data = pydicom.dcmread(folder / image.path, stop_before_pixels=True)
        assert data.PatientID == image.patient
        assert [float(v) for v in data.PixelSpacing] == [image.spacing_mm] * 2
        slope = {"rescale-slope": 0.5, "dicom": 1.0}.get(image.storage)
        assert data.get("RescaleSlope") == slope
        uids.add(data.SOPInstanceUID)
        assert data.SOPInstanceUID.is_valid
    assert len(uids) == sum(image.storage != "png" for image in demo.images)


def test_every_fault_is_listed_and_there(demo: Cohort, folder: Path) -> None:
    listed = rows(folder / "faults.csv")
    counts = Counter(row["fault"] for row in listed)
    assert {kind: counts[kind] for kind in KINDS} == KINDS
    assert set(counts) == {*KINDS, "no-label"}
    table = {row["path"]: row for row in rows(folder / "labels.csv")}
    labels: dict[str, set[str]] = {}
    for row in table.values():
        labels.setdefault(row["patient"], set()).update({row["label"]} - {""})
    by_kind = {kind: [r for r in listed if r["fault"] == kind] for kind in counts}

    for row in by_kind["exact-duplicate"] + by_kind["near-duplicate"]:
        a, b = read_hu(folder / row["path"]), read_hu(folder / row["other"])
        assert table[row["path"]]["patient"] != table[row["other"]]["patient"]
        assert np.array_equal(a, b) == (row["fault"] == "exact-duplicate")
        pair = unit_vectors(np.stack([thumbnail(v.astype(np.float32)) for v in (a, b)]))
        assert pair[0] @ pair[1] > 0.983
    kinds = {Path(row["path"]).suffix for row in by_kind["exact-duplicate"]}
    assert kinds == {".dcm", ".png"}
    for row in by_kind["truncated"]:
        with pytest.raises((ValueError, OSError)):
            read_hu(folder / row["path"])
    for row in by_kind["monochrome1"]:
        data = pydicom.dcmread(folder / row["path"])
        assert data.PhotometricInterpretation == "MONOCHROME1"
    for row in by_kind["rescale-slope"]:
        assert pydicom.dcmread(folder / row["path"]).RescaleIntercept == -1000
    empty = {path for path, row in table.items() if not row["label"]}
    assert {row["path"] for row in by_kind["no-label"]} == empty
    assert any(labels[table[path]["patient"]] for path in empty)
    assert any(not labels[table[path]["patient"]] for path in empty)
    torn = {patient for patient, own in labels.items() if len(own) == 2}
    assert {table[row["path"]]["patient"] for row in by_kind["two-labels"]} == torn


def test_small_cohorts_hold_each_fault() -> None:
    for seed in range(8):
        cohort = make_cohort(PhantomSettings(n_patients=20, seed=seed, size_px=48))
        counts = Counter(fault.fault for fault in cohort.faults)
        assert {counts[kind] for kind in KINDS} == {1}, seed


def digests(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): sha256_file(p) for p in folder.rglob("*") if p.is_file()}


def test_laboratory_values_of_most_patients_tell_a_little() -> None:
    y, x = [], []
    for seed in range(8):
        # Without images: nothing of them is in these values.
        settings = PhantomSettings(n_patients=100, seed=seed)
        images = [
            SimpleNamespace(patient=f"P{i:04d}", target=target_of(settings, i)) for i in range(100)
        ]
        found = list(lab_rows(cast(Cohort, SimpleNamespace(settings=settings, images=images))))
        assert 65 <= len(found) <= 95
        targets = {image.patient: image.target for image in images}
        y += [targets[row[0]] for row in found]
        x += [
            [np.log(float(row[1])), np.log(float(row[2] or 200)), row[3] == "yes"] for row in found
        ]
    standard = StandardScaler().fit_transform(np.array(x, dtype=float))
    scores = LogisticRegression().fit(standard, y).decision_function(standard)
    assert 0.66 < roc_auc_score(y, scores) < 0.76


def test_laboratory_values_of_a_patient_do_not_depend_on_others(demo: Cohort, folder: Path) -> None:
    there = {row["patient"]: row for row in rows(folder / "labs.csv")}
    assert set(there) < {image.patient for image in demo.images}
    few = make_cohort(PhantomSettings(n_patients=20))
    for row in lab_rows(few):
        assert tuple(there[row[0]].values()) == row


def test_same_settings_same_bytes(tmp_path: Path) -> None:
    write_cohort(SMALL, tmp_path / "a")
    write_cohort(make_cohort(SMALL), tmp_path / "b")
    first = digests(tmp_path / "a")
    assert first == digests(tmp_path / "b")
    write_cohort(SMALL.model_copy(update={"seed": 2}), tmp_path / "c")
    assert not set(first.values()) & set(digests(tmp_path / "c").values())


def test_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "raw"
    write_cohort(SMALL, out)
    before = digests(out)
    (out / "labels.csv").unlink()  # as Snakemake does before it runs the job again
    write_cohort(SMALL, out)
    assert digests(out) == before

    real, calls = files.encode, iter(range(1000))

    def dies(image: Image, seed: int) -> bytes:
        if next(calls) == 7:
            raise KeyboardInterrupt
        return real(image, seed)

    monkeypatch.setattr(files, "encode", dies)
    with pytest.raises(KeyboardInterrupt):
        write_cohort(SMALL.model_copy(update={"seed": 9}), out)
    assert digests(out) == before
    assert [p.name for p in tmp_path.iterdir()] == ["raw"]


def test_other_peoples_folders_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(UserError, match=r"thesis\.tex"):
        write_cohort(SMALL, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize(
    "wrong", [{"n_patients": 10}, {"patients": 5}, {"seed": -1}, {"malignant_share": 1.0}]
)
def test_wrong_settings_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        PhantomSettings(**wrong)


def test_without_faults() -> None:
    cohort = make_cohort(
        PhantomSettings(n_patients=6, size_px=48, faults=False, unlabelled_share=0)
    )
    assert cohort.faults == ()
    assert all(image.label for image in cohort.images)


def test_script(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "raw"
    params = '{"cohort": {"n_patients": 20, "seed": 1}}'
    assert main(["--params", params, "--out", str(out), "--sidecar", str(tmp_path / "s.json")]) == 0
    assert (out / "labels.csv").is_file()
    assert (tmp_path / "s.json").is_file()
    assert main(["--params", '{"cohort": {"n_patient": 20}}', "--out", str(tmp_path / "x")]) == 2
    assert "n_patient" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()
