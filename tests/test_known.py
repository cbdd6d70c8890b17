"""What is known of scans beside their pixels, and how batches give it to methods."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from fewscans import augment
from fewscans.contracts import write_table
from fewscans.errors import UserError
from fewscans.known import Known, read_known
from fewscans.methods.batch import Scans

# Patients a (three scans), b (one), c (two), in the order of another table.
PATIENT = np.array([0, 1, 0, 2, 0, 2])
PLACE = np.array([2, 0, 0, 1, 1, 0])


def known() -> Known:
    return Known(PATIENT, PLACE, np.array([0, 1, -1, 1, 0, -1]), ("healthy", "ill"))


@pytest.mark.parametrize("kind", ["patient", "neighbour"])
def test_companions_are_others_of_the_patient(kind):
    rows = np.arange(6)
    seen: dict[int, set[int]] = {row: set() for row in range(6)}
    for u in np.linspace(0, 1, 50, endpoint=False):
        for row, other in zip(rows, known().companions(rows, kind, np.full(6, u)), strict=True):
            seen[row].add(int(other))
    others = {0: {2, 4}, 1: {1}, 2: {0, 4}, 3: {5}, 4: {0, 2}, 5: {3}}
    nearest = {**others, 0: {4}, 2: {4}}  # 2, 4, 0 is the order of places
    assert seen == (others if kind == "patient" else nearest)


def test_companions_of_some_are_those_of_all():
    u = np.random.default_rng(0).uniform(size=6)
    everyone = known().companions(np.arange(6), "patient", u)
    some = np.array([4, 1])
    assert known().companions(some, "patient", u[some]).tolist() == everyone[some].tolist()


def test_companions_are_even():
    u = np.random.default_rng(0).uniform(size=4000)
    drawn = known().companions(np.zeros(4000, dtype=np.int64), "patient", u)
    assert abs((drawn == 2).mean() - 0.5) < 0.05


def scans(n: int = 6) -> Scans:
    pixels = torch.arange(float(n)).view(n, 1, 1, 1).expand(n, 1, 8, 8) / n
    return Scans(
        np.arange(1, n + 1, dtype=np.uint64), lambda rows: pixels[torch.as_tensor(rows)], known()
    )


def test_a_batch_knows_its_rows():
    batch = scans().batch(np.array([3, 0, 5]), 2, 7)
    assert batch.patient.tolist() == [2, 0, 2]
    assert batch.target.tolist() == [1, 0, -1]
    assert (batch.x[:, 0, 0, 0] * 6).round().int().tolist() == [3, 0, 5]


def test_companions_come_with_their_pixels_and_keys_whatever_the_batch():
    whole = scans().batch(np.arange(6), 2, 7).companions("patient", view=1)
    part = scans().batch(np.array([4, 3]), 2, 7).companions("patient", view=1)
    assert torch.equal(part.x, whole.x[[4, 3]])
    assert part.keys.tolist() == whole.keys[[4, 3]].tolist()
    policy = augment.policy(1.0, "ssl")
    torch.testing.assert_close(
        part.augmented(1, policy), whole.augmented(1, policy)[[4, 3]], rtol=0, atol=0
    )
    later = scans().batch(np.arange(6), 3, 7).companions("patient", view=1)
    assert later.rows.tolist() != whole.rows.tolist()


def labels(path, names, dataset="cohort", status="ok"):
    rows = [
        {"scan": f"{dataset}{i}", "path": p, "patient": patient, "group": patient, "target": target, "split": "",
         "site": "", "status": status, "reason": ""}
        for i, (p, patient, target) in enumerate(names)
    ]  # fmt: skip
    write_table(path, "labels", pd.DataFrame(rows))
    return path


ROWS = [("p/10.png", "p", "ill"), ("p/9.png", "p", "healthy"), ("q/1.png", "q", "ill")]


def test_labels_of_the_training_fold_alone_are_read(tmp_path):
    table = labels(tmp_path / "labels.parquet", ROWS)
    pool = labels(tmp_path / "pool.parquet", [("p/1.png", "p", "ill")], "pool")
    order = ["pool0", "cohort2", "cohort0", "cohort1"]
    read = read_known(
        ("patient", "target"),
        order,
        {"cohort0", "cohort1", "pool0"},
        {"cohort": table, "pool": pool},
        "cohort",
    )
    assert read.classes == ("healthy", "ill")
    assert read.target.tolist() == [-1, -1, 1, 0]
    assert read.place.tolist() == [0, 0, 1, 0]  # 9 before 10
    assert len(set(read.patient.tolist())) == 3  # p of the pool is another one
    assert read.patient[2] == read.patient[3]


def test_without_the_wish_for_targets_none_are_there(tmp_path):
    table = labels(tmp_path / "labels.parquet", ROWS)
    read = read_known(("patient",), ["cohort0"], {"cohort0"}, {"cohort": table}, "cohort")
    assert read.target.tolist() == [-1]
    assert read_known((), ["a", "b"], {"a"}, {}, "cohort").patient.tolist() == [0, 1]


def test_scans_of_contradicting_labels_have_none(tmp_path):
    table = labels(tmp_path / "labels.parquet", ROWS, status="contradiction")
    read = read_known(("target",), ["cohort0"], {"cohort0"}, {"cohort": table}, "cohort")
    assert read.target.tolist() == [-1]


@pytest.mark.parametrize("given", [{}, {"cohort": ROWS[:1]}])
def test_what_is_missing_is_said(tmp_path, given):
    tables = {name: labels(tmp_path / "labels.parquet", rows) for name, rows in given.items()}
    with pytest.raises(UserError, match="--labels"):
        read_known(("patient",), ["cohort0", "cohort1"], {"cohort0"}, tables, "cohort")
