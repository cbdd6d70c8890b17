"""Folds: who may see what, whatever the cohort; and the script that writes folds and budgets."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from split_factory import cohort, cohorts, folds_of

from fewscans.config.stages import FoldsParams
from fewscans.contracts import read_metadata, read_table, write_table
from fewscans.errors import UserError
from fewscans.split import make_folds
from fewscans.split.folds import assign_groups, class_bounds, repair
from fewscans.split.order import hash_order, majority, majority_by

logging.getLogger("fewscans").setLevel(logging.WARNING)


# ---------------------------------------------------------------------------- orders


def test_hash_order_knows_neither_positions_nor_other_names() -> None:
    names = [f"n{i}" for i in range(50)]
    order = [names[i] for i in hash_order(names, 0, "key")]
    turned = list(reversed(names))
    assert [turned[i] for i in hash_order(turned, 0, "key")] == order
    fewer = names[:20] + names[25:]
    assert [fewer[i] for i in hash_order(fewer, 0, "key")] == [n for n in order if n in fewer]
    assert [names[i] for i in hash_order(names, 1, "key")] != order
    assert sorted(order) == sorted(names)


def test_majority_of_equals_is_the_first_by_name() -> None:
    assert majority(["b", "a", "b"]) == "b"
    assert majority(["b", "a"]) == "a"
    frame = pd.DataFrame({"group": ["g", "g", "h", "h", "i"], "target": ["b", "a", "b", "", ""]})
    assert majority_by(frame, "group").to_dict() == {"g": "a", "h": "b"}


# ---------------------------------------------------------------------------- grouped folds


@settings(max_examples=30, deadline=None)
@given(labels=cohorts, folds=st.integers(2, 5), seed=st.integers(0, 5))
def test_a_group_is_on_one_side_and_every_fold_has_each_class(
    labels: pd.DataFrame, folds: int, seed: int
) -> None:
    made = folds_of(labels, folds, seed).merge(
        labels[["scan", "target", "status"]], on="scan", validate="m:1"
    )
    assert len(made) == folds * len(labels)
    used = made[made["role"] != "excluded"]
    assert (used.groupby(["fold", "group"])["role"].nunique() == 1).all()
    assert (made.loc[made["status"] != "ok", "role"] == "excluded").all()
    assert (used["status"] == "ok").all()
    classes = majority_by(labels[labels["status"] == "ok"], "group")
    tested = used[used["role"] == "test"].drop_duplicates(["fold", "group"])
    # Every labelled group is tested once; a group without a label never is.
    assert sorted(tested["group"]) == sorted(classes.index)
    counts = tested.assign(c=tested["group"].map(classes)).groupby(["fold", "c"]).size()
    for label, n in classes.value_counts().items():
        low, high = class_bounds(int(n), folds)
        of_class = counts.xs(label, level="c")
        assert len(of_class) == folds
        assert of_class.between(low, high).all()


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(5, 40), min_size=1, max_size=3),
    folds=st.integers(2, 5),
    seed=st.integers(0, 999),
)
def test_repair_moves_as_few_groups_as_can_be(sizes: list[int], folds: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    groups = [f"g{i}" for i in range(sum(sizes))]
    classes = pd.Series(np.repeat([f"c{i}" for i in range(len(sizes))], sizes), index=groups)
    before = {group: int(rng.integers(folds)) for group in groups}
    after = dict(before)
    moved = repair(after, classes, groups, folds)
    fewest = 0
    for label, n in classes.value_counts().items():
        low, high = class_bounds(int(n), folds)
        counts = np.bincount([before[g] for g in classes.index[classes == label]], minlength=folds)
        surplus, lack = np.maximum(counts - high, 0).sum(), np.maximum(low - counts, 0).sum()
        fewest += max(surplus, lack)  # a move takes at most one from either
    assert moved == fewest
    assert sum(before[g] != after[g] for g in groups) <= moved


def test_rows_may_come_in_any_order() -> None:
    labels = cohort(seed=4)
    made = folds_of(labels).set_index(["fold", "scan"])["role"]
    shuffled = folds_of(labels.sample(frac=1, random_state=1)).set_index(["fold", "scan"])["role"]
    assert shuffled.sort_index().equals(made.sort_index())


def test_correcting_one_label_moves_few() -> None:
    """On 150 patients in 3 folds some 80 % of single corrections move nobody (see the note)."""
    moved = []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        names = [f"p{i}" for i in range(150)]
        labels = pd.DataFrame({"group": names, "status": "ok"})
        labels["target"] = rng.choice(["a", "b"], 150)
        before = assign_groups(labels, 3, seed, "d")
        for row in rng.choice(150, 15, replace=False):
            corrected = labels.copy()
            corrected.loc[row, "target"] = {"a": "b", "b": "a"}[labels.loc[row, "target"]]
            after = assign_groups(corrected, 3, seed, "d")
            moved.append(sum(before[name] != after[name] for name in names))
    assert np.mean(np.array(moved) == 0) > 0.6
    assert max(moved) <= 4


def test_an_unlabelled_group_keeps_its_place_for_the_day_it_has_a_label() -> None:
    names = [f"p{i}" for i in range(40)]
    labels = pd.DataFrame({"group": names, "status": "ok", "target": ["a", "b"] * 20})
    everyone = assign_groups(labels, 2, 3, "d")
    for row in range(8):
        fewer = labels.copy()
        fewer.loc[row, "target"] = ""
        before = assign_groups(fewer, 2, 3, "d")
        # This cohort needs no repair at 2 folds, so nothing at all may differ.
        assert before == everyone


def test_too_small_classes_are_all_named() -> None:
    labels = cohort(30, unlabelled=0)
    labels.loc[labels["target"] == "c1", "target"] = "c0"
    labels.loc[labels["patient"] == "p1", "target"] = "few"
    labels.loc[labels["patient"] == "p2", "target"] = "pair"
    labels.loc[labels["patient"] == "p3", "target"] = "pair"
    with pytest.raises(UserError) as error:
        folds_of(labels, 3)
    assert str(error.value) == (
        "datasets.d: 2 problems\n"
        "  class 'few'   has 1 group of patients: it cannot be both trained on and tested. "
        "Leave its labels out, or join it with another class.\n"
        "  class 'pair'  has 2 groups of patients, fewer than validation.folds (3). "
        "Set validation.folds to 2 or less, or join it with another class."
    )
    with pytest.raises(UserError, match="there must be two classes with labels; there is 0"):
        folds_of(labels.assign(target=""))


# ---------------------------------------------------------------------------- official split


@pytest.fixture
def published() -> pd.DataFrame:
    """Ten patients in train, four in val, six in test; p3 (train) is in the group of p19 (test)."""
    labels = cohort(20, unlabelled=0)
    number = labels["patient"].str[1:].astype(int)
    labels["group"] = "g" + labels["patient"].str[1:]
    labels["target"] = np.where(number % 2, "odd", "even")
    labels["split"] = np.select([number < 10, number < 14], ["train", "val"], "test")
    labels.loc[labels["patient"] == "p3", "group"] = "g19"
    return labels


def official(labels: pd.DataFrame) -> pd.DataFrame:
    return make_folds(labels, FoldsParams(dataset="d", split="official"))


def test_official_split_loses_training_copies_and_keeps_its_test_set(
    published: pd.DataFrame,
) -> None:
    published.loc[published["patient"] == "p5", ["target", "split"]] = ""
    made = official(published)
    assert set(made["fold"]) == {"official"}
    joined = made.merge(published.drop(columns="group"), on="scan")
    ok = joined[joined["status"] == "ok"]
    assert set(ok.loc[ok["split"] == "test", "role"]) == {"test"}
    assert set(ok.loc[ok["patient"] == "p3", "role"]) == {"excluded"}
    others = ok[(ok["split"] != "test") & (ok["patient"] != "p3")]
    assert set(others["role"]) == {"train"}  # validation and unlabelled scans too
    assert set(joined.loc[joined["status"] != "ok", "role"]) == {"excluded"}


def test_official_split_names_labelled_scans_without_a_part(published: pd.DataFrame) -> None:
    published.loc[published["scan"].isin(["p1/0", "p2/0"]), "split"] = ""
    with pytest.raises(UserError) as error:
        official(published)
    assert str(error.value) == (
        "datasets.d.split: official: 2 problems\n"
        "  p1/0  has a label and no official part. Fill its split in, or choose `split: grouped`.\n"
        "  p2/0  has a label and no official part. Fill its split in, or choose `split: grouped`."
    )


def test_official_split_without_a_class_is_refused(published: pd.DataFrame) -> None:
    published.loc[(published["target"] == "odd") & (published["split"] != "test"), "target"] = ""
    published.loc[(published["target"] == "even") & (published["split"] == "test"), "target"] = ""
    with pytest.raises(UserError) as error:
        official(published)
    assert "train  no scan of class 'odd' is left." in str(error.value)
    assert "test   has labelled scans of 1 classes; a score needs two." in str(error.value)


# ---------------------------------------------------------------------------- pools


def test_pools_join_every_fold_without_copies_of_test_scans() -> None:
    labels = cohort(unlabelled=0).assign(pixel_sha256=lambda f: "own " + f["scan"])
    pool = cohort(12, seed=5).assign(
        scan=lambda f: "pool " + f["scan"], group=lambda f: "pool " + f["group"]
    )
    pool["pixel_sha256"] = pool["scan"]
    copied = pool.index[pool["status"] == "ok"][0]
    pool.loc[copied, "pixel_sha256"] = "own p4/0"
    made = make_folds(labels, FoldsParams(dataset="d", folds=3), {"other": pool})
    roles = made.pivot(index="scan", columns="fold", values="role")
    test_fold = roles.loc["p4/0"].eq("test").idxmax()
    usable = pool[pool["status"] == "ok"]
    assert set(roles.index) - set(labels["scan"]) == set(usable["scan"])
    mates = usable["group"] == pool.loc[copied, "group"]
    of_copy, others = roles.loc[usable.loc[mates, "scan"]], roles.loc[usable.loc[~mates, "scan"]]
    assert (others == "pool").all(axis=None)
    # The copy's whole group: other scans of a patient that is tested tell of it too.
    assert (of_copy[test_fold] == "excluded").all()
    assert (of_copy.drop(columns=test_fold) == "pool").all(axis=None)


# ---------------------------------------------------------------------------- script


def test_script_writes_both_files_and_the_same_bytes_again(
    tmp_path: Path, script: Callable[[str], ModuleType]
) -> None:
    labels, folds, budgets = (str(tmp_path / f"{name}.parquet") for name in ("l", "f", "b"))
    frame = cohort(unlabelled=0).assign(pixel_sha256="")
    write_table(labels, "labels", frame)
    pool = str(tmp_path / "pool.parquet")
    write_table(pool, "labels", cohort(12).assign(scan=lambda f: "pool " + f["scan"], group="pool"))
    split = script("split")
    make = ["folds", "--params", '{"dataset": "d", "folds": 3}', "--labels", labels, "--out", folds]
    make += ["--pool-labels", f"other={pool}"]
    assert split.main(make) == 0
    first = Path(folds).read_bytes()
    assert read_metadata(folds)["folds"] == ["0", "1", "2"]
    # A correction that moves nobody must leave the bytes alone: pretraining reads this file.
    frame.loc[frame["patient"] == "p20", "target"] = {"c0": "c1", "c1": "c0"}[
        frame.loc[frame["patient"] == "p20", "target"].iloc[0]
    ]
    write_table(labels, "labels", frame)
    assert split.main(make) == 0
    assert Path(folds).read_bytes() == first
    made = ["budgets", "--params", '{"dataset": "d", "budgets": ["6", "all"], "draws": 2}']
    made += ["--labels", labels, "--folds", folds, "--out", budgets]
    assert split.main(made) == 0
    assert set(read_table(budgets, "budgets")["budget"]) == {"6", "all"}
    assert read_metadata(budgets) == {"dataset": "d", "budgets": ["6", "all"], "merged": {}}
    assert set(read_table(folds, "folds")["role"]) == {"train", "test", "pool", "excluded"}


def test_script_says_what_is_wrong(
    tmp_path: Path, script: Callable[[str], ModuleType], capsys: pytest.CaptureFixture[str]
) -> None:
    labels = str(tmp_path / "l.parquet")
    write_table(labels, "labels", cohort(unlabelled=0))
    arguments = ["--labels", labels, "--out", str(tmp_path / "f.parquet")]
    assert (
        script("split").main(["folds", "--params", '{"dataset": "d", "folds": 50}', *arguments])
        == 2
    )
    assert "fewer than validation.folds (50)" in capsys.readouterr().err
    bad = ["folds", "--params", '{"dataset": "d"}', *arguments, "--pool-labels", "other"]
    assert script("split").main(bad) == 2
    assert "write NAME=FILE (given: 'other')" in capsys.readouterr().err
    assert not (tmp_path / "f.parquet").exists()
