"""From a config to its searches, and from what they found back into a run."""

from __future__ import annotations

import json
import math
import re

import pytest
from tune_factory import FINETUNE, LR
from workflows import make_clone

from fewscans.config import load
from fewscans.config.stages import FinetuneParams, PretrainParams
from fewscans.contracts import read_metadata
from fewscans.cost import sizes
from fewscans.errors import UserError
from fewscans.plan import expand
from fewscans.tune import space
from fewscans.tune.searches import searches, tune_params

CONFIG = {
    "datasets": {"tiny": {"root": "raw"}},
    "recipes": {"px16": {"size": 16}},
    "encoders": {"simclr": {"method": "simclr", "backbone": "test_resnet"}},
    "baselines": ["scratch"],
    "validation": {"folds": 2},
    "tune": {"arms": {"simclr": {"encoder": {"lr": LR}}, "scratch": FINETUNE}},
}


def test_every_arm_has_a_search_per_fold_with_the_same_budget():
    plan = expand(load(CONFIG))
    keys = [one.key for one in searches(plan)]
    assert keys == [
        f"{encoder}/px16/tiny/{fold}"
        for encoder in ("scratch-test-resnet", "simclr")
        for fold in "01"
    ]
    made = [tune_params(plan, name, "px16", "tiny") for name in ("scratch-test-resnet", "simclr")]
    assert len({(p.trials, p.max_steps, p.parallel, p.budget) for p in made}) == 1


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"arms": {"simclr": {"encoder": {"lr": LR}}}}, "the baseline 'scratch' is not among them"),
        ({"arms": {"simcl": FINETUNE, "scratch": FINETUNE}}, "Did you mean 'simclr'?"),
        ({"arms": {"scratch": {**FINETUNE, "protocol": "linear"}}}, "has no protocol 'linear'"),
        ({"arms": {"scratch": {"encoder": {"lr": LR}, "protocol": "finetune"}}}, "trains nothing"),
        ({"arms": {"scratch": {"protocol": "finetune"}}}, "has nothing to search"),
        ({"folds": ["2"]}, "no fold '2'"),
        ({"folds": ["0"], "use": True}, "Leave `folds` out"),
    ],
)  # fmt: skip
def test_searches_that_are_not_honest_or_not_possible_are_refused(changes, said):
    with pytest.raises(UserError) as error:
        load({**CONFIG, "tune": {**CONFIG["tune"], **changes}})
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("span", "said"),
    [
        ({"low": 1}, "give low and high, or choices"),
        ({"low": 1, "high": 2, "choices": [1, 2]}, "give low and high, or choices"),
        ({"low": 2, "high": 1}, "low must be below high"),
        ({"low": 0.0, "high": 1, "log": True}, "low must be above 0"),
        ({"choices": [1, -1]}, "must be above 0 (given: -1)"),
    ],
)
def test_spaces_that_hold_no_settings_are_refused(span, said):
    arms = {**CONFIG["tune"]["arms"], "simclr": {"encoder": {"temperature": span}}}
    with pytest.raises(UserError) as error:
        load({**CONFIG, "tune": {"arms": arms}})
    assert said in str(error.value)
    assert "tune.arms.simclr.encoder.temperature" in str(error.value)


def test_what_was_found_is_used_where_it_was_searched_for_alone(tmp_path):
    best = {"encoder": "simclr", "dataset": "tiny", "fold": "0", "protocol": "finetune",
            "values": {"encoder.lr": 0.5, "protocol.lr": 0.25}}  # fmt: skip
    path = tmp_path / "best.json"
    path.write_text(json.dumps(best))
    shared = {"encoder": "simclr", "settings": {"method": "simclr"}, "recipe": {}, "fold": "0",
              "dataset": "tiny", "seed": 0}  # fmt: skip
    assert space.use_in_pretrain(PretrainParams.model_validate(shared), path).settings.lr == 0.5
    more = {"recipe_name": "r", "protocols": ["linear", "finetune"], "protocol_settings": {}}
    more["classes"] = []
    given = FinetuneParams.model_validate({**shared, **more})
    used, tuned = space.use_in_finetune(given, path)
    assert used.settings.lr == 0.5
    assert used.protocol_settings.finetune.lr == 0.25
    assert tuned == ["linear", "finetune"]
    path.write_text(json.dumps({**best, "values": {"protocol.lr": 0.25}}))
    used, tuned = space.use_in_finetune(given, path)
    assert used.settings == given.settings
    assert tuned == ["finetune"]
    with pytest.raises(UserError, match="searched for fold '0', not '1'"):
        space.use_in_pretrain(PretrainParams.model_validate({**shared, "fold": "1"}), path)


# -- as a user types it ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    return make_clone(tmp_path_factory.mktemp("tuned") / "clone")


def tune_section(**more) -> dict:
    """A search of every arm of `workflows.CONFIG`, of seconds."""
    arms = {"simclr": {"encoder": {"lr": LR}}, "scratch": FINETUNE}
    return {"trials": 2, "parallel": 2, "max_steps": 500, "budget": "all", "arms": arms, **more}


def test_searches_are_planned_with_what_they_cost(clone):
    clone.config(tune=tune_section(folds=["1"]))
    assert clone.to_run("tuned")["tune"] == 2
    said = clone.run("-n", "tuned").stdout
    assert said.count("trials=2, trial_s=") == 2
    # While they run, two trials of simclr hold checkpoints and an encoder each; scratch keeps no state.
    network = CONFIG["encoders"]["simclr"]["backbone"]
    one = math.ceil(sizes.CHECKPOINTS * sizes.checkpoint_mb(network)) + math.ceil(
        sizes.encoder_mb(network)
    )
    held = re.findall(r"trials=2, .*?scratch_mb=(\d+)", said)
    assert sorted(map(int, held)) == [0, 2 * one]
    assert "tune" not in clone.to_run()  # found values are not used without being asked for
    clone.config()
    done = clone.run("-n", "tuned", check=False)
    assert done.returncode != 0
    assert "the config has no `tune`" in done.stdout


def test_values_in_use_are_searched_for_first_each_fold_its_own(clone):
    clone.config(tune=tune_section(use=True))
    jobs = clone.to_run()
    assert jobs["tune"] == 4
    said = clone.run("-n", "-p").stdout
    used = re.findall(r"--tuned work/tune/(\S+)/best.json.*--out work/encoders/(\S+)/0 ", said)
    assert sorted(used) == [(f"simclr/px32/tiny/{f}", f"simclr/px32/tiny/{f}") for f in "01"]


@pytest.mark.slow
def test_an_arm_is_trained_with_what_its_search_found(clone):
    clone.config(tune=tune_section(use=True))
    wanted = "work/predictions/simclr/px32/tiny/0/0/predictions.parquet"
    clone.run("--cores", "2", wanted)
    best = json.loads((clone.folder / "work/tune/simclr/px32/tiny/0/best.json").read_text())
    made = clone.folder / "work/encoders/simclr/px32/tiny/0/0/encoder.json"
    assert json.loads(made.read_text())["settings"]["lr"] == best["values"]["encoder.lr"]
    assert all("tuned" in run["flags"] for run in read_metadata(clone.folder / wanted)["runs"])
    assert clone.to_run(wanted) == {}
