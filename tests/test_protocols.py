"""Protocols against plain scikit-learn, slow transcriptions, and the rules of choosing."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from fewscans import protocols
from fewscans.config.models import KnnSettings, LinearSettings
from fewscans.errors import UserError
from fewscans.protocols import knn, linear, prior
from fewscans.protocols.task import FLOOR, Task, choose, log_loss


def make_task(n=40, m=20, n_classes=3, width=6, folds=4, seed=0, shift=1.0):
    """(task, source): features in which the classes differ by `shift` standard deviations."""
    rng = np.random.default_rng(seed)
    targets = np.arange(n + m) % n_classes
    features = rng.normal(size=(n + m, width)).astype(np.float32)
    features[:, :n_classes] += shift * np.eye(n_classes, dtype=np.float32)[targets]
    features[:, -1] *= 1000  # a scale that standardising must undo
    inner = np.full(n, -1) if folds == 0 else (np.arange(n) // n_classes) % folds
    order = rng.permutation(n)
    task = Task(order, targets[order], inner[order], np.arange(n, n + m), n_classes)
    return task, SimpleNamespace(features=features)


def plain_linear(task, features, c, train, x_new):
    """The probe in four lines of scikit-learn."""
    scaler = StandardScaler().fit(features[task.labelled[train]])
    model = LogisticRegression(C=c, max_iter=1000)
    model.fit(scaler.transform(features[task.labelled[train]]), task.targets[train])
    return model.predict_proba(scaler.transform(x_new))


def test_linear_is_plain_scikit_learn():
    task, source = make_task()
    features = source.features.astype(np.float64)
    settings = LinearSettings(c=[0.01, 1.0])
    outcome = linear.run(task, settings, source)
    losses = {}
    for c in settings.c:
        prob = np.empty((40, 3))
        for fold in range(4):
            train, held = np.flatnonzero(task.inner != fold), np.flatnonzero(task.inner == fold)
            prob[held] = plain_linear(task, features, c, train, features[task.labelled[held]])
        losses[c] = -np.log(np.maximum(prob[np.arange(40), task.targets], FLOOR)).mean()
        if c == outcome.choices["c"]:
            np.testing.assert_allclose(outcome.val_prob, prob, atol=1e-12)
    assert outcome.choices["c"] == min(losses, key=losses.get)
    everyone = np.arange(40)
    expected = plain_linear(task, features, outcome.choices["c"], everyone, features[task.test])
    np.testing.assert_allclose(outcome.test_prob, expected, atol=1e-12)
    assert outcome.flags == []


def slow_knn(x, y, query, k, temperature, n_classes):
    """Wu et al. 2018, section 3.4, one neighbour at a time."""
    mean, spread = x.mean(axis=0), x.std(axis=0)

    def cosine(a, b):
        a, b = (a - mean) / spread, (b - mean) / spread
        return float(a @ b) / math.sqrt(float(a @ a) * float(b @ b))

    near = sorted(range(len(x)), key=lambda i: -cosine(query, x[i]))[:k]
    votes = [0.0] * n_classes
    for i in near:
        votes[y[i]] += math.exp(cosine(query, x[i]) / temperature)
    return np.array(votes) / sum(votes)


@pytest.mark.parametrize("k", [1, 4, 100])
def test_knn_is_its_slow_transcription(k):
    task, source = make_task(n=15, m=6)
    outcome = knn.run(task, KnnSettings(k=[k], temperature=0.2), source)
    features = source.features.astype(np.float64)
    assert outcome.choices["k"] == min(k, 15)
    for position, prob in zip(task.test, outcome.test_prob, strict=True):
        expected = slow_knn(
            features[task.labelled], task.targets, features[position], min(k, 15), 0.2, 3
        )
        np.testing.assert_allclose(prob, expected, rtol=1e-9)


def test_a_tiny_temperature_does_not_overflow():
    task, source = make_task()
    outcome = knn.run(task, KnnSettings(temperature=1e-6), source)
    np.testing.assert_allclose(outcome.test_prob.sum(axis=1), 1)


def test_knn_takes_few_neighbours_where_classes_interleave_and_many_where_they_are_noise():
    rng = np.random.default_rng(1)
    angle = np.repeat(np.arange(20), 4) * 2 * np.pi / 20 + rng.normal(scale=0.01, size=80)
    spots = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    targets = np.repeat(np.arange(20) % 2, 4)
    task = Task(np.arange(80), targets, np.arange(80) % 4, np.arange(80), 2)
    settings = KnnSettings(k=[3, 60], temperature=10.0)
    assert knn.run(task, settings, SimpleNamespace(features=spots)).choices["k"] == 3
    noise = SimpleNamespace(features=rng.normal(size=(80, 2)))
    assert knn.run(task, settings, noise).choices["k"] == 60


@pytest.mark.parametrize("name", ["linear", "knn", "prior"])
def test_nothing_of_the_test_scans_moves_a_choice(name):
    task, source = make_task()
    settings = {"linear": LinearSettings(), "knn": KnnSettings(), "prior": None}[name]
    before = protocols.load(name).run(task, settings, source)
    changed = source.features.copy()
    changed[task.test] = np.random.default_rng(9).normal(size=changed[task.test].shape)
    after = protocols.load(name).run(task, settings, SimpleNamespace(features=changed))
    assert before.choices == after.choices
    np.testing.assert_array_equal(before.val_prob, after.val_prob)
    assert (before.test_prob == after.test_prob).all() == (name == "prior")


@pytest.mark.parametrize("name", ["linear", "knn"])
def test_without_inner_folds_the_default_is_taken_and_flagged(name):
    task, source = make_task(folds=0)
    settings = {"linear": LinearSettings(default_c=0.3), "knn": KnnSettings(default_k=7)}[name]
    outcome = protocols.load(name).run(task, settings, source)
    assert outcome.choices == {"by": "default", **({"c": 0.3} if name == "linear" else {"k": 7})}
    assert outcome.val_prob is None
    assert outcome.flags == ["no-inner-validation"]


def test_of_equal_candidates_the_simplest_is_taken():
    task, _ = make_task()
    same = np.full((1, 3), 1 / 3)
    chosen = choose(
        task, [7, 1, 2], lambda candidate, train, held: np.repeat(same, len(held), axis=0)
    )
    assert chosen.value == 7
    assert chosen.loss == pytest.approx(math.log(3))


def test_one_surprise_does_not_decide():
    assert log_loss(np.array([[1.0, 0.0], [np.nan, np.nan]]), np.array([1, 0])) == pytest.approx(
        -math.log(FLOOR)
    )


def test_absent_and_single_classes_are_flagged_and_get_nothing():
    task, source = make_task(n=12, folds=0)
    only = np.flatnonzero(task.targets != 2)
    few = Task(task.labelled[only], task.targets[only], task.inner[only], task.test, 3)
    for name, settings in (("linear", LinearSettings()), ("knn", KnnSettings()), ("prior", None)):
        outcome = protocols.load(name).run(few, settings, source)
        assert "class-missing" in outcome.flags
        assert (outcome.test_prob[:, 2] == 0).all()
    one = np.flatnonzero(task.targets == 1)
    single = Task(task.labelled[one], task.targets[one], task.inner[one], task.test, 3)
    outcome = linear.run(single, LinearSettings(), source)
    assert (outcome.test_prob == [0, 1, 0]).all()
    assert outcome.flags == ["class-missing", "constant-predictor", "no-inner-validation"]


def test_prior_is_the_frequencies():
    task, _ = make_task(n=10, folds=2)
    outcome = prior.run(task)
    np.testing.assert_allclose(outcome.test_prob, np.tile([0.4, 0.3, 0.3], (20, 1)))
    for fold in (0, 1):
        kept = task.targets[task.inner != fold]
        expected = np.bincount(kept, minlength=3) / len(kept)
        np.testing.assert_allclose(
            outcome.val_prob[task.inner == fold], np.tile(expected, ((task.inner == fold).sum(), 1))
        )
    assert outcome.flags == ["constant-predictor"]


def test_a_solver_that_stops_early_is_flagged_and_silent(recwarn):
    task, source = make_task(width=30, shift=0.1)
    outcome = linear.run(task, LinearSettings(c=[100.0], max_iter=10), source)
    assert outcome.flags == ["not-converged"]
    assert len(recwarn) == 0


def test_an_unknown_protocol_is_named():
    with pytest.raises(UserError, match=r"^'liner' is not a protocol. Did you mean 'linear'\?"):
        protocols.load("liner")
