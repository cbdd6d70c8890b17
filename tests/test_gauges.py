"""Gauges of a training: what they say where the answer is known, and that they change nothing."""

from __future__ import annotations

import copy
import math

import numpy as np
import pandas as pd
import pytest
import torch
from engine_factory import make_params, scan_names
from pretrain_factory import Place, command, history, meta
from sklearn.metrics import balanced_accuracy_score

from fewscans import engine, gauges
from fewscans.contracts import read_table, write_table
from fewscans.files import sha256_file


def test_collapse_gauges_know_the_extremes():
    generator = torch.Generator().manual_seed(0)
    full = torch.randn(4000, 16, generator=generator)
    spread, rank = gauges.collapse_gauges(full)
    assert spread == pytest.approx(1, abs=0.02)
    assert rank == pytest.approx(16, abs=0.1)
    line = torch.randn(50, 1, generator=generator) * torch.ones(1, 16) + 3
    assert gauges.collapse_gauges(line)[1] == pytest.approx(1, abs=0.01)
    assert gauges.collapse_gauges(torch.ones(8, 4)) == (0.0, 1.0)
    wide = torch.randn(10, 64, generator=generator)
    values = np.linalg.svd((wide - wide.mean(0)).numpy(), compute_uv=False)
    share = values / values.sum()
    share = share[share > 1e-12]
    assert gauges.collapse_gauges(wide)[1] == pytest.approx(
        np.exp(-(share * np.log(share)).sum()), rel=1e-4
    )


def test_alignment_and_uniformity_are_those_of_the_paper():
    z = torch.nn.functional.normalize(torch.randn(9, 5, generator=torch.Generator().manual_seed(0)))
    other = torch.nn.functional.normalize(z + 0.1)
    rows, others = z.tolist(), other.tolist()

    def squared(a, b):
        return sum((x - y) ** 2 for x, y in zip(a, b, strict=True))

    pairs = [squared(rows[i], rows[j]) for i in range(9) for j in range(i)]
    expected = math.log(sum(math.exp(-2 * d) for d in pairs) / len(pairs))
    assert gauges.uniformity(z) == pytest.approx(expected, abs=1e-6)
    expected = sum(map(squared, rows, others)) / 9
    assert gauges.alignment(z, other) == pytest.approx(expected, abs=1e-6)
    assert gauges.alignment(z, z) == 0
    assert gauges.uniformity(torch.ones(6, 4) / 2) == pytest.approx(0, abs=1e-6)
    assert math.isnan(gauges.uniformity(z[:1]))


def test_neighbours_are_of_other_patients_and_vote_by_class():
    """Of each patient two scans that are alike; classes differ between patients at random: no better than chance."""
    rng = np.random.default_rng(0)
    patient = np.repeat(np.arange(60), 2)
    own = np.repeat(rng.normal(size=(60, 8)), 2, axis=0) + rng.normal(size=(120, 8)) * 0.01
    target = np.repeat(rng.integers(0, 2, 60), 2)
    h = torch.from_numpy(own)
    found = gauges.neighbours_agree(h, target, patient, k=1)
    assert found == pytest.approx(0.5, abs=0.2)
    assert gauges.neighbours_agree(h, target, np.arange(120), k=1) == 1.0
    told = torch.cat([h, torch.from_numpy(target)[:, None].expand(-1, 6) * 1.0], dim=1)
    assert gauges.neighbours_agree(told, target, patient, k=5) > 0.9


def test_neighbours_against_a_plain_count():
    rng = np.random.default_rng(1)
    h, target = torch.from_numpy(rng.normal(size=(30, 4))), rng.integers(0, 3, 30)
    patient = rng.integers(0, 12, 30)
    x = (h - h.mean(dim=0)) / h.std(dim=0, correction=0)
    x = (x / x.norm(dim=1, keepdim=True)).numpy()
    guesses = []
    for i in range(30):
        others = [j for j in range(30) if patient[j] != patient[i]]
        near = sorted(others, key=lambda j: -x[i] @ x[j])[:7]
        votes = [
            sum(math.exp(x[i] @ x[j] / 0.07) for j in near if target[j] == c) for c in range(3)
        ]
        guesses.append(int(np.argmax(votes)))
    found = gauges.neighbours_agree(h, target, patient, k=7)
    assert found == pytest.approx(balanced_accuracy_score(target, guesses))


@pytest.fixture
def place(tmp_path) -> Place:
    return Place(tmp_path)


def labels_of(place: Place, classes: list[str]):
    scans = scan_names(12)
    table = pd.DataFrame({
        "scan": scans, "path": [f"{i}.png" for i in range(12)], "patient": [f"p{i // 2}" for i in range(12)],
        "group": [f"g{i // 2}" for i in range(12)], "target": classes, "split": "", "site": "", "status": "ok",
        "reason": "",
    })  # fmt: skip
    write_table(place.folder / "labels.parquet", "labels", table)
    return place.folder / "labels.parquet"


def run(place: Place, name: str, params, gauge=None, cache="cache"):
    from scripts.pretrain import main

    arguments = [*command(place, params, name)[2:], *(["--gauge", str(gauge)] if gauge else [])]
    arguments[arguments.index("--cache") + 1] = str(place.folder / cache)
    assert main(arguments) == 0
    return place.folder / name


def test_a_probe_of_labels_changes_no_weight_and_no_digest(place):
    params = make_params(epochs=3)
    plain = run(place, "plain", params)
    gauge = labels_of(place, ["a", "b", "b"] * 4)
    probed = run(place, "probed", params, gauge, "other")
    assert sha256_file(plain / "encoder.safetensors") == sha256_file(probed / "encoder.safetensors")
    assert meta(plain)["digest"] == meta(probed)["digest"]
    found = history(probed).knn_balanced_accuracy
    assert found.between(0, 1).all()
    assert history(plain).knn_balanced_accuracy.isna().all()
    pd.testing.assert_frame_equal(
        *(history(one).drop(columns="knn_balanced_accuracy") for one in (plain, probed))
    )
    for one in ("alignment", "uniformity"):
        assert history(plain)[one].notna().all()
    # Test scans of the fold have no voice: their labels may be anything.
    (place.folder / "labels.parquet").unlink()
    changed = ["b", "a", "b", "a", *["a", "b", "b"] * 4][:4] + (["a", "b", "b"] * 4)[4:]
    again = run(place, "again", params, labels_of(place, changed), "third")
    pd.testing.assert_frame_equal(history(probed), history(again))


def test_one_class_or_no_table_gives_no_number(place):
    one = run(place, "one", make_params(epochs=2), labels_of(place, ["a"] * 12))
    assert history(one).knn_balanced_accuracy.isna().all()
    two = run(place, "two", make_params(epochs=2, seed=1), place.folder / "nowhere.parquet")
    assert history(two).knn_balanced_accuracy.isna().all()


@pytest.mark.parametrize(
    ("steps", "n_scans", "expected"), [(180, 193, 4), (1_000, 425, 10), (20_000, 2_000, 20)]
)
def test_further_gauges_take_a_fiftieth_of_the_time(steps, n_scans, expected):
    schedule = engine.Schedule(10, 64, 3, 1e-3, 0.0, 0.1, None, 0, "fp32", steps=steps)
    found = engine.gauged_looks(schedule, n_scans)
    assert found == expected
    passes = 3 * min(n_scans, gauges.N_SEEN) * found
    assert passes <= 0.02 * 6 * 64 * steps or found == engine.FEWEST


def test_looks_are_few_and_change_nothing(place):
    job = place.job(make_params(epochs=90))
    seen = []

    def look(method):
        seen.append(method.training)
        before = copy.deepcopy(method.state_dict())
        found = gauges.Looks(job.resident, job.seed_key)(method)
        after = method.state_dict()
        assert all(torch.equal(value, after[name]) for name, value in before.items())
        return found

    training = engine.Training(job.make_method(), job.resident, job.schedule, looks=look)
    training.run()
    assert all(seen)
    table = pd.DataFrame(training.history)
    looked = table.alignment.notna()
    few = engine.gauged_looks(job.schedule, len(job.resident))
    assert few <= looked.sum() == len(seen) <= 1.5 * few
    assert looked.iloc[-1]
    plain = engine.Training(job.make_method(), job.resident, job.schedule)
    plain.run()
    for name, value in plain.method.state_dict().items():
        assert torch.equal(training.method.state_dict()[name], value), name


def test_memory_is_told(place):
    out, _ = place.run(make_params())
    assert (read_table(out / "history.parquet", "history").memory_mb > 50).all()
