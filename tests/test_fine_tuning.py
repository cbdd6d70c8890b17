"""The protocol `finetune`: batches, steps, and what is said of a training."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from finetune_factory import (
    TUNE,
    make_params,
    make_source,
)
from labelled_factory import make_tiny

from fewscans.protocols import finetune as tuning
from fewscans.protocols.task import Task


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return make_tiny(tmp_path_factory.mktemp("tiny"))


def test_steps_are_chosen_by_inner_folds_and_the_model_stops_there(tiny):
    source = make_source(tiny)
    labelled = np.arange(16, 40)
    task = Task(labelled, labelled // 2 % 2, (labelled // 4) % 3, np.arange(16), 2, key=11)
    settings = make_params(
        tune={**TUNE, "steps": 8, "inner_folds": 3, "lr": 0.01}
    ).protocol_settings.finetune
    outcome = tuning.run(task, settings, source)
    stop = outcome.choices["steps"]
    assert stop in (2, 4, 6, 8)
    assert not np.isnan(outcome.val_prob).any()
    seen = {}
    shift = np.log(task.frequencies())
    tuning.train(
        task,
        np.arange(24),
        settings,
        source,
        [stop],
        lambda step, net: seen.update({step: net.predict(source, task.test, shift)}),
    )
    np.testing.assert_array_equal(seen[stop], outcome.test_prob)
    # Other test scans, same choices: nothing of them is looked at.
    other = tuning.run(replace(task, test=np.arange(3)), settings, source)
    assert other.choices == outcome.choices
    np.testing.assert_array_equal(other.val_prob, outcome.val_prob)


def test_classes_come_equally_often_and_scans_in_passes():
    targets = np.array([0] * 9 + [2] * 3)
    keys = np.arange(100, 112, dtype=np.uint64)
    order, turns = tuning.sample_order(targets, keys, 5, steps=6, batch=6, balanced=True)
    drawn = targets[order]
    assert ((drawn == 0).sum(axis=1) == 3).all()
    counts = np.bincount(order.ravel(), minlength=12)
    assert (counts[:9] == 2).all()
    assert (counts[9:] == 6).all()
    # A scan and its pass are drawn once: two views of it always differ.
    assert len({(int(a), int(b)) for a, b in zip(order.ravel(), turns.ravel(), strict=True)}) == 36
    # Listed otherwise, the same scans are drawn.
    back, _ = tuning.sample_order(targets[::-1], keys[::-1], 5, steps=6, batch=6, balanced=True)
    np.testing.assert_array_equal(keys[::-1][back], keys[order])
    plain, _ = tuning.sample_order(targets, keys, 5, steps=6, batch=6, balanced=False)
    assert (np.bincount(plain.ravel(), minlength=12) == 3).all()


def test_no_augmentation_is_seen_twice(tiny, monkeypatch):
    source, drawn = make_source(tiny), []
    apply = tuning.augment.apply

    def spy(x, keys, *, seed_key, epoch, view, policy):
        drawn.extend((seed_key, int(e), int(key), view) for e, key in zip(epoch, keys, strict=True))
        return apply(x, keys, seed_key=seed_key, epoch=epoch, view=view, policy=policy)

    monkeypatch.setattr(tuning.augment, "apply", spy)
    labelled = np.array([16, 17, 18])  # two lying, one upright: drawn several times a step
    task = Task(labelled, labelled // 2 % 2, np.full(3, -1), np.arange(4), 2, key=3)
    settings = make_params(tune={"steps": 4, "batch_size": 3}).protocol_settings.finetune
    tuning.run(task, settings, source)
    assert len(drawn) == len(set(drawn)) == 12


def test_balanced_drawing_does_not_change_what_a_probability_means(tiny):
    source = make_source(tiny)
    labelled = np.array([16, 17, 20, 21, 24, 25, 28, 18])  # seven lying, one upright
    task = Task(labelled, labelled // 2 % 2, np.full(8, -1), np.arange(16), 2, key=3)
    settings = make_params(
        tune={"steps": 1, "batch_size": 8, "lr": 1e-9}
    ).protocol_settings.finetune
    outcome = tuning.run(task, settings, source)
    plain = tuning.run(task, settings.model_copy(update={"balanced": False}), source)
    odds = np.log(outcome.test_prob[:, 0] / outcome.test_prob[:, 1])
    plain_odds = np.log(plain.test_prob[:, 0] / plain.test_prob[:, 1])
    np.testing.assert_allclose(odds - plain_odds, np.log(7), atol=0.02)


@pytest.mark.parametrize("n", [1, 3])
def test_a_batch_is_never_a_single_scan(tiny, n):
    source = make_source(tiny)
    labelled = np.arange(16, 16 + n)
    task = Task(labelled, labelled // 2 % 2, np.full(n, -1), np.arange(16), 2, key=3)
    outcome = tuning.run(
        task, make_params(tune={"steps": 2, "batch_size": 2}).protocol_settings.finetune, source
    )
    np.testing.assert_allclose(outcome.test_prob.sum(axis=1), 1)


def test_a_network_that_blows_up_is_flagged_and_gives_frequencies(tiny):
    source = make_source(tiny)
    labelled = np.arange(16, 36)
    task = Task(labelled, labelled // 2 % 2, np.full(20, -1), np.arange(16), 2, key=3)
    settings = make_params(tune={"steps": 3, "batch_size": 8}).protocol_settings.finetune
    make = source.make_encoder

    def broken(key):
        model = make(key)
        next(model.parameters()).data.fill_(float("nan"))
        return model

    source.make_encoder = broken
    outcome = tuning.run(task, settings, source)
    assert outcome.flags[:2] == ["diverged", "constant-predictor"]
    np.testing.assert_array_equal(outcome.test_prob, np.tile(task.frequencies(), (16, 1)))


def test_still_falling_is_told_from_converged_and_from_noise():
    rng = np.random.default_rng(0)
    noise = rng.normal(scale=0.05, size=80)
    assert tuning.still_falling(np.linspace(0.7, 0.3, 80) + noise, 2)
    assert not tuning.still_falling(np.full(80, 0.69) + noise, 2)
    assert not tuning.still_falling(0.7 * np.exp(-np.arange(80) / 8), 2)
    assert not tuning.still_falling(np.linspace(0.7, 0.3, 12), 2)
    assert not tuning.still_falling(np.full(80, np.nan), 2)
