"""A recipe that is fitted, beside one that is not, from raw scans to the table, as a user types it."""

from __future__ import annotations

import json
import re
from collections import Counter

import pandas as pd
import pytest
import yaml
from workflows import make_clone

FITTED = {"px32": {"size": 32}, "nyul": {"size": 32, "normalise": "nyul"}}


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    made = make_clone(tmp_path_factory.mktemp("nyul") / "clone")
    # Six of the patients are a pool: no labels, no folds.
    rows = pd.read_csv(made.folder / "raw/labels.csv", dtype=str, keep_default_na=False)
    patients = sorted(set(rows["patient"]))[:6]
    pool = rows[rows["patient"].isin(patients)].assign(label="")
    pool.to_csv(made.folder / "raw/pool.csv", index=False)
    rows[~rows["patient"].isin(patients)].to_csv(made.folder / "raw/labels.csv", index=False)
    private = {"private": False}
    made.config(
        recipes=FITTED,
        baselines=["scratch"],
        datasets={
            "tiny": {"root": "raw", "table": "labels.csv", "pools": ["more"], **private},
            "more": {"root": "raw", "table": "pool.csv", **private},
        },
    )
    return made


def test_a_dry_run_plans_a_store_for_each_fold(clone):
    text = clone.run("-n", "-p", "results/ablation_table.csv").stdout
    jobs = Counter(re.findall(r"^rule (\w+):", text, re.MULTILINE))
    assert (jobs["normalise"], jobs["normalise_fold"]) == (3, 2)
    for recipe, fold in (("nyul", "1/"), ("px32", "")):
        assert text.count(f"--store work/tiny/{recipe}/{fold}store") == (3 if fold else 6)
    assert "--pool more=work/more/nyul/store" in text
    # What is fitted waits for the folds; other stores do not.
    assert "--folds work/tiny/folds.parquet --out work/tiny/nyul/0/store" in text
    assert "--folds work/tiny/folds.parquet --out work/more/nyul/store" in text
    assert re.search(r"converted/0 +--out work/tiny/px32/store", text)


def test_a_transductive_encoder_learns_from_the_store_of_all_folds(clone):
    written = (clone.folder / "config/config.yaml").read_text()
    config = yaml.safe_load(written)
    config["encoders"]["simclr"]["transductive"] = True
    (clone.folder / "config/config.yaml").write_text(yaml.safe_dump(config))
    try:
        text = clone.run("-n", "-p", "work/encoders/simclr/nyul/tiny/all/0/encoder.json").stdout
    finally:
        (clone.folder / "config/config.yaml").write_text(written)
    assert "--folds work/tiny/folds.parquet --out work/tiny/nyul/all/store" in text
    assert "--store work/tiny/nyul/all/store" in text


def test_it_reaches_the_table_and_each_fold_saw_its_own_training_scans(clone):
    clone.run("--cores", "2", "results/ablation_table.csv", timeout=1500)
    table = pd.read_csv(clone.folder / "results/ablation_table.csv")
    assert set(table["recipe"]) == {"px32", "nyul"}
    assert table.groupby("recipe")["arm"].nunique()["nyul"] == 3
    assert not table["auroc"].isna().any()
    work = clone.folder / "work"
    folds = pd.read_parquet(work / "tiny/folds.parquet")
    # A copy of a test scan of fold 0 is in the pool, which joins fold 1 whole.
    pools = [set(rows["scan"]) for _, rows in folds[folds["role"] == "pool"].groupby("fold")]
    joins = set.intersection(*pools)
    assert len(joins) < max(map(len, pools))
    seen = {}
    for fold, rows in folds.groupby("fold"):
        said = json.loads((work / f"tiny/nyul/{fold}/store/store.json").read_text())["fitted"]
        seen[fold] = said["landmarks"]
        assert said["scans"] == sorted(rows.loc[rows["role"] == "train", "scan"])
        encoder = json.loads(
            (work / f"encoders/simclr/nyul/tiny/{fold}/0/encoder.json").read_text()
        )
        assert encoder["fitted"]["tiny"] == said
        assert set(encoder["fitted"]["more"]["scans"]) == joins
    assert seen["0"] != seen["1"]
    assert not (work / "tiny/nyul/store").exists()
    assert clone.to_run("results/ablation_table.csv") == {}
