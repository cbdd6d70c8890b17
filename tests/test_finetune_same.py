"""The packed stage: results follow from inputs alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace

import pandas as pd
import pytest
from finetune_factory import (
    ROOT,
    TUNE,
    assert_same,
    make_encoder,
    make_files,
    make_params,
    read_all,
)
from labelled_factory import make_tiny, scan_key

from fewscans.contracts import read_table, write_table
from fewscans.finetune import finetune
from fewscans.labelled import read_fold


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return make_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def undisturbed(tiny, tmp_path_factory):
    files = make_files(tiny, tmp_path_factory.mktemp("undisturbed"))
    assert finetune(make_params(), files) == {"runs": 3, "from_cache": 0}
    return files


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return make_encoder(tmp_path_factory.mktemp("encoder"))


def test_twice_the_same_and_from_the_cache_the_same_bytes(tiny, undisturbed, tmp_path):
    again = make_files(tiny, tmp_path)
    finetune(make_params(), again)
    assert_same(undisturbed, again)
    before = again.predictions.read_bytes(), (again.embeddings / "embeddings.npy").read_bytes()
    again.predictions.unlink()
    assert finetune(make_params(), again) == {"runs": 3, "from_cache": 3}
    assert (
        again.predictions.read_bytes(),
        (again.embeddings / "embeddings.npy").read_bytes(),
    ) == before


HELD = """
import runpy, sys, time
from fewscans import finetune

keep = finetune.keep_run

def held(*arguments):
    keep(*arguments)
    print("kept", flush=True)
    time.sleep(600)

finetune.keep_run = held
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.slow
def test_a_job_killed_between_runs_goes_on_and_ends_the_same(tiny, tmp_path):
    params, files = make_params(tune={**TUNE, "steps": 12}), make_files(tiny, tmp_path / "killed")
    arguments = [str(ROOT / "scripts" / "finetune.py"), "--params", params.model_dump_json()]
    for name in ("labels", "folds", "budgets", "store", "predictions", "embeddings", "cache"):
        arguments += [f"--{name}", str(getattr(files, name))]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-c", HELD, *arguments], env=environment, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "kept\n"
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not files.predictions.exists()
    facts = finetune(params, files)
    assert facts == {"runs": 3, "from_cache": 1}
    whole = make_files(tiny, tmp_path / "whole")
    finetune(params, whole)
    assert_same(files, whole)


def test_neither_order_nor_company_moves_a_number(tiny, undisturbed, tmp_path):
    budgets = read_table(tiny["budgets"], "budgets")
    mixed = tmp_path / "mixed.parquet"
    write_table(mixed, "budgets", budgets.sample(frac=1, random_state=3))
    files = make_files(tiny, tmp_path / "mixed", budgets=mixed)
    finetune(make_params(), files)
    assert_same(undisturbed, files)
    alone = tmp_path / "alone.parquet"
    write_table(alone, "budgets", budgets[(budgets["budget"] == "4") & (budgets["draw"] == 1)])
    files = make_files(tiny, tmp_path / "alone", budgets=alone)
    finetune(make_params(), files)
    table, runs = read_all(undisturbed)
    own = table[(table["budget"] == "4") & (table["draw"] == 1)].reset_index(drop=True)
    pd.testing.assert_frame_equal(own, read_all(files)[0], check_exact=True)
    assert read_all(files)[1] == [runs[1]]
    # The added budgets compute only themselves.
    assert finetune(make_params(), replace(files, budgets=tiny["budgets"])) == {
        "runs": 3,
        "from_cache": 1,
    }
    assert_same(undisturbed, files)


def test_runs_of_tuned_protocols_are_flagged_and_kept_without_it(tiny, undisturbed, tmp_path):
    files = replace(undisturbed, predictions=tmp_path / "tuned.parquet", embeddings=None)
    assert finetune(make_params(), files, ["finetune"]) == {"runs": 3, "from_cache": 3}
    assert all("tuned" in run["flags"] for run in read_all(files)[1])
    finetune(make_params(), files, ["linear"])
    assert not any("tuned" in run["flags"] for run in read_all(files)[1])


def test_a_test_label_is_seen_by_nobody(tiny, undisturbed, tmp_path):
    labels = read_table(tiny["labels"], "labels")
    tested = labels["scan"].isin([scan_key(i + 1) for i in range(16)])
    labels.loc[tested, "target"] = labels.loc[tested, "target"].map(
        {"lying": "upright", "upright": "lying"}
    )
    write_table(tmp_path / "labels.parquet", "labels", labels)
    files = make_files(tiny, tmp_path, labels=tmp_path / "labels.parquet")
    finetune(make_params(), files)
    table, runs = read_all(files)
    before, runs_before = read_all(undisturbed)
    assert runs == runs_before
    assert table["prob"].map(tuple).tolist() == before["prob"].map(tuple).tolist()
    flipped = table["role"] == "test"
    assert (table.loc[flipped, "target"] == 1 - before.loc[flipped, "target"]).all()


def test_a_changed_label_computes_only_the_budgets_that_use_it(tiny, encoder, tmp_path):
    files = make_files(tiny, tmp_path, encoder=encoder)
    params = make_params("simclr", ["linear", "knn"])
    assert finetune(params, files) == {"runs": 6, "from_cache": 0}
    labels = read_table(tiny["labels"], "labels")
    labels.loc[labels["scan"] == scan_key(36), "target"] = "lying"  # p17: in budget `all` alone
    write_table(tmp_path / "labels.parquet", "labels", labels)
    assert finetune(params, replace(files, labels=tmp_path / "labels.parquet")) == {
        "runs": 6,
        "from_cache": 4,
    }


def test_seed_fold_draw_and_setting_make_other_runs(tiny, undisturbed):
    runs = [tuple(run["digest"] for run in read_all(undisturbed)[1])]
    for params in (
        make_params(seed=1),
        make_params(base_seed=1),
        make_params(tune={**TUNE, "lr": 0.1}),
    ):
        files = replace(
            undisturbed,
            predictions=undisturbed.predictions.with_name("other.parquet"),
            embeddings=None,
        )
        finetune(params, files)
        runs.append(tuple(run["digest"] for run in read_all(files)[1]))
    assert len({mark for marks in runs for mark in marks}) == 12


def test_draws_and_folds_are_trainings_of_their_own(tiny, tmp_path):
    tables = {name: read_table(tiny[name], name) for name in ("folds", "budgets")}
    own = tables["budgets"].query("budget == '4' and draw == 0")
    again = {
        "folds": pd.concat([tables["folds"], tables["folds"].assign(fold="1")]),
        "budgets": pd.concat([own, own.assign(draw=1), own.assign(fold="1")]),
    }
    paths = {name: tmp_path / f"{name}.parquet" for name in again}
    for name, frame in again.items():
        write_table(paths[name], name, frame)
    files = make_files(tiny, tmp_path, **paths)
    made = []
    for fold in ("0", "1"):
        finetune(make_params(fold=fold), files)
        table = read_all(files)[0]
        made += [tuple(map(tuple, part["prob"])) for _, part in table.groupby("draw")]
    # The same scans three times, and three different trainings.
    assert len(set(made)) == 3


def test_budgets_stand_in_order_of_size(tiny, tmp_path):
    budgets = read_table(tiny["budgets"], "budgets")
    more = budgets[budgets["budget"] == "all"].iloc[:12].assign(budget="10", inner=-1)
    write_table(tmp_path / "budgets.parquet", "budgets", pd.concat([more, budgets]))
    paths = (tiny["labels"], tiny["folds"], tmp_path / "budgets.parquet")
    fold = read_fold("0", *paths, classes=[])
    shown = [(one.name, one.draw) for one in fold.budgets]
    assert shown == [("4", 0), ("4", 1), ("10", 0), ("all", 0)]
