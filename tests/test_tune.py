"""The search for hyper-parameters: what it may see, and what it promises."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from labelled_factory import make_tiny
from tune_factory import Here, Place, make_params

from fewscans.config.stages import TuneParams
from fewscans.contracts import read_table, write_table
from fewscans.errors import UserError
from fewscans.tune import journal


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return make_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def place(tmp_path, tiny, script) -> Place:
    return Place(tmp_path, tiny, script)


# -- what it may see -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["scratch", "simclr"])
def test_a_search_reads_no_test_scan_and_no_test_label(place, kind):
    """The same trials where test scans are not in the store and their labels are no classes."""
    params = make_params(kind, trials=2)
    assert place.search(params) == 0
    folds = read_table(place.data["folds"], "folds")
    tested = set(folds.loc[folds["role"] == "test", "scan"])
    assert tested
    labels = read_table(place.data["labels"], "labels")
    labels.loc[labels["scan"].isin(tested), "target"] = "corrupt"
    place.data["labels"] = place.root / "labels.parquet"
    write_table(place.data["labels"], "labels", labels)
    place.data["store"] = without(place.data["store"], place.root / "store", tested)
    assert place.search(params, "blind") == 0
    assert place.best("blind")["values"] == place.best()["values"]
    pd.testing.assert_frame_equal(place.trials("blind"), place.trials())


def without(store: Path, made: Path, scans: set[str]) -> Path:
    """A copy of a store without some scans."""
    rows = read_table(store / "rows.parquet", "rows")
    kept = rows[~rows["scan"].isin(scans)]
    made.mkdir()
    np.save(made / "voxels.npy", np.load(store / "voxels.npy")[kept["row"]])
    write_table(made / "rows.parquet", "rows", kept.assign(row=range(len(kept))))
    facts = json.loads((store / "store.json").read_text())
    (made / "store.json").write_text(json.dumps({**facts, "n": len(kept)}))
    return made


def test_the_budget_is_the_smallest_with_inner_folds(place):
    assert place.search(make_params(trials=2)) == 0
    best = place.best()
    assert (best["budget"], best["inner_folds"], best["n_labelled_patients"]) == ("all", 3, 10)


def test_without_inner_folds_nothing_is_chosen(place, capsys):
    assert place.search(make_params(budget="4")) == 2
    said = capsys.readouterr().err
    assert "budget 4 has no inner folds" in said
    assert "fewer than 3 groups" in said
    assert not (place.root / "out").exists()


def test_folds_that_test_the_labels_used_are_named(place):
    folds = read_table(place.data["folds"], "folds")
    other = folds.assign(fold="1", role="train")
    other.loc[other["group"] == "g9", "role"] = "test"
    place.data["folds"] = place.root / "folds.parquet"
    write_table(place.data["folds"], "folds", pd.concat([folds, other]))
    assert place.search(make_params(trials=2)) == 0
    assert place.best()["folds_that_test_these_labels"] == ["1"]


# -- what it promises ------------------------------------------------------------------------------


def test_trials_do_not_depend_on_order_or_on_how_many_run_at_once(place):
    module = place.script("tune")
    params = make_params("simclr", trials=6, parallel=3)
    assert place.search(params) == 0
    other = Here(module, place.arguments(params, "other"), slots=1, order=-1)
    assert place.search(params, "other", other) == 0
    pd.testing.assert_frame_equal(place.trials("other"), place.trials())
    assert place.best("other")["values"] == place.best()["values"]


def test_trial_0_is_the_config_and_the_best_is_no_worse(place):
    assert place.search(make_params()) == 0
    first = json.loads(place.trials()["values"][0])
    assert first == {"protocol.lr": 1e-3}  # the default of finetune.lr
    assert place.best()["value"] <= place.best()["config_value"]


def test_more_trials_go_on_from_those_there_are(place):
    module = place.script("tune")
    assert place.search(make_params(trials=2)) == 0
    params = make_params(trials=4)
    more = Here(module, place.arguments(params))
    assert place.search(params, launcher=more) == 0
    assert more.started == [2, 3]
    assert place.search(params, "at-once") == 0
    pd.testing.assert_frame_equal(place.trials("at-once"), place.trials())


def test_a_finished_search_is_not_run_again(place):
    assert place.search(make_params(trials=2)) == 0
    before = place.journal().read_bytes()
    idle = Here(place.script("tune"), place.arguments(make_params(trials=2)))
    assert place.search(make_params(trials=2), launcher=idle) == 0
    assert idle.started == []
    assert place.journal().read_bytes() == before


def test_the_same_values_are_not_trained_twice(place):
    arm = {"protocol": "finetune", "protocol_settings": {"balanced": {"choices": [True, False]}}}
    params = make_params(trials=6, parallel=3, arm=arm)
    launcher = Here(place.script("tune"), place.arguments(params))
    assert place.search(params, launcher=launcher) == 0
    assert len(launcher.started) == 2
    assert place.trials()["value"].nunique() <= 2
    assert len(place.trials()) == 6


def test_trials_below_the_median_of_earlier_rounds_end_early(tmp_path):
    params = TuneParams.model_validate(make_params(trials=8, parallel=journal.N_MEDIAN))
    study = journal.open_journal(tmp_path / "journal.log", params)
    for number in range(journal.N_MEDIAN):
        journal.propose(study, params, number)
        journal.trial_of(study, number).report(0.1 * (number + 1), 1)
        journal.tell(study, number, {"state": "complete", "value": 0.1 * (number + 1)})
    for number, value in ((4, 0.9), (5, 0.05)):
        journal.propose(study, params, number)
        trial = journal.trial_of(study, number)
        trial.report(value, 1)
        assert trial.should_prune() == (value > 0.5)
    # Those of its own round do not count, though they are told: it was cut short, and is gone on with.
    one_round = params.model_copy(update={"parallel": 8})
    again = journal.open_journal(tmp_path / "journal.log", one_round)
    assert not journal.trial_of(again, 4).should_prune()


def test_a_pruned_trial_leaves_no_state(place, monkeypatch):
    monkeypatch.setattr("optuna.Trial.should_prune", lambda self: self.number == 1)
    assert place.search(make_params("simclr")) == 0
    table = place.trials()
    assert table["state"].tolist() == ["complete", "pruned", "complete"]
    assert len(table["looks"][1]) == 1
    left = {path.name for path in place.journal().parent.glob("trials/1/*")}
    assert left == {"result.json", "job.json"}


def test_values_that_diverge_count_as_pruned(place, monkeypatch):
    from fewscans.pretrain import Job

    def diverge(self, *_):
        raise UserError("diverged twice")

    train = Job.train
    monkeypatch.setattr(
        Job, "train", lambda self, *a: (diverge if self.settings.lr > 1e-3 else train)(self, *a)
    )
    assert place.search(make_params("simclr", trials=4)) == 0
    table = place.trials()
    assert set(table["state"]) == {"complete", "pruned"}
    assert set(table.loc[table["state"] == "pruned", "reason"]) == {"diverged twice"}


def test_a_space_beyond_the_steps_of_every_arm_is_refused(place, capsys):
    arm = {"encoder": {"epochs": {"low": 1, "high": 80}}}
    assert place.search(make_params("simclr", arm=arm)) == 2
    assert "trials of 240 steps, and `tune.max_steps` is 100" in capsys.readouterr().err


def test_trials_that_all_fail_end_the_search(place, capsys):
    class Broken(Here):
        def living(self, folders):
            for number in self.waiting:
                (folders[number] / "trial.log").write_text("start\nerror: no such card\n")
            self.waiting.clear()
            return set()

    broken = Broken(place.script("tune"), place.arguments(make_params()))
    assert place.search(make_params(trials=8), launcher=broken) == 2
    said = capsys.readouterr().err
    assert "3 trials failed and none succeeded; the last: error: no such card" in said
    assert broken.started.count(0) == 3
