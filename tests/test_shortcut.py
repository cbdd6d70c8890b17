"""The shortcut test: finds what tells the label, and warns of nothing else."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from fewscans.audit import shortcut
from fewscans.audit.bins import cut
from fewscans.audit.shortcut import holm, shortcut_test, weighted_auc


def test_weighted_auc_agrees_with_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    score = rng.integers(0, 8, (60, 5)).astype(float)  # many ties
    pos, neg = rng.integers(0, 4, (2, 60, 5)).astype(float)
    ours = weighted_auc(score, pos, neg)
    for column in range(5):
        target = np.repeat([1, 0], 60)
        weight = np.concatenate([pos[:, column], neg[:, column]])
        theirs = roc_auc_score(target, np.tile(score[:, column], 2), sample_weight=weight)
        assert ours[column] == pytest.approx(theirs)
    assert np.isnan(weighted_auc(score, pos, 0 * neg)).all()


def test_holm() -> None:
    # By hand: 0.01 * 4, 0.02 * 3, max(that, 0.025 * 2), 0.5 * 1
    assert holm(np.array([0.02, 0.5, 0.01, 0.025])) == pytest.approx([0.06, 0.5, 0.04, 0.06])


def test_bins_keep_frequent_values_and_missing_apart() -> None:
    values: list[object] = [512] * 40 + list(range(100, 160)) + [None, float("nan"), ""]
    bins = cut(values)
    assert set(bins[:40]).isdisjoint(bins[40:])
    assert len(set(bins[100:])) == 1
    assert set(bins[100:]).isdisjoint(bins[:100])
    assert np.all(np.diff(bins[40:100]) >= 0)
    assert 3 <= len(set(bins[40:100])) <= 8
    texts = cut(["x"] * 5 + ["y"] * 5 + [f"only {i}" for i in range(50)])
    assert len(set(texts)) == 3


def random_attributes(rng: np.random.Generator, n: int) -> dict[str, list[object]]:
    size = rng.integers(200, 600, n).tolist()
    return {
        "file type": rng.choice(["PNG", "JPEG"], n, p=[0.7, 0.3]).tolist(),
        "width": size,
        "mean intensity": rng.normal(size=n).tolist(),
        "site": rng.choice([*"abcdefgh", ""], n).tolist(),
    }


def test_a_shortcut_is_found_and_others_are_not_blamed() -> None:
    rng = np.random.default_rng(1)
    scans = pd.DataFrame({"group": np.repeat([f"g{i}" for i in range(50)], 2)})
    scans["target"] = np.repeat(rng.permutation(["sick"] * 25 + ["well"] * 25), 2)
    attributes = random_attributes(rng, 100)
    attributes["file type"] = [
        "PNG" if target == "sick" or rng.random() < 0.4 else "JPEG" for target in scans["target"]
    ]
    attributes["always"] = ["one"] * 100
    made = shortcut_test(scans, attributes).set_index("attribute")
    assert made.index[made["warn"]].tolist() == ["file type", "all"]
    assert "always" not in made.index
    assert made.loc["file type", "auc"] == pytest.approx(0.8, abs=0.08)
    assert (made["low"] <= made["auc"]).all()
    assert (made["auc"] <= made["high"]).all()
    turned = shortcut_test(scans[::-1], {name: v[::-1] for name, v in attributes.items()})
    pd.testing.assert_frame_equal(turned.set_index("attribute"), made)


def test_missing_values_of_one_class_are_a_shortcut() -> None:
    rng = np.random.default_rng(2)
    scans = pd.DataFrame({"group": [f"g{i}" for i in range(90)], "target": list("abc") * 30})
    age = [None if target == "a" else rng.integers(20, 90) for target in scans["target"]]
    made = shortcut_test(scans, {"age": age}).set_index("attribute")
    assert made.loc["age", "warn"]
    assert made.loc["age", "auc"] > 0.7  # macro over three classes, one of which it tells


@pytest.mark.slow
def test_labels_that_mean_nothing_raise_about_5_percent_of_warnings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Any warning at all, over four attributes and all together; groups of one to three scans."""
    monkeypatch.setattr(shortcut, "RESAMPLES", 199)
    rng = np.random.default_rng(3)
    groups = [f"g{i}" for i in range(50)]
    group = np.repeat(groups, rng.integers(1, 4, 50))
    attributes = random_attributes(rng, len(group))
    warned, small = 0, 0
    for _ in range(200):
        target = dict(zip(groups, rng.permutation(["a"] * 30 + ["b"] * 20), strict=True))
        scans = pd.DataFrame({"group": group, "target": [target[g] for g in group]})
        made = shortcut_test(scans, attributes)
        warned += bool(made["warn"].any())
        small += int((made["p"] <= 0.1).sum())
    assert warned / 200 <= 0.09  # 0.05 and 2.6 standard deviations of 200 trials
    # The p-values are not small, and not idle either: a tenth of them is below a tenth.
    assert small / (200 * 5) == pytest.approx(0.1, abs=0.04)


def test_a_class_of_one_group_cannot_be_tested() -> None:
    scans = pd.DataFrame({"group": ["1", "2", "3"], "target": ["a", "a", "b"]})
    assert shortcut_test(scans, {"file type": ["x", "x", "y"]}).empty
    assert shortcut_test(scans.iloc[:0], {"file type": []}).empty
