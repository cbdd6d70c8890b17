"""What may change about prediction files without changing a score, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from aggregate_factory import Study, ablation_table, rewrite, run_aggregate

from fewscans.contracts import read_metadata, read_table, write_table


def _first_run(study: Study, encoder: str) -> dict:
    return next(run for run in study.plan["runs"] if run["encoder"] == encoder)


# -- what must not matter --------------------------------------------------------------------------------------------


def test_order_of_files_and_rows_changes_no_byte(here: Path) -> None:
    study = Study(
        here, config={"validation": {"folds": 2, "seeds": 2, "draws": 2}}, validation=True
    )
    study.write()
    assert run_aggregate() == 0
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
        rewrite(
            run["predictions"],
            "predictions",
            lambda frame, i=i: frame.sample(frac=1, random_state=i),
        )
    assert run_aggregate() == 0
    assert [Path(name).read_bytes() for name in names] == before
    for name, table in zip(("scores", "contrasts"), tables, strict=True):
        pd.testing.assert_frame_equal(read_table(f"work/{name}.parquet", name), table)


def test_one_more_arm_changes_no_score_of_another(here: Path) -> None:
    Study(here, config={"protocols": ["linear"]}).write()
    assert run_aggregate() == 0
    before = ablation_table().loc["simclr.s.linear", "10", "patient"][
        [f"auroc{end}" for end in ("", "_low", "_high", "_diff")]
    ]
    Study(here, config={"protocols": ["linear", "knn"]}).write()
    assert run_aggregate() == 0
    pd.testing.assert_series_equal(
        ablation_table().loc["simclr.s.linear", "10", "patient"][before.index.tolist()], before
    )


# -- what is refused -------------------------------------------------------------------------------------------------


def test_missing_predictions_are_named(here: Path, capsys: pytest.CaptureFixture) -> None:
    study = Study(here)
    study.write()
    gone = [run["predictions"] for run in study.plan["runs"] if run["encoder"] == "simclr"]
    for path in gone:
        Path(path).unlink()
    assert run_aggregate() == 2
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
    rewrite(table, contract, change)
    assert run_aggregate() == 2
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
    rewrite(_first_run(study, "simclr")["predictions"], "predictions", change)
    assert run_aggregate() == 2
    err = capsys.readouterr().err
    assert said in err
    assert "Traceback" not in err


def test_classes_that_changed_are_refused(here, capsys) -> None:
    study = Study(here)
    study.write()
    path = _first_run(study, "simclr")["predictions"]
    frame, facts = read_table(path, "predictions"), read_metadata(path)
    write_table(path, "predictions", frame, **{**facts, "classes": ["a", "b"]})
    assert run_aggregate() == 2
    assert "Classes changed" in capsys.readouterr().err


def test_a_table_can_be_rebuilt_from_predictions_alone(here: Path) -> None:
    Study(here).write()
    assert run_aggregate() == 0
    whole = ablation_table()
    for name in ("labels", "folds", "budgets"):
        Path(f"work/mine/{name}.parquet").unlink()
    assert run_aggregate() == 0
    again = ablation_table()
    assert again["digest_splits"].isna().all()
    pd.testing.assert_series_equal(again["auroc"], whole["auroc"])
