"""The search for hyper-parameters: what it may see, what it promises, and what a kill leaves behind."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from labelled_factory import make_tiny
from workflows import make_clone

from fewscans.config import load
from fewscans.config.stages import FinetuneParams, PretrainParams, TuneParams
from fewscans.contracts import read_table, write_table
from fewscans.errors import UserError
from fewscans.plan import expand
from fewscans.runrecord import is_alive
from fewscans.tune import journal, space, status, submit
from fewscans.tune.searches import searches, tune_params

ROOT = Path(__file__).parent.parent
LR = {"low": 1e-4, "high": 1e-1, "log": True}
FINETUNE = {"protocol": "finetune", "protocol_settings": {"lr": LR}}


def make_params(kind: str = "scratch", **more) -> dict:
    """Params of a search of seconds, as JSON has them."""
    shared = {
        "encoder": kind,
        "recipe": {"size": 16},
        "recipe_name": "small",
        "dataset": "tiny",
        "fold": "0",
        "trials": 3,
        "parallel": 2,
        "max_steps": 100,
    }
    if kind == "scratch":
        shared |= {
            "settings": {"method": "scratch", "backbone": "test_resnet"},
            "arm": FINETUNE,
            "protocol_settings": {"finetune": {"steps": 2, "batch_size": 4}},
        }
    else:
        shared |= {
            "settings": {"method": kind, "backbone": "test_resnet", "epochs": 4, "batch_size": 8},
            "arm": {"encoder": {"lr": LR, "temperature": {"choices": [0.1, 0.5]}}},
            "protocol_settings": {},
        }
    return {**shared, **more}


class Place:
    """Files of a tiny data set, and the command line of a search on them."""

    def __init__(self, root: Path, data: dict[str, Path], script) -> None:
        self.root, self.data, self.script = root, dict(data), script

    def arguments(self, params: dict, out: str = "out") -> list[str]:
        files = [
            text
            for name in ("store", "labels", "folds", "budgets")
            for text in (f"--{name}", str(self.data[name]))
        ]
        return ["--params", json.dumps(params), *files, "--out", str(self.root / out)]

    def search(self, params: dict, out: str = "out", launcher=None) -> int:
        """Lead a search whose trials run in this process, one after the other."""
        module = self.script("tune")
        arguments = self.arguments(params, out)
        module.make_launcher = lambda *_: launcher or Here(module, arguments)
        return module.main(arguments)

    def best(self, out: str = "out") -> dict:
        return json.loads((self.root / out / "best.json").read_text())

    def trials(self, out: str = "out") -> pd.DataFrame:
        return read_table(self.root / out / "trials.parquet", "trials").drop(columns="seconds")

    def journal(self, out: str = "out") -> Path:
        (found,) = (self.root / out).glob("*/journal.log")
        return found


class Here:
    """A launcher whose trials are done when `start` returns; `order` says which is started first."""

    poll_s = 0.0

    def __init__(self, module, arguments: list[str], slots: int = 8, order: int = 1) -> None:
        self.module, self.arguments, self.slots, self.order = module, arguments, slots, order
        self.started: list[int] = []
        self.waiting: list[int] = []

    def start(self, number, command, folder) -> None:
        self.started.append(number)
        submit.write_json(folder / "job.json", {**submit.read_job(folder), "started": time.time()})
        self.waiting.append(number)

    def living(self, folders):
        for number in self.waiting[:: self.order]:
            self.module.main([*self.arguments, "--trial", str(number)])
        self.waiting.clear()
        return set()

    def cancel(self, folders) -> None:
        pass


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


def test_trials_below_the_median_end_early(tmp_path):
    params = TuneParams.model_validate(make_params(trials=8, parallel=8))
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


def test_without_sbatch_the_way_out_is_said(place, tmp_path, monkeypatch, capsys):
    from fewscans.cluster.site import current_site

    site = tmp_path / "partitions.yaml"
    site.write_text("partitions: {gpu: {max_gpu: 1, default: true}}")
    monkeypatch.setenv("FEWSCANS_SITE", str(site))
    monkeypatch.setenv("PATH", str(tmp_path))
    current_site.cache_clear()
    try:
        assert place.script("tune").main(place.arguments(make_params())) == 2
    finally:
        current_site.cache_clear()
    assert "there is no sbatch here" in capsys.readouterr().err


@pytest.mark.parametrize("request_by", ["gpus", "gres"])
def test_a_trial_s_job_asks_for_what_the_site_wants(tmp_path, request_by):
    from fewscans.cluster.site import Site

    site = Site.model_validate({
        "account": "proj", "gpu_request": request_by, "modules": ["cuda"], "reservation": "mine",
        "classes": {"gpu": {"partition": "big", "gpu_model": "a100", "qos": "high", "extra": "-w n2"}},
        "partitions": {"big": {"max_runtime": 30, "max_gpu": 4}},
    })  # fmt: skip
    jobs = submit.Jobs(site, tmp_path, 2, minutes=600, mem_mb=900, threads=3, gpu=True)
    asked = jobs.parameters(7)
    more = asked.pop("slurm_additional_parameters")
    assert (asked["timeout_min"], asked["cpus_per_task"], asked["slurm_mem"]) == (30, 3, "900MB")
    named = [asked[f"slurm_{name}"] for name in ("partition", "account", "qos")]
    assert named == ["big", "proj", "high"]
    assert asked["slurm_comment"] == f"tune_{jobs.mark}_7"
    assert asked["slurm_setup"] == ["#SBATCH -w n2", "module load cuda"]
    assert more["reservation"] == "mine"
    assert ("gpus" in more, "slurm_gres" in asked) == (request_by == "gpus", request_by == "gres")
    assert "a100:1" in (more.get("gpus") or asked["slurm_gres"])
    text = jobs._executor(tmp_path, 7)._executor._make_submission_file_text("run", "uid")
    assert "#SBATCH --requeue" in text
    assert text.index("#SBATCH -w n2") < text.index("module load cuda") < text.index("srun")


# -- kills -----------------------------------------------------------------------------------------


def start(place: Place, params: dict, out: str = "out") -> subprocess.Popen:
    command = [sys.executable, str(ROOT / "scripts/tune.py"), *place.arguments(params, out)]
    return subprocess.Popen(
        [*command, "--cores", "2", "--poll-s", "0.1"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for(what, process: subprocess.Popen | None = None, timeout: float = 120):
    until = time.monotonic() + timeout
    while time.monotonic() < until:
        found = what()
        if found:
            return found
        if process is not None and process.poll() is not None:
            raise AssertionError(f"ended with {process.returncode}: {process.stderr.read()}")
        time.sleep(0.05)
    raise AssertionError("waited in vain")


def running_trials(place: Place, out: str = "out") -> list[dict]:
    jobs = [json.loads(p.read_text()) for p in (place.root / out).glob("*/trials/*/job.json")]
    return [job for job in jobs if is_alive(job["pid"], job["start"])]


@pytest.fixture(scope="module")
def undisturbed(tiny, tmp_path_factory, script_of_module):
    place = Place(tmp_path_factory.mktemp("undisturbed"), tiny, script_of_module)
    assert place.search(LONG) == 0
    return place


@pytest.fixture(scope="module")
def script_of_module():
    import importlib.util

    def load_script(name):
        spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load_script


LONG = make_params(
    "simclr",
    trials=4,
    max_steps=1000,
    settings={
        "method": "simclr", "backbone": "test_resnet", "epochs": 40, "batch_size": 8,
        "checkpoint_minutes": 0.005,
    },
)  # fmt: skip


@pytest.mark.slow
def test_killed_leader_and_trial_the_same_command_goes_on(place, undisturbed):
    """The leader by -9, then one of its trials by -9: the other is found again, the dead one started again."""
    process = start(place, LONG)
    state = lambda: list((place.root / "out").glob("*/trials/0/checkpoints/*/state.pt"))  # noqa: E731
    wait_for(state, process)
    process.kill()
    process.wait()
    wait_for(lambda: len(running_trials(place)) == 2)  # they do not need their leader
    (job,) = (place.root / "out").glob("*/trials/0/job.json")
    os.kill(json.loads(job.read_text())["pid"], signal.SIGKILL)
    assert state()
    again = start(place, LONG)
    assert again.wait(240) == 0, again.stderr.read()
    pd.testing.assert_frame_equal(place.trials(), undisturbed.trials())
    assert place.best()["values"] == undisturbed.best()["values"]
    assert "going on from step" in (job.parent / "trial.log").read_text()
    wait_for(lambda: not running_trials(place))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_asked_to_stop_trials_are_cancelled_and_can_go_on(place, number):
    process = start(place, LONG)
    states = lambda: list((place.root / "out").glob("*/trials/*/checkpoints/*/state.pt"))  # noqa: E731
    wait_for(states, process)
    process.send_signal(number)
    assert process.wait(60) == 130
    assert "the same command goes on from here" in process.stderr.read()
    assert not running_trials(place)
    assert states()  # what they had done is kept
    found = status.read(place.journal().parent)
    assert not found.finished
    assert found.counts["done"] == 0


def test_a_trial_of_other_code_is_refused(place, capsys):
    assert place.search(make_params(trials=2)) == 0
    other = place.arguments(make_params(trials=2, base_seed=1))
    assert place.script("tune").main([*other, "--trial", "0"]) == 2
    assert "have changed since it began: run it again" in capsys.readouterr().err


# -- looking on ------------------------------------------------------------------------------------


def test_status_of_a_running_and_of_a_finished_search(place, capsys):
    from fewscans.__main__ import main

    params = TuneParams.model_validate(make_params(trials=5))
    folder = place.root / "work/tune/scratch/small/tiny/0/0123"
    folder.mkdir(parents=True)
    study = journal.open_journal(folder / "journal.log", params)
    for name, value in {"trials": 5, "parallel": 2, "encoder": "scratch", "recipe": "small",
                        "dataset": "tiny", "fold": "0"}.items():  # fmt: skip
        study.set_user_attr(name, value)
    for number, result in enumerate([
        {"state": "complete", "value": 0.5, "seconds": 60.0},
        {"state": "pruned", "seconds": 30.0},
        None,
    ]):  # fmt: skip
        journal.propose(study, params, number)
        home = status.trial_folder(folder, number)
        home.mkdir(parents=True)
        (home / "job.json").write_text("{}" if result else '{"id": "7"}')
        if result:
            (home / "result.json").write_text(json.dumps(result))
    before = (folder / "journal.log").read_bytes()
    assert main(["tune-status", str(place.root / "work")]) == 0
    said = capsys.readouterr().out
    row = next(line for line in said.splitlines() if line.startswith("scratch small tiny 0"))
    assert row.split()[4:10] == ["1", "1", "0", "1", "0", "2"]
    assert "0.5000" in row
    assert "best so far, trial 0: protocol.lr 0.001" in said
    assert (folder / "journal.log").read_bytes() == before
    assert main(["tune-status", str(place.root / "nothing")]) == 2


def test_values_found_as_a_piece_of_config(place, capsys):
    from fewscans.__main__ import main

    assert place.search(make_params("simclr"), "work/tune/simclr/small/tiny/0") == 0
    capsys.readouterr()
    assert main(["tune-status", str(place.root / "work"), "--write-config"]) == 0
    said = capsys.readouterr().out
    import yaml

    values = place.best("work/tune/simclr/small/tiny/0")["values"]
    given = {name.partition(".")[2]: value for name, value in values.items()}
    assert yaml.safe_load(said)["encoders"]["simclr"] == given


# -- from config to searches -----------------------------------------------------------------------

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
    used = space.use_in_finetune(FinetuneParams.model_validate({**shared, **more}), path)
    assert used.settings.lr == 0.5
    assert used.protocol_settings.finetune.lr == 0.25
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
    assert clone.to_run(wanted) == {}
