"""Pretraining as a job: who is seen, what is written, and what is said of it."""

from __future__ import annotations

import json
import logging

import numpy as np
import pandas as pd
import pytest
import torch
from engine_factory import make_folds, make_params, make_store, scan_names
from pretrain_factory import Place, command, history, meta

from fewscans import engine, networks, optim
from fewscans.batches import epoch_batches, training_steps
from fewscans.contracts import read_table, write_table
from fewscans.errors import UserError
from fewscans.files import sha256_file
from fewscans.methods.simclr import SimCLR
from fewscans.resident import Resident
from fewscans.shape import Shape

FILES = {
    "encoder.safetensors",
    "encoder.json",
    "history.parquet",
    "views.npz",
    "reconstructions.npz",
}


@pytest.fixture
def place(tmp_path) -> Place:
    return Place(tmp_path)


@pytest.mark.parametrize("method", ["simclr", "mae", "simmim"])
def test_writes_everything_and_finds_it_again(place, method):
    out, facts = place.run(make_params(method))
    assert {path.name for path in out.iterdir()} == FILES
    assert not facts["from_cache"]
    assert facts["device_seconds"] > 0
    assert list((place.folder / "checkpoints").iterdir()) == []
    shown = meta(out)
    tested = set(place.store.scans[:4])
    assert shown["source_scans"] == sorted(set(place.store.scans) - tested)
    assert shown["n_scans"] == 8
    assert len(shown["excluded_groups"]) == 2
    assert not shown["transductive"]
    assert shown["parents"] == []
    assert shown["settings"]["lr"] > 0
    assert shown["settings"]["weight_decay"] >= 0
    assert shown["steps"] == 4
    assert shown["input"] == {"size": 16, "channels": 1, "ndim": 2, "range": [0.0, 1.0]}
    assert list(history(out)["epoch"]) == [1.0, 2.0]
    assert history(out)["effective_rank"].ge(1).all()
    model, _ = networks.load_encoder(out, Shape(16))
    assert np.isfinite(
        networks.embed(model, Resident(place.store, place.store.scans), np.arange(12))
    ).all()
    again, facts = place.run(make_params(method), "again")
    assert facts["from_cache"]
    assert (again / "encoder.safetensors").samefile(out / "encoder.safetensors")
    with np.load(out / "views.npz") as views, np.load(out / "reconstructions.npz") as pictures:
        assert views["original"].dtype == np.uint8
        assert views["original"].shape == (6, 1, 16, 16)
        assert views["views"].shape == (6, 2, 1, 16, 16)
        assert not set(views["scan"]) & tested
        assert len(pictures["reconstructed"]) == (0 if method == "simclr" else 6)


def test_same_bytes_without_the_cache(place):
    first, _ = place.run(make_params(), "one", cache="a")
    second, _ = place.run(make_params(), "two", cache="b")
    for name in ("encoder.safetensors", "views.npz", "reconstructions.npz"):
        assert sha256_file(first / name) == sha256_file(second / name)
    pd.testing.assert_frame_equal(history(first), history(second))


def test_digest_is_of_content_not_of_names(place):
    base = place.job(make_params()).digest
    same = {
        "name": make_params().model_copy(update={"encoder": "other"}),
        "dataset": make_params().model_copy(update={"dataset": "other"}),
        "checkpoints": make_params(checkpoint_minutes=1.0),
        "what is the default": make_params(lr=4e-3 * 4 / 256, strength=1.0),
    }
    other = {
        "seed": make_params(seed=1), "fold": make_params(fold="1"), "epochs": make_params(epochs=3),
        "strength": make_params(strength=0.5),
        "threads": make_params().model_copy(
            update={"compute": make_params().compute.model_copy(update={"threads": 2})}
        ),
    }  # fmt: skip
    assert {
        name: place.job(params).digest == base for name, params in same.items()
    } == dict.fromkeys(same, True)
    digests = {base, *(place.job(params).digest for params in other.values())}
    assert len(digests) == 1 + len(other)


def test_order_of_rows_and_files_means_nothing(place, tmp_path):
    base = place.job(make_params()).digest
    frame = read_table(place.folds, "folds").sample(frac=1, random_state=1)
    write_table(place.folds, "folds", frame)
    assert place.job(make_params()).digest == base


def test_two_folds_with_the_same_scans_are_one_encoder(place):
    frame = read_table(place.folds, "folds")
    twin = frame[frame["fold"] == "0"].assign(fold="twin")
    write_table(place.folds, "folds", pd.concat([frame, twin]))
    place.run(make_params())
    out, facts = place.run(make_params(fold="twin"), "twin")
    assert facts["from_cache"]
    assert meta(out)["fold"] == "twin"


def test_test_groups_are_not_seen(place):
    frame = read_table(place.folds, "folds")
    leak = frame["scan"].eq(place.store.scans[0]) & frame["fold"].eq("0")
    write_table(place.folds, "folds", frame.assign(role=frame["role"].mask(leak, "train")))
    with pytest.raises(UserError, match="would see 1 scans of test groups") as caught:
        place.run(make_params())
    assert place.store.scans[0] in str(caught.value)


def test_transductive_sees_the_test_scans_and_says_so(place):
    out, _ = place.run(make_params(fold="all", transductive=True))
    assert meta(out)["n_scans"] == 12
    assert meta(out)["transductive"]
    assert meta(out)["excluded_groups"] == []
    with pytest.raises(UserError, match="for transductive encoders only"):
        place.run(make_params(fold="all"))
    with pytest.raises(UserError, match=r"no fold '7' of data set cohort\. Known: 0, 1"):
        place.run(make_params(fold="7"))


def test_pool_joins(place):
    pool = make_store(place.folder / "pool", n=5, dtype="uint8", dataset="pool")
    make_folds(place.folds, place.store.scans, pool=tuple(scan_names(5, "pool")))
    out, _ = place.run(make_params(), pools={"pool": pool})
    assert meta(out)["n_scans"] == 13
    assert set(pool.scans) < set(meta(out)["source_scans"])


def test_store_of_another_recipe_is_refused(place):
    with pytest.raises(
        UserError, match="store of cohort: has 1 x 16 x 16, and the recipe says 1 x 32 x 32"
    ):
        place.run(make_params(size=32))


@pytest.mark.parametrize(
    ("batch_size", "steps", "used"), [(2, 4, 2), (3, 3, 2), (5, 2, 4), (8, 1, 8), (100, 1, 8)]
)
def test_an_epoch_is_cut_into_equal_batches_and_says_so(place, caplog, batch_size, steps, used):
    with caplog.at_level(logging.INFO, "fewscans"):
        job = place.job(make_params(batch_size=batch_size))
    assert (job.schedule.steps_per_epoch, job.schedule.batch_size) == (steps, used)
    assert (f"{steps} steps of {used} an epoch" in caplog.text) == (batch_size != used)


@pytest.mark.parametrize("n", [2, 3, 5, 127, 128, 238, 257, 320, 1000, 12_345])
@pytest.mark.parametrize("batch_size", [2, 3, 64, 128, 4096])
def test_batches_use_nearly_all_scans_and_are_nearly_as_asked(n, batch_size):
    steps, batch = epoch_batches(n, batch_size)
    assert batch >= 2
    assert n - steps < steps * batch <= n
    assert batch <= 1.5 * batch_size + 1


def test_every_epoch_is_a_shuffle_of_its_own(place):
    job = place.job(make_params(batch_size=4, epochs=3))
    training = engine.Training(job.make_method(), job.resident, job.schedule)
    epochs = [
        [key for step in (2 * e, 2 * e + 1) for key in training.batch(step).keys.tolist()]
        for e in range(3)
    ]
    assert all(sorted(epoch) == sorted(job.resident.keys.tolist()) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


@pytest.mark.parametrize(
    ("length", "steps", "epochs"),
    [({"epochs": 3}, 6, 3), ({"steps": 5}, 5, 2.5), ({"steps": 1}, 1, 0.5)],
)
def test_length_is_in_epochs_or_steps(place, length, steps, epochs):
    made = make_params(**{"epochs": None, **length})
    out, _ = place.run(made)  # two steps an epoch
    said = meta(out)
    assert (said["steps"], said["epochs"]) == (steps, epochs)
    assert {k: said["settings"][k] for k in ("steps", "epochs", "batch_size")} == {
        "steps": steps, "epochs": epochs, "batch_size": 4,
    }  # fmt: skip
    rows = history(out)
    assert rows["step"].tolist()[-1] == steps
    assert rows["epoch"].tolist()[-1] == epochs
    assert np.isfinite(rows["loss"]).all()


def test_the_loss_of_a_part_of_an_epoch_is_a_mean_too(place):
    whole, part = (history(place.run(make_params(epochs=None, steps=n), str(n))[0]) for n in (4, 3))
    assert part["loss"].iloc[-1] == pytest.approx(whole["loss"].iloc[-1], rel=0.3)


@pytest.mark.parametrize(
    ("n", "epochs", "steps", "expected"),
    [
        (60, None, None, 1000),  # one step an epoch
        (1279, None, None, 1000),
        (1281, None, None, 1000),
        (50_000, None, None, 39_100),
        (60, 100, None, 100),
        (60, None, 7, 7),
    ],
)
def test_length_follows_from_the_number_of_scans_where_nothing_is_said(n, epochs, steps, expected):
    assert training_steps(epoch_batches(n, 128)[0], epochs, steps) == expected


def test_same_length_same_encoder(place):
    one, two = (
        place.job(make_params(**{"epochs": None, **x})) for x in ({"epochs": 2}, {"steps": 4})
    )
    assert one.digest == two.digest
    with pytest.raises(ValueError, match="stands beside `epochs`; say one of them"):
        make_params(epochs=2, steps=4)


def spoiled(monkeypatch, bad):
    """SimCLR whose loss is no number in the calls that `bad` says; the calls so far."""
    calls = []
    loss = SimCLR.loss

    def diverging(self, *views):
        value, gauges = loss(self, *views)
        calls.append(1)
        return (value * float("nan") if bad(len(calls)) else value), gauges

    monkeypatch.setattr(SimCLR, "loss", diverging)
    return calls


def test_divergence_is_tried_once_more_and_then_told(place, monkeypatch):
    calls = spoiled(monkeypatch, lambda n: n == 1)
    out, facts = place.run(make_params(lr=1e-3))
    assert facts["flags"] == ["lr-halved"]
    assert meta(out)["settings"]["lr"] == 5e-4
    assert len(calls) == 2 + 4
    spoiled(monkeypatch, lambda n: True)
    with pytest.raises(
        UserError, match=r"diverged twice.*Set `lr` below 0.0005, a longer `warmup`.*clip_grad_norm"
    ):
        place.run(make_params(lr=1e-3, seed=1), "two")
    assert not (place.folder / "two/encoder.json").exists()


def test_a_training_that_diverges_goes_on_from_its_last_sound_state(place, monkeypatch, caplog):
    """Two steps an epoch, looks at each: of ten epochs the fifth fails, and the fourth's end is where it goes on."""
    calls = spoiled(monkeypatch, lambda n: n == 9)
    with caplog.at_level("INFO", "fewscans"):
        out, facts = place.run(make_params(lr=1e-3, epochs=10))
    assert facts["flags"] == ["lr-halved"]
    assert "diverged (loss nan" in caplog.text
    assert "once more from step 8 at half the learning rate" in caplog.text
    assert len(calls) == 10 + 12
    rates = history(out).lr
    assert len(rates) == 10
    job = place.job(make_params(lr=1e-3, epochs=10))
    expected = [optim.lr_at(step, 20, 0.1, 1e-3 if step < 8 else 5e-4) for step in range(1, 20, 2)]
    np.testing.assert_allclose(rates, expected)
    # Where it failed is no matter of the clock: with checkpoints at each step it is the same.
    calls_again = spoiled(monkeypatch, lambda n: n == 9)
    again, _ = place.run(
        make_params(lr=1e-3, epochs=10, checkpoint_minutes=1e-9), "again", cache="other"
    )
    assert len(calls_again) == 22
    assert sha256_file(out / "encoder.safetensors") == sha256_file(again / "encoder.safetensors")
    assert not (place.folder / "checkpoints" / job.digest).exists()


def test_killed_in_its_second_attempt_it_goes_on_with_that(place, monkeypatch, caplog):
    params = make_params(lr=1e-3, epochs=10)
    spoiled(monkeypatch, lambda n: n == 9)
    expected, _ = place.run(params, "expected", cache="other")

    class KilledError(Exception):
        pass

    def killed(n):
        if n == 12:  # of ten calls, and two more
            raise KilledError
        return n == 9

    spoiled(monkeypatch, killed)
    with pytest.raises(KilledError):
        place.run(params)
    monkeypatch.undo()
    with caplog.at_level("INFO", "fewscans"):
        out, facts = place.run(params)
    assert "going on from step 8 of 20" in caplog.text
    assert facts["flags"] == ["lr-halved"]
    assert sha256_file(out / "encoder.safetensors") == sha256_file(expected / "encoder.safetensors")


def shrinking(monkeypatch):
    """SimCLR that is told to have one embedding for all scans, and learns it."""

    def collapsing(self, *views):
        h = self.encoder(torch.cat(views))
        return h.square().mean(), {"embedding": torch.ones_like(h).detach()}

    monkeypatch.setattr(SimCLR, "loss", collapsing)


def test_collapse_stops_after_one_more_attempt(place, monkeypatch, caplog):
    shrinking(monkeypatch)
    with pytest.raises(UserError) as told:
        place.run(make_params(epochs=20, lr=1e-3))
    for said in (
        "mine: pretraining collapsed twice", "effective rank 1.0 at step 6", "Set `lr` below 0.0005",
        "a larger `batch_size` (now 4)", "`on_collapse: keep`",
    ):  # fmt: skip
        assert said in str(told.value)
    assert "collapsed (embeddings have spread" in caplog.text
    assert "once more from the start at half the learning rate" in caplog.text
    assert not (place.folder / "out/encoder.json").exists()


def test_collapse_that_is_kept_is_flagged(place, monkeypatch, caplog):
    shrinking(monkeypatch)
    out, _ = place.run(make_params(on_collapse="keep"))
    assert meta(out)["flags"] == ["collapsed"]
    assert "collapsed: embeddings hardly differ" in caplog.text


def test_script_tells_mistakes_in_words(place, capsys):
    from scripts.pretrain import main

    arguments = command(place, make_params(), "out")[2:]
    assert main([*arguments, "--sidecar", str(place.folder / "side.json")]) == 0
    assert json.loads((place.folder / "side.json").read_text())["digest"]
    arguments.insert(arguments.index("--pool") + 1, "nonsense")
    assert main(arguments) == 2
    assert "write NAME=PATH" in capsys.readouterr().err
