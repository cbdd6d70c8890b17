"""Budgets: which labelled patients may be used, and their inner folds."""

from __future__ import annotations

import logging

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from split_factory import cohort, cohorts, folds_of

from fewscans.config.stages import BudgetsParams
from fewscans.errors import UserError
from fewscans.split import make_budgets
from fewscans.split.budgets import budget_size, inner_folds, patient_sequence
from fewscans.split.order import deal

logging.getLogger("fewscans").setLevel(logging.WARNING)


def budgets_of(
    labels: pd.DataFrame, budgets: list[str], draws: int = 2, folds: int = 3
) -> tuple[pd.DataFrame, dict[str, str]]:
    params = BudgetsParams(dataset="d", budgets=budgets, draws=draws)
    return make_budgets(labels, folds_of(labels, folds), params)


@settings(max_examples=12, deadline=None)
@given(labels=cohorts, small=st.integers(3, 6), share=st.integers(30, 70))
def test_draws_are_nested_stratified_and_of_the_training_part(
    labels: pd.DataFrame, small: int, share: int
) -> None:
    budgets = [str(small), f"{share}%", "all"]
    folds = folds_of(labels)
    made, _ = budgets_of(labels, budgets)
    rows = made.merge(labels, on="scan", validate="m:1")
    assert (rows["target"] != "").all()
    assert not rows.duplicated(["fold", "budget", "draw", "scan"]).any()
    roles = folds.set_index(["fold", "scan"])["role"]
    assert all(
        roles[fold, scan] == "train" for fold, scan in zip(rows["fold"], rows["scan"], strict=True)
    )
    n_classes = labels.loc[labels["target"] != "", "target"].nunique()
    patients = rows.groupby(["fold", "draw", "budget"])["patient"].agg(set)
    for fold in folds["fold"].unique():
        everyone = patients[fold, 0, "all"]
        assert (fold, 1, "all") not in patients.index
        for draw in (0, 1):
            few = patients[fold, draw, str(small)]
            assert len(few) == small
            if f"{share}%" in set(made["budget"]):
                many = patients[fold, draw, f"{share}%"]
                assert len(many) == max(n_classes, (share * len(everyone) + 50) // 100)
                assert (few <= many) or (many <= few)
                assert many <= everyone
    assert (rows.groupby(["fold", "draw", "budget"])["target"].nunique() == n_classes).all()


def test_a_draw_is_the_same_whatever_stands_beside_it() -> None:
    labels = cohort(80, seed=2)
    alone, _ = budgets_of(labels, ["9"], draws=1)
    among, _ = budgets_of(labels, ["all", "50%", "9", "4"], draws=3)
    same = among[(among["budget"] == "9") & (among["draw"] == 0)].reset_index(drop=True)
    pd.testing.assert_frame_equal(alone, same)
    other = among[(among["budget"] == "9") & (among["draw"] == 1)]
    assert set(other["scan"]) != set(alone["scan"])


def test_a_sequence_follows_the_classes_shares_from_the_start() -> None:
    classes = pd.Series(["a"] * 60 + ["b"] * 30 + ["c"] * 10, index=[f"p{i}" for i in range(100)])
    sequence = classes[patient_sequence(classes, 0, "fold", 0)]
    assert sorted(sequence.index) == sorted(classes.index)
    assert list(sequence[:3]) == ["a", "b", "c"]
    for n in range(10, 101, 10):
        counts = sequence[:n].value_counts()
        for label, share in (("a", 0.6), ("b", 0.3), ("c", 0.1)):
            assert abs(counts[label] - share * n) <= 1.0


def test_equal_budgets_merge_and_all_has_one_draw() -> None:
    labels = cohort(36, unlabelled=0)
    made, merged = budgets_of(labels, ["6", "500", "100%", "6"])
    assert merged == {"500": "all", "100%": "all"}
    assert list(made["budget"].drop_duplicates()) == ["6", "all"]
    assert set(made.loc[made["budget"] == "all", "draw"]) == {0}
    # "24" is everybody in some folds only: it stays, or those folds would be missing from it.
    everyone = made[made["budget"] == "all"].merge(labels, on="scan")
    sizes = everyone.groupby("fold")["patient"].nunique()
    assert sizes.nunique() > 1
    between, merged = budgets_of(labels, [str(sizes.min()), "all"])
    assert merged == {}
    assert set(between.loc[between["budget"] != "all", "fold"]) == set(sizes.index)


def test_budget_sizes() -> None:
    assert [budget_size(b, 50, 2) for b in ("7", "60", "30%", "1%", "25%", "all")] == [
        7, 50, 15, 2, 13, 50,
    ]  # fmt: skip


def test_every_budget_that_leaves_a_class_empty_is_named() -> None:
    labels = cohort(60, shares=(0.5, 0.3, 0.2))
    with pytest.raises(UserError) as error:
        budgets_of(labels, ["1", "2", "3"])
    said = "leaves a class empty: 3 classes need at least 3 labelled patients. Raise it."
    assert str(error.value) == (
        f"budgets of data set d: 2 problems\n  budgets: 1  {said}\n  budgets: 2  {said}"
    )


@pytest.mark.parametrize(("rarest", "k"), [(2, 0), (3, 3), (4, 4), (5, 5), (12, 5)])
def test_inner_folds_are_by_group_and_as_many_as_the_rarest_class_allows(
    rarest: int, k: int
) -> None:
    groups = [f"g{i}" for i in range(20 + rarest) for _ in range(2)]
    frame = pd.DataFrame({"group": groups, "target": ["a"] * 40 + ["b"] * 2 * rarest})
    frame["inner"] = inner_folds(frame, 0, "d", "0", 0)
    if k == 0:
        assert set(frame["inner"]) == {-1}
        return
    assert set(frame["inner"]) == set(range(k))
    assert (frame.groupby("group")["inner"].nunique() == 1).all()
    counts = frame.drop_duplicates("group").groupby(["target", "inner"]).size()
    assert counts.groupby("target").agg(lambda c: c.max() - c.min()).max() <= 1
    assert len(counts) == 2 * k


def test_deal_spreads_every_class() -> None:
    classes = pd.Series(["a"] * 7 + ["b"] * 4, index=[f"g{i}" for i in range(11)])
    dealt = pd.Series(deal(classes, 4, "key"))
    assert dealt.value_counts().max() - dealt.value_counts().min() <= 1
    assert set(dealt[classes.index[classes == "b"]]) == {0, 1, 2, 3}
