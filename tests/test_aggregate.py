"""From prediction files to the table: what comes out."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from aggregate_factory import Study, ablation_table, run_aggregate
from sklearn.metrics import accuracy_score, roc_auc_score

from fewscans.contracts import COLUMNS, read_table
from fewscans.metrics import METRICS


def test_the_whole_way(here: Path) -> None:
    study = Study(here, config={"protocols": ["linear", "finetune"]})
    study.write()
    assert run_aggregate() == 0
    table = ablation_table()
    arms = [arm["arm"] for arm in study.plan["arms"]]
    assert list(table["arm"]) == [arm for arm in arms for _ in study.budgets]
    assert list(table["budget"])[:2] == ["10", "all"]
    row = table.loc["simclr.s.linear", "10", "patient"]
    tested = study.cohort
    assert (row.n_groups, row.n_patients, row.n_scans) == (48, 48, len(tested))
    assert (row.n_folds, row.n_seeds, row.n_draws) == (3, 1, 2)
    assert row.n_labelled_patients == 10
    assert row.baseline_arm == "scratch-test-resnet.s.finetune"
    # The config says no epochs: those that were trained.
    assert (row["size"], row.epochs, row.method, row.protocol) == (32, 103, "simclr", "linear")
    for metric in METRICS:
        assert row[f"{metric}_low"] <= row[metric] <= row[f"{metric}_high"]
        assert row[f"{metric}_diff_low"] < row[f"{metric}_diff"] < row[f"{metric}_diff_high"]
    assert row.digest_config == "c0"
    assert row.digest_code == "d0"
    assert len(row.digest_data) == len(row.digest_splits) == 16
    for name in ("scores", "contrasts"):
        assert list(read_table(f"work/{name}.parquet", name).columns)[: len(COLUMNS[name])] == list(
            COLUMNS[name]
        )
    assert json.loads(Path("work/aggregate.json").read_text())["rows"] == len(table)


def test_points_are_means_of_folds_and_draws_of_sklearns(here: Path) -> None:
    study = Study(here)
    study.write()
    assert run_aggregate(score={"resamples": 200, "units": ["scan", "patient"]}) == 0
    arm = "simclr.s.linear"
    frames = [
        pd.read_parquet(run["predictions"])
        for run in study.plan["runs"]
        if run["encoder"] == "simclr"
    ]
    rows = pd.concat(frames).query("arm == @arm and budget == '10' and role == 'test'")
    rows["p"] = np.stack(rows["prob"].to_numpy())[:, 1]
    units = {
        "scan": rows,
        "patient": rows.groupby(["fold", "draw", "seed", "patient", "target"], as_index=False)[
            "p"
        ].mean(),
    }
    for unit, part in units.items():
        row = ablation_table().loc[arm, "10", unit]
        aurocs = [
            roc_auc_score(one["target"], one["p"])
            for _, one in part.groupby(["fold", "draw", "seed"])
        ]
        assert row.auroc == pytest.approx(np.mean(aurocs), abs=1e-6)
        pooled = [
            accuracy_score(one["target"], one["p"] > 0.5)
            for _, one in part.groupby(["draw", "seed"])
        ]
        assert row.accuracy == pytest.approx(np.mean(pooled), abs=1e-6)
    scores = read_table("work/scores.parquet", "scores")
    sd = scores.query(
        "arm == @arm and budget == '10' and metric == 'accuracy' and unit == 'scan' and `class` == ''"
    )
    assert sd["sd_draws"].item() == pytest.approx(
        np.std(
            [accuracy_score(p["target"], p["p"] > 0.5) for _, p in rows.groupby("draw")], ddof=1
        ),
        abs=1e-6,
    )
    assert sd["sd_seeds"].isna().item()


def test_a_constant_predictor_is_seen_for_what_it_is(here: Path) -> None:
    study = Study(here)
    study.write()
    assert run_aggregate() == 0
    row = ablation_table().loc["majority.s.prior", "10", "patient"]
    assert (row.auroc, row.auroc_low, row.auroc_high) == (0.5, 0.5, 0.5)
    assert row.balanced_accuracy == 0.5
    assert "constant-predictor" in row["flags"].split()
    assert pd.isna(row.verdict)
    assert pd.isna(row.silhouette)


def test_verdicts(here: Path) -> None:
    study = Study(
        here, n_patients=120, config={"protocols": ["linear"], "compare": {"baseline": "random"}}
    )
    study.skill |= {"simclr": 3.0, "random": 0.8}
    study.write()
    assert run_aggregate() == 0
    table = ablation_table()
    assert table.loc["simclr.s.linear", "10", "patient"].verdict == "gain"
    unknown = table.loc["simclr.s.linear", "all", "patient"]
    assert unknown.verdict == "cannot tell"  # one draw, one seed
    assert "training-variance-unknown" in unknown["flags"].split()
    contrast = read_table("work/contrasts.parquet", "contrasts").query(
        "metric == 'auroc' and budget == '10'"
    )
    assert (contrast["smallest_detectable"] / contrast["se"]).to_numpy() == pytest.approx(
        2.8, rel=1e-3
    )


def test_the_same_predictions_are_no_gain(here: Path) -> None:
    study = Study(here, config={"protocols": ["linear"], "compare": {"baseline": "random"}})
    study.prob = lambda method, target, role, *key: Study.prob(
        study, "scratch", target, role, *key[2:]
    )
    study.write()
    assert run_aggregate() == 0
    row = ablation_table().loc["simclr.s.linear", "10", "patient"]
    assert (row.auroc_diff, row.auroc_diff_low, row.auroc_diff_high, row.verdict) == (
        0,
        0,
        0,
        "no gain",
    )


def test_majority_has_one_seed_and_is_compared_all_the_same(here: Path) -> None:
    study = Study(
        here,
        config={
            "validation": {"folds": 2, "seeds": 2, "draws": 2},
            "compare": {"baseline": "majority"},
        },
    )
    study.write()
    assert run_aggregate() == 0
    row = ablation_table().loc["simclr.s.linear", "10", "patient"]
    assert row.n_seeds == 2
    assert row.auroc_diff == pytest.approx(row.auroc - 0.5, abs=1e-6)
    assert pd.isna(row["flags"])


def test_the_best_arm_is_named_by_validation_alone(here: Path) -> None:
    study = Study(here, validation=True, config={"protocols": ["linear", "knn", "finetune"]})
    # The probe shines on the test scans alone: not to be named.
    skills = {
        ("linear", "val"): 0.2,
        ("linear", "test"): 3.0,
        ("knn", "val"): 2.5,
        ("knn", "test"): 1.0,
    }

    def prob(method, target, role, *key):
        if method == "simclr":
            study.skill["simclr"] = skills.get((key[1], role), 0.5)
        return Study.prob(study, method, target, role, *key)

    study.prob = prob
    study.write()
    assert run_aggregate() == 0
    table = ablation_table()
    assert list(table.loc[table["best_by_validation"], "arm"]) == ["simclr.s.knn", "simclr.s.knn"]
    assert (
        table.loc["simclr.s.linear", "10", "patient"].auroc
        > table.loc["simclr.s.knn", "10", "patient"].auroc
    )
    tuned = table.loc["simclr.s.finetune", "10", "patient"]
    assert pd.isna(tuned.validation_score)
    assert "no-validation-score" in tuned["flags"].split()


def test_a_second_score_without_twins(here: Path) -> None:
    study = Study(
        here, twins=8, config={"split": "official", "validation": {"seeds": 2, "draws": 2}}
    )
    study.write()
    assert run_aggregate() == 0
    table = ablation_table()
    whole, without = (
        table.loc["simclr.s.linear", "10", unit] for unit in ("patient", "patient, no twins")
    )
    tested = study.cohort[study._tested("official")]
    assert whole.n_scans == len(tested)
    assert without.n_scans == (~tested["twin"]).sum() < whole.n_scans
    assert (whole.n_folds, without.n_folds) == (1, 1)


def test_three_classes_and_names_that_are_values(here: Path) -> None:
    study = Study(here, classes=["normal", "a|b <i>", "auroc"], n_patients=60)
    study.write()
    assert run_aggregate() == 0
    scores = read_table("work/scores.parquet", "scores").query(
        "arm == 'simclr.s.linear' and budget == '10'"
    )
    recall = scores.query("metric == 'recall'").set_index("class")["value"]
    assert set(recall.index) == {"", "normal", "a|b <i>", "auroc"}
    assert recall[["normal", "a|b <i>", "auroc"]].mean() == pytest.approx(recall[""], abs=1e-6)
    assert set(scores.query("metric == 'auroc'")["class"]) == {"", "normal", "a|b <i>", "auroc"}
    assert not {"a|b <i>", "normal"} & set(ablation_table().columns)


def test_a_fold_without_a_class_is_left_out_of_ranking(here: Path) -> None:
    study = Study(here)
    positive = study.cohort["target"] == "malignant"
    study.cohort.loc[positive & (study.cohort["fold"] == 2), "fold"] = 1
    study.write()
    assert run_aggregate() == 0
    row = ablation_table().loc["simclr.s.linear", "10", "patient"]
    assert "class-missing" in row["flags"].split()
    assert 0.5 < row.auroc <= 1
    assert row.n_patients == 48


def test_clusters_stand_where_the_embeddings_belong(here: Path) -> None:
    study = Study(here, config={"protocols": ["linear", "finetune"]})
    study.write()
    assert run_aggregate() == 0
    table = ablation_table()
    frozen = [
        table.loc["simclr.s.linear", budget, "patient"].silhouette for budget in ("10", "all")
    ]
    assert frozen[0] == frozen[1]
    assert 0 < frozen[0] < 1
    assert pd.isna(table.loc["simclr.s.finetune", "all", "patient"].silhouette)
    scratch = [
        table.loc["scratch-test-resnet.s.finetune", b, "patient"].davies_bouldin
        for b in ("10", "all")
    ]
    assert pd.isna(scratch[0])
    assert scratch[1] > 0


def test_seconds_of_an_encoder_are_shared_by_its_rows(here: Path) -> None:
    study = Study(here, config={"protocols": ["linear", "finetune"]})
    study.write()
    assert run_aggregate() == 0
    rows = ablation_table().query("encoder == 'simclr'")
    # 3 folds: pretraining 40 s and embedding 1 s each; 2 protocols x (2 draws + 1) trainings of 2 s in each fold
    assert rows["device_seconds"].sum() == pytest.approx(3 * (40 + 1) + 3 * 2 * 3 * 2, abs=0.3)


def test_tidy_parquet_has_the_rows_in_long_form(here: Path) -> None:
    Study(here).write()
    assert run_aggregate() == 0
    tidy, table = pd.read_parquet("results/ablation_table.parquet"), ablation_table()
    long = tidy[tidy["class"] == ""]
    assert len(long) == len(table) * len(METRICS)
    one = long.query("arm == 'simclr.s.linear' and budget == '10' and metric == 'f1'").iloc[0]
    row = table.loc["simclr.s.linear", "10", "patient"]
    assert (one.value, one.low, one["diff"], one.diff_high) == (
        row.f1,
        row.f1_low,
        row.f1_diff,
        row.f1_diff_high,
    )


def test_no_torch_in_judging() -> None:
    """Tables rebuild on a laptop."""
    rooms = "fewscans.aggregate.build, fewscans.aggregate.table, fewscans.tables"
    code = f"import sys, {rooms}; print('torch' in sys.modules)"
    root = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"


def test_parquet_of_scores_has_class_as_a_value(here: Path) -> None:
    Study(here).write()
    assert run_aggregate() == 0
    assert pq.read_schema("work/scores.parquet").names[-1] == "class"
