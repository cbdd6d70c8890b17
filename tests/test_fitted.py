"""Leaks through what a store was fitted on: refused wherever a store or an encoder is read."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import tune_factory
from engine_factory import make_params as pretrain_params
from finetune_factory import make_encoder, make_files, write_meta
from finetune_factory import make_params as finetune_params
from labelled_factory import make_tiny, scan_key
from pretrain_factory import Place, meta

from fewscans.config import load
from fewscans.contracts import read_table
from fewscans.cost.history import History
from fewscans.cost.model import Model
from fewscans.cost.record import jobs
from fewscans.cost.resources import RuleResources
from fewscans.errors import UserError
from fewscans.finetune import finetune
from fewscans.fitted import check_fitted
from fewscans.labelled import check_not_seen
from fewscans.plan import Paths, expand
from fewscans.start import Start
from fewscans.store import Store


def plant(folder: Path, *scans: str) -> Store:
    """A store that says it was fitted on `scans`."""
    path = folder / "store.json"
    fitted = {"fold": "0", "n": len(scans), "digest": "d", "scans": list(scans)}
    path.write_text(json.dumps({**json.loads(path.read_text()), "fitted": fitted}))
    return Store.open(folder)


def roles(place: Place) -> dict[str, list[str]]:
    """Scans of fold 0 by role."""
    folds = read_table(place.folds, "folds")
    return folds[folds["fold"] == "0"].groupby("role")["scan"].apply(list).to_dict()


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.fixture
def tiny(tmp_path: Path) -> dict[str, Path]:
    return make_tiny(tmp_path / "tiny")


# -- the check -------------------------------------------------------------------------------------


class Said:
    """A store that says no more than this."""

    def __init__(self, *scans: str) -> None:
        self.facts: dict[str, Any] = {"fitted": {"scans": list(scans)}}


FOLDS = pd.DataFrame(
    [
        ("a", "g0", "0", "train"), ("b", "g1", "0", "test"), ("c", "g1", "0", "excluded"),
        ("p", "h0", "0", "pool"), ("q", "h1", "0", "excluded"),
        ("a", "g0", "1", "test"), ("b", "g1", "1", "train"), ("c", "g1", "1", "train"),
        ("p", "h0", "1", "pool"), ("q", "h1", "1", "pool"),
    ],
    columns=["scan", "group", "fold", "role"],
)  # fmt: skip


@pytest.mark.parametrize(
    ("fold", "scan", "role"),
    [("0", "b", "test"), ("0", "c", "excluded"), ("0", "q", "excluded"), ("1", "a", "test")],
    ids=["test scan", "member of a test group", "copy of a test scan in a pool", "other fold"],
)
def test_a_store_that_was_fitted_on_what_a_fold_keeps_out_is_refused(fold, scan, role):
    other = {"0": "a", "1": "b"}[fold]
    check_fitted({"d": Said(other, "p")}, FOLDS, fold, is_fitted=True)
    with pytest.raises(UserError) as caught:
        check_fitted({"d": Said(other), "pool": Said("p", scan)}, FOLDS, fold, is_fitted=True)
    said = str(caught.value)
    assert f"store of pool: was fitted on 1 scans that fold '{fold}' keeps from training" in said
    assert f"{scan}  has the role {role} there" in said


def test_a_store_that_does_not_say_whom_it_saw_is_refused_where_the_recipe_is_fitted():
    plain = Said()
    plain.facts = {}
    check_fitted({"d": plain}, FOLDS, "0", is_fitted=False)
    with pytest.raises(UserError, match="store of d: does not say whose scans it was fitted on"):
        check_fitted({"d": plain}, FOLDS, "0", is_fitted=True)


# -- where stores are read -------------------------------------------------------------------------


def test_pretraining_refuses_it_and_says_in_its_encoder_whom_the_store_saw(place):
    of = roles(place)
    place.store = plant(place.store.folder, of["train"][0], of["test"][0])
    with pytest.raises(UserError, match="store of cohort: was fitted on 1 scans that fold '0'"):
        place.run(pretrain_params(), "refused")
    assert not (place.folder / "refused" / "encoder.json").exists()
    place.store = plant(place.store.folder, *of["train"])
    out, _ = place.run(pretrain_params())
    assert meta(out)["fitted"]["cohort"]["scans"] == of["train"]


def test_an_encoder_of_plain_stores_says_nothing_of_it(place):
    out, _ = place.run(pretrain_params())
    assert "fitted" not in meta(out)


def test_a_transductive_encoder_may_see_what_was_fitted_on_everything(place):
    place.store = plant(place.store.folder, *place.store.scans)
    out, _ = place.run(pretrain_params(fold="all", transductive=True))
    assert meta(out)["transductive"]


def test_fine_tuning_refuses_it(tiny, tmp_path):
    files = make_files(tiny, tmp_path)
    plant(tiny["store"], scan_key(20), scan_key(3))
    with pytest.raises(UserError) as caught:
        finetune(finetune_params("scratch", ["finetune"]), files)
    assert "store of tiny: was fitted on 1 scans that fold '0' keeps from training" in str(caught.value)  # fmt: skip
    assert f"{scan_key(3)}  has the role test there" in str(caught.value)
    assert not files.predictions.exists()
    plant(tiny["store"], scan_key(20), scan_key(21))
    finetune(finetune_params("random", ["linear"]), files)
    assert files.predictions.exists()


def test_what_an_encoder_s_store_saw_counts_as_seen_by_it_and_by_what_came_of_it(tiny, tmp_path):
    folder = tmp_path / "leaky"
    folder.mkdir()
    make_encoder(folder)
    write_meta(folder, source_scans=[], fitted={"luna": {"scans": [scan_key(20), scan_key(3)]}})
    with pytest.raises(UserError) as caught:
        finetune(finetune_params("simclr", ["linear"]), make_files(tiny, tmp_path, encoder=folder))
    said = f"{scan_key(3)}  of test group g1: it has pixels that were standardised by it"
    assert said in str(caught.value)
    child = {"source_scans": [], "parents": [Start.open(folder).facts]}
    with pytest.raises(UserError, match="parent simclr has pixels that were standardised by it"):
        check_not_seen(child, folder, tiny["folds"], "0")


def test_a_search_refuses_it(tiny, tmp_path, script, capsys):
    plant(tiny["store"], scan_key(20), scan_key(3))
    search = tune_factory.Place(tmp_path, tiny, script)
    assert search.search(tune_factory.make_params(trials=1)) == 2
    assert "store of tiny: was fitted on 1 scans that fold '0' keeps" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


# -- what is planned -------------------------------------------------------------------------------

CONFIG: dict[str, Any] = {
    "datasets": {"d": {"phantom": {"n_patients": 60}, "pools": ["more"]}, "more": {"phantom": {"n_patients": 30}}},
    "recipes": {"plain": {"size": 32}, "nyul": {"size": 32, "normalise": "nyul"}},
    "encoders": {"simclr": {"method": "simclr", "backbone": "test_resnet"}},
    "budgets": ["all"], "validation": {"folds": 3, "seeds": 1, "draws": 1},
}  # fmt: skip


def plan_of(**changes):
    return expand(load({**CONFIG, **changes}, "config"))


def test_each_fold_has_a_store_where_a_recipe_is_fitted_and_no_other_path_moves():
    paths = Paths("work", "results")
    found = [paths.store(*one) for one in plan_of().stores()]
    assert found == [
        "work/d/plain/store/store.json",
        *(f"work/d/nyul/{fold}/store/store.json" for fold in "012"),
        "work/more/plain/store/store.json",
        "work/more/nyul/store/store.json",
    ]


def test_a_transductive_encoder_has_one_of_all_folds():
    everything = {"simclr": {"method": "simclr", "backbone": "test_resnet", "transductive": True}}
    assert plan_of(encoders=everything).store_folds("d", "nyul") == ["0", "1", "2", "all"]
    assert plan_of(encoders=everything).store_folds("d", "plain") == []


def test_normalise_is_an_axis_of_an_ablation():
    plan = plan_of(
        recipes={"plain": {"size": 32}},
        ablations={"look": {"of": "simclr", "normalise": ["zscore", "nyul"]}},
    )
    assert plan.store_folds("d", "plain-normalise-nyul") == ["0", "1", "2"]
    assert plan.store_folds("d", "plain-normalise-zscore") == []


def test_the_cost_of_a_fold_s_store_reads_its_training_scans_twice(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plan = plan_of()
    model = Model(plan, History(), {})
    seconds = {name: model.of("normalise", "", name, "d").seconds for name in plan.recipes}
    start = model.machine("normalise").startup["plain"]
    assert (seconds["nyul"] - start) / (seconds["plain"] - start) == pytest.approx(5 / 3, rel=0.01)
    told = RuleResources(plan, model).of("normalise_fold")
    w = argparse.Namespace(dataset="d", recipe="nyul", fold="1")
    assert told["expected_s"](w) == round(seconds["nyul"])
    assert told["output_mb"](w) == RuleResources(plan, model).of("normalise")["output_mb"](w) > 0
    measured = {str(job.benchmark.relative_to("work/benchmarks")) for job in jobs(model)}
    assert {f"normalise_fold/d.nyul.{fold}.tsv" for fold in range(3)} <= measured
    assert {"normalise/d.plain.tsv", "normalise/more.nyul.tsv"} <= measured
    assert "normalise/d.nyul.tsv" not in measured
