"""Pretraining that is killed, stopped or started twice: the same bytes, made once."""

from __future__ import annotations

import logging
import os
import signal
import time

import pandas as pd
import pytest
import torch
from engine_factory import make_params, slowed
from pretrain_factory import Place, command, history, meta, start, wait_for_state

from fewscans import engine
from fewscans.checkpoint import Checkpoint
from fewscans.cluster import deadline
from fewscans.files import sha256_file


@pytest.fixture
def place(tmp_path) -> Place:
    return Place(tmp_path)


@pytest.mark.parametrize("stop_at", [1, 3, 4, 5])
def test_goes_on_from_any_step_with_the_same_weights(place, stop_at):
    job = place.job(make_params("mae", epochs=3))
    whole = job.make_method()
    reference = engine.Training(whole, job.resident, job.schedule)
    reference.run()
    saved = []
    first = engine.Training(job.make_method(), job.resident, job.schedule, save=saved.append)
    first.should_stop = lambda: first.step == stop_at
    with pytest.raises(engine.StoppedError):
        first.run()
    store = Checkpoint(place.folder / "state")
    store.save({"training": saved[-1]})
    second = engine.Training(job.make_method(), job.resident, job.schedule)
    second.load(store.load()["training"])
    second.run()
    for name, value in whole.state_dict().items():
        assert torch.equal(second.method.state_dict()[name], value), name
    clocked = ["images_per_s", "memory_mb"]
    frames = [pd.DataFrame(t.history).drop(columns=clocked) for t in (reference, second)]
    pd.testing.assert_frame_equal(*frames)


def test_damaged_checkpoint_means_a_new_beginning(tmp_path, caplog):
    store = Checkpoint(tmp_path / "c")
    store.save({"step": 1})
    store.path.write_bytes(store.path.read_bytes()[:100])
    assert store.load() is None
    assert "begins anew" in caplog.text


def test_killed_and_run_again_ends_with_the_same_bytes(place, caplog):
    params = make_params("mae", epochs=30, checkpoint_minutes=1e-9)
    digest = place.job(params).digest
    process = start(slowed(command(place, params, "out")))
    wait_for_state(place, process, digest)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not (place.folder / "out/encoder.json").exists()
    assert (place.folder / "checkpoints" / digest / "state.pt").exists()
    params = make_params("mae", epochs=30)
    with caplog.at_level(logging.INFO, "fewscans"):
        out, facts = place.run(params)
    assert "going on from step" in caplog.text
    assert not facts["from_cache"]
    assert not (place.folder / "checkpoints" / digest).exists()
    expected, _ = place.run(params, "undisturbed", cache="other")
    for name in ("encoder.safetensors", "views.npz", "reconstructions.npz"):
        assert sha256_file(out / name) == sha256_file(expected / name)
    pd.testing.assert_frame_equal(history(out), history(expected))


@pytest.mark.parametrize("by", deadline.SIGNALS)
def test_a_signal_asks_to_stop(by):
    before = signal.getsignal(by)
    with deadline.watch() as life:
        assert not life.should_stop()
        os.kill(os.getpid(), by)
        assert life.should_stop()
    assert signal.getsignal(by) is before


@pytest.mark.parametrize("by", deadline.SIGNALS)
def test_script_that_is_stopped_says_so(place, monkeypatch, by):
    from scripts.pretrain import main

    init = _stops_at_once(engine.Training.__init__, by)
    monkeypatch.setattr(engine.Training, "__init__", init)
    assert main(command(place, make_params(), "out")[2:]) == deadline.TO_BE_CONTINUED == 75
    state = next((place.folder / "checkpoints").glob("*/state.pt"))
    assert not (state.parent / "lease.json").exists()


def _stops_at_once(init, by):
    def changed(self, *args, **kwargs):
        init(self, *args, **kwargs)
        self.method.after_step = lambda step, n: os.kill(os.getpid(), by)

    return changed


def test_two_copies_at_once_train_once(place):
    params = make_params("mae", epochs=30)
    digest = place.job(params).digest
    process = start(command(place, params, "theirs"))
    held = place.folder / "checkpoints" / digest / "lease.json"
    while not held.exists() and process.poll() is None:
        time.sleep(0.01)
    out, _ = place.run(params, "ours")
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    assert (out / "encoder.safetensors").samefile(place.folder / "theirs/encoder.safetensors")
    assert meta(out)["device_seconds"] == meta(place.folder / "theirs")["device_seconds"]
