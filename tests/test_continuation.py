"""Trainings that end early and go on: the same bytes, and never more than one interval of checkpoints lost."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from engine_factory import make_folds, make_params, make_store
from killed_training import EVERY
from labelled_factory import make_tiny
from slurm_fakes import fake_slurm

from fewscans import engine, training_job
from fewscans import pretrain as stage
from fewscans.checkpoint import Checkpoint
from fewscans.cluster import deadline
from fewscans.cluster.deadline import ToBeContinuedError, Watch
from fewscans.config.encoders import METHODS
from fewscans.config.stages import FinetuneParams
from fewscans.contracts import read_table
from fewscans.files import sha256_file
from fewscans.finetune import Files, finetune
from fewscans.protocols import prior
from fewscans.resident import Resident
from fewscans.training_scans import choose_scans

ROOT = Path(__file__).resolve().parent.parent
MADE = ("encoder.safetensors", "views.npz", "reconstructions.npz")


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    with fake_slurm(tmp_path / "slurm", monkeypatch) as made:
        yield made


@pytest.fixture
def pretrain(tmp_path):
    store = make_store(tmp_path / "store")
    folds = make_folds(tmp_path / "folds.parquet", store.scans)

    def run(params, name="out", cache="cache"):
        out = tmp_path / name
        facts = stage.pretrain(
            params, store, folds, {}, out, tmp_path / cache, tmp_path / "checkpoints"
        )
        return out, facts

    return run


def stop_after(monkeypatch, steps: int) -> None:
    """Let each start have time for so many steps."""
    count = [0]

    def should_stop(self: Watch) -> bool:
        count[0] += 1
        if count[0] % steps == 0:
            self.why = "deadline"
        return self.why is not None

    monkeypatch.setattr(Watch, "should_stop", should_stop)


# -- the same bytes, however often it ends ---------------------------------------------------------


def killed(folder: Path, kills: int, epochs: int, *methods: str) -> dict[str, list[str]]:
    """What happened to a training of each method that was killed so many times."""
    done = subprocess.run(
        [
            sys.executable, str(ROOT / "tests/killed_training.py"), folder, str(kills), "0", str(epochs),
            *methods,
        ],
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    told: dict[str, list[str]] = {}
    for line in done.stdout.splitlines():
        word, _, name = line.partition(" ")
        if word == "method":
            lines = told[name] = []
        else:
            lines.append(line)
    return told


def test_every_method_goes_on_after_a_kill_with_the_same_bytes(tmp_path):
    """Queue, centre, momentum, averages of weights, batch norms, optimizer and schedule included."""
    undisturbed, told = (
        killed(tmp_path / name, kills, 6, *METHODS) for name, kills in (("a", 0), ("b", 1))
    )
    assert set(told) == set(METHODS)
    for name, lines in told.items():
        assert lines.count("killed") == 1
        assert lines[-1].startswith("done ")
        assert lines[-1] == undisturbed[name][-1], name
    # SimCLR and MICLe are one where each scan is a patient of its own.
    assert len({lines[-1] for lines in told.values()}) >= len(METHODS) - 1


def test_killed_at_random_points_loses_one_interval_at_most(tmp_path):
    undisturbed, told = (
        killed(tmp_path / name, kills, 60, "simclr")["simclr"]
        for name, kills in (("a", 0), ("b", 6))
    )
    assert told.count("killed") == 6
    assert told[-1] == undisturbed[-1]
    assert told[-1].startswith("done ")
    reached = saved = 0
    for line, following in pairwise(told):
        word, _, number = line.partition(" ")
        if word == "step":
            reached = int(number)
            assert reached - saved <= EVERY
        elif word == "saved":
            saved = int(number)
        elif word == "begin":
            first = int(following.partition(" ")[2])
            # The save that the kill cut short may have been whole already, and not yet told.
            assert first - 1 in (saved, reached)
            assert reached - (first - 1) <= EVERY
            saved = first - 1


def test_ended_by_deadlines_several_times_gives_the_same_bytes(pretrain, monkeypatch, caplog):
    caplog.set_level(logging.INFO, "fewscans")
    params = make_params("mae", epochs=6)
    expected, _ = pretrain(params, "undisturbed", "other")
    stop_after(monkeypatch, 5)
    stops = []
    while True:
        try:
            out, facts = pretrain(params)
            break
        except ToBeContinuedError as stop:
            stops.append(stop)
    assert [stop.why for stop in stops] == ["deadline"] * 2
    assert all(stop.moved for stop in stops)
    assert "state saved at step 10 of 12, this start began at 5" in str(stops[1])
    assert "going on from step 10 of 12" in caplog.text
    assert "checkpoint at step 10" in caplog.text
    assert facts["flags"] == []
    for name in MADE:
        assert sha256_file(out / name) == sha256_file(expected / name)
    told = [json.loads((folder / "encoder.json").read_text()) for folder in (out, expected)]
    assert told[0] | {"device_seconds": 0} == told[1] | {"device_seconds": 0}


def test_the_first_checkpoint_of_a_start_comes_early(monkeypatch, pretrain):
    saved = []
    save = Checkpoint.save
    monkeypatch.setattr(
        Checkpoint,
        "save",
        lambda self, state: (saved.append(state["training"]["step"]), save(self, state)),
    )
    monkeypatch.setattr(engine, "FIRST_SAVE_S", 0)
    pretrain(make_params(epochs=3))
    assert saved == [1]


def test_lease_is_free_after_a_deadline(pretrain, monkeypatch, tmp_path):
    stop_after(monkeypatch, 3)
    with pytest.raises(ToBeContinuedError):
        pretrain(make_params(epochs=6))
    (state,) = (tmp_path / "checkpoints").glob("*/state.pt")
    assert not (state.parent / "lease.json").exists()


# -- going on elsewhere ----------------------------------------------------------------------------

A, B = {"device": "cuda", "model": "A100"}, {"device": "cuda", "model": "H200"}


def test_state_of_another_machine_is_laid_aside_and_taken_up_there(tmp_path, caplog):
    Checkpoint(tmp_path, A).save({"step": 5})
    assert Checkpoint(tmp_path, B).load() is None
    assert "model A100, here H200" in caplog.text
    assert "compute.resume_elsewhere" in caplog.text
    Checkpoint(tmp_path, B).save({"step": 2})
    assert Checkpoint(tmp_path, B).load() == {"step": 2}
    back = Checkpoint(tmp_path, A)
    assert back.load() == {"step": 5}
    assert back.places == [A]
    assert Checkpoint(tmp_path, B).load() == {"step": 2}
    Checkpoint(tmp_path, B).remove()
    assert not tmp_path.exists()


def test_where_it_is_allowed_it_goes_on_and_remembers(tmp_path):
    Checkpoint(tmp_path, A).save({"step": 5})
    second = Checkpoint(tmp_path, B, elsewhere=True)
    assert second.load() == {"step": 5}
    second.save({"step": 6})
    third = Checkpoint(tmp_path, B)  # the setting was taken back: it was here last
    assert third.load() == {"step": 6}
    assert third.places == [A, B]
    third.begin_anew()
    assert third.places == [B]


def allow(params, elsewhere=True):
    compute = params.compute.model_copy(update={"resume_elsewhere": elsewhere})
    return params.model_copy(update={"compute": compute})


@pytest.fixture
def begun_elsewhere(pretrain, monkeypatch):
    """Settings of a training that was begun on another model of device than this one."""
    params = make_params(epochs=4)
    with monkeypatch.context() as patch:
        stop_after(patch, 3)
        with pytest.raises(ToBeContinuedError):
            pretrain(params)
    monkeypatch.setattr(training_job, "device_name", lambda device: "another model")
    return params


def test_weights_of_two_machines_are_flagged_and_kept_apart(pretrain, begun_elsewhere):
    params = begun_elsewhere
    out, facts = pretrain(allow(params))
    assert facts["flags"] == ["resumed-elsewhere"]
    assert json.loads((out / "encoder.json").read_text())["flags"] == ["resumed-elsewhere"]
    _, facts = pretrain(allow(params), "again")
    assert facts["from_cache"]
    # Who asks for weights that can be repeated is not given these.
    clean, facts = pretrain(params, "clean")
    assert not facts["from_cache"]
    assert facts["flags"] == []
    # And where both are there, the clean ones are everybody's.
    out, facts = pretrain(allow(params), "both")
    assert (out / "encoder.safetensors").samefile(clean / "encoder.safetensors")


def test_begins_anew_on_another_machine(pretrain, begun_elsewhere, caplog):
    caplog.set_level(logging.INFO, "fewscans")
    _, facts = pretrain(begun_elsewhere)
    assert "laid aside" in caplog.text
    assert "going on" not in caplog.text
    assert facts["flags"] == []


def test_the_setting_is_in_no_digest(tmp_path):
    store = make_store(tmp_path / "store")
    folds = read_table(make_folds(tmp_path / "folds.parquet", store.scans), "folds")
    digests = set()
    for params in (make_params(), allow(make_params())):
        sources = choose_scans(folds, params, [store])
        cpu = torch.device("cpu")
        digests.add(training_job.Job(params, sources, Resident(store, sources.scans), cpu).digest)
    assert len(digests) == 1


# -- fine-tuning: between two runs -----------------------------------------------------------------


@pytest.fixture
def tiny(tmp_path):
    return make_tiny(tmp_path / "tiny")


def tune(tiny, name="out", cache="cache"):
    params = FinetuneParams.model_validate({
        "encoder": "majority", "settings": {"method": "majority"}, "recipe": {"size": 16}, "recipe_name": "small",
        "protocols": ["prior"], "protocol_settings": {}, "dataset": "tiny", "classes": [], "fold": "0", "seed": 0,
    })  # fmt: skip
    root = tiny["root"]
    files = Files(
        labels=tiny["labels"], folds=tiny["folds"], budgets=tiny["budgets"],
        predictions=root / name / "predictions.parquet", cache=root / cache,
    )  # fmt: skip
    return files.predictions, finetune(params, files)


def test_fine_tuning_ends_between_runs_and_goes_on(tiny, slurm, monkeypatch):
    expected, facts = tune(tiny, "undisturbed", "other")
    assert facts["runs"] == 3
    # Every run takes a third of an hour by this clock, and a start has an hour for two of them and a bit.
    clock = [1000.0]
    monkeypatch.setattr(deadline.time, "monotonic", lambda: clock[0])
    made = []
    run = prior.run

    def slow(*args):
        clock[0] += 1200
        made.append(1)
        return run(*args)

    monkeypatch.setattr(prior, "run", slow)
    monkeypatch.setattr("fewscans.finetune.time.perf_counter", lambda: clock[0])
    monkeypatch.setenv("SLURM_JOB_ID", "5")

    def begin() -> None:
        deadline.here.cache_clear()
        here = deadline.Here("5", 0, clock[0] + 3600, 3600)
        monkeypatch.setattr(deadline, "ask", lambda *_: here)

    begin()
    with pytest.raises(ToBeContinuedError, match="2 of 3 runs are done, 2 of them by") as caught:
        tune(tiny)
    assert (caught.value.why, caught.value.moved) == ("deadline", True)
    begin()
    out, facts = tune(tiny)
    assert len(made) == 3
    assert facts["from_cache"] == 2
    drop = ["device_seconds"]
    for a, b in zip(
        *(read_table(p, "predictions").to_dict("records") for p in (out, expected)), strict=True
    ):
        for key in a.keys() - drop:
            np.testing.assert_array_equal(a[key], b[key])
