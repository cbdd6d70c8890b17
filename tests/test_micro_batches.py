"""A batch in parts: the same step, and what is done where the device's memory does not hold it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from engine_factory import make_params as pretraining
from engine_factory import make_store
from finetune_factory import make_params, make_source
from labelled_factory import make_tiny
from pretrain_factory import Place, meta
from test_methods import CASES, SIZE, N, batch, make

from fewscans import engine, networks, optim, outofmemory
from fewscans.errors import UserError
from fewscans.methods.simclr import SimCLR
from fewscans.protocols import finetune as tuning
from fewscans.protocols.task import Task
from fewscans.resident import Resident

OUT_OF_MEMORY = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


@pytest.fixture
def place(tmp_path) -> Place:
    return Place(tmp_path)


@pytest.fixture(scope="module")
def resident(tmp_path_factory) -> Resident:
    store = make_store(tmp_path_factory.mktemp("micro") / "store", n=N, size=SIZE)
    return Resident(store, store.scans)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return make_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def task() -> Task:
    labelled = np.arange(16, 36)
    return Task(labelled, labelled // 2 % 2, np.arange(20) % 2, np.arange(16), 2, key=3)


def bytes_of(folder):
    return (folder / "encoder.safetensors").read_bytes()


# -- the same step ---------------------------------------------------------------------------------


@pytest.mark.parametrize("accumulate", [2, 3])
def test_micro_batches_are_their_batch(place, accumulate):
    """Without batch norm, in plain SGD (AdamW makes steps of a size out of rounding too); 3 of 4 scans are uneven."""
    weights = []
    for parts in (1, accumulate):
        job = place.job(pretraining("mae", epochs=2, batch_size=8, optimizer="sgd", lr=0.01))
        training = engine.Training(
            job.make_method(), job.resident, replace(job.schedule, accumulate=parts)
        )
        training.run()
        weights.append(torch.cat([p.detach().flatten() for p in training.method.parameters()]))
        loss = [row["loss"] for row in training.history]
        weights[-1] = torch.cat([weights[-1], torch.tensor(loss)])
    torch.testing.assert_close(weights[0], weights[1], rtol=0, atol=1e-6)


@pytest.mark.parametrize(("name", "backbone"), CASES)
def test_a_method_says_whether_it_compares_scans(resident, name, backbone):
    """In evaluation mode, so that batch norms tie no scans together; with statistics that fit, so that scans differ."""
    method = make(name, backbone)
    views = method.views(batch(resident))
    for part in method.modules():
        if isinstance(part, torch.nn.modules.batchnorm._BatchNorm):
            part.momentum = 1.0
    method.loss(*views)
    method.eval()
    optimizer = optim.make_optimizer(method, 0.0, 0.0)
    whole, _ = engine.train_step(method, optimizer, views)
    left = {key: getattr(method, key) for key in ("made", "latest") if hasattr(method, key)}
    halves = [tuple(view[some] for view in views) for some in (slice(0, N // 2), slice(N // 2, N))]
    total, gauges = engine.step_in_parts(method, optimizer, [(half, 0.5) for half in halves])
    assert torch.allclose(total, whole, rtol=1e-5) is not method.compares
    assert len(gauges["embedding"]) % N == 0  # a row for each scan, or for each view
    # What waits for the end of the step is of all micro-batches.
    for key, value in left.items():
        torch.testing.assert_close(getattr(method, key), value, rtol=1e-4, atol=1e-6)


def test_micro_batches_have_two_scans_each(place):
    with pytest.raises(
        UserError, match=r"3 micro-batches of a batch of 4 scans.*Set `accumulate` to 2 at most"
    ):
        place.run(pretraining(accumulate=3))
    out, facts = place.run(pretraining(accumulate=2))
    assert facts["flags"] == ["compared-in-parts"]
    assert meta(out)["settings"]["accumulate"] == 2
    assert place.run(pretraining("byol", accumulate=2), "two")[1]["flags"] == []


# -- no memory left --------------------------------------------------------------------------------


def test_pretraining_that_does_not_fit_is_trained_in_micro_batches(place, monkeypatch, caplog):
    loss, calls = SimCLR.loss, []

    def needing(self, *views):
        calls.append(len(views[0]))
        if len(views[0]) > fits and len(calls) > 2:  # not in the first two steps
            raise OUT_OF_MEMORY
        return loss(self, *views)

    fits = 2
    asked, _ = place.run(pretraining(accumulate=2, epochs=3), "asked")
    monkeypatch.setattr(SimCLR, "loss", needing)
    cut, facts = place.run(pretraining(epochs=3), "cut")
    assert calls == [4, 4, 4] + [2] * 12
    assert facts["flags"] == ["oom-halved", "compared-in-parts"]
    assert meta(cut)["settings"]["accumulate"] == 2
    assert bytes_of(cut) == bytes_of(asked)
    assert meta(cut)["digest"] != meta(asked)["digest"]
    assert "out of memory with 4 scans at once; once more from the start with 2" in caplog.text
    assert "compare scans within themselves alone" in caplog.text
    fits = 0
    with pytest.raises(UserError, match=r"with 2 scans at once\. Set a smaller `size`"):
        place.run(pretraining(seed=1), "never")


def test_a_state_in_micro_batches_is_gone_on_with(place, monkeypatch):
    loss = SimCLR.loss

    def needing(self, *views):
        if len(views[0]) > 2:
            raise OUT_OF_MEMORY
        return loss(self, *views)

    monkeypatch.setattr(SimCLR, "loss", needing)
    params = pretraining(epochs=4, checkpoint_minutes=1e-9)
    whole, _ = place.run(params, "whole")
    job = place.job(params)
    checkpoint = job.checkpoint(place.folder / "more")
    save, saved = checkpoint.save, []

    def ending(state):
        save(state)
        saved.append(state["accumulate"])
        if len(saved) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "save", ending)
    with pytest.raises(KeyboardInterrupt):
        job.train(checkpoint)
    assert saved == [2, 2, 2]
    facts = job.train(job.checkpoint(place.folder / "more"))
    assert facts["flags"] == ["oom-halved", "compared-in-parts"]
    networks.save_encoder(place.folder / "encoder.safetensors", job.method.encoder)
    assert bytes_of(place.folder) == bytes_of(whole)


def test_other_errors_are_no_lack_of_memory(place, monkeypatch):
    def broken(self, *views):
        raise RuntimeError("shapes do not fit")

    monkeypatch.setattr(SimCLR, "loss", broken)
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        place.run(pretraining())
    assert outofmemory.is_out_of_memory(RuntimeError("CUDNN_STATUS_ALLOC_FAILED"))


@pytest.mark.parametrize("inner_folds", [0, 2])
def test_fine_tuning_that_does_not_fit_is_done_in_micro_batches(
    tiny, task, monkeypatch, caplog, inner_folds
):
    source = make_source(tiny)
    tune = {"steps": 4, "batch_size": 8, "inner_folds": inner_folds}
    asked = tuning.run(task, tuned(tune, accumulate=2), source)
    forward = tuning.Classifier.forward

    def needing(self, x):
        if self.training and len(x) > 4:
            raise OUT_OF_MEMORY
        return forward(self, x)

    monkeypatch.setattr(tuning.Classifier, "forward", needing)
    cut = tuning.run(task, tuned(tune), source)
    np.testing.assert_array_equal(cut.test_prob, asked.test_prob)
    assert cut.flags == ["oom-halved", *asked.flags]
    assert cut.choices == {**asked.choices, "accumulate": 2}
    assert caplog.text.count("once more with 2 micro-batches") == 1
    monkeypatch.setattr(tuning.Classifier, "forward", lambda self, x: _raise())
    with pytest.raises(UserError, match="with 2 scans at once"):
        tuning.run(task, tuned({"steps": 1, "batch_size": 2}), source)


def _raise():
    raise OUT_OF_MEMORY


def tuned(tune, **more):
    return make_params(tune={**tune, **more}).protocol_settings.finetune


def test_predictions_and_embeddings_are_the_same_in_smaller_batches(tiny, task, monkeypatch):
    source = make_source(tiny)
    net = tuning.Classifier(source.make_encoder(1), 2, key=2)
    everyone, sizes = np.arange(40), []
    whole = net.predict(source, everyone, np.zeros(2))
    embedded = networks.embed(net.encoder, source.resident, everyone)
    forward = type(net.encoder).forward

    def needing(self, x):
        sizes.append(len(x))
        if len(x) > 12:
            raise OUT_OF_MEMORY
        return forward(self, x)

    monkeypatch.setattr(type(net.encoder), "forward", needing)
    np.testing.assert_allclose(net.predict(source, everyone, np.zeros(2)), whole, atol=1e-6)
    assert sizes == [40, 20, 10, 10, 10, 10]
    np.testing.assert_allclose(
        networks.embed(net.encoder, source.resident, everyone), embedded, atol=1e-6
    )
    monkeypatch.setattr(type(net.encoder), "forward", lambda self, x: _raise())
    with pytest.raises(torch.OutOfMemoryError):
        net.predict(source, everyone[:1], np.zeros(2))


# -- settings of fine-tuning -----------------------------------------------------------------------


def test_every_setting_of_fine_tuning_does_something(tiny, task):
    source = make_source(tiny)
    tune = {"steps": 4, "batch_size": 8}
    plain = tuning.run(task, tuned(tune), source).test_prob
    for more in (
        {"optimizer": "sgd"},
        {"optimizer": "lars"},
        {"layer_decay": 0.5},
        {"ema": 0.9},
        {"clip_grad_norm": 1e-9},
        {"accumulate": 2},
    ):
        made = tuning.run(task, tuned(tune, **more), source).test_prob
        assert np.isfinite(made).all()
        assert not np.allclose(made, plain, atol=1e-7), more
