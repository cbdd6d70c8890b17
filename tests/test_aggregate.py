"""From prediction files to the table: what comes out, what is refused, and what must not matter."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import accuracy_score, roc_auc_score

from fewscans.contracts import COLUMNS, read_metadata, read_table, write_table
from fewscans.metrics import METRICS
from fewscans.tables import latex_table, markdown_table, read_csv, terminal_table

sys.path.insert(0, str(Path(__file__).parent))
from aggregate_factory import Study

PARAMS = {"score": {"resamples": 200}}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _script(name: str):
    path = Path(__file__).parents[1] / "scripts" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"script_{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _run(**params) -> int:
    return _script("aggregate").main([
        "--params", json.dumps({**PARAMS, **params}), "--plan", "work/plan.json", "--scores", "work/scores.parquet",
        "--contrasts", "work/contrasts.parquet", "--table", "results/ablation_table.csv",
        "--sidecar", "work/aggregate.json",
    ])  # fmt: skip


def _table() -> pd.DataFrame:
    return read_csv("results/ablation_table.csv").set_index(["arm", "budget", "unit"], drop=False)


def _rewrite(path: str | Path, name: str, change) -> None:
    """Apply `change` to the rows of a table of ours."""
    write_table(path, name, change(read_table(path, name)), **read_metadata(path))


def _first_run(study: Study, encoder: str) -> dict:
    return next(run for run in study.plan["runs"] if run["encoder"] == encoder)


# -- what comes out --------------------------------------------------------------------------------------------------


def test_the_whole_way(here: Path) -> None:
    study = Study(here, config={"protocols": ["linear", "finetune"]})
    study.write()
    assert _run() == 0
    table = _table()
    arms = [arm["arm"] for arm in study.plan["arms"]]
    assert list(table["arm"]) == [arm for arm in arms for _ in study.budgets]
    assert list(table["budget"])[:2] == ["10", "all"]
    row = table.loc["simclr.s.linear", "10", "patient"]
    tested = study.cohort
    assert (row.n_groups, row.n_patients, row.n_scans) == (48, 48, len(tested))
    assert (row.n_folds, row.n_seeds, row.n_draws) == (3, 1, 2)
    assert row.n_labelled_patients == 10
    assert row.baseline_arm == "scratch-test-resnet.s.finetune"
    assert (row["size"], row.epochs, row.method, row.protocol) == (32, 100, "simclr", "linear")
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
    assert _run(score={"resamples": 200, "units": ["scan", "patient"]}) == 0
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
        row = _table().loc[arm, "10", unit]
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
    assert _run() == 0
    row = _table().loc["majority.s.prior", "10", "patient"]
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
    assert _run() == 0
    table = _table()
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
    assert _run() == 0
    row = _table().loc["simclr.s.linear", "10", "patient"]
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
    assert _run() == 0
    row = _table().loc["simclr.s.linear", "10", "patient"]
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
    assert _run() == 0
    table = _table()
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
    assert _run() == 0
    table = _table()
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
    assert _run() == 0
    scores = read_table("work/scores.parquet", "scores").query(
        "arm == 'simclr.s.linear' and budget == '10'"
    )
    recall = scores.query("metric == 'recall'").set_index("class")["value"]
    assert set(recall.index) == {"", "normal", "a|b <i>", "auroc"}
    assert recall[["normal", "a|b <i>", "auroc"]].mean() == pytest.approx(recall[""], abs=1e-6)
    assert set(scores.query("metric == 'auroc'")["class"]) == {"", "normal", "a|b <i>", "auroc"}
    assert not {"a|b <i>", "normal"} & set(_table().columns)


def test_a_fold_without_a_class_is_left_out_of_ranking(here: Path) -> None:
    study = Study(here)
    positive = study.cohort["target"] == "malignant"
    study.cohort.loc[positive & (study.cohort["fold"] == 2), "fold"] = 1
    study.write()
    assert _run() == 0
    row = _table().loc["simclr.s.linear", "10", "patient"]
    assert "class-missing" in row["flags"].split()
    assert 0.5 < row.auroc <= 1
    assert row.n_patients == 48


def test_clusters_stand_where_the_embeddings_belong(here: Path) -> None:
    study = Study(here, config={"protocols": ["linear", "finetune"]})
    study.write()
    assert _run() == 0
    table = _table()
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
    assert _run() == 0
    rows = _table().query("encoder == 'simclr'")
    # 3 folds: pretraining 40 s and embedding 1 s each; 2 protocols x (2 draws + 1) trainings of 2 s in each fold
    assert rows["device_seconds"].sum() == pytest.approx(3 * (40 + 1) + 3 * 2 * 3 * 2, abs=0.3)


def test_tidy_parquet_has_the_rows_in_long_form(here: Path) -> None:
    Study(here).write()
    assert _run() == 0
    tidy, table = pd.read_parquet("results/ablation_table.parquet"), _table()
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


# -- what must not matter --------------------------------------------------------------------------------------------


def test_order_of_files_and_rows_changes_no_byte(here: Path) -> None:
    study = Study(
        here, config={"validation": {"folds": 2, "seeds": 2, "draws": 2}}, validation=True
    )
    study.write()
    assert _run() == 0
    names = [
        "results/ablation_table.csv",
        "results/ablation_table.md",
        "results/ablation_table.tex",
    ]
    before = [Path(name).read_bytes() for name in names]
    tables = [read_table(f"work/{name}.parquet", name) for name in ("scores", "contrasts")]
    plan = json.loads(Path("work/plan.json").read_text())
    plan["runs"] = plan["runs"][::-1]
    Path("work/plan.json").write_text(json.dumps(plan))
    for i, run in enumerate(plan["runs"]):
        _rewrite(
            run["predictions"],
            "predictions",
            lambda frame, i=i: frame.sample(frac=1, random_state=i),
        )
    assert _run() == 0
    assert [Path(name).read_bytes() for name in names] == before
    for name, table in zip(("scores", "contrasts"), tables, strict=True):
        pd.testing.assert_frame_equal(read_table(f"work/{name}.parquet", name), table)


def test_one_more_arm_changes_no_score_of_another(here: Path) -> None:
    Study(here, config={"protocols": ["linear"]}).write()
    assert _run() == 0
    before = _table().loc["simclr.s.linear", "10", "patient"][
        [f"auroc{end}" for end in ("", "_low", "_high", "_diff")]
    ]
    Study(here, config={"protocols": ["linear", "knn"]}).write()
    assert _run() == 0
    pd.testing.assert_series_equal(
        _table().loc["simclr.s.linear", "10", "patient"][before.index.tolist()], before
    )


# -- what is refused -------------------------------------------------------------------------------------------------


def test_missing_predictions_are_named(here: Path, capsys: pytest.CaptureFixture) -> None:
    study = Study(here)
    study.write()
    gone = [run["predictions"] for run in study.plan["runs"] if run["encoder"] == "simclr"]
    for path in gone:
        Path(path).unlink()
    assert _run() == 2
    said = capsys.readouterr().err
    assert all(path in said for path in gone)
    assert not Path("results/ablation_table.csv").exists()


def _swap_label(labels: pd.DataFrame) -> pd.DataFrame:
    return labels.assign(
        target=np.where(labels["patient"] == "p000", "malignant", labels["target"])
    )


def _move_group(folds: pd.DataFrame) -> pd.DataFrame:
    moved = (folds["group"] == "g000") & (folds["role"] == "test")
    return folds.assign(role=np.where(moved, "train", folds["role"]))


@pytest.mark.parametrize(
    ("table", "contract", "change", "said"),
    [
        ("work/mine/labels.parquet", "labels", _swap_label, "has another label now"),
        ("work/mine/folds.parquet", "folds", _move_group, "more or fewer than its fold has"),
        ("work/mine/budgets.parquet", "budgets", lambda b: b.iloc[3:], "learned from"),
    ],
)
def test_predictions_of_another_state_are_refused(
    here, capsys, table, contract, change, said
) -> None:
    Study(here).write()
    _rewrite(table, contract, change)
    assert _run() == 2
    assert said in capsys.readouterr().err


def _diverged(frame: pd.DataFrame) -> pd.DataFrame:
    frame.at[0, "prob"] = [np.nan, np.nan]
    return frame


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_diverged, "its training diverged"),
        (lambda f: f.assign(seed=7), "was made for seed 7, and the plan says 0"),
        (lambda f: f[f["budget"] != "10"], "in the rows or in the metadata, not in both"),
        (lambda f: pd.concat([f, f.iloc[:4]]), "predicts 4 scans twice"),
        (lambda f: f.iloc[1:], "tests 1 scans more or fewer"),
        (lambda f: f.assign(arm="other.s.linear"), "lacks simclr.s.linear"),
    ],
)
def test_files_that_do_not_fit_are_refused(here, capsys, change, said) -> None:
    study = Study(here, config={"protocols": ["linear"]})
    study.write()
    _rewrite(_first_run(study, "simclr")["predictions"], "predictions", change)
    assert _run() == 2
    err = capsys.readouterr().err
    assert said in err
    assert "Traceback" not in err


def test_classes_that_changed_are_refused(here, capsys) -> None:
    study = Study(here)
    study.write()
    path = _first_run(study, "simclr")["predictions"]
    frame, facts = read_table(path, "predictions"), read_metadata(path)
    write_table(path, "predictions", frame, **{**facts, "classes": ["a", "b"]})
    assert _run() == 2
    assert "Classes changed" in capsys.readouterr().err


def test_a_table_can_be_rebuilt_from_predictions_alone(here: Path) -> None:
    Study(here).write()
    assert _run() == 0
    whole = _table()
    for name in ("labels", "folds", "budgets"):
        Path(f"work/mine/{name}.parquet").unlink()
    assert _run() == 0
    again = _table()
    assert again["digest_splits"].isna().all()
    pd.testing.assert_series_equal(again["auroc"], whole["auroc"])


# -- forms -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def frame() -> pd.DataFrame:
    rows = []
    for arm, budget, verdict, flags, best in [
        ("scratch.s_1.finetune", "10", None, None, False), ("scratch.s_1.finetune", "30%", None, None, False),
        ("simclr-with-a-rather-long-name.s_1.linear", "10", "gain", "few-groups transductive", True),
        ("simclr-with-a-rather-long-name.s_1.linear", "30%", "cannot tell", "few-groups", False),
    ]:  # fmt: skip
        encoder, recipe, protocol = arm.split(".")
        rows.append({
            "dataset": "my_set", "arm": arm, "encoder": encoder, "recipe": recipe, "protocol": protocol,
            "budget": budget, "unit": "patient", "auroc": 0.8125, "auroc_low": 0.74, "auroc_high": 0.87,
            "verdict": verdict, "flags": flags, "best_by_validation": best,
        })  # fmt: skip
    return pd.DataFrame(rows)


def test_markdown(frame: pd.DataFrame) -> None:
    text = markdown_table(frame, "auroc")
    assert (
        r"| simclr-with-a-rather-long-name.s\_1.linear | **0.81 (0.74-0.87)** +<sup>1</sup><sup>2</sup> |"
        in text
    )
    assert "| 0.81 (0.74-0.87) ?<sup>1</sup> |" in text
    assert "1. few-groups: " in text
    assert r"### my\_set, auroc by patient" in text


def test_latex(frame: pd.DataFrame) -> None:
    text = latex_table(frame, "auroc")
    assert r"arm & 10 & 30\% \\" in text
    assert r"\textbf{0.81 (0.74--0.87)} $+$$^{1,2}$ & 0.81 (0.74--0.87) ?$^{1}$ \\" in text
    assert r"my\_set" in text
    assert "_1" not in text.replace(r"\_1", "")
    assert text.count("{") == text.count("}")


def test_terminal(frame: pd.DataFrame) -> None:
    wide = pd.concat([frame.assign(budget=str(i)) for i in range(9)])
    for table in (frame, wide):
        lines = terminal_table(table, "auroc").splitlines()
        assert max(map(len, lines)) <= 100
    text = terminal_table(frame, "auroc")
    assert "0.81 (0.74-0.87) +*" in text
    assert "0.81 (0.74-0.87) ?" in text
    assert "nan" not in text.lower()


def test_show(here: Path, capsys: pytest.CaptureFixture) -> None:
    show = _script("show")
    assert show.main(["--table", "results/ablation_table.csv"]) == 2
    assert "no such file" in capsys.readouterr().err
    Study(here).write()
    assert _run(compare={"metric": "f1"}) == 0
    plan = json.loads(Path("work/plan.json").read_text())
    plan["config"]["compare"]["metric"] = "f1"
    Path("work/plan.json").write_text(json.dumps(plan))
    assert show.main(["--table", "results/ablation_table.csv", "--plan", "work/plan.json"]) == 0
    said = capsys.readouterr().out
    assert "mine: f1 by patient" in said
    assert "results/ablation_table.csv" in said


def test_no_torch_in_judging() -> None:
    """Tables rebuild on a laptop."""
    import subprocess

    rooms = "fewscans.aggregate.build, fewscans.aggregate.table, fewscans.tables"
    code = f"import sys, {rooms}; print('torch' in sys.modules)"
    root = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"


def test_parquet_of_scores_has_class_as_a_value(here: Path) -> None:
    Study(here).write()
    assert _run() == 0
    assert pq.read_schema("work/scores.parquet").names[-1] == "class"
