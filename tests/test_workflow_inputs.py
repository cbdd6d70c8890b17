"""Every kind of data set from raw files to its folds, and weights from outside, as a user types it."""

from __future__ import annotations

import os
import subprocess

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image
from workflows import CONFIG, Clone, environment, make_clone


@pytest.fixture
def clone(tmp_path) -> Clone:
    return make_clone(tmp_path / "clone")


def write_png(path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (20, 24), dtype=np.uint8)).save(
        path
    )


def folds_of(clone: Clone, dataset: str) -> pd.DataFrame:
    folds = pd.read_parquet(clone.folder / f"work/{dataset}/folds.parquet")
    labels = pd.read_parquet(clone.folder / f"work/{dataset}/labels.parquet")
    return folds.merge(labels[["scan", "path", "target", "patient"]], on="scan", how="left")


def test_a_folder_per_class_whose_names_need_quoting(clone):
    for i in range(12):
        write_png(
            clone.folder / "raw2" / ["class; a", "b'\"$(touch x)"][i % 2] / f"-scan %{i} ü.png", i
        )
    clone.config(datasets={"classes": {"root": "raw2"}})
    clone.run("--cores", "2", "data")
    folds = folds_of(clone, "classes")
    assert set(folds["target"]) == {"class; a", "b'\"$(touch x)"}
    assert not list(clone.folder.rglob("x"))
    assert (folds[folds["role"] == "test"].groupby("fold")["target"].nunique() == 2).all()


def test_a_medmnist_file_with_its_official_split(clone):
    rng = np.random.default_rng(0)
    parts = {"train": 12, "val": 4, "test": 6}
    np.savez(clone.folder / "small.npz", **{
        f"{part}_{kind}": rng.integers(0, 255, (n, 28, 28), dtype=np.uint8) if kind == "images"
        else (np.arange(n) % 2).reshape(n, 1)
        for part, n in parts.items() for kind in ("images", "labels")
    })  # fmt: skip
    clone.config(datasets={"med": {"npz": "small.npz", "split": "official"}}, budgets=["4", "all"])
    clone.run("--cores", "2", "data")
    folds = folds_of(clone, "med")
    assert folds["fold"].unique().tolist() == ["official"]
    assert folds["role"].value_counts().to_dict() == {"train": 16, "test": 6}


def test_a_tab_separated_table_and_a_pool_without_labels(clone):
    raw = pd.read_csv(clone.folder / "raw/labels.csv", dtype=str, keep_default_na=False)
    renamed = raw.rename(columns={"path": "file", "label": "diagnosis", "patient": "who"})
    renamed.to_csv(clone.folder / "raw/table.tsv", sep="\t", index=False)
    for i in range(5):
        write_png(clone.folder / "pool" / f"{i}.png", 100 + i)
    pd.DataFrame({"path": [f"{i}.png" for i in range(5)], "patient": list("aabbc")}).to_csv(
        clone.folder / "pool/images.csv", index=False
    )
    columns = {"path": "file", "label": "diagnosis", "patient": "who"}
    clone.config(datasets={
        "mine": {"root": "raw", "table": "table.tsv", "columns": columns, "pools": ["other"]},
        "other": {"root": "pool", "table": "images.csv"},
    })  # fmt: skip
    clone.run("--cores", "2", "data", "work/encoders/simclr/px32/mine/0/0/encoder.json")
    folds = folds_of(clone, "mine")
    assert folds[folds["role"] == "pool"].groupby("fold").size().tolist() == [5, 5]
    encoder = yaml.safe_load(
        (clone.folder / "work/encoders/simclr/px32/mine/0/0/encoder.json").read_text()
    )
    pool = set(folds.loc[folds["role"] == "pool", "scan"])
    assert pool < set(encoder["source_scans"])
    tested = set(folds.loc[(folds["fold"] == "0") & (folds["role"] == "test"), "scan"])
    assert not tested & set(encoder["source_scans"])


def test_weights_that_cannot_be_had_end_the_run_before_any_job(clone):
    clone.config(baselines=["imagenet"], encoders=CONFIG["encoders"])
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(clone.folder / "empty")}
    done = subprocess.run(
        clone.command("--cores", "2"),
        cwd=clone.folder,
        env={**environment(), **offline},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    assert done.returncode != 0
    assert "imagenet_weights: {test_resnet: PATH}" in done.stdout
    assert not (clone.folder / "work/tiny").exists()
    assert not (clone.folder / "work/run.json").exists()


def test_one_unreadable_image_is_left_out_or_stops_the_run_as_the_config_says(clone):
    scans = sorted((clone.folder / "raw/images").iterdir())
    os.truncate(scans[3], 200)
    clone.run("--cores", "2", "work/tiny/labels.parquet")
    findings = pd.read_parquet(clone.folder / "work/tiny/audit/findings.parquet")
    unreadable = findings[findings["check"] == "unreadable"]
    assert f"images/{scans[3].name}" in set(unreadable["path"])
    clone.config(datasets={"tiny": {**CONFIG["datasets"]["tiny"], "on_unreadable": "stop"}})
    done = clone.run("--cores", "2", "work/tiny/labels.parquet", check=False)
    assert done.returncode != 0
    assert scans[3].name in done.stdout


def test_a_table_of_values_belongs_to_the_encoders_that_want_it(clone):
    labs = clone.folder / "raw/labs.csv"
    contig = {**CONFIG["encoders"]["simclr"], "method": "contig"}
    encoders = {**CONFIG["encoders"], "contig": contig}
    tiny = {**CONFIG["datasets"]["tiny"], "values": {"labs": {"table": "labs.csv"}}}
    clone.config(datasets={"tiny": tiny}, encoders=encoders)
    keys = {name: f"work/encoders/{name}/px32/tiny/0/0" for name in encoders}
    targets = [f"{key}/encoder.json" for key in keys.values()]
    clone.run("--cores", "2", *targets)
    made = [yaml.safe_load((clone.folder / target).read_text()) for target in targets]
    assert made[1]["settings"]["tables"] == ["labs"]
    assert clone.to_run(*targets) == {}
    frame = pd.read_csv(labs)
    frame["crp_mg_l"] = frame["crp_mg_l"][::-1].to_numpy()
    frame.to_csv(labs, index=False)
    assert clone.to_run(*targets) == {"pretrain": 1}
    assert clone.to_run(targets[0]) == {}
    clone.run("--cores", "2", *targets)
    again = [yaml.safe_load((clone.folder / target).read_text()) for target in targets]
    assert again[0]["digest"] == made[0]["digest"]
    assert again[1]["digest"] != made[1]["digest"]


def test_a_table_of_a_generated_cohort_and_of_its_pool(clone):
    """Made before it is read; a pool without one has scans without values."""
    contig = {**CONFIG["encoders"]["simclr"], "method": "contig"}
    made = {"phantom": {"n_patients": 24, "seed": 1}, "values": {"labs": {"table": "labs.csv"}}}
    clone.config(
        datasets={"made": {**made, "pools": ["tiny"]}, "tiny": CONFIG["datasets"]["tiny"]},
        encoders={"contig": contig},
    )
    target = "work/encoders/contig/px32/made/0/0"
    clone.run("--cores", "2", f"{target}/encoder.json")
    encoder = yaml.safe_load((clone.folder / target / "encoder.json").read_text())
    assert encoder["settings"]["tables"] == ["labs"]
    log = (clone.folder / "logs/pretrain/contig.px32.made.0.0.log").read_text()
    assert f"of {encoder['n_scans']} scans" in log


def test_faults_of_a_table_end_the_run_before_any_job(clone):
    contig = {**CONFIG["encoders"]["simclr"], "method": "contig"}
    values = {"labs": {"table": "labs.csv", "key": "pateint"}, "gone": {"table": "gone.csv"}}
    tiny = {**CONFIG["datasets"]["tiny"], "values": values}
    clone.config(datasets={"tiny": tiny}, encoders={"contig": contig})
    said = clone.run("-n", check=False)
    assert said.returncode != 0
    assert "datasets.tiny.values.labs.key" in said.stdout
    assert "Did you mean 'patient'?" in said.stdout
    assert "gone.csv: no such table" in said.stdout
