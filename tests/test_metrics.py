"""Metrics against scikit-learn; DeLong against its own definition; clustering indices."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    balanced_accuracy_score,
    confusion_matrix,
    davies_bouldin_score,
    precision_recall_fscore_support,
    roc_auc_score,
    silhouette_score,
)

from fewscans import delong
from fewscans.clusters import cluster_indices, fold_indices
from fewscans.contracts import write_table
from fewscans.errors import UserError
from fewscans.metrics import (
    counting_by_class,
    counting_points,
    counting_values,
    positives,
    ranking_points,
    weighted_confusion,
    weighted_ranking,
)


@settings(max_examples=40)
@given(seed=st.integers(0, 10_000), n=st.integers(4, 40), levels=st.sampled_from([2, 5, 1000]))
def test_weighted_ranking_is_sklearns(seed: int, n: int, levels: int) -> None:
    rng = np.random.default_rng(seed)
    target = np.append([0, 1], rng.integers(0, 2, n - 2))
    score = (
        np.round(rng.normal(size=n) + target, 3)
        if levels == 1000
        else rng.integers(0, levels, n) / levels
    )
    weights = rng.integers(0, 3, (n, 4)).astype(float)
    weights[:2] += 1  # both classes are there
    auroc, precision = weighted_ranking(target == 1, score, weights)
    for r in range(4):
        w = weights[:, r]
        assert auroc[r] == pytest.approx(roc_auc_score(target, score, sample_weight=w), abs=1e-12)
        assert precision[r] == pytest.approx(
            average_precision_score(target, score, sample_weight=w), abs=1e-12
        )


def test_number_of_resamples_at_once_changes_no_bit() -> None:
    rng = np.random.default_rng(0)
    target, score = np.arange(60) % 2 == 1, rng.normal(size=60).round(1)
    weights = rng.integers(0, 4, (60, 301)) * 1.25
    whole = weighted_ranking(target, score, weights, batch=1000)
    for batch in (1, 7, 300):
        for a, b in zip(whole, weighted_ranking(target, score, weights, batch=batch), strict=True):
            np.testing.assert_array_equal(a, b)


def test_ranking_points_of_three_classes_are_one_against_the_rest() -> None:
    rng = np.random.default_rng(1)
    target, prob = rng.integers(0, 3, 90), rng.dirichlet([1, 1, 1], 90)
    found = ranking_points(target, prob)
    assert found["auroc"].mean() == pytest.approx(roc_auc_score(target, prob, multi_class="ovr"))
    assert found["average_precision"].mean() == pytest.approx(
        average_precision_score(np.eye(3)[target], prob)
    )
    assert positives(2) == [1]
    assert positives(3) == [0, 1, 2]


def test_ranking_points_are_nan_where_a_class_is_missing() -> None:
    prob = np.full((6, 3), 1 / 3)
    found = ranking_points(np.array([0, 0, 0, 1, 1, 1]), prob)
    assert np.isnan(found["auroc"]).tolist() == [False, False, True]


@pytest.mark.parametrize("n_classes", [2, 3, 5])
def test_counting_metrics_are_sklearns(n_classes: int) -> None:
    rng = np.random.default_rng(n_classes)
    target = np.append(np.arange(n_classes), rng.integers(0, n_classes, 40))
    predicted = rng.integers(0, n_classes - 1, len(target))  # the last class is never predicted
    counts = confusion_matrix(target, predicted).astype(float)
    macro = precision_recall_fscore_support(target, predicted, average="macro", zero_division=0.0)
    expected = {
        "accuracy": accuracy_score(target, predicted), "balanced_accuracy": balanced_accuracy_score(target, predicted),
        "precision": macro[0], "recall": macro[1], "f1": macro[2],
    }  # fmt: skip
    assert counting_points(target, predicted, n_classes) == pytest.approx(expected)
    assert {k: float(v) for k, v in counting_values(counts).items()} == pytest.approx(expected)
    each = precision_recall_fscore_support(target, predicted, zero_division=0.0)
    for name, values in zip(("precision", "recall", "f1"), each, strict=False):
        np.testing.assert_allclose(counting_by_class(counts)[name], values)


def test_weighted_confusion_is_sklearns() -> None:
    rng = np.random.default_rng(5)
    target, predicted = rng.integers(0, 3, 50), rng.integers(0, 3, (4, 50))
    weights = rng.integers(0, 3, (50, 6)).astype(float)
    found = weighted_confusion(target, predicted, 3, weights)
    assert found.shape == (4, 6, 3, 3)
    for c, r in np.ndindex(4, 6):
        expected = confusion_matrix(target, predicted[c], sample_weight=weights[:, r])
        np.testing.assert_allclose(found[c, r], expected)


# -- near the edge ---------------------------------------------------------------------------------------------------


def test_delong_variance_of_a_case_done_by_hand() -> None:
    # scores 0.35 and 0.8 against 0.1 and 0.4: V10 = (1/2, 1), V01 = (1, 1/2); each varies by 1/8, over two units each
    positive, score = np.array([False, False, True, True]), np.array([0.1, 0.4, 0.35, 0.8])
    values = delong.influence(positive, score, np.arange(4), 4)
    strata = np.where(positive, "1", "0").astype(object)
    assert delong.influence_variance(values, strata) == pytest.approx(0.125 / 2 + 0.125 / 2)


@settings(max_examples=30)
@given(seed=st.integers(0, 1000))
def test_placements_count_pairs(seed: int) -> None:
    rng = np.random.default_rng(seed)
    positive = np.append([True, False], rng.random(20) < 0.4)
    score = rng.integers(0, 6, 22) / 5
    v10, v01 = delong.placements(positive, score)
    wins = (score[positive][:, None] > score[~positive]) + 0.5 * (
        score[positive][:, None] == score[~positive]
    )
    np.testing.assert_allclose(v10, wins.mean(axis=1))
    np.testing.assert_allclose(v01, wins.mean(axis=0))
    assert v10.mean() == pytest.approx(roc_auc_score(positive, score))


def test_scans_of_one_patient_are_not_counted_as_many() -> None:
    rng = np.random.default_rng(2)
    positive = np.arange(40) % 2 == 1
    score = rng.normal(size=40) + positive
    strata = np.where(positive, "1", "0").astype(object)
    once = delong.influence_variance(delong.influence(positive, score, np.arange(40), 40), strata)
    copied = np.repeat(np.arange(40), 3)
    values = delong.influence(positive[copied], score[copied], copied, 40)
    assert delong.influence_variance(values, strata) == pytest.approx(once)


def test_edge_intervals_stay_inside_and_have_a_width() -> None:
    low, high = delong.logit_interval(0.97, 0.02**2, 0.95)
    assert 0.85 < low < 0.97 < high < 1
    low, high = delong.newcombe_interval(1.0, 25, 25, 0.95)
    assert 0.85 < low < 0.95
    assert high == 1
    mirrored = delong.newcombe_interval(0.2, 12, 30, 0.9)
    there = delong.newcombe_interval(0.8, 12, 30, 0.9)
    assert mirrored == pytest.approx((1 - there[1], 1 - there[0]), abs=1e-6)


# -- clusters --------------------------------------------------------------------------------------------------------


def test_cluster_indices_are_sklearns_on_standardised_features() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(30) % 3
    values = rng.normal(size=(30, 5)) + labels[:, None]
    values[:, 4] = 7  # a dead feature
    x = (values[:, :4] - values[:, :4].mean(axis=0)) / values[:, :4].std(axis=0)
    found = cluster_indices(values, labels)
    assert found == pytest.approx(
        {
            "silhouette": silhouette_score(x, labels),
            "davies_bouldin": davies_bouldin_score(x, labels),
        }
    )
    assert cluster_indices(values * [1, 1000, 1, 1, 1], labels) == pytest.approx(found)
    assert np.isnan(cluster_indices(values, np.zeros(30, int))["silhouette"])


def test_only_labelled_test_scans_are_clustered(tmp_path) -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(20, 3)).astype(np.float16)
    np.save(tmp_path / "embeddings.npy", values)
    scans = [f"s{i:02d}" for i in range(20)]
    roles = ["test"] * 12 + ["train"] * 8
    write_table(
        tmp_path / "embeddings.parquet",
        "embeddings",
        pd.DataFrame({"row": range(20), "scan": scans, "role": roles}),
    )
    targets = {scan: i % 2 for i, scan in enumerate(scans[:10])}
    expected = cluster_indices(values[:10].astype(np.float32), np.arange(10) % 2)
    assert fold_indices(tmp_path, targets) == pytest.approx(expected)
    with pytest.raises(UserError, match=r"embeddings\.npy"):
        fold_indices(tmp_path / "nowhere", targets)
